"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.argument_types import pixels, seed
from keras_agegender.cli.checks import check_new_dataset
from keras_agegender.cli.console import add_verb, load_frameworks, say
from keras_agegender.cli.csv_options import (
    add_csv_options,
    add_sampling_options,
    duplicates_as_asked,
    read_csv_as_asked,
)


def _prepare(arguments: argparse.Namespace) -> int:
    # `prepare` in its parts: the first one finds all mistakes, and needs no framework.
    from keras_agegender.datasets.preparation import (
        BLOCK_SIZE,
        JPEG_QUALITY,
        PreparationReport,
        begin,
        carry_out,
        make_cropper,
    )

    check_new_dataset(arguments.out)
    size = (arguments.size, arguments.size)
    cropper = make_cropper(None, _crop_options(arguments), size, JPEG_QUALITY)
    manifest, report, splits = arguments.read(arguments)
    say(str(report))
    prepared = begin(
        manifest,
        arguments.out,
        cropper,
        splits=splits,
        name=arguments.source,
        description="",
        block_size=BLOCK_SIZE,
        overwrite=arguments.overwrite,
    )
    if not isinstance(prepared, PreparationReport):
        load_frameworks()
        prepared = carry_out(prepared, cropper)
    say(str(prepared))
    return 0


def _crop_options(arguments: argparse.Namespace) -> Any:
    from keras_agegender.faces.cropping import CropOptions

    if arguments.no_crop:
        return None
    return CropOptions(
        margin=arguments.margin,
        square=not arguments.no_square,
        keep=arguments.keep,
        fallback=arguments.fallback,
        align=arguments.align,
        pad=arguments.pad,
    )


def _read_adience(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.adience import read_adience
    from keras_agegender.datasets.splits import (
        cross_validation_splits,
        report_splits,
    )

    splits = report_splits()
    if arguments.test_fold is not None:
        splits = cross_validation_splits(arguments.test_fold)
    manifest, report = read_adience(
        arguments.labels,
        arguments.images or arguments.labels,
        strict=arguments.strict,
        keep="any" if arguments.keep_partial else "both",
    )
    return manifest, report, splits


def _read_utkface(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.splits import check_shares
    from keras_agegender.datasets.utkface import read_utkface

    check_shares(arguments.validation, arguments.test)
    manifest, report = read_utkface(
        arguments.images,
        age_groups=arguments.age_groups,
        gaps=arguments.gaps,
        validation=arguments.validation,
        test=arguments.test,
        seed=arguments.seed,
        **duplicates_as_asked(arguments),
    )
    return manifest, report, None


def _read_celeba(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.celeba import read_celeba, write_celeba_from_tfds

    if arguments.download:
        write_celeba_from_tfds(arguments.images, data_dir=arguments.tfds_dir)
    return (*read_celeba(arguments.images), None)


def _read_csv(arguments: argparse.Namespace) -> tuple:
    return (*read_csv_as_asked(arguments), None)


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
        source.add_argument(
            "--seed", type=seed, default=0, help="draws the splits [%(default)s]"
        )
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
    add_sampling_options(source, gaps="omit")
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
    add_csv_options(source)
    source.set_defaults(read=_read_csv)
    return source


def _add_crop_options(source: argparse.ArgumentParser) -> None:
    source.add_argument(
        "--size",
        type=pixels,
        default=256,
        help="side of a crop in px [%(default)s]",
    )
    source.add_argument(
        "--margin",
        type=float,
        default=0.25,
        help="added around the face, of the box's side [%(default)s]",
    )
    source.add_argument(
        "--keep",
        choices=("largest", "center"),
        default="largest",
        help="which face, where several are found [%(default)s]",
    )
    source.add_argument(
        "--fallback",
        choices=("center", "full", "skip"),
        default="center",
        help="where none is found: cut the middle square out, keep the whole picture, "
        "or leave it out [%(default)s]",
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
