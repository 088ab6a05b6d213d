"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.checks import check_data, check_evaluated
from keras_agegender.cli.console import add_verb, load_frameworks, say


def _report(arguments: argparse.Namespace) -> int:
    check_evaluated(arguments.run_directory)
    check_data(arguments.data)
    load_frameworks()
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
        "write a page about an evaluated run: one HTML file, figures and tables",
    )
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument(
        "--data", help="prepared dataset evaluated on [the one trained on]"
    )
    verb.add_argument("--split", default="test", help="split evaluated on [test]")
    verb.add_argument("--checkpoint", default="best", help="model evaluated [best]")
    verb.add_argument(
        "--out", metavar="FILE", help="HTML file [RUN/report/report.html]"
    )
    verb.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="no pictures and keys of faces, for data that must not be passed on",
    )
    verb.add_argument(
        "--explain",
        type=int,
        default=0,
        metavar="N",
        help="draw occlusion maps of N faces [0]",
    )
