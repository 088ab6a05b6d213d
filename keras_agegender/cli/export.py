"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keras_agegender.cli.checks import check_model
from keras_agegender.cli.console import add_verb, load_frameworks, say
from keras_agegender.serving.model_file import FORMATS, check_new_model

NAMES = {
    "savedmodel": "SavedModel",
    "onnx": "ONNX file",
    "litert": "LiteRT file",
    "litert-int8": "LiteRT file, int8",
}


def _export(arguments: argparse.Namespace) -> int:
    check_model(arguments.run_directory)
    check_new_model(Path(arguments.out), arguments.format, arguments.overwrite)
    load_frameworks()
    from keras_agegender.serving.export import export

    path = export(
        arguments.run_directory,
        arguments.out,
        license=arguments.license,
        format=arguments.format,
        crops=arguments.crops,
        report=say,
        overwrite=arguments.overwrite,
    )
    say(f"{NAMES[arguments.format]}: {path}")
    return 0


def add_export(verbs: Any) -> None:
    """Adds `agegender export`."""
    verb = add_verb(
        verbs,
        "export",
        _export,
        "write a run's best model as SavedModel, ONNX or LiteRT",
    )
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--out", required=True, help="folder or file to make")
    verb.add_argument(
        "--format",
        choices=FORMATS,
        default="savedmodel",
        help="[savedmodel], a folder that finds faces itself; onnx, litert or "
        "litert-int8: a file that takes face crops and needs no TensorFlow",
    )
    verb.add_argument(
        "--crops",
        metavar="FOLDER",
        help="prepared dataset or folder of face crops that a file is compared on "
        "(default: the run's dataset, where it still is)",
    )
    verb.add_argument(
        "--license", metavar="TEXT", help="terms of the weights, kept in the export"
    )
    verb.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there, finished or not",
    )
