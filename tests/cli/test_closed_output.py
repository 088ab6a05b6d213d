"""Output that nobody reads any more: `agegender … | head` ends calmly."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys; from keras_agegender.cli.main import main; sys.exit(main())"
# A verb that prints JSON Lines or CSV as `predict` does, with no model to load.
ENDLESS = """
import csv, sys
from keras_agegender.cli.console import exit_code, say
def lines():
    while True:
        say("a line")
def rows():
    writer = csv.DictWriter(sys.stdout, ["face"], lineterminator="\\n")
    while True:
        writer.writerow({"face": 1})
sys.exit(exit_code({"lines": lines, "rows": rows}[sys.argv[1]], "agegender"))
"""


def head(code, *arguments, lines=1):
    """Runs a program, reads a few lines of it and closes the pipe."""
    # Unbuffered, argparse itself ignores that nobody reads its help.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    program = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        read = [program.stdout.readline() for _ in range(lines)]
        program.stdout.close()
        said = program.stderr.read()
    return program.returncode, read, said


@pytest.mark.parametrize("kind, line", [("lines", "a line\n"), ("rows", "1\n")])
def test_a_pipe_that_is_closed_is_141_and_no_word(kind, line):
    assert head(ENDLESS, kind) == (141, [line], "")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["recipes"]])
def test_a_pipe_that_was_never_read(arguments):
    assert head(PROGRAM, *arguments, lines=0) == (141, [], "")


def test_no_standard_output_at_all():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "recipes"],
        preexec_fn=lambda: os.close(1),
        stderr=subprocess.PIPE,
    )
    assert (done.returncode, done.stderr) == (0, b"")
