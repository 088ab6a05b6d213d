"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.argument_types import inner_share
from keras_agegender.cli.checks import check_data, check_run
from keras_agegender.cli.console import add_verb, load_frameworks, say


def _calibrate(arguments: argparse.Namespace) -> int:
    check_run(arguments.run_directory)
    check_data(arguments.data)
    load_frameworks()
    from keras_agegender.evaluation.calibrate import calibrate
    from keras_agegender.evaluation.calibration_warnings import calibration_warnings
    from keras_agegender.run_directory import RunDirectory

    found = calibrate(
        arguments.run_directory,
        arguments.data,
        split=arguments.split,
        alpha=arguments.alpha,
        by=arguments.by,
    )
    say(str(found))
    encoding = RunDirectory.open(arguments.run_directory).encoding()
    for line in calibration_warnings(found, encoding):
        say(f"WARNING: {line}")
    say(f"What it is worth on test faces: agegender evaluate {arguments.run_directory}")
    return 0


def add_calibrate(verbs: Any) -> None:
    """Adds `agegender calibrate`."""
    verb = add_verb(
        verbs,
        "calibrate",
        _calibrate,
        "fit a run's probabilities and sets of answers on validation faces",
    )
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--data", help="prepared dataset [the one trained on]")
    verb.add_argument(
        "--split", default="validation", help="whose faces are looked at [%(default)s]"
    )
    verb.add_argument(
        "--alpha",
        type=inner_share,
        default=0.1,
        metavar="SHARE",
        help="faces whose truth may lie outside the set [0.1]",
    )
    verb.add_argument(
        "--by",
        choices=("gender", "age_group"),
        help="a threshold for each gender or age group as answered [one for all]",
    )
