"""Commands for data: `prepare` and `audit`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.checks import check_new_dataset
from keras_agegender.cli.console import (
    add_verb,
    load_frameworks,
    pixels,
    read_splits,
    say,
    seed,
    share,
)
from keras_agegender.labels import AGE_GROUP_PRESETS, GENDERS, UNMAPPED_AGES

_FILE_ENDINGS = (".csv", ".tsv", ".txt")


def add_csv_options(source: argparse.ArgumentParser) -> None:
    """Adds a CSV file and the options that say how it is read."""
    source.add_argument(
        "file", metavar="FILE", help="the CSV file; it stands before --extra"
    )
    add_csv_columns(source)
    source.add_argument(
        "--extra",
        action=_ExtraColumns,
        nargs="*",
        metavar="COLUMN[:KIND[:CLASSES]]",
        help="columns that become outputs: size:coral:small,medium,large; several, or "
        "--extra again; none: no outputs [all whose kind is evident]",
    )
    source.add_argument(
        "--keep-columns",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns that are no outputs and stay beside the faces, to be grouped by "
        "(evaluate --by, compare --by)",
    )
    add_sampling_options(source, unmapped_ages="mask")


class _ExtraColumns(argparse.Action):
    """Collects columns of one `--extra` or several; none at all is a list too.

    The option takes everything up to the next one: a file that stands behind it is
    taken for a column, which the parser would call a file that is missing.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Adds columns; ends the program where one of them is the file."""
        for value in values if namespace.file is None else ():
            if Path(value).is_file() or Path(value).suffix in _FILE_ENDINGS:
                parser.error(
                    f"argument {option_string}: expected columns. Received a file, "
                    f"{value!r}: put FILE before {option_string}"
                )
        columns = [*(getattr(namespace, self.dest) or ()), *values]
        setattr(namespace, self.dest, columns)


def add_sampling_options(source: argparse.ArgumentParser, unmapped_ages: str) -> None:
    """Adds ages between groups, age groups, shares of the splits, and duplicates."""
    source.add_argument(
        "--unmapped-ages",
        choices=UNMAPPED_AGES,
        default=unmapped_ages,
        help="ages between two groups: leave the picture out, keep it without an age "
        f"group, or take the nearest group [{unmapped_ages}]",
    )
    for split, does in (("validation", "validate"), ("test", "test")):
        source.add_argument(
            f"--{split}",
            type=share,
            default=0.1,
            metavar="SHARE",
            help=f"of people, or of pictures, that {does} [%(default)s]",
        )
    source.add_argument(
        "--duplicates",
        choices=("exact", "near"),
        help="pictures of the same bytes, or that look the same too, are in no two "
        "splits: drawn splits keep them together, of a file's own splits training "
        "loses them [exact where drawn; a file's splits stay]",
    )
    source.add_argument(
        "--cache",
        metavar="FILE",
        help="where hashes of pictures are kept [~/.cache/keras_agegender]",
    )
    source.add_argument("--no-cache", action="store_true", help="keep no hashes")
    add_age_groups(source)


def duplicates_as_asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns `duplicates` and `cache`, as readers take them."""
    from keras_agegender.datasets.duplicates import default_cache_file

    cache = None if arguments.no_cache else arguments.cache or default_cache_file()
    return {"duplicates": arguments.duplicates, "cache": cache}


def add_csv_columns(verb: Any) -> None:
    """Adds which columns are what, and what values of the gender column mean."""
    verb.add_argument(
        "--image-column", help="picture files [image, file, path, filename]"
    )
    verb.add_argument(
        "--age-column", help="years or groups [age, age_group, age_years]"
    )
    verb.add_argument("--gender-column", help="female and male [gender, sex]")
    verb.add_argument("--subject-column", help="who it is [subject, identity, person]")
    verb.add_argument("--album-column", help="whose pictures they are [album]")
    verb.add_argument("--split-column", help="train, validation or test [split]")
    verb.add_argument("--images", help="folder picture files start from [the CSV's]")
    for gender in GENDERS:
        verb.add_argument(
            f"--{gender}",
            action="append",
            default=[],
            metavar="VALUE",
            help=f"a value of the gender column that means {gender}",
        )


def add_age_groups(verb: Any) -> None:
    """Adds `--age-groups`."""
    verb.add_argument(
        "--age-groups",
        metavar="GROUPS",
        help=f"{', '.join(AGE_GROUP_PRESETS)}, or ranges such as 0-17,18-64,65+ "
        "[adience]",
    )


def read_csv_as_asked(arguments: argparse.Namespace) -> tuple:
    """Returns what `read_csv` does; takes `add_csv_options` and a `seed`."""
    from keras_agegender.datasets.readers.csv import read_csv
    from keras_agegender.datasets.splits import check_shares

    check_shares(arguments.validation, arguments.test)
    return read_csv(
        arguments.file,
        **csv_columns(arguments),
        age_groups=arguments.age_groups,
        unmapped_ages=arguments.unmapped_ages,
        extra=_extra_columns(arguments.extra),
        keep_columns=arguments.keep_columns,
        validation=arguments.validation,
        test=arguments.test,
        seed=arguments.seed,
        **duplicates_as_asked(arguments),
    )


