"""Commands for data: `prepare` and `audit`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras_agegender as kag
from keras_agegender import files
from keras_agegender.cli import console
from keras_agegender.datasets.readers import (
    READERS,
    AmbiguousColumnError,
    Reader,
    keywords,
    locate_source,
    reader_of_function,
)

LEAKAGE = 1
UNUSABLE = 2


def add_reader_options(parser: argparse.ArgumentParser, reader: Reader) -> None:
    """Adds the inputs and options of a reader."""
    name, text = reader.source
    parser.add_argument(name, metavar=name.upper(), help=text)
    register_types(parser)
    for option in (*reader.options, *reader.split_options):
        option.add(parser)


def register_types(parser: argparse.ArgumentParser) -> None:
    """Registers the argument types that options of readers name."""
    parser.register("type", "share", console.share)
    parser.register("type", "seed", console.seed)


def read_source(reader: Reader, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Returns the manifest and report of a source from parsed options."""
    path = getattr(arguments, reader.source[0])
    options = keywords(reader.options, arguments)
    while True:
        try:
            return reader.read(path, **options)
        except AmbiguousColumnError as question:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            print(question, file=sys.stderr)
            taken = ", ".join(f"{k}={v!r}" for k, v in question.accept.items())
            print(f"Read it with {taken}? [y/N] ", end="", file=sys.stderr, flush=True)
            yes = sys.stdin.readline().strip().lower() in ("y", "yes")
            options |= question.accept if yes else question.decline


def audit_options() -> list[Any]:
    """Returns the options of all readers that draw no splits."""
    return [o for reader in READERS.values() for o in reader.options if o.audit]


def add_all_reader_options(verb: argparse.ArgumentParser) -> None:
    """Adds the options of all readers to a command that takes any data."""
    register_types(verb)
    added: set[str] = set()
    for reader in READERS.values():
        group = verb.add_argument_group(reader.title)
        for option in reader.options:
            if option.audit and option.flag not in added:
                added.add(option.flag)
                option.add(group)


def name_source(argv: Sequence[str]) -> list[str]:
    """Returns `prepare PATH …` with the reader that recognizes the path.

    `prepare MODULE:FUNCTION PATH …` makes a reader of a function elsewhere.
    """
    verb, source, *rest = [*argv, "", ""][: max(len(argv), 2)]
    if verb != "prepare" or source in ("", *READERS) or source.startswith("-"):
        return list(argv)
    path = Path(source)
    if path.exists():
        reader, place = locate_source(path)
        console.say(f"{place}: {reader.title} (agegender prepare {reader.name})")
        return [verb, reader.name, str(place), *rest]
    if re.fullmatch(r"[\w.]+:\w+", source):
        reader = reader_of_function(source)
        READERS[reader.name] = reader
        return [verb, reader.name, *rest]
    if re.search(r"[/\\.]", source):
        raise ValueError(f"File or folder not found: {path}.")
    return list(argv)  # the parser lists the sources


def _prepare(arguments: argparse.Namespace) -> int:
    from keras_agegender.datasets.prepared import PREPARATION_FILE

    # `prepare` checks these too, but only after the labels are read.
    files.check_output_dir(Path(arguments.out), PREPARATION_FILE, "prepared dataset")
    reader = READERS[arguments.source]
    pixels = _pixels(arguments, reader)
    splits = None
    if reader.splits is not None:
        splits = reader.splits(**keywords(reader.split_options, arguments))
    manifest, report = read_source(reader, arguments)
    console.say(str(report))
    prepared = kag.prepare(
        manifest,
        arguments.out,
        splits=splits,
        name=reader.name,
        overwrite=arguments.overwrite,
        **pixels,
    )
    console.say(str(prepared))
    return 0


def _pixels(arguments: argparse.Namespace, reader: Reader) -> dict[str, Any]:
    """Returns the arguments of `prepare` about pixels, those of `--like` if given."""
    if arguments.like is None:
        size = arguments.size, arguments.size
        return {"crop_options": _crop_options(arguments), "output_size": size}
    from keras_agegender.evaluation import own_data

    for option, default in CROP_DEFAULTS.items():
        if getattr(arguments, option) != default:
            flag = f"--{option.replace('_', '-')}"
            raise ValueError(
                f"Invalid {flag}. --like {arguments.like} determines the preprocessing."
            )
    model = own_data.open_model(arguments.like)
    if any(option.dest == "age_groups" for option in reader.options):
        if not hasattr(arguments, "age_groups"):
            arguments.age_groups = model.encoding.age_groups
    return own_data.preparation_arguments(model)


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


