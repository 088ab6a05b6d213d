"""The table of readers: one row for each source of label files.

`agegender prepare NAME` and `audit` loop over `READERS`. A new reader is one row here
and one module with a function that returns `(manifest, report)`. Rows import their
modules when they are used, so that the command line starts quickly.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from keras_agegender.labels import AGE_GROUP_PRESETS, GENDERS, UNMAPPED_AGES

NO_SPLIT = "all"  # the split of rows that no source assigns to one


class AmbiguousColumnError(ValueError):
    """A column whose meaning must be said, as a wrong guess would not be noticed.

    Attributes:
        accept: Arguments of the reader that take the suggestion.
        decline: Arguments that do not.
    """

    def __init__(
        self, message: str, accept: Mapping[str, Any], decline: Mapping[str, Any]
    ) -> None:
        super().__init__(message)
        self.accept = dict(accept)
        self.decline = dict(decline)


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
        page: Where to get it, and where terms are accepted.
        quirks: What users of the data should know, a sentence each.
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
    page: str = ""
    quirks: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """Citation, terms, source and quirks in one paragraph."""
        terms = f"Terms: {self.terms}" if self.terms else ""
        page = f"From {self.page}" if self.page else ""
        texts = (self.citation, terms, page, *self.quirks)
        return " ".join(f"{text.removesuffix('.')}." for text in texts if text)


def find_reader(path: Path) -> Reader | None:
    """Returns the last row of the table that recognizes a path, or `None`."""
    found = [reader for reader in READERS.values() if reader.recognizes(path)]
    return found[-1] if found else None


def locate_source(path: Path) -> tuple[Reader, Path]:
    """Returns the reader of a path, or of a folder just above or below it.

    Raises:
        ValueError: If no reader recognizes any of them, or readers of several do.
    """
    if not path.exists():
        raise ValueError(f"File or folder not found: {path}.")
    below = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    for places in ((path,), below[:50], (path.absolute().parent,)):
        found = [(reader, p) for p in places if (reader := find_reader(p))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"{p} ({reader.name})" for reader, p in found)
            raise ValueError(f"{path} holds several sources. Choose one: {names}.")
    raise ValueError(
        f"{path} is none of the sources {', '.join(READERS)}, as far as its files "
        "show. If it is one, name it: `agegender prepare NAME PATH`."
    )


def read_dataset(
    path: str | Path, reader: str | None = None, **options: Any
) -> tuple[Any, Any]:
    """Reads a dataset as it is published, which is recognized by its files.

    Args:
        path: Its folder or label file.
        reader: Its name, such as `"fairface"`. `None` (default) recognizes it, also in
            a folder just above or below the path.
        options: Options of the reader, as of `agegender prepare NAME`: `age_groups`,
            `unmapped_ages`, `validation`, `test`, `seed`, `duplicates`, ….

    Returns:
        `(manifest, report)`.

    Raises:
        ValueError: If the files are of no known dataset, or damaged.

    Example:
    >>> manifest, report = read_dataset("data/FGNET")  # doctest: +SKIP
    """
    if reader is None:
        found, path = locate_source(Path(path))
    elif reader in READERS:
        found = READERS[reader]
    else:
        raise ValueError(
            f"Invalid `reader`. Expected one of {', '.join(READERS)}. Received: "
            f"{reader!r}."
        )
    return found.read(path, **options)


def reader_of_function(name: str) -> Reader:
    """Returns a row for `"module:function"`, which yields the faces of a path.

    The module is also searched in the current folder.
    """
    module, _, attribute = name.partition(":")
    try:
        if "" not in sys.path:
            sys.path.insert(0, "")
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"Invalid source {name!r}. Expected a reader or the function of a module "
            f"that can be imported: {error}."
        ) from error
    return _faces_reader(
        function,
        name=re.sub(r"\W", "_", module.rpartition(".")[2]),
        title=f"faces that {name} reads",
        help=f"what {name} reads",
        source=("path", "what the function reads"),
        recognizes=lambda path: False,
        options=_LABELED,
    )


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


_LABELED = (_unmapped_ages("mask"), *_DRAWN_SPLITS, _AGE_GROUPS)
_IMAGES = Option(
    "--images",
    "images_dir",
    {"help": "folder that the listed images start from [found near the label file]"},
)


def _faces_reader(
    faces: Callable[..., Any], defaults: Mapping[str, Any] | None = None, **row: Any
) -> Reader:
    """Returns a row whose function yields labeled faces; splits are drawn for it."""

    def read(path: str | Path, *, as_is: bool = False, **options: Any) -> Any:
        common = {o.keyword for o in _LABELED}
        own = {k: v for k, v in options.items() if k not in common}
        base = Path(own.get("images_dir") or path)
        return _function("readers.labeled_faces", "read_labeled_faces")(
            faces(path, **own),
            base.parent if base.is_file() else base,
            source=row["name"],
            as_is=as_is,
            **(defaults or {}),
            **{k: v for k, v in options.items() if k in common},
        )

    def read_as_is(path: str | Path, **options: Any) -> Any:
        return read(path, as_is=True, **options)

    return Reader(read=read, read_as_is=read_as_is, **row)


def _named_files(name: str, **row: Any) -> Reader:
    """Returns a row of a dataset whose file names hold the labels."""
    read = _function("readers.file_names", "read_file_names")
    recognizes = _function("readers.file_names", "has_file_names")
    return _faces_reader(
        lambda path: read(path, name),
        name=name,
        recognizes=lambda path: recognizes(path, name),
        options=_LABELED,
        **row,
    )


def _label_files(
    name: str, own: Sequence[Option] = (), common: Sequence[Option] = (), **row: Any
) -> Reader:
    """Returns a row of a dataset with CSV files of labels."""
    read = _function("readers.label_files", "read_label_files")
    find = _function("readers.label_files", "find_label_files")
    return _faces_reader(
        lambda path, **options: read(path, name, **options),
        name=name,
        recognizes=lambda path: bool(find(path, name)),
        options=(_IMAGES, *own, *(common or _LABELED)),
        **row,
    )


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
    return _function("readers.file_names", "read_utkface")(
        directory, as_is=True, **options
    )


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
        file, **{"assume_yes": True, **options}
    )
    return manifest if has_splits else manifest.assign(split=NO_SPLIT), report


READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        # It takes any file, and the last row that recognizes one reads it.
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
                Option(
                    "--ignore-columns",
                    "ignore_columns",
                    {
                        "nargs": "+",
                        "metavar": "COLUMN",
                        "help": "columns that are not used",
                    },
                ),
                Option(
                    "--age-values",
                    "age_values",
                    {
                        "choices": ("years", "ids"),
                        "help": "what numbers in the age column are: years, or ids of "
                        "the age groups [years; asked for if they may be ids]",
                    },
                ),
                Option(
                    "--invalid",
                    "invalid",
                    {
                        "choices": ("error", "drop"),
                        "help": "rows with an invalid value, such as an age of 200: "
                        "stop and list them, or drop and list them [error]",
                    },
                ),
                Option(
                    "--yes",
                    "assume_yes",
                    {
                        "action": "store_true",
                        "help": "take a column that may identify people as the "
                        "subject, and numbers that may be ids as ids",
                    },
                    audit=False,
                ),
                _unmapped_ages("mask"),
                *_DRAWN_SPLITS,
                _AGE_GROUPS,
            ),
        ),
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
            page="https://talhassner.github.io/home/projects/Adience/Adience-data.html",
        ),
        Reader(
            name="utkface",
            title="UTKFace's images",
            help="UTKFace by its file names",
            source=("images", "folder with <age>_<gender>_<race>_… files"),
            read=_function("readers.file_names", "read_utkface"),
            read_as_is=_read_utkface_as_is,
            recognizes=lambda path: _function("readers.file_names", "has_file_names")(
                path, "utkface"
            ),
            options=(_unmapped_ages("drop"), *_DRAWN_SPLITS, _AGE_GROUPS),
            citation="Zhang, Song & Qi, Age Progression/Regression by Conditional "
            "Adversarial Autoencoder, CVPR 2017",
            terms="non-commercial research",
            page="https://susanqq.github.io/UTKFace/",
        ),
        Reader(
            name="celeba",
            title="CelebA's lists",
            help="CelebA from a local folder",
            source=("images", "folder with list_attr_celeba.txt, …"),
            read=_read_celeba_folder,
            read_as_is=_read_celeba_as_is,
            recognizes=_function("readers.celeba", "is_celeba"),
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
            page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        ),
        _named_files(
            "afad",
            title="AFAD's images",
            help="Asian Face Age Dataset by its folders",
            source=("images", "folder with <age>/111 (male) and <age>/112 (female)"),
            citation="Niu et al., Ordinal Regression with Multiple Output CNN for Age "
            "Estimation, CVPR 2016",
            terms="academic research",
            page="https://github.com/afad-dataset/tarball, in parts that are joined",
            quirks=(
                "Ages are from birth dates that members of a social network gave",
                "It does not identify people, so one may be in two splits",
            ),
        ),
        _named_files(
            "all_age_faces",
            title="All-Age-Faces' images",
            help="All-Age-Faces by its file names",
            source=("images", "folder with <number>A<age>.jpg files"),
            citation="Cheng et al., Exploiting Effective Facial Patches for Robust "
            "Gender Recognition, Tsinghua Science and Technology 2019",
            terms="research; asks to be cited",
            page="https://github.com/JingchunCheng/All-Age-Faces-Dataset",
            quirks=(
                "Images up to number 07380 show women, the others men",
                "Of the same face as original and aligned image, the original is used",
            ),
        ),
        _named_files(
            "fgnet",
            title="FG-NET's images",
            help="FG-NET by its file names",
            source=("images", "folder with <person>A<age>.JPG files"),
            citation="Panis et al., Overview of Research on Facial Ageing Using the "
            "FG-NET Ageing Database, IET Biometrics 2016",
            terms="research",
            page="https://yanweifu.github.io/FG_NET_data/",
            quirks=("1,002 images of 82 people; gender is not labeled",),
        ),
        _named_files(
            "agedb",
            title="AgeDB's images",
            help="AgeDB by its file names",
            source=("images", "folder with <number>_<person>_<age>_<f or m>.jpg files"),
            citation="Moschoglou et al., AgeDB: The First Manually Collected, "
            "In-the-Wild Age Database, CVPR Workshops 2017",
            terms="non-commercial research; the password is sent after a request from "
            "a university",
            page="https://ibug.doc.ic.ac.uk/resources/agedb/",
        ),
        _named_files(
            "cacd",
            title="CACD2000's images",
            help="CACD2000 by its file names",
            source=("images", "folder with <age>_<person>_<number>.jpg files"),
            citation="Chen, Chen & Hsu, Cross-Age Reference Coding for Age-Invariant "
            "Face Recognition and Retrieval, ECCV 2014",
            terms="as its page says",
            page="https://bcsiriuschen.github.io/CARC/",
            quirks=(
                "An age is the year of the search result less the year of birth, so "
                "many are wrong by a year and some by much more",
                "Gender is not labeled",
            ),
        ),
        _label_files(
            "fairface",
            title="FairFace's label files",
            help="FairFace's CSV files",
            source=("labels", "CSV file, or folder with fairface_label_train.csv …"),
            own=(),
            common=_DRAWN_SPLITS,
            defaults={"age_groups": "fairface"},
            citation="Karkkainen & Joo, FairFace: Face Attribute Dataset for Balanced "
            "Race, Gender, and Age, WACV 2021",
            terms="CC BY 4.0",
            page="https://github.com/joojs/fairface",
            quirks=(
                "Ages are nine groups; copies in which a spreadsheet made dates of "
                "3-9 and 10-19 are read",
                "The copy on Hugging Face has class ids, as CSV they are read too",
                "Images are face crops: --no-crop uses them as they are",
                "Its list val is the split validation",
                "service_test says which faces were in a test of services; it is not "
                "used",
            ),
        ),
        _label_files(
            "lagenda",
            title="LAGENDA's label file",
            help="LAGENDA's CSV file",
            source=("labels", "lagenda_annotation.csv, or its folder"),
            citation="Kuprashevich & Tolstykh, MiVOLO: Multi-input Transformer for Age "
            "and Gender Estimation, AIST 2023",
            terms="as its page says; images are from Open Images, listed as CC BY 2.0",
            page="https://wildchlamydia.github.io/lagenda/",
            quirks=(
                "Each row is a person: faces are cropped by their boxes",
                "Rows without age and gender, three of four, only have a box of the "
                "person and are dropped, as are people without a visible face",
            ),
        ),
        _label_files(
            "appa_real",
            title="APPA-REAL's label files",
            help="APPA-REAL's CSV files",
            source=("labels", "folder with gt_avg_train.csv …, or one of them"),
            own=(
                Option(
                    "--age-label",
                    "age_label",
                    {
                        "choices": ("apparent", "real"),
                        "help": "which age is the label; the other one stays as a "
                        "column [apparent]",
                    },
                ),
                Option(
                    "--face-crops",
                    "crops",
                    {
                        "action": "store_true",
                        "help": "use the crops …_face.jpg beside the images",
                    },
                ),
            ),
            citation="Agustsson et al., Apparent and Real Age Estimation in Still "
            "Images with Deep Residual Regressors on APPA-REAL, FG 2017",
            terms="research",
            page="https://chalearnlap.cvc.uab.cat/dataset/26/description/",
            quirks=(
                "The apparent age is the mean of about 38 guesses; their number and "
                "spread are not used",
                "Gender is in other files and not read",
            ),
        ),
        _faces_reader(
            _function("readers.label_files", "read_morph"),
            name="morph",
            title="MORPH's labels",
            help="MORPH's CSV file, or images by their names",
            source=("labels", "the CSV file, or a folder of images"),
            recognizes=_function("readers.label_files", "is_morph"),
            options=(_IMAGES, *_LABELED),
            citation="Ricanek & Tesafaye, MORPH: A Longitudinal Image Database of "
            "Normal Adult Age-Progression, FG 2006",
            terms="by an agreement with the University of North Carolina Wilmington",
            page="https://uncw.edu/oic/tech/morph.html, where it is requested",
            quirks=(
                "id_num says who is shown: nobody is in two splits. picture_num, "
                "dates and age_diff are not used",
            ),
        ),
        _faces_reader(
            _function("readers.imdb_wiki", "read_imdb_wiki"),
            name="imdb_wiki",
            title="IMDB-WIKI's MATLAB files",
            help="IMDB-WIKI by imdb.mat and wiki.mat",
            source=("labels", "imdb.mat or wiki.mat, or their folder"),
            recognizes=lambda path: bool(
                _function("readers.imdb_wiki", "find_mat_files")(path)
            ),
            options=(
                Option(
                    "--several-faces",
                    "several_faces",
                    {
                        "action": "store_true",
                        "help": "keep images in which the authors found a second face",
                    },
                ),
                *_LABELED,
            ),
            citation="Rothe, Timofte & Van Gool, DEX: Deep EXpectation of Apparent Age "
            "from a Single Image, ICCV Workshops 2015",
            terms="academic research",
            page="https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/",
            quirks=(
                "An age is the photo's year, in July, less the date of birth; "
                "impossible ones are counted and dropped",
                "Images without a face, and those with a second one, are dropped",
                "Faces of whole images are cropped by the published boxes",
                "Labels are noisy: often another person is shown",
            ),
        ),
        _faces_reader(
            _function("readers.label_files", "read_lfw"),
            name="lfw",
            title="LFW's lists of names",
            help="gender of LFW by two lists of names",
            source=("images", "folder with male_names.txt and female_names.txt"),
            recognizes=_function("readers.label_files", "is_lfw"),
            options=_LABELED,
            citation="Huang et al., Labeled Faces in the Wild, UMass Amherst 07-49, "
            "2007; lists: Afifi & Abdelhamed, AFIF4, JVCIR 2019",
            terms="research",
            page="https://vis-www.cs.umass.edu/lfw/",
            quirks=(
                "Four images are in both lists and four in neither: they are dropped",
                "Age is not labeled",
            ),
        ),
    )
}
