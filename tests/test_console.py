"""Framework logs are kept off the screen, and nothing else; progress bars are calm."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys

import pytest

from keras_agegender.console import START_UP_LINE, progress_bar, quiet_datasets

MODEL = """
import sys
import keras_agegender as kag
model = kag.build_model("caffe_1conv", "gender", image_size=(32, 32))
model.predict(__import__("numpy").zeros((2, 32, 32, 3)), verbose=0)
"""

# TensorFlow replaced by a module that writes what it and a user might write.
STAND_IN = """
import os, sys
sys.path.insert(0, os.environ["STAND_IN"])
import keras_agegender
try:
    import tensorflow
finally:
    os.write(2, b"after\\n")
"""
LINES = (
    "2026-01-02 03:04:05.678901: I tensorflow/core/util/port.cc:153] oneDNN is on.",
    "WARNING: All log messages before absl::InitializeLog() is called are written …",
    "E0000 00:00:1795579329.317388   16556 cuda_platform.cc:52] failed call to cuInit",
    "To enable the following instructions: AVX2, in other operations, rebuild …",
)


def python(code, **environment):
    """Runs code in a process of its own, with TensorFlow's own log level."""
    own = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", code]
    environment = {**own, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def stand_in(tmp_path):
    """Makes a `tensorflow` that writes start-up lines, and one of its user."""

    def write(statement="pass"):
        text = "\n".join((*LINES, "the user's own line"))
        code = f"import os\nos.write(2, {(text + chr(10)).encode()!r})\n{statement}\n"
        (tmp_path / "tensorflow.py").write_text(code, "utf-8")
        return {"STAND_IN": str(tmp_path)}

    return write


def test_building_a_model_writes_nothing():
    done = python(MODEL + 'print("mine", file=sys.stderr)')
    assert done.returncode == 0
    assert done.stderr == "mine\n"
    assert done.stdout == ""


def test_what_others_write_meanwhile_is_printed(stand_in):
    done = python(STAND_IN, **stand_in("os.write(2, b'2026-01-02: mine\\n')"))
    assert done.stderr == "the user's own line\n2026-01-02: mine\nafter\n"


def test_errors_are_raised_and_seen(stand_in):
    done = python(STAND_IN, **stand_in("raise RuntimeError('boom')"))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[:2] == ["the user's own line", "after"]
    assert lines[-1] == "RuntimeError: boom"


@pytest.mark.parametrize(
    "environment", [{"AGEGENDER_FRAMEWORK_LOGS": "1"}, {"TF_CPP_MIN_LOG_LEVEL": "0"}]
)
def test_framework_logs_can_be_requested(stand_in, environment):
    done = python(STAND_IN, **stand_in(), **environment)
    assert done.stderr.splitlines() == [*LINES, "the user's own line", "after"]


def test_a_closed_standard_error_is_no_error(tmp_path):
    (tmp_path / "tensorflow.py").touch()
    code = "import os; os.close(2)\n" + STAND_IN.partition("finally")[0]
    code += "finally: print('done')"
    done = python(code, STAND_IN=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_only_complete_known_prefixes_match():
    assert all(START_UP_LINE.match(line.encode()) for line in LINES)
    for line in (
        "WARNING: mine",
        "I0000 mine",
        "2026-01-02 03:04:05: I am",
        "Traceback",
    ):
        assert not START_UP_LINE.match(line.encode())


def test_lines_of_tensorflow_datasets_about_itself(caplog):
    quiet_datasets()
    caplog.set_level(logging.WARNING, logger="absl")
    logger = logging.getLogger("absl")
    before = len(logger.filters)
    quiet_datasets()
    assert len(logger.filters) == before  # once is enough
    logger.warning("`FeatureConnector.dtype` is deprecated. Please change your code")
    logger.warning("Variant folder %s has no dataset_info.json", "here")
    logger.warning("a user's own line; Variant folder of his")
    assert caplog.messages == ["a user's own line; Variant folder of his"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def bar_on(stream, monkeypatch):
    """Moves a bar at once where nobody watches it, without the 20 seconds between."""
    monkeypatch.setattr(sys, "stderr", stream)
    bar = progress_bar(110, "faces", "image")
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


def test_short_work_prints_no_progress_in_a_log(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(10, "faces", "image") as bar:
        bar.update(10)
    assert stream.getvalue() == ""


def test_a_terminal_has_a_bar(monkeypatch):
    assert "%|" in bar_on(Terminal(), monkeypatch)


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_hidden_bar_prints_nothing(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar(10, "faces", "image", shown=False) as bar:
        bar.update(10)
    assert sys.stderr.getvalue() == ""