def add_prepare(verbs: Any) -> None:
    """Adds `agegender prepare`."""
    verb = console.add_verb(
        verbs,
        "prepare",
        _prepare,
        "label files and images to a prepared dataset of face crops; `prepare PATH` "
        "recognizes the source",
    )
    sources = verb.add_subparsers(title="sources", dest="source", required=True)
    for reader in READERS.values():
        source = sources.add_parser(
            reader.name, help=reader.help, epilog=reader.about or None
        )
        add_reader_options(source, reader)
        _add_crop_options(source)
        source.add_argument("--out", required=True, help="output folder")
        source.add_argument(
            "--overwrite",
            action="store_true",
            help="replace an existing dataset, finished or not",
        )


# The defaults of `_add_crop_options`.
CROP_DEFAULTS = {
    "size": 256, "margin": 0.25, "face_selection": "largest", "fallback": "center",
    "align": False, "pad": False, "no_square": False, "no_crop": False,
}  # fmt: skip


def _add_crop_options(source: argparse.ArgumentParser) -> None:
    source.add_argument(
        "--like",
        metavar="MODEL",
        help="prepare images as a model needs them: a run, an export or a .keras file",
    )
    source.add_argument(
        "--size",
        type=console.pixels,
        default=256,
        help="crop size in pixels [%(default)s]",
    )
    source.add_argument(
        "--margin",
        type=float,
        default=0.25,
        help="margin around the face, as a share of the box size [%(default)s]",
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
        help="without a face: crop the central square, use the whole image, or skip "
        "the image [%(default)s]",
    )
    source.add_argument(
        "--align", action="store_true", help="rotate images until the eyes are level"
    )
    source.add_argument(
        "--pad",
        action="store_true",
        help="center the face; black beyond the edge of the image",
    )
    source.add_argument(
        "--no-square", action="store_true", help="keep the aspect ratio of the face box"
    )
    source.add_argument(
        "--no-crop",
        action="store_true",
        help="use whole images, like the report's Caffe models",
    )


def _audit(arguments: argparse.Namespace) -> int:
    from keras_agegender.datasets.duplicates import check_imagehash, default_cache_file
    from keras_agegender.evaluation.audit import check_options, source_type

    given = keywords(audit_options(), arguments, defaults=False)
    check_options(arguments.data, source_type(arguments.data), given)
    splits = console.read_splits(arguments.split) or None
    if arguments.json and not Path(arguments.json).absolute().parent.is_dir():
        raise ValueError(
            f"Invalid --json. The folder of {arguments.json} does not exist."
        )
    if arguments.near:
        check_imagehash()
    cache = Path(arguments.cache) if arguments.cache else default_cache_file()
    found = kag.audit(
        arguments.data,
        splits=splits,
        near_duplicates=arguments.near,
        cache=None if arguments.no_cache else cache,
        **given,
    )
    console.say(str(found))
    if arguments.json:
        files.write_json(Path(arguments.json), found.to_dict())
    return LEAKAGE if found.leaks else 0


def add_audit(verbs: Any) -> None:
    """Adds `agegender audit`."""
    verb = console.add_verb(
        verbs,
        "audit",
        _audit,
        "leakage between splits, duplicates and label conflicts in any data; exit "
        "code 1: leakage, 2: unusable data",
    )
    verb.set_defaults(error_code=UNUSABLE)
    titles = ", ".join(reader.title for reader in READERS.values())
    verb.add_argument(
        "data", help=f"a prepared dataset, a manifest, or a source: {titles}"
    )
    verb.add_argument("--json", metavar="FILE", help="write all results as JSON")
    text = "train=fold_0+fold_1+fold_2, validation=…, test=… [the dataset's splits]"
    console.add_split_option(verb, text)
    verb.add_argument(
        "--no-near",
        dest="near",
        action="store_false",
        help="search for exact duplicates only",
    )
    verb.add_argument(
        "--cache",
        metavar="FILE",
        help="cache of image hashes [~/.cache/keras_agegender]",
    )
    verb.add_argument("--no-cache", action="store_true", help="do not cache hashes")
    add_all_reader_options(verb)
