"""Options for CSV files that several verbs have."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.labels import AGE_GROUP_PRESETS, GENDERS


def add_csv_columns(verb: Any) -> None:
    """Adds which columns are what, and what values of the gender column mean."""
    verb.add_argument("--image-column", help="picture files [image, file, path]")
    verb.add_argument("--age-column", help="years or groups [age, age_group]")
    verb.add_argument("--gender-column", help="[gender, sex]")
    verb.add_argument("--subject-column", help="who it is [subject, identity, person]")
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


def csv_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what `add_csv_columns` read, as `read_csv` takes it."""
    return {
        "image_column": arguments.image_column,
        "age_column": arguments.age_column,
        "gender_column": arguments.gender_column,
        "subject_column": arguments.subject_column,
        "split_column": arguments.split_column,
        "images_dir": arguments.images,
        "gender_values": {
            value: gender for gender in GENDERS for value in getattr(arguments, gender)
        },
    }
