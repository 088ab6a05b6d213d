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
    from keras_agegender.studies.compare_reproduction import compare_reproduction
    from keras_agegender.studies.compare_sets import compare_sets
    from keras_agegender.studies.run_sets import holds_runs

    runs, cluster = arguments.runs, arguments.cluster
    if len(runs) > 2:
        raise ValueError(
            f"Expected two runs, two folders of runs, or one folder that `agegender "
            f"reproduce` made. Received: {len(runs)}."
        )
    if len(runs) == 1 or any(map(holds_runs, runs)):
        if arguments.gate:
            raise ValueError("--gate takes two runs, not folders of runs.")
        together = compare_reproduction if len(runs) == 1 else compare_sets
        say(str(together(*runs, cluster=cluster)))
        return 0
    found = compare(*runs, cluster=cluster)
    say(str(found))
    if not arguments.gate:
        return 0
    say("\n" + found.gate())
    return 1 if found.worse else 0


def add_compare(verbs: Any) -> None:
    """Adds `agegender compare`."""
    verb = add_verb(
        verbs,
        "compare",
        _compare,
        "two runs, or two recipes over folds and seeds, side by side",
    )
    verb.add_argument(
        "runs",
        nargs="+",
        metavar="run",
        help="two runs; two folders of runs, each of one recipe over folds and seeds; "
        "or the one folder of `agegender reproduce`, for every two of its recipes",
    )
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