def csv_columns(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what `add_csv_columns` read, as `read_csv` takes it."""
    return {
        "image_column": arguments.image_column,
        "age_column": arguments.age_column,
        "gender_column": arguments.gender_column,
        "subject_column": arguments.subject_column,
        "album_column": arguments.album_column,
        "split_column": arguments.split_column,
        "images_dir": arguments.images,
        "gender_values": {
            value: gender for gender in GENDERS for value in getattr(arguments, gender)
        },
    }


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


def _prepare(arguments: argparse.Namespace) -> int:
    # `prepare` in its parts: the first one finds all mistakes, and needs no framework.
    from keras_agegender.datasets.prepare import (
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
    from keras_agegender.faces.preprocessing import CropOptions

    if arguments.no_crop:
        return None
    return CropOptions(
        margin=arguments.margin,
        square=not arguments.no_square,
        face_selection=arguments.face_selection,
        fallback=arguments.fallback,
        align=arguments.align,
        pad=arguments.pad,
    )


def _read_adience(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.readers.adience import read_adience
    from keras_agegender.datasets.splits import cross_validation_splits, report_splits

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
    from keras_agegender.datasets.readers.utkface import read_utkface
    from keras_agegender.datasets.splits import check_shares

    check_shares(arguments.validation, arguments.test)
    manifest, report = read_utkface(
        arguments.images,
        age_groups=arguments.age_groups,
        unmapped_ages=arguments.unmapped_ages,
        validation=arguments.validation,
        test=arguments.test,
        seed=arguments.seed,
        **duplicates_as_asked(arguments),
    )
    return manifest, report, None


def _read_celeba(arguments: argparse.Namespace) -> tuple:
    from keras_agegender.datasets.readers.celeba import (
        read_celeba,
        write_celeba_from_tfds,
    )

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
    add_sampling_options(source, unmapped_ages="drop")
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
        "--face-selection",
        choices=("largest", "center"),
        default="largest",
        help="which of several faces to crop [%(default)s]",
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


LEAKAGE = 1
UNUSABLE = 2


def _audit(arguments: argparse.Namespace) -> int:
    from keras_agegender.datasets.duplicates import check_imagehash
    from keras_agegender.datasets.face_index import kind_of

    kind = kind_of(arguments.data)
    options = _reader_options(arguments, kind)
    splits = read_splits(arguments.split) or None
    if arguments.json and not Path(arguments.json).absolute().parent.is_dir():
        raise ValueError(f"There is no folder for --json {arguments.json}.")
    if arguments.near:
        check_imagehash()

    from keras_agegender.datasets.duplicates import default_cache_file
    from keras_agegender.evaluation.audit import audit
    from keras_agegender.files import write_json

    cache = Path(arguments.cache) if arguments.cache else default_cache_file()
    found = audit(
        arguments.data,
        splits=splits,
        near_duplicates=arguments.near,
        cache=None if arguments.no_cache else cache,
        **options,
    )
    say(str(found))
    if arguments.json:
        write_json(Path(arguments.json), found.to_dict())
    return LEAKAGE if found.leaks else 0


def _reader_options(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Returns the options that were given, as the reader of such data takes them."""
    adience = {
        "strict": arguments.strict,
        "keep": "any" if arguments.keep_partial else None,
    }
    csv = {**csv_columns(arguments), "age_groups": arguments.age_groups}
    images = {"images_dir": csv.pop("images_dir")}
    given = {k: v for k, v in {**adience, **csv, **images}.items() if v}
    belong = {"adience": {*adience, *images}, "csv": {*csv, *images}}.get(kind, set())
    wrong = sorted(set(given) - belong)
    if wrong:
        raise ValueError(
            f"Invalid options. {arguments.data} is read as {kind}, which takes "
            f"{', '.join(sorted(belong)) or 'none of the options of readers'}. "
            f"Received: {', '.join(wrong)}."
        )
    return given


def add_audit(verbs: Any) -> None:
    """Adds `agegender audit`."""
    verb = add_verb(
        verbs,
        "audit",
        _audit,
        "leakage between splits, duplicates and label conflicts in any data; exit "
        "code 1: leakage, 2: unusable data",
    )
    verb.set_defaults(error_code=UNUSABLE)
    verb.add_argument(
        "data",
        help="manifest or other CSV, folder of Adience's label files, or prepared "
        "dataset",
    )
    verb.add_argument("--json", metavar="FILE", help="write everything found there")
    verb.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=EXPRESSION",
        help="train=fold_0+fold_1+fold_2, validation=…, test=… [the data's own]",
    )
    verb.add_argument(
        "--no-near",
        dest="near",
        action="store_false",
        help="search for exact duplicates only",
    )
    verb.add_argument(
        "--cache",
        metavar="FILE",
        help="where hashes of pictures are kept [~/.cache/keras_agegender]",
    )
    verb.add_argument("--no-cache", action="store_true", help="keep no hashes")
    adience = verb.add_argument_group("Adience's label files")
    adience.add_argument(
        "--strict",
        action="store_true",
        help="correct labels by the report's Table 0 only",
    )
    adience.add_argument(
        "--keep-partial",
        action="store_true",
        help="keep faces with one usable label",
    )
    columns = verb.add_argument_group("other CSV files")
    add_csv_columns(columns)
    add_age_groups(columns)
