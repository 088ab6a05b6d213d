"""The `agegender` command: its parser and its entry point.

Exit codes: 0 done, 1 invalid input (one line on stderr), 2 invalid command line, 130
interrupted (Ctrl-C), 141 output pipe closed (`| head`). `audit` returns 1 for leakage
and `compare --gate` for a regression; both return 2 for invalid input.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from keras_agegender import __version__
from keras_agegender.cli import console, data, evaluate, serve, train


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""

    def run() -> int:
        given = list(sys.argv[1:] if argv is None else argv)

        def name_source() -> int:
            given[:] = data.name_source(given)
            return 0

        code = console.exit_code(name_source, "agegender")
        if code:
            return code
        arguments = _parser().parse_args(given)
        return console.exit_code(
            lambda: arguments.run(arguments),
            "agegender",
            getattr(arguments, "error_code", 1),
            getattr(arguments, "interrupted", console.RESUMES),
        )

    return console.until_closed(run)


class _Parser(argparse.ArgumentParser):
    """A parser with a better error for surplus arguments."""

    def error(self, message: str) -> NoReturn:
        """Exits; explains that `--set` takes one setting at a time."""
        what, _, rest = message.partition("unrecognized arguments: ")
        settings = [text for text in rest.split() if re.match(r"[\w.]+=", text)]
        if not what and settings:
            message += f"; repeat --set for each setting: --set {settings[0]}"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="agegender",
        description="Apparent age group and gender of faces: prepare, train, predict.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="commands", dest="verb", required=True)
    train.add_quickstart(verbs)
    data.add_prepare(verbs)
    data.add_audit(verbs)
    train.add_recipes(verbs)
    train.add_train(verbs)
    train.add_finetune(verbs)
    evaluate.add_calibrate(verbs)
    evaluate.add_evaluate(verbs)
    evaluate.add_report(verbs)
    train.add_reproduce(verbs)
    evaluate.add_compare(verbs)
    serve.add_export(verbs)
    serve.add_predict(verbs)
    serve.add_demo(verbs)
    serve.add_serve(verbs)
    serve.add_verify(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
