"""The folder of an export: how it is known, and whether one can be made there."""

from __future__ import annotations

import re
from pathlib import Path

from keras_agegender.checksums import CHECKSUMS_FILE, check_sizes
from keras_agegender.files import holds, partial_directory

# What TensorFlow writes right into the folder of a SavedModel.
SAVED_MODEL_FILES = ("saved_model.pb", "fingerprint.pb", "variables", "assets")
METADATA_FILE = "agegender.json"
# What a process leaves that was killed, or found no room, while it wrote a file: JSON
# of this library's, or what TensorFlow gives its name when it is whole.
HALF_WRITTEN = re.compile(
    r"\.(agegender|checksums)\.\d+\.partial\.json"
    r"|(saved_model|fingerprint)\.pb\.tmp[0-9a-f]+"
)


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
    partial = partial_directory(directory)  # what is in it will be replaced
    known = {METADATA_FILE, CHECKSUMS_FILE, *SAVED_MODEL_FILES}
    names = {entry.name for entry in partial.glob("*")} - known
    foreign = sorted(name for name in names if not HALF_WRITTEN.fullmatch(name))
    if foreign:
        raise ValueError(
            f"{partial} holds other things than an unfinished export: {foreign[0]!r}. "
            "Move them away, or choose another directory."
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
