"""The folder of an export: how it is known, and whether one can be made there."""

from __future__ import annotations

from pathlib import Path

from keras_agegender.checksums import check_sizes
from keras_agegender.files import holds

METADATA_FILE = "agegender.json"


def check_new_export(directory: Path, overwrite: bool) -> None:
    """Makes sure that an export can be made in a folder.

    Raises:
        ValueError: If it is a file, holds other things, or holds an export that may not
            be overwritten.
    """
    if holds(directory, METADATA_FILE, "export") and not overwrite:
        raise ValueError(
            f"There is an export in {directory} already. Choose another directory, or "
            "overwrite it (--overwrite)."
        )


def check_export(directory: Path) -> None:
    """Makes sure that a folder holds a SavedModel.

    Raises:
        ValueError: If it does not; it says how to make one.
    """
    if not (directory / "saved_model.pb").is_file():
        raise ValueError(
            f"There is no exported model in {directory}, and no run. Expected what "
            "`agegender export RUN --out MODEL` wrote, or a run."
        )
    check_sizes(directory, "Export the run again (--overwrite).")
