"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.argument_types import seed
from keras_agegender.cli.checks import check_new_run, check_training
from keras_agegender.cli.console import (
    add_set_option,
    add_verb,
    load_frameworks,
    read_splits,
    say,
)
from keras_agegender.files import read_json


def _train(arguments: argparse.Namespace) -> int:
    splits = read_splits(arguments.split)
    check_training(
        arguments.recipe,
        arguments.set,
        arguments.data,
        arguments.pretraining_data,
        arguments.pretrained,
    )
    check_new_run(arguments.run_directory, arguments.overwrite)
    load_frameworks()
    from keras_agegender.distribution import initialize_processes, process_index
    from keras_agegender.evaluation.metrics import format_metrics
    from keras_agegender.training.following import tensorboard_callback
    from keras_agegender.training.train import train

    initialize_processes()
    callbacks = []
    if arguments.tensorboard and process_index() == 0:
        callbacks.append(tensorboard_callback(arguments.run_directory))
    run = train(
        arguments.recipe,
        arguments.data,
        arguments.run_directory,
        overrides=arguments.set,
        pretraining_data=arguments.pretraining_data,
        pretrained=arguments.pretrained,
        splits=splits,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        callbacks=callbacks,
    )
    if process_index() > 0:
        return 0
    metrics = run.path / "metrics.json"
    if metrics.is_file():
        say(format_metrics(read_json(metrics)))
    say(f"Run: {run.path}")
    return 0


def add_train(verbs: Any) -> None:
    """Adds `agegender train`."""
    verb = add_verb(verbs, "train", _train, "train a recipe; the same command resumes")
    verb.add_argument("recipe", help="a recipe's name or a .toml file")
    verb.add_argument("--data", help="prepared dataset")
    verb.add_argument(
        "--run", required=True, dest="run_directory", help="folder for the run"
    )
    verb.add_argument(
        "--pretraining-data",
        metavar="DATA",
        help="prepared dataset for the recipe that this one begins with, or for a "
        "recipe of that role",
    )
    verb.add_argument(
        "--pretrained",
        metavar="RUN",
        help="finished run, or .keras file, to begin with",
    )
    verb.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=EXPRESSION",
        help="for instance test=fold_3",
    )
    verb.add_argument(
        "--tensorboard",
        action="store_true",
        help="write RUN/tensorboard to follow the training with TensorBoard",
    )
    verb.add_argument(
        "--seed", type=seed, default=0, help="of weights and batches [%(default)s]"
    )
    verb.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there, finished or not",
    )
    add_set_option(verb)
