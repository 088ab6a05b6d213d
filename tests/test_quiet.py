"""TensorFlow's start-up lines are kept off the screen, and nothing else is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from keras_agegender.console import START_UP_LINE, quiet_datasets

MODEL = """
import logging, os, sys
import keras_agegender as kag
model = kag.build_model("caffe_1conv", "gender", image_size=(32, 32))
model.predict(__import__("numpy").zeros((2, 32, 32, 3)), verbose=0)
"""

# TensorFlow replaced by a module that writes what it and a user might write.
STAND_IN = """
import os, sys, types
sys.path.insert(0, os.environ["STAND_IN"])
from keras_agegender.quiet import quiet_start
try:
    with quiet_start():
        import tensorflow
        {statement}
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
    """A folder with a `tensorflow` that writes start-up lines, and one of its user."""
    text = "\n".join((*LINES, "the user's own line"))
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nos.write(2, {(text + chr(10)).encode()!r})\n", "utf-8"
    )
    return {"STAND_IN": str(tmp_path)}


def test_building_a_model_writes_nothing():
    done = python(MODEL + 'print("mine", file=sys.stderr)')
    assert done.returncode == 0
    assert done.stderr == "mine\n"
    assert done.stdout == ""


def test_what_others_write_meanwhile_is_printed(stand_in):
    done = python(STAND_IN.format(statement="os.write(2, b'2026-01-02: mine\\n')"),
                  **stand_in)  # fmt: skip
    assert done.stderr == "the user's own line\n2026-01-02: mine\nafter\n"


def test_errors_are_raised_and_seen(stand_in):
    done = python(STAND_IN.format(statement="raise RuntimeError('boom')"), **stand_in)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[:2] == ["the user's own line", "after"]
    assert lines[-1] == "RuntimeError: boom"


@pytest.mark.parametrize(
    "environment", [{"AGEGENDER_FRAMEWORK_LOGS": "1"}, {"TF_CPP_MIN_LOG_LEVEL": "0"}]
)
def test_the_lines_can_be_asked_for(stand_in, environment):
    done = python(STAND_IN.format(statement="pass"), **stand_in, **environment)
    assert done.stderr.splitlines() == [*LINES, "the user's own line", "after"]


def test_a_closed_standard_error_is_no_error():
    done = python(
        "import os; os.close(2)\n"
        "from keras_agegender.quiet import quiet_start\n"
        "with quiet_start(): print('done')"
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_only_whole_known_beginnings_match():
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


def test_what_libjpeg_says_is_left_out_and_nothing_else():
    code = """
import os, sys
from keras_agegender.quiet import quiet_pictures
with quiet_pictures():
    os.write(2, b"Improper call to JPEG library in state 207\\nnot of libjpeg\\n")
    print("a status of Python", file=sys.stderr)
    os.write(2, b"Corrupt JPEG data: premature end of data segment\\nno end of line")
os.write(2, b"\\nCorrupt JPEG data: afterwards\\n")
"""
    done = python(code)
    # Python's own lines take no detour, so they may come first.
    assert sorted(done.stderr.splitlines()) == [
        "Corrupt JPEG data: afterwards",
        "a status of Python",
        "no end of line",
        "not of libjpeg",
    ]
