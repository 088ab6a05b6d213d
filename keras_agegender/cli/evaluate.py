"""Commands that evaluate: `evaluate`, `report`, `calibrate` and `compare`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from keras_agegender.cli.console import add_verb, inner_share, say


def _evaluate(arguments: argparse.Namespace) -> int:
    from keras_agegender.evaluation.evaluate import evaluate
    from keras_agegender.evaluation.scores import format_metrics

    scores = evaluate(
        arguments.run_directory,
        arguments.data,
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        positive_gender=arguments.positive_gender,
        by=arguments.by,
    )
    if arguments.json:
        print(json.dumps(scores.to_dict(), indent=2))
    else:
        say(format_metrics(scores))
    return 0


def add_evaluate(verbs: Any) -> None:
    """Adds `agegender evaluate`."""
    verb = add_verb(verbs, "evaluate", _evaluate, "score a run on held-out faces")
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--data", help="prepared dataset [the training dataset]")
    verb.add_argument(
        "--split", default="test", help="split to evaluate on [%(default)s]"
    )
    verb.add_argument(
        "--checkpoint",
        default="best",
        help="best, last, or a name in the recipe's extra_checkpoints [%(default)s]",
    )
    verb.add_argument(
        "--positive-gender",
        choices=("male", "female"),
        help="positive class of precision, recall and f1 [the recipe's]",
    )
    verb.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="also score groups by a column of the dataset, for instance race; "
        "race,gender crosses two; may be repeated",
    )
    verb.add_argument("--json", action="store_true")


def _report(arguments: argparse.Namespace) -> int:
    from keras_agegender.evaluation.report import write_report

    file = write_report(
        arguments.run_directory,
        arguments.data,
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        out=arguments.out,
        pictures=arguments.pictures,
        explain=arguments.explain,
    )
    say(f"Report: {file}")
    return 0


def add_report(verbs: Any) -> None:
    """Adds `agegender report`."""
    verb = add_verb(
        verbs,
        "report",
        _report,
        "write a report of an evaluated run: an HTML page, figures and tables",
    )
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--data", help="evaluated dataset [the one trained on]")
    verb.add_argument("--split", default="test", help="evaluated split [test]")
    verb.add_argument(
        "--checkpoint", default="best", help="evaluated checkpoint [best]"
    )
    verb.add_argument(
        "--out", metavar="FILE", help="HTML file [RUN/report/report.html]"
    )
    verb.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="no images and keys of faces, for data that must not be shared",
    )
    verb.add_argument(
        "--explain",
        type=int,
        default=0,
        metavar="N",
        help="draw occlusion maps of N faces [0]",
    )


def _calibrate(arguments: argparse.Namespace) -> int:
    from keras_agegender.evaluation.evaluate import calibrate

    found = calibrate(
        arguments.run_directory,
        arguments.data,
        split=arguments.split,
        alpha=arguments.alpha,
        by=arguments.by,
    )
    say(str(found))
    say(f"Evaluate it on test faces: agegender evaluate {arguments.run_directory}")
    return 0


def add_calibrate(verbs: Any) -> None:
    """Adds `agegender calibrate`."""
    verb = add_verb(
        verbs,
        "calibrate",
        _calibrate,
        "calibrate a run's probabilities and prediction sets on validation faces",
    )
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--data", help="prepared dataset [the training dataset]")
    verb.add_argument(
        "--split", default="validation", help="split to calibrate on [%(default)s]"
    )
    verb.add_argument(
        "--alpha",
        type=inner_share,
        default=0.1,
        metavar="SHARE",
        help="share of faces whose label may lie outside the prediction set [0.1]",
    )
    verb.add_argument(
        "--by",
        choices=("gender", "age_group"),
        help="a threshold for each predicted gender or age group [one for all]",
    )


GATE_RULE = (
    "A cell is all faces, an age group of a gender, or a group of --by, of gender, age "
    "group or a further output with classes. It got worse if the sign-flip test over "
    "people finds a difference at its level, and the interval of B - A at that level "
    "lies wholly below 0. Cells share 0.05 by Holm's correction; all faces are tested "
    "apart, gender and age group at 0.05 each. As only one side is worse, each test "
    "fails an equally good model with a probability of at most 0.025. "
    "Cells of fewer than 30 faces or 10 people are shown, not tested. In folders of "
    "runs, all folds are tested together, each face by its mean over seeds; in a "
    "reproduction, every two recipes in the order of their names."
)


def _compare(arguments: argparse.Namespace) -> int:
    from keras_agegender.studies.compare import (
        Comparison,
        ReproductionComparison,
        compare,
        compare_reproduction,
    )

    runs, cluster, by = arguments.runs, arguments.cluster, arguments.by
    if len(runs) > 2:
        raise ValueError(
            f"Expected two runs, two folders of runs, or one folder that `agegender "
            f"reproduce` made. Received: {len(runs)}."
        )
    found: Comparison | ReproductionComparison
    if len(runs) == 1:
        found = compare_reproduction(*runs, cluster=cluster, by=by)
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
        "compare two runs, or two recipes over folds and seeds",
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
        help="independent units: people [default], albums, or single faces",
    )
    verb.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="also show the cells of a column of the predictions, for instance race; "
        "race,gender crosses two; may be repeated",
    )
    verb.add_argument(
        "--gate",
        action="store_true",
        help="show the cells, and exit with 1 if one got worse from A to B beyond "
        "noise, or B does not predict something that A predicts (with 2 if nothing can "
        "be compared). " + GATE_RULE,
    )
    verb.set_defaults(error_code=2)  # 1: the gate failed
