"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.argument_types import seed
from keras_agegender.cli.checks import check_recipes
from keras_agegender.cli.console import add_set_option, add_verb, load_frameworks, say


def _quickstart(arguments: argparse.Namespace) -> int:
    check_recipes(["quickstart"], arguments.set)
    from keras_agegender.studies.quickstart import check_quickstart, quickstart

    check_quickstart(arguments.directory, arguments.faces, arguments.seed)
    load_frameworks()
    quickstart(
        arguments.directory,
        num_faces=arguments.faces,
        seed=arguments.seed,
        overrides=tuple(arguments.set),
        report=say,
    )
    return 0


def add_quickstart(verbs: Any) -> None:
    """Adds `agegender quickstart`."""
    verb = add_verb(
        verbs, "quickstart", _quickstart, "the whole way on synthetic faces, in minutes"
    )
    verb.add_argument(
        "--directory", default="quickstart", help="where everything goes [%(default)s]"
    )
    verb.add_argument(
        "--faces",
        type=int,
        default=2400,
        help="faces to draw, at least 80 [%(default)s]",
    )
    verb.add_argument(
        "--seed",
        type=seed,
        default=0,
        help="draws the faces and begins the training [%(default)s]",
    )
    add_set_option(verb)
