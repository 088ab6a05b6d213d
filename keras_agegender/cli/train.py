"""Commands for training: `train`, `finetune`, `recipes`, `reproduce`, `quickstart`."""

from __future__ import annotations

import argparse
from typing import Any

import keras_agegender as kag
from keras_agegender.cli import console
from keras_agegender.cli.data import register_types
from keras_agegender.datasets.readers import READERS, keywords
from keras_agegender.distribution import process_index
from keras_agegender.files import read_json


def _train(arguments: argparse.Namespace) -> int:
    run = kag.train(
        arguments.recipe,
        arguments.data,
        arguments.run_directory,
        overrides=arguments.set,
        pretraining_data=arguments.pretraining_data,
        pretrained=arguments.pretrained,
        splits=console.read_splits(arguments.split),
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        tensorboard=arguments.tensorboard,
    )
    if process_index() > 0:
        return 0

    from keras_agegender.evaluation.scores import format_metrics

    metrics = run.path / "metrics.json"
    if metrics.is_file():
        console.say(format_metrics(read_json(metrics)))
    console.say(f"Run: {run.path}")
    return 0


def add_train(verbs: Any) -> None:
    """Adds `agegender train`."""
    verb = console.add_verb(
        verbs, "train", _train, "train a recipe; the same command resumes"
    )
    verb.add_argument("recipe", help="name or number of a recipe, or a .toml file")
    verb.add_argument("--data", help="prepared dataset")
    verb.add_argument(
        "--run", required=True, dest="run_directory", help="run directory"
    )
    verb.add_argument(
        "--pretraining-data",
        metavar="DATA",
        help="prepared dataset for the pretraining recipe",
    )
    verb.add_argument(
        "--pretrained",
        metavar="RUN",
        help="finished run or .keras file to initialize from",
    )
    console.add_split_option(verb, "override a split, e.g. test=fold_3")
    verb.add_argument(
        "--tensorboard",
        action="store_true",
        help="write TensorBoard logs to RUN/tensorboard",
    )
    text = "random seed of weights and batches [%(default)s]"
    verb.add_argument("--seed", type=console.seed, default=0, help=text)
    verb.add_argument(
        "--overwrite", action="store_true", help="replace an existing run"
    )
    console.add_set_option(verb)


def _finetune(arguments: argparse.Namespace) -> int:
    found = kag.finetune(
        arguments.file,
        arguments.pretrained,
        arguments.run_directory,
        overrides=arguments.set,
        overwrite=arguments.overwrite,
        **{"seed": 0, **keywords(READERS["csv"].options, arguments)},
    )
    console.say(f"\n{found}\n\nRun: {found.run.path}")
    return 0


def add_finetune(verbs: Any) -> None:
    """Adds `agegender finetune`."""
    verb = console.add_verb(
        verbs,
        "finetune",
        _finetune,
        "train a finished run further on your own faces; scores before and after",
    )
    verb.add_argument(
        "file",
        metavar="DATA",
        help="CSV file of images and labels, or a dataset prepared like the run's",
    )
    verb.add_argument(
        "--from",
        required=True,
        dest="pretrained",
        metavar="RUN",
        help="the run to start from: its encoding, classes, preprocessing and recipe",
    )
    verb.add_argument(
        "--run",
        default="runs/finetuned",
        dest="run_directory",
        help="run directory; a CSV file is prepared in RUN_data [%(default)s]",
    )
    verb.add_argument(
        "--overwrite", action="store_true", help="replace an existing run"
    )
    console.add_set_option(verb)
    register_types(verb)
    group = verb.add_argument_group("options of a CSV file")
    for option in READERS["csv"].options:
        option.add(group)


