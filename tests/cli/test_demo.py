"""`agegender demo` hands its models to the server; a stand-in notes what it got."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from keras_agegender.cli.main import main
from keras_agegender.serving.formats import DEFAULT_MODEL_VARIABLE


@pytest.fixture
def calls(monkeypatch):
    received = []
    name = "keras_agegender.serving.server"
    server = types.ModuleType(name)
    server.run_server = lambda *args, **kwargs: received.append((*args, kwargs))
    monkeypatch.setitem(sys.modules, name, server)
    return received


@pytest.fixture
def models(tmp_path):
    """Two files that pass for models, until somebody loads them."""
    files = [tmp_path / "small.keras", tmp_path / "large.keras"]
    for file in files:
        file.write_bytes(b"")
    return files


def test_models_are_named_after_their_files(calls, models):
    assert main(["demo", *map(str, models), "--port", "0", "--no-browser"]) == 0
    ((received, host, port, options),) = calls
    assert received == {"small": models[0], "large": models[1]}
    assert list(received)[0] == "small", "the first is the default"
    assert (host, port) == ("127.0.0.1", 0), "nobody else is let in unasked"
    assert options == {"page": True, "open_browser": False}


def test_without_a_model_the_default_one_answers(calls, models, monkeypatch):
    monkeypatch.setenv(DEFAULT_MODEL_VARIABLE, str(models[1]))
    assert main(["demo"]) == 0
    ((received, _, port, options),) = calls
    assert received == {"large": models[1]} and port == 7860
    assert options["open_browser"] is True


@pytest.mark.parametrize("second", ["missing", "other/small.keras"])
def test_wrong_models_are_one_line(calls, models, second, capsys):
    other = models[0].parent / "other" / "small.keras"
    other.parent.mkdir()
    other.write_bytes(b"")
    assert main(["demo", str(models[0]), str(models[0].parent / Path(second))]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "named small" in line or "not found" in line or "contains neither" in line
    assert not calls


def test_ports_have_an_end(calls):
    with pytest.raises(SystemExit):
        main(["demo", "--port", "70000"])
    assert not calls
