"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.console import add_verb, say

RULE = (
    "A cell is an age group of a gender, or all faces; it got worse if the sign-flip "
    "test over people finds a difference at the level that Holm's correction over all "
    "cells and questions leaves of 0.05, and the interval of B - A at that level lies "
    "wholly below 0. Cells of fewer than 30 faces or 10 people are shown, not judged."
)


def _compare(arguments: argparse.Namespace) -> int:
    from keras_agegender.studies.compare import compare

    found = compare(*arguments.runs, cluster=arguments.cluster)
    say(str(found))
    if not arguments.gate:
        return 0
    say("\n" + found.gate())
    return 1 if found.worse else 0


def add_compare(verbs: Any) -> None:
    """Adds `agegender compare`."""
    verb = add_verb(
        verbs, "compare", _compare, "two runs side by side, with paired differences"
    )
    verb.add_argument("runs", nargs=2, metavar="run")
    verb.add_argument(
        "--cluster",
        choices=("subject", "album", "face"),
        default="subject",
        help="what is independent: people [default], albums, or every face",
    )
    verb.add_argument(
        "--gate",
        action="store_true",
        help="exit with 1 if a cell got worse from A to B beyond noise. " + RULE,
    )
