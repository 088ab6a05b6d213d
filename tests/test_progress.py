"""Progress on a terminal, and in a log file, where every text is a line of its own."""

from __future__ import annotations

import io
import sys

import pytest

from keras_agegender import console as progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def bar_on(stream, monkeypatch):
    """Moves a bar at once where nobody watches it, without the 20 seconds between."""
    monkeypatch.setattr(sys, "stderr", stream)
    bar = progress.progress_bar(110, "faces", "image")
    bar.delay, bar.mininterval, bar.miniters = 0, 0, 1
    with bar:
        bar.update(40)
        bar.update(60)
    print("the result", file=stream)
    return stream.getvalue()


def test_a_log_has_a_line_now_and_then_and_no_bar(monkeypatch):
    text = bar_on(io.StringIO(), monkeypatch)
    assert "\r" not in text and "%|" not in text
    *lines, result = text.splitlines()
    assert result == "the result"
    assert [line.split(" in ")[0] for line in lines] == [
        "      faces: 40 of 110 images",
        "      faces: 100 of 110 images",
    ]


def test_short_work_says_nothing_in_a_log(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.progress_bar(10, "faces", "image") as bar:
        bar.update(10)
    assert stream.getvalue() == ""


def test_a_terminal_has_a_bar(monkeypatch):
    assert "%|" in bar_on(Terminal(), monkeypatch)


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_not_shown_is_nothing(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    with progress.progress_bar(10, "faces", "image", shown=False) as bar:
        bar.update(10)
    assert sys.stderr.getvalue() == ""
