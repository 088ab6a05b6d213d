"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.console import add_verb, say

RULE = (
    "A cell is all faces, an age group of a gender, or a group of --by, of gender, age "
    "group or a further output with classes. It got worse if the sign-flip test over "
    "people finds a difference at its level, and the interval of B - A at that level "
    "lies wholly below 0. Cells share 0.05 by Holm's correction; all faces are judged "
    "apart, of gender and of age group at 0.05 each. As just one side is worse, each "
    "has a chance of at most 0.025, half of that, to fail a model that is as good. "
    "Cells of fewer than 30 faces or 10 people are shown, not judged. Of folders of "
    "runs, all folds are judged together, each face's mean over seeds; of a "
    "reproduction, every two recipes in the order of their names."
)


def _compare(arguments: argparse.Namespace) -> int:
    from keras_agegender.studies.compare import Comparison, compare
    from keras_agegender.studies.compare_reproduction import (
        ReproductionComparison,
        compare_reproduction,
    )
    from keras_agegender.studies.compare_sets import SetComparison, compare_sets
    from keras_agegender.studies.run_sets import holds_runs

    runs, cluster, by = arguments.runs, arguments.cluster, arguments.by
    if len(runs) > 2:
        raise ValueError(
            f"Expected two runs, two folders of runs, or one folder that `agegender "
            f"reproduce` made. Received: {len(runs)}."
        )
    found: Comparison | SetComparison | ReproductionComparison
    if len(runs) == 1:
        found = compare_reproduction(*runs, cluster=cluster, by=by)
    elif any(map(holds_runs, runs)):
        found = compare_sets(*runs, cluster=cluster, by=by)
    else:
        found = compare(*runs, cluster=cluster, by=by)
    say(str(found))
    if arguments.gate or by:
        say("\n" + found.gate())
    return 1 if arguments.gate and found.failed else 0


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
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="show the cells of a column of the predictions too, for instance race; "
        "race,gender crosses two; may be repeated",
    )
    verb.add_argument(
        "--gate",
        action="store_true",
        help="show the cells, and exit with 1 if one got worse from A to B beyond "
        "noise, or B does not answer a question that A answers (with 2 if nothing can "
        "be compared). " + RULE,
    )
    verb.set_defaults(error_code=2)  # 1 is an answer of the gate
