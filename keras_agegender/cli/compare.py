"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.console import add_verb, say


def _compare(arguments: argparse.Namespace) -> int:
    from keras_agegender.studies.compare import compare

    say(str(compare(*arguments.runs)))
    return 0


def add_compare(verbs: Any) -> None:
    """Adds `agegender compare`."""
    verb = add_verb(
        verbs, "compare", _compare, "two runs side by side, with paired differences"
    )
    verb.add_argument("runs", nargs=2, metavar="run")
