"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keras_agegender.cli.console import add_verb, read_splits, say
from keras_agegender.cli.csv_options import (
    add_age_groups,
    add_csv_columns,
    csv_columns,
)

LEAKAGE = 1
UNUSABLE = 2


def _audit(arguments: argparse.Namespace) -> int:
    from keras_agegender.datasets.face_table import kind_of
    from keras_agegender.datasets.near_duplicates import check_imagehash

    kind = kind_of(arguments.data)
    options = _reader_options(arguments, kind)
    splits = read_splits(arguments.split) or None
    if arguments.json and not Path(arguments.json).absolute().parent.is_dir():
        raise ValueError(f"There is no folder for --json {arguments.json}.")
    if arguments.near:
        check_imagehash()

    from keras_agegender.datasets.hash_cache import default_cache_file
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
