"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.argument_types import fold, seed
from keras_agegender.cli.checks import check_data, check_recipes
from keras_agegender.cli.console import add_set_option, add_verb, load_frameworks, say
from keras_agegender.recipes.loading import report_recipes


def _reproduce(arguments: argparse.Namespace) -> int:
    recipes = arguments.recipes or report_recipes()
    check_recipes(recipes, arguments.set)
    check_data(*arguments.data, *(arguments.pretraining_data or ()))
    load_frameworks()
    from keras_agegender.studies.reproduce import reproduce

    found = reproduce(
        recipes,
        arguments.data,
        arguments.out,
        pretraining_data=arguments.pretraining_data,
        folds=arguments.folds,
        seeds=arguments.seeds,
        overrides=arguments.set,
        quick=arguments.quick,
        report=say,
    )
    say(f"\n{found}\n\nTable: {found.directory / 'table.md'}, .tex, .csv, .png")
    return 1 if found.num_failed else 0


def add_reproduce(verbs: Any) -> None:
    """Adds `agegender reproduce`."""
    verb = add_verb(
        verbs,
        "reproduce",
        _reproduce,
        "recipes x folds x seeds: one table, published beside measured",
    )
    verb.add_argument(
        "recipes", nargs="*", help="names, numbers or files [all of the report]"
    )
    verb.add_argument(
        "--data",
        required=True,
        action="append",
        help="prepared dataset; again for one of whole pictures, or of crops",
    )
    verb.add_argument("--out", required=True, help="folder for runs and table")
    verb.add_argument(
        "--pretraining-data",
        action="append",
        metavar="DATA",
        help="prepared dataset for models 5 and 9-12; again as --data",
    )
    verb.add_argument(
        "--folds",
        type=fold,
        nargs="+",
        metavar="FOLD",
        help="test folds of a cross-validation [the dataset's own splits]",
    )
    verb.add_argument(
        "--seeds",
        type=seed,
        nargs="+",
        default=[0],
        metavar="SEED",
        help="a training for each [0]",
    )
    verb.add_argument(
        "--quick",
        action="store_true",
        help="small pictures, 2 epochs, few faces: shows that all of it runs",
    )
    add_set_option(verb)
