"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
import json
from typing import Any

from keras_agegender.cli.checks import check_data, check_run
from keras_agegender.cli.console import add_verb, load_frameworks, say


def _evaluate(arguments: argparse.Namespace) -> int:
    check_run(arguments.run_directory)
    check_data(arguments.data)
    load_frameworks()
    from keras_agegender.evaluation.evaluate import evaluate
    from keras_agegender.evaluation.metrics import format_metrics

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
    verb.add_argument("--data", help="prepared dataset [the one trained on]")
    verb.add_argument(
        "--split", default="test", help="whose faces are scored [%(default)s]"
    )
    verb.add_argument(
        "--checkpoint",
        default="best",
        help="best, last, or one that the recipe keeps [%(default)s]",
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
        help="score groups by a column of the dataset too, for instance race; "
        "race,gender crosses two; may be repeated",
    )
    verb.add_argument("--json", action="store_true")
