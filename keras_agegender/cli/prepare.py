"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from keras_agegender.cli.console import add_verb, load_frameworks, say
from keras_agegender.cli.csv_options import add_age_groups, add_csv_columns, csv_options
from keras_agegender.labels import GAPS


def _prepare(arguments: argparse.Namespace) -> int:
    manifest, report, splits = arguments.read(arguments)
    say(str(report))
    load_frameworks()

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
    say(str(prepared))
    return 0


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
        age_groups=arguments.age_groups,
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
        **csv_options(arguments),
        age_groups=arguments.age_groups,
        gaps=arguments.gaps,
        extra=_extra_columns(arguments.extra),
        validation=arguments.validation,
        test=arguments.test,
        seed=arguments.seed,
    )
    return manifest, report, None


def _extra_columns(texts: Sequence[str] | None) -> Any:
    """Reads `--extra COLUMN[:KIND[:CLASS,…]] …`; not given: all evident columns."""
    if texts is None:
        return "auto"
    columns = {}
    for text in texts:
        name, kind, classes = [*text.split(":", 2), "", ""][:3]
        names = [part.strip() for part in classes.split(",")] if classes else []
        columns[name] = {"kind": kind or None, "classes": names}
    return columns


def add_prepare(verbs: Any) -> None:
    """Adds `agegender prepare`."""
    verb = add_verb(
        verbs,
        "prepare",
        _prepare,
        "label files and images to a prepared dataset of face crops",
    )
    sources = verb.add_subparsers(title="sources", dest="source", required=True)
    for add_source in (_add_adience, _add_utkface, _add_celeba, _add_csv):
        source = add_source(sources)
        _add_crop_options(source)
        source.add_argument("--out", required=True, help="folder to make")
        source.add_argument("--seed", type=int, default=0)
        source.add_argument(
            "--overwrite",
            action="store_true",
            help="replace what is there, finished or not",
        )


def _add_adience(sources: Any) -> argparse.ArgumentParser:
    source = sources.add_parser("adience", help="Adience's five fold files")
    source.add_argument("labels", help="folder with fold_0_data.txt …")
    source.add_argument("--images", help="folder with faces/ or aligned/ [labels]")
    source.add_argument(
        "--strict",
        action="store_true",
        help="correct labels by the report's Table 0 only",
    )
    source.add_argument(
        "--keep-partial",
        action="store_true",
        help="keep faces with one usable label, the other masked",
    )
    source.add_argument(
        "--test-fold",
        type=int,
        help="cross-validation: this fold tests, the next validates",
    )
    source.set_defaults(read=_read_adience)
    return source


def _add_utkface(sources: Any) -> argparse.ArgumentParser:
    source = sources.add_parser("utkface", help="UTKFace by its file names")
    source.add_argument("images", help="folder with <age>_<gender>_<race>_… files")
    _add_sampling(source, gaps="omit")
    source.set_defaults(read=_read_utkface)
    return source


def _add_celeba(sources: Any) -> argparse.ArgumentParser:
    source = sources.add_parser("celeba", help="CelebA from a local folder")
    source.add_argument("images", help="folder with list_attr_celeba.txt, …")
    source.add_argument(
        "--download",
        action="store_true",
        help="fill the folder from TensorFlow Datasets first",
    )
    source.add_argument("--tfds-dir", help="where TensorFlow Datasets keeps its data")
    source.set_defaults(read=_read_celeba)
    return source


def _add_csv(sources: Any) -> argparse.ArgumentParser:
    source = sources.add_parser("csv", help="any CSV with a column of images")
    source.add_argument("file")
    add_csv_columns(source)
    source.add_argument(
        "--extra",
        nargs="*",
        metavar="COLUMN[:KIND[:CLASSES]]",
        help="columns that become outputs: size:coral:small,medium,large; none: no "
        "outputs [all whose kind is evident]",
    )
    _add_sampling(source, gaps="mask")
    source.set_defaults(read=_read_csv)
    return source


def _add_sampling(source: argparse.ArgumentParser, gaps: str) -> None:
    source.add_argument(
        "--gaps",
        choices=GAPS,
        default=gaps,
        help="ages between two groups: leave the picture out, keep it without an age "
        f"group, or take the nearest group [{gaps}]",
    )
    source.add_argument("--validation", type=float, default=0.1, metavar="SHARE")
    source.add_argument("--test", type=float, default=0.1, metavar="SHARE")
    add_age_groups(source)


def _add_crop_options(source: argparse.ArgumentParser) -> None:
    source.add_argument("--size", type=int, default=256, help="side of a crop in px")
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