def _recipes(arguments: argparse.Namespace) -> int:
    if arguments.more:
        given = [arguments.name, *arguments.more]
        raise ValueError(
            "Invalid arguments. Expected one recipe's name or number, as in "
            f"`agegender recipes {given[-1]}`. Received: {' '.join(given)!r}."
        )
    if arguments.name:
        console.say(kag.load_recipe(arguments.name, arguments.set).to_toml())
        return 0
    found = kag.list_recipes()
    width = max(map(len, found))
    console.say(f"{'':<{width}}  {'published':^14}")
    console.say(f"{'recipe':<{width}}  {'gender':>7}{'age*':>7}  {'time':<12}  title")
    for name, title in found.items():
        recipe = kag.load_recipe(name)
        published = recipe.published
        best = max(published, key=lambda p: p.gender_accuracy or 0.0, default=None)
        scores = [getattr(best, f"{n}_accuracy", None) for n in ("gender", "age")]
        texts = "".join(f"{'' if v is None else f'{v:.3f}':>7}" for v in scores)
        time = recipe.cost.two_cores or recipe.cost.gpu
        console.say(f"{name:<{width}}  {texts}  {time:<12}  {title}")
    console.say(
        "\nPublished: the report's accuracies on Adience's fold 4 (05_caffe_celeba: on "
        "CelebA); with several checkpoints, the best on gender.\n"
        "* Share of correct age groups; for ordinal recipes, share of faces with all "
        "age heads correct.\n"
        "Time: for the report's data (utkface_…: UTKFace), on two CPU cores or on the "
        "GPU that is named, without pretraining."
    )
    return 0


def add_recipes(verbs: Any) -> None:
    """Adds `agegender recipes`."""
    verb = console.add_verb(
        verbs, "recipes", _recipes, "list the recipes, or print one in full"
    )
    verb.add_argument("name", nargs="?", help="a recipe's name or number, or a file")
    # Accepted so that `recipes show 14` has a helpful error.
    verb.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    console.add_set_option(verb)


def _reproduce(arguments: argparse.Namespace) -> int:
    report = [name for name in kag.list_recipes() if name[:2].isdecimal()]
    found = kag.reproduce(
        arguments.recipes or report,
        arguments.data,
        arguments.out,
        pretraining_data=arguments.pretraining_data,
        folds=arguments.folds,
        seeds=arguments.seeds,
        overrides=arguments.set,
        quick=arguments.quick,
        report=console.say,
    )
    console.say(f"\n{found}\n\nTable: {found.directory / 'table.md'}, .tex, .csv, .png")
    return 1 if found.num_failed else 0


def add_reproduce(verbs: Any) -> None:
    """Adds `agegender reproduce`."""
    verb = console.add_verb(
        verbs,
        "reproduce",
        _reproduce,
        "train recipes x folds x seeds; one table of published and measured scores",
    )
    verb.add_argument(
        "recipes", nargs="*", help="names, numbers or files [all recipes of the report]"
    )
    verb.add_argument(
        "--data",
        required=True,
        action="append",
        help="prepared dataset; repeat for datasets of whole images and of crops",
    )
    verb.add_argument(
        "--out", required=True, help="output folder for runs and the table"
    )
    verb.add_argument(
        "--pretraining-data",
        action="append",
        metavar="DATA",
        help="prepared dataset for models 5 and 9-12; can be repeated like --data",
    )
    verb.add_argument(
        "--folds",
        type=console.fold,
        nargs="+",
        metavar="FOLD",
        help="test folds of a cross-validation [the dataset's own splits]",
    )
    verb.add_argument(
        "--seeds",
        type=console.seed,
        nargs="+",
        default=[0],
        metavar="SEED",
        help="one training run per seed [0]",
    )
    verb.add_argument(
        "--quick",
        action="store_true",
        help="smoke test: small images, 2 epochs, few faces",
    )
    console.add_set_option(verb)


def _quickstart(arguments: argparse.Namespace) -> int:
    kag.quickstart(
        arguments.directory,
        num_faces=arguments.faces,
        seed=arguments.seed,
        overrides=tuple(arguments.set),
        report=console.say,
    )
    return 0


def add_quickstart(verbs: Any) -> None:
    """Adds `agegender quickstart`."""
    verb = console.add_verb(
        verbs,
        "quickstart",
        _quickstart,
        "run the whole workflow on synthetic faces, in minutes",
    )
    verb.add_argument(
        "--directory", default="quickstart", help="output folder [%(default)s]"
    )
    verb.add_argument(
        "--faces",
        type=int,
        default=2400,
        help="number of faces to draw, at least 80 [%(default)s]",
    )
    verb.add_argument(
        "--seed",
        type=console.seed,
        default=0,
        help="random seed of faces and training [%(default)s]",
    )
    console.add_set_option(verb)
