"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from keras_agegender.cli.checks import check_model
from keras_agegender.cli.console import add_verb, load_frameworks, say
from keras_agegender.serving.export_folder import check_new_export


def _export(arguments: argparse.Namespace) -> int:
    check_model(arguments.run_directory)
    check_new_export(Path(arguments.out), arguments.overwrite)
    load_frameworks()
    from keras_agegender.serving.export import export

    path = export(arguments.run_directory, arguments.out, overwrite=arguments.overwrite)
    say(f"SavedModel: {path}")
    return 0


def add_export(verbs: Any) -> None:
    """Adds `agegender export`."""
    verb = add_verb(
        verbs, "export", _export, "write a run's best model as a SavedModel"
    )
    verb.add_argument("run_directory", metavar="run")
    verb.add_argument("--out", required=True, help="folder to make")
    verb.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there, finished or not",
    )
