"""The table of readers: one row for each source of label files.

`agegender prepare NAME` and `audit` loop over `READERS`. A new reader is one row here
and one module with a function that returns `(manifest, report)`. Rows import their
modules when they are used, so that the command line starts quickly.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from keras_agegender.labels import AGE_GROUP_PRESETS, GENDERS, UNMAPPED_AGES

NO_SPLIT = "all"  # the split of rows that no source assigns to one


@dataclass(frozen=True)
class Option:
    """A command-line option of a reader.

    Args:
        flag: Its name, `"--strict"` for instance.
        keyword: The keyword argument of the reader that it sets.
        settings: Further arguments of `ArgumentParser.add_argument`. Its `type` may be
            `"share"` or `"seed"`, which the command line defines.
        convert: Turns what was parsed into the argument. Dicts of several options with
            one keyword are merged.
        default: Called for the argument where the option is absent.
        audit: Whether `audit`, which draws no splits, has it too. Defaults to `True`.
    """

    flag: str
    keyword: str
    settings: Mapping[str, Any]
    convert: Callable[[Any], Any] | None = None
    default: Callable[[], Any] | None = None
    audit: bool = True

    @property
    def dest(self) -> str:
        """Name of the attribute that the parser sets."""
        return self.flag.lstrip("-").replace("-", "_")

    def add(self, parser: Any) -> None:
        """Adds the option to a parser; without a default."""
        parser.add_argument(self.flag, default=argparse.SUPPRESS, **self.settings)


@dataclass(frozen=True)
class Reader:
    """How one source of label files is recognized and read.

    Args:
        name: What `agegender prepare` calls it.
        title: What `audit` calls it, such as `"a CSV file"`.
        help: One line for `--help`.
        source: (name, help) of the file or folder to read.
        read: Takes that path and the options' keywords; returns `(manifest, report)`.
        recognizes: Whether a path, by its content, is of this source.
        options: Its command-line options.
        read_as_is: As `read`, for `audit`: draws no splits and accepts a subject in
            two of them. Defaults to `read`.
        splits: Returns the splits to declare, from the keywords of `split_options`.
            Defaults to those of the manifest.
        split_options: Command-line options of `splits`.
        citation: Where the data was published.
        terms: What its owners allow.
    """

    name: str
    title: str
    help: str
    source: tuple[str, str]
    read: Callable[..., tuple[Any, Any]]
    recognizes: Callable[[Path], bool]
    options: tuple[Option, ...] = ()
    read_as_is: Callable[..., tuple[Any, Any]] | None = None
    splits: Callable[..., Mapping[str, str]] | None = None
    split_options: tuple[Option, ...] = ()
    citation: str = ""
    terms: str = ""


def find_reader(path: Path) -> Reader | None:
    """Returns the last row of the table that recognizes a path, or `None`."""
    found = [reader for reader in READERS.values() if reader.recognizes(path)]
    return found[-1] if found else None


def keywords(
    options: Sequence[Option], arguments: argparse.Namespace, *, defaults: bool = True
) -> dict[str, Any]:
    """Returns keyword arguments from parsed options."""
    found: dict[str, Any] = {}
    for option in options:
        if hasattr(arguments, option.dest):
            value = getattr(arguments, option.dest)
            value = option.convert(value) if option.convert else value
            if isinstance(value, dict) and isinstance(found.get(option.keyword), dict):
                value = found[option.keyword] | value
            found[option.keyword] = value
    for option in options if defaults else ():
        if option.default is not None and option.keyword not in found:
            found[option.keyword] = option.default()
    return found


def _function(module: str, name: str) -> Callable[..., Any]:
    """Returns a function of a module here, which is imported when it is called."""
    return lambda *args, **kwargs: getattr(
        import_module(f"keras_agegender.datasets.{module}"), name
    )(*args, **kwargs)


class _ExtraColumns(argparse.Action):
    """Collects the columns of one `--extra` or several; possibly empty.

    The option takes everything up to the next one. A file behind it would be taken for
    a column, and the parser would say that the file is missing.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Adds columns; rejects a file name."""
        for value in values if namespace.file is None else ():
            if Path(value).is_file() or Path(value).suffix in (".csv", ".tsv", ".txt"):
                parser.error(
                    f"argument {option_string}: expected columns. Received a file, "
                    f"{value!r}: put FILE before {option_string}"
                )
        columns = [*getattr(namespace, self.dest, ()), *values]
        setattr(namespace, self.dest, columns)


def _extra_columns(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads `--extra COLUMN[:TYPE[:CLASS,…]] …`."""
    columns = {}
    for text in texts:
        name, head_type, classes = [*text.split(":", 2), "", ""][:3]
        names = [part.strip() for part in classes.split(",")] if classes else []
        columns[name] = {"kind": head_type or None, "classes": names}
    return columns


def _values_of(gender: str) -> Callable[[list[str]], dict[str, str]]:
    return lambda values: dict.fromkeys(values, gender)


