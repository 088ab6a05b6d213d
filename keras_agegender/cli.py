"""The `agegender` command: parse, call one library function, print.

Exit codes: 0 done, 1 something was wrong with the input (one line on stderr), 2 the
command line was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender import __version__
from keras_agegender.labels import GENDERS

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code.

    Args:
        argv: Arguments without the program's name; `None` takes the process's own.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("AGEGENDER_TRACEBACK"):
            raise
        print(f"agegender: {_one_line(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        if os.environ.get("AGEGENDER_TRACEBACK"):
            raise
        print(
            f"agegender: unexpected {type(error).__name__}: {_one_line(error)[:300]} "
            "(AGEGENDER_TRACEBACK=1 shows where)",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "agegender: interrupted; the same command goes on from here",
            file=sys.stderr,
        )
        return 130


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return text


def _load_frameworks() -> None:
    """Imports TensorFlow and Keras without their start-up chatter on the screen."""
    import logging
    import warnings

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    # TensorFlow 2.21 writes two lines at any log level, from C++ to the descriptor.
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


# -- verbs -----------------------------------------------------------------------------


def _quickstart(arguments: argparse.Namespace) -> int:
    _load_frameworks()
    from keras_agegender.quickstart_tour import quickstart

    quickstart(
        arguments.directory,
        num_faces=arguments.faces,
        seed=arguments.seed,
        overrides=tuple(arguments.set),
        report=_say,
    )
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    manifest, report, splits = arguments.read(arguments)
    _say(str(report))
    _load_frameworks()

    from keras_agegender.datasets.preparation import prepare
    from keras_agegender.faces.cropping import CropOptions
    from keras_agegender.faces.detector import MtcnnDetector

    crop = None
    if not arguments.no_crop:
        crop = CropOptions(
            margin=arguments.margin,
            square=not arguments.no_square,
            keep=arguments.keep,
            fallback=arguments.fallback,
            align=arguments.align,
            pad=arguments.pad,
        )
    prepared = prepare(
        manifest,
        arguments.out,
        detector=MtcnnDetector() if crop else None,
        crop_options=crop,
        output_size=(arguments.size, arguments.size),
        splits=splits,
        name=arguments.source,
        overwrite=arguments.overwrite,
    )
    _say(str(prepared))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    _load_frameworks()
    from keras_agegender.distribution import initialize_processes, process_index
    from keras_agegender.evaluation.metrics import format_metrics
    from keras_agegender.training import train

    initialize_processes()
    run = train(
        arguments.recipe,
        arguments.data,
        arguments.run_directory,
        overrides=arguments.set,
        pretraining_data=arguments.pretraining_data,
        pretrained=arguments.pretrained,
        splits=_splits(arguments.split),
        seed=arguments.seed,
        overwrite=arguments.overwrite,
    )
    if process_index() > 0:
        return 0
    metrics = run.path / "metrics.json"
    if metrics.is_file():
        _say(format_metrics(json.loads(metrics.read_text("utf-8"))))
    _say(f"Run: {run.path}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    _load_frameworks()
    from keras_agegender.evaluation.evaluator import evaluate
    from keras_agegender.evaluation.metrics import format_metrics

    scores = evaluate(
        arguments.run_directory,
        arguments.data,
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        positive_gender=arguments.positive_gender,
    )
    if arguments.json:
        print(json.dumps(scores.to_dict(), indent=2))
    else:
        _say(format_metrics(scores))
    return 0


def _reproduce(arguments: argparse.Namespace) -> int:
    _load_frameworks()
    from keras_agegender.recipes.recipe import report_recipes
    from keras_agegender.reproduction import reproduce

    found = reproduce(
        arguments.recipes or report_recipes(),
        arguments.data,
        arguments.out,
        pretraining_data=arguments.pretraining_data,
        folds=arguments.folds,
        seeds=arguments.seeds,
        overrides=arguments.set,
        quick=arguments.quick,
        report=_say,
    )
    _say(f"\n{found}\n\nTable: {found.directory / 'table.md'}, .csv, .png")
    return 1 if found.num_failed else 0


def _compare(arguments: argparse.Namespace) -> int:
    _load_frameworks()
    from keras_agegender.comparison import compare

    _say(str(compare(*arguments.runs)))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    _load_frameworks()
    from keras_agegender.exporting import export

    path = export(arguments.run_directory, arguments.out, overwrite=arguments.overwrite)
    _say(f"SavedModel: {path}")
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    _load_frameworks()
    from keras_agegender.prediction import Predictor

    predictor = Predictor(arguments.model)
    predictions = predictor.predict_many(
        arguments.photos, whole_image=arguments.whole_image
    )
    if arguments.annotate:
        _annotate(arguments, predictions)
    if arguments.json:
        print(json.dumps([p.to_dict() for p in predictions], indent=2))
    else:
        for prediction in predictions:
            _say(str(prediction))
    return 1 if any(p.status == "unreadable" for p in predictions) else 0


def _annotate(arguments: argparse.Namespace, predictions: Sequence[Any]) -> None:
    from PIL import Image

    from keras_agegender.annotation import annotate_photo
    from keras_agegender.faces.images import read_image

    target = Path(arguments.annotate)
    several = len(predictions) > 1 or target.is_dir()
    if not several and target.suffix.lower() not in PICTURE_ENDINGS:
        raise ValueError(
            f"Invalid --annotate. Expected a file that ends in {PICTURE_ENDINGS}, or a "
            f"folder. Received: {target}."
        )
    if several:
        target.mkdir(parents=True, exist_ok=True)
    for photo, prediction in zip(arguments.photos, predictions, strict=True):
        if prediction.status == "unreadable":
            continue
        picture = annotate_photo(read_image(photo), prediction)
        file = target / f"{Path(photo).stem}.png" if several else target
        Image.fromarray(picture).save(file)
        print(f"Annotated: {file}", file=sys.stderr)


def _recipes(arguments: argparse.Namespace) -> int:
    from keras_agegender.recipes.recipe import list_recipes, load_recipe

    if arguments.name:
        _say(load_recipe(arguments.name, arguments.set).to_toml())
        return 0
    found = list_recipes()
    width = max(map(len, found))
    _say(f"{'':<{width}}  {'published':^14}")
    _say(f"{'recipe':<{width}}  {'gender':>7}{'age':>7}  what")
    for name, title in found.items():
        published = load_recipe(name).published
        best = max(published, key=lambda p: p.gender_accuracy or 0.0, default=None)
        scores = [getattr(best, f"{n}_accuracy", None) for n in ("gender", "age")]
        figures = "".join(f"{'' if v is None else f'{v:.3f}':>7}" for v in scores)
        _say(f"{name:<{width}}  {figures}  {title}")
    _say(
        "\nPublished: the report's accuracies on Adience's fold 4 (05_caffe_celeba: on "
        "CelebA); of several models kept, the best on gender."
    )
    return 0


# -- sources of `prepare` --------------------------------------------------------------


def _read_adience(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.adience import read_adience
    from keras_agegender.datasets.splits import (
        cross_validation_splits,
        report_splits,
    )

    manifest, report = read_adience(
        arguments.labels,
        arguments.images or arguments.labels,
        strict=arguments.strict,
        keep="any" if arguments.keep_partial else "both",
    )
    splits = report_splits()
    if arguments.test_fold is not None:
        splits = cross_validation_splits(arguments.test_fold)
    return manifest, report, splits


def _read_utkface(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.utkface import read_utkface

    manifest, report = read_utkface(
        arguments.images,
        gaps=arguments.gaps,
        validation=arguments.validation,
        test=arguments.test,
        seed=arguments.seed,
    )
    return manifest, report, None


def _read_celeba(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.celeba import read_celeba, write_celeba_from_tfds

    if arguments.download:
        write_celeba_from_tfds(arguments.images, data_dir=arguments.tfds_dir)
    return (*read_celeba(arguments.images), None)


def _read_csv(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.csv import read_csv

    manifest, report = read_csv(
        arguments.file,
        image_column=arguments.image_column,
        age_column=arguments.age_column,
        gender_column=arguments.gender_column,
        subject_column=arguments.subject_column,
        split_column=arguments.split_column,
        images_dir=arguments.images,
        gender_values={
            value: gender for gender in GENDERS for value in getattr(arguments, gender)
        },
        gaps=arguments.gaps,
        extra=_extra_columns(arguments.extra),
        validation=arguments.validation,
        test=arguments.test,
        seed=arguments.seed,
    )
    return manifest, report, None


def _extra_columns(texts: Sequence[str] | None) -> Any:
    """Reads `--extra COLUMN[:KIND] …`; not given, all evident columns are outputs."""
    if texts is None:
        return "auto"
    return {
        name: kind or None for name, _, kind in (text.partition(":") for text in texts)
    }


def _splits(texts: Sequence[str]) -> dict[str, str]:
    splits = {}
    for text in texts:
        name, equals, expression = text.partition("=")
        if not equals or name not in ("train", "validation", "test"):
            raise ValueError(
                "Invalid --split. Expected train=…, validation=… or test=…, for "
                f"instance test=fold_4. Received: {text!r}."
            )
        splits[name] = expression
    return splits


def _say(text: str) -> None:
    print(text, flush=True)


# -- the parser ------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agegender",
        description="Apparent age group and gender of faces: prepare, train, predict.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True)
    _add_quickstart(verbs)
    _add_prepare(verbs)
    _add_recipes(verbs)
    _add_train(verbs)
    _add_evaluate(verbs)
    _add_reproduce(verbs)
    _add_compare(verbs)
    _add_export(verbs)
    _add_predict(verbs)
    return parser


def _add(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    return verb


def _add_set(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a setting of the recipe, for instance training.epochs=3",
    )


def _add_quickstart(verbs: Any) -> None:
    verb = _add(
        verbs, "quickstart", _quickstart, "the whole way on synthetic faces, in minutes"
    )
    verb.add_argument("--directory", default="quickstart", help="where everything goes")
    verb.add_argument("--faces", type=int, default=2400, help="faces to draw")
    verb.add_argument("--seed", type=int, default=0)
    _add_set(verb)


def _add_prepare(verbs: Any) -> None:
    verb = _add(
        verbs,
        "prepare",
        _prepare,
        "label files and images to a prepared dataset of face crops",
    )
    sources = verb.add_subparsers(title="sources", dest="source", required=True)
    adience = sources.add_parser("adience", help="Adience's five fold files")
    adience.add_argument("labels", help="folder with fold_0_data.txt …")
    adience.add_argument("--images", help="folder with faces/ or aligned/ [labels]")
    adience.add_argument(
        "--strict",
        action="store_true",
        help="correct labels by the report's Table 0 only",
    )
    adience.add_argument(
        "--keep-partial",
        action="store_true",
        help="keep faces with one usable label, the other masked",
    )
    adience.add_argument(
        "--test-fold",
        type=int,
        help="cross-validation: this fold tests, the next validates",
    )
    adience.set_defaults(read=_read_adience)
    utkface = sources.add_parser("utkface", help="UTKFace by its file names")
    utkface.add_argument("images", help="folder with <age>_<gender>_<race>_… files")
    utkface.add_argument(
        "--gaps",
        choices=("omit", "mask", "nearest"),
        default="omit",
        help="ages between two groups: leave the picture out, keep it "
        "without an age group, or take the nearest group",
    )
    utkface.set_defaults(read=_read_utkface)
    celeba = sources.add_parser("celeba", help="CelebA from a local folder")
    celeba.add_argument("images", help="folder with list_attr_celeba.txt, …")
    celeba.add_argument(
        "--download",
        action="store_true",
        help="fill the folder from TensorFlow Datasets first",
    )
    celeba.add_argument("--tfds-dir", help="where TensorFlow Datasets keeps its data")
    celeba.set_defaults(read=_read_celeba)
    table = sources.add_parser("csv", help="any CSV with a column of images")
    table.add_argument("file")
    table.add_argument("--image-column", help="picture files [image, file, path]")
    table.add_argument("--age-column", help="years or groups [age, age_group]")
    table.add_argument("--gender-column", help="[gender, sex]")
    table.add_argument("--subject-column", help="who it is [subject, identity, person]")
    table.add_argument("--split-column", help="train, validation or test [split]")
    table.add_argument("--images", help="folder picture files start from [the CSV's]")
    for gender in GENDERS:
        table.add_argument(
            f"--{gender}",
            action="append",
            default=[],
            metavar="VALUE",
            help=f"a value of the gender column that means {gender}",
        )
    table.add_argument(
        "--extra",
        nargs="*",
        metavar="COLUMN[:KIND]",
        help="columns that become outputs, binary, categorical or "
        "regression; none: no outputs [all whose kind is evident]",
    )
    table.set_defaults(read=_read_csv)
    for source in (utkface, table):
        source.add_argument("--validation", type=float, default=0.1, metavar="SHARE")
        source.add_argument("--test", type=float, default=0.1, metavar="SHARE")
    table.add_argument(
        "--gaps",
        choices=("omit", "nearest"),
        default="omit",
        help="years between two groups: unknown group, or nearest",
    )
    for source in (adience, utkface, celeba, table):
        source.add_argument("--out", required=True, help="folder to make")
        source.add_argument(
            "--size", type=int, default=256, help="side of a crop in px"
        )
        source.add_argument(
            "--margin",
            type=float,
            default=0.25,
            help="added around the face, of the box's side",
        )
        source.add_argument(
            "--keep",
            choices=("largest", "center"),
            default="largest",
            help="which face, where several are found",
        )
        source.add_argument(
            "--fallback",
            choices=("center", "full", "skip"),
            default="center",
            help="where none is found",
        )
        source.add_argument(
            "--align", action="store_true", help="turn pictures until eyes are level"
        )
        source.add_argument(
            "--pad",
            action="store_true",
            help="keep the face in the middle: black beyond the picture's edge",
        )
        source.add_argument(
            "--no-square", action="store_true", help="keep the face box's own shape"
        )
        source.add_argument(
            "--no-crop",
            action="store_true",
            help="keep whole pictures, as the report's Caffe half does",
        )
        source.add_argument("--seed", type=int, default=0)
        source.add_argument(
            "--overwrite",
            action="store_true",
            help="replace what is there, finished or not",
        )


def _add_recipes(verbs: Any) -> None:
    verb = _add(verbs, "recipes", _recipes, "list the recipes, or print one resolved")
    verb.add_argument("name", nargs="?")
    _add_set(verb)


def _add_train(verbs: Any) -> None:
    verb = _add(verbs, "train", _train, "train a recipe; the same command resumes")
    verb.add_argument("recipe", help="a recipe's name or a .toml file")
    verb.add_argument("--data", required=True, help="prepared dataset")
    verb.add_argument(
        "--run", required=True, dest="run_directory", help="folder for the run"
    )
    verb.add_argument(
        "--pretraining-data",
        metavar="DATA",
        help="prepared dataset for the recipe that this one begins with",
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
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there, finished or not",
    )
    _add_set(verb)


def _add_evaluate(verbs: Any) -> None:
    verb = _add(verbs, "evaluate", _evaluate, "score a run on held-out faces")
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--data", help="prepared dataset [the one trained on]")
    verb.add_argument("--split", default="test")
    verb.add_argument(
        "--checkpoint", default="best", help="best, last, or one that the recipe keeps"
    )
    verb.add_argument(
        "--positive-gender",
        choices=("male", "female"),
        default="male",
        help="positive class of precision, recall and f1",
    )
    verb.add_argument("--json", action="store_true")


def _add_reproduce(verbs: Any) -> None:
    verb = _add(
        verbs,
        "reproduce",
        _reproduce,
        "recipes x folds x seeds: one table, published beside measured",
    )
    verb.add_argument(
        "recipes", nargs="*", help="names, numbers or files [all of the report]"
    )
    verb.add_argument("--data", required=True, help="prepared dataset")
    verb.add_argument("--out", required=True, help="folder for runs and table")
    verb.add_argument(
        "--pretraining-data",
        metavar="DATA",
        help="prepared dataset for models 5 and 9-12",
    )
    verb.add_argument(
        "--folds",
        type=int,
        nargs="+",
        metavar="FOLD",
        help="test folds of a cross-validation [the dataset's own splits]",
    )
    verb.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    verb.add_argument(
        "--quick",
        action="store_true",
        help="small pictures, 2 epochs, few faces: shows that all of it runs",
    )
    _add_set(verb)


def _add_compare(verbs: Any) -> None:
    verb = _add(
        verbs, "compare", _compare, "two runs side by side, with paired differences"
    )
    verb.add_argument("runs", nargs=2, metavar="run")


def _add_export(verbs: Any) -> None:
    verb = _add(verbs, "export", _export, "write a run's best model as a SavedModel")
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--out", required=True, help="folder to make")
    verb.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there, finished or not",
    )


def _add_predict(verbs: Any) -> None:
    verb = _add(
        verbs, "predict", _predict, "age group and gender of the faces in photos"
    )
    verb.add_argument("model", help="exported SavedModel")
    verb.add_argument("photos", nargs="+")
    verb.add_argument("--json", action="store_true")
    verb.add_argument(
        "--annotate",
        metavar="FILE",
        help="draw the answers; a folder for several photos",
    )
    verb.add_argument(
        "--whole-image",
        action="store_true",
        help="where no face is found, take the whole picture for one",
    )


if __name__ == "__main__":
    sys.exit(main())
