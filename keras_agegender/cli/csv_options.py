"""A CSV file and how it is read, as options of `prepare csv`, `audit` and scripts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.cli.argument_types import share
from keras_agegender.labels import AGE_GROUP_PRESETS, GAPS, GENDERS

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
    add_sampling_options(source, gaps="mask")


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


def add_sampling_options(source: argparse.ArgumentParser, gaps: str) -> None:
    """Adds ages between groups, age groups, shares of the splits, and duplicates."""
    source.add_argument(
        "--gaps",
        choices=GAPS,
        default=gaps,
        help="ages between two groups: leave the picture out, keep it without an age "
        f"group, or take the nearest group [{gaps}]",
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
    from keras_agegender.datasets.hash_cache import default_cache_file

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
    from keras_agegender.datasets.csv import read_csv
    from keras_agegender.datasets.splits import check_shares

    check_shares(arguments.validation, arguments.test)
    return read_csv(
        arguments.file,
        **csv_columns(arguments),
        age_groups=arguments.age_groups,
        gaps=arguments.gaps,
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