def _column(role: str, text: str) -> Option:
    return Option(f"--{role}-column", f"{role}_column", {"help": text})


_AGE_GROUPS = Option(
    "--age-groups",
    "age_groups",
    {
        "metavar": "GROUPS",
        "help": f"{', '.join(AGE_GROUP_PRESETS)}, or ranges such as 0-17,18-64,65+ "
        "[adience]",
    },
)
_DRAWN_SPLITS = (
    Option(
        "--validation",
        "validation",
        {
            "type": "share",
            "metavar": "SHARE",
            "help": "of subjects that validate [0.1]",
        },
        audit=False,
    ),
    Option(
        "--test",
        "test",
        {"type": "share", "metavar": "SHARE", "help": "of subjects that test [0.1]"},
        audit=False,
    ),
    Option(
        "--seed",
        "seed",
        {"type": "seed", "help": "seed of the splits [0]"},
        audit=False,
    ),
    Option(
        "--duplicates",
        "duplicates",
        {
            "choices": ("exact", "near"),
            "help": "images of the same bytes, or that also look the same, are never "
            "in two splits: drawn splits keep them together; if a file has splits, "
            "training loses them [exact where drawn; a file's splits stay]",
        },
        audit=False,
    ),
    Option(
        "--cache",
        "cache",
        {"metavar": "FILE", "help": "hashes of images [~/.cache/keras_agegender]"},
        default=_function("duplicates", "default_cache_file"),
        audit=False,
    ),
    Option(
        "--no-cache",
        "cache",
        {"action": "store_true", "help": "store no hashes"},
        convert=lambda _: None,
        audit=False,
    ),
)


def _unmapped_ages(default: str) -> Option:
    return Option(
        "--unmapped-ages",
        "unmapped_ages",
        {
            "choices": UNMAPPED_AGES,
            "help": "ages between two groups: drop the face, mask its age group, or "
            f"use the nearest group [{default}]",
        },
    )


def _is_utkface(path: Path) -> bool:
    name = re.compile(r"\d{1,3}_[01]_[0-4]_\d+\..*", re.ASCII)
    folders = (path, *filter(Path.is_dir, path.iterdir())) if path.is_dir() else ()
    return any(name.fullmatch(f.name) for folder in folders for f in folder.iterdir())


def _read_adience_folder(labels_dir: str | Path, **options: Any) -> tuple[Any, Any]:
    """Reads images from the folder of the label files, unless told otherwise."""
    return _function("readers.adience", "read_adience")(
        labels_dir, **{"images_dir": labels_dir, **options}
    )


def _read_adience_as_is(labels_dir: str | Path, **options: Any) -> tuple[Any, Any]:
    """Reads labels without images if the folder has no images."""
    found = any((Path(labels_dir) / tree).is_dir() for tree in ("faces", "aligned"))
    if found:
        options = {"images_dir": labels_dir, **options}
    return _function("readers.adience", "read_adience")(
        labels_dir, shared_subjects=True, **options
    )


def _adience_splits(test_fold: int | None = None) -> Mapping[str, str]:
    if test_fold is None:
        return _function("splits", "report_splits")()
    return _function("splits", "cross_validation_splits")(test_fold)


def _read_utkface_as_is(directory: str | Path, **options: Any) -> tuple[Any, Any]:
    manifest, report = _function("readers.utkface", "read_utkface")(
        directory, validation=0, test=0, **options
    )
    return manifest.assign(split=NO_SPLIT), report


def _read_celeba_folder(
    directory: str | Path, download: bool = False, tfds_dir: str | Path | None = None
) -> tuple[Any, Any]:
    """Fills the folder from TensorFlow Datasets first, if asked to."""
    if download:
        _function("readers.celeba", "write_celeba_from_tfds")(
            directory, data_dir=tfds_dir
        )
    return _function("readers.celeba", "read_celeba")(directory)


def _read_celeba_as_is(directory: str | Path) -> tuple[Any, Any]:
    return _function("readers.celeba", "read_celeba")(directory, shared_subjects=True)


def _read_csv_as_is(file: str | Path, **options: Any) -> tuple[Any, Any]:
    manifest, report, has_splits = _function("readers.csv", "read_csv_as_is")(
        file, **options
    )
    return manifest if has_splits else manifest.assign(split=NO_SPLIT), report


READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader(
            name="adience",
            title="Adience's label files",
            help="Adience's five fold files",
            source=("labels", "folder with fold_0_data.txt …"),
            read=_read_adience_folder,
            read_as_is=_read_adience_as_is,
            recognizes=lambda path: (path / "fold_0_data.txt").exists(),
            options=(
                Option(
                    "--images",
                    "images_dir",
                    {"help": "folder with faces/ or aligned/ [labels]"},
                ),
                Option(
                    "--tree",
                    "tree",
                    {
                        "choices": ("auto", "faces", "aligned"),
                        "help": "which images; auto: faces/ if it exists [auto]",
                    },
                ),
                Option(
                    "--strict",
                    "strict",
                    {
                        "action": "store_true",
                        "help": "correct labels by the report's Table 0 only",
                    },
                ),
                Option(
                    "--require-labels",
                    "require_labels",
                    {
                        "choices": ("both", "any"),
                        "help": "which usable labels a face must have; an unusable one "
                        "is masked [both]",
                    },
                ),
            ),
            splits=_adience_splits,
            split_options=(
                Option(
                    "--test-fold",
                    "test_fold",
                    {
                        "type": int,
                        "help": "cross-validation: this fold tests, the next validates",
                    },
                ),
            ),
            citation="Eidinger, Enbar & Hassner, Age and Gender Estimation of "
            "Unfiltered Faces, IEEE TIFS 2014",
            terms="research, on request",
        ),
        Reader(
            name="utkface",
            title="UTKFace's images",
            help="UTKFace by its file names",
            source=("images", "folder with <age>_<gender>_<race>_… files"),
            read=_function("readers.utkface", "read_utkface"),
            read_as_is=_read_utkface_as_is,
            recognizes=_is_utkface,
            options=(_unmapped_ages("drop"), *_DRAWN_SPLITS, _AGE_GROUPS),
            citation="Zhang, Song & Qi, Age Progression/Regression by Conditional "
            "Adversarial Autoencoder, CVPR 2017",
            terms="non-commercial research",
        ),
        Reader(
            name="celeba",
            title="CelebA's lists",
            help="CelebA from a local folder",
            source=("images", "folder with list_attr_celeba.txt, …"),
            read=_read_celeba_folder,
            read_as_is=_read_celeba_as_is,
            recognizes=lambda path: (path / "list_attr_celeba.txt").exists(),
            options=(
                Option(
                    "--download",
                    "download",
                    {
                        "action": "store_true",
                        "help": "fill the folder from TensorFlow Datasets first",
                    },
                    audit=False,
                ),
                Option(
                    "--tfds-dir",
                    "tfds_dir",
                    {"help": "where TensorFlow Datasets stores its data"},
                    audit=False,
                ),
            ),
            citation="Liu, Luo, Wang & Tang, Deep Learning Face Attributes in the "
            "Wild, ICCV 2015",
            terms="non-commercial research",
        ),
        Reader(
            name="csv",
            title="a CSV file",
            help="any CSV file with a column of images",
            source=("file", "the CSV file; it stands before --extra"),
            read=_function("readers.csv", "read_csv"),
            read_as_is=_read_csv_as_is,
            recognizes=Path.is_file,
            options=(
                _column("image", "image files [image, file, path, filename]"),
                _column("age", "years or groups [age, age_group, age_years]"),
                _column("gender", "female and male [gender, sex]"),
                _column("subject", "who is shown [subject, identity, person]"),
                _column("album", "album or photographer of the image [album]"),
                _column("split", "train, validation or test [split]"),
                Option(
                    "--box-columns",
                    "box_columns",
                    {
                        "nargs": 4,
                        "metavar": "COLUMN",
                        "help": "the row's face in pixels: left top right bottom, or "
                        "x y w h; each row is a face of its own [face_x0 … face_y1, "
                        "x y w h, …]",
                    },
                ),
                Option(
                    "--landmark-columns",
                    "landmark_columns",
                    {
                        "nargs": 10,
                        "metavar": "COLUMN",
                        "help": "x and y of left eye, right eye, nose, left and right "
                        "mouth corner, with a box [lefteye_x … rightmouth_y]",
                    },
                ),
                Option(
                    "--images",
                    "images_dir",
                    {"help": "folder that relative image files start from [the CSV's]"},
                ),
                *(
                    Option(
                        f"--{gender}",
                        "gender_values",
                        {
                            "action": "append",
                            "metavar": "VALUE",
                            "help": f"a value of the gender column for {gender}",
                        },
                        convert=_values_of(gender),
                    )
                    for gender in GENDERS
                ),
                Option(
                    "--extra",
                    "extra",
                    {
                        "action": _ExtraColumns,
                        "nargs": "*",
                        "metavar": "COLUMN[:TYPE[:CLASSES]]",
                        "help": "columns that become outputs: "
                        "size:coral:small,medium,large; several, or --extra again; "
                        "without a column: no outputs [all whose type is evident]",
                    },
                    convert=_extra_columns,
                    audit=False,
                ),
                Option(
                    "--keep-columns",
                    "keep_columns",
                    {
                        "nargs": "+",
                        "metavar": "COLUMN",
                        "help": "metadata columns that are no outputs, to group faces "
                        "by (evaluate --by, compare --by)",
                    },
                    audit=False,
                ),
                _unmapped_ages("mask"),
                *_DRAWN_SPLITS,
                _AGE_GROUPS,
            ),
        ),
    )
}
