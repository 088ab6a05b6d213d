"""Model files, ONNX and LiteRT: their formats, and what both classes share."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keras_agegender.serving.export_folder import check_new_export

# Format -> how its file's name ends; a SavedModel is a folder.
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "litert-int8": ".tflite"}
FORMATS = ("savedmodel", *SUFFIXES)
# Under it agegender.json lies in an ONNX file's `metadata_props`.
METADATA_KEY = "agegender"
MOST_METADATA = 1_000_000  # bytes; a ZIP archive may say a few and hold gigabytes


class ModelFile(Protocol):
    """What `OnnxModel` and `LiteRtModel` have in common."""

    metadata: dict

    @property
    def crop_size(self) -> tuple[int, int] | None:
        """(height, width) that crops must have; `None`: any."""

    def answer(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Answers about uint8 crops of shape (batch, height, width, 3)."""


def check_format(format: str) -> None:
    """Raises ValueError unless a model can be exported in that format."""
    if format not in FORMATS:
        raise ValueError(
            f"Invalid `format`. Expected one of {FORMATS}. Received: format={format!r}."
        )


def check_new_model(target: Path, format: str, overwrite: bool) -> None:
    """Makes sure that an export of a format can be made: a folder or a file.

    Raises:
        ValueError: If there is no such format, or `check_new_export` or
            `check_new_file` says so.
    """
    check_format(format)
    if format == "savedmodel":
        check_new_export(target, overwrite)
    else:
        check_new_file(target, format, overwrite)


def check_new_file(file: Path, format: str, overwrite: bool) -> None:
    """Makes sure that a model file can be written.

    Raises:
        ValueError: If its name does not end as the format's do, it is a folder, or it
            is there and may not be overwritten.
    """
    if file.suffix != SUFFIXES[format]:
        raise ValueError(
            f"Invalid file for format {format!r}. Expected a name that ends in "
            f"{SUFFIXES[format]}. Received: {file}."
        )
    if file.is_dir():
        raise ValueError(f"Invalid file. {file} is a folder. Expected a file to write.")
    if file.exists() and not overwrite:
        raise ValueError(
            f"There is a file {file} already. Choose another name, or overwrite it "
            "(--overwrite)."
        )


def read_metadata(written: str | bytes, file: str | Path) -> dict[str, Any]:
    """Returns what a model file says about itself.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        metadata = json.loads(written)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise ValueError(
            f"The file {file} is damaged: what it says about its outputs is no JSON "
            "object. Export it again."
        )
    return metadata


def check_crops(crops: np.ndarray, size: tuple[int, int] | None) -> None:
    """Raises ValueError unless crops are a batch of RGB pictures of that size."""
    shape = tuple(getattr(crops, "shape", ()))
    kind = getattr(crops, "dtype", type(crops).__name__)
    fits = isinstance(crops, np.ndarray) and crops.dtype == np.uint8
    fits = fits and len(shape) == 4 and shape[3] == 3 and 0 not in shape
    if not fits or size not in (None, shape[1:3]):
        sides = "height, width" if size is None else f"{size[0]}, {size[1]}"
        raise ValueError(
            f"Invalid `crops`. Expected uint8 of shape (batch, {sides}, 3), no side 0. "
            f"Received: {kind} of shape {shape}."
        )


def check_model_file(file: Path, format: str, runtime: str) -> None:
    """Raises ValueError unless a model file is there, and what it is opened with.

    Args:
        file: The file.
        format: What it is called: ONNX or LiteRT.
        runtime: The package that opens it. It is looked for and not imported.
    """
    if not file.is_file():
        raise ValueError(f"There is no {format} file {file}.")
    if importlib.util.find_spec(runtime) is None:
        raise ValueError(_not_installed(runtime))


@contextlib.contextmanager
def needs_export(package: str) -> Iterator[None]:
    """Turns the lack of a package into an error that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ValueError(_not_installed(package)) from None


def _not_installed(package: str) -> str:
    return f"{package} is not installed: pip install 'keras-agegender[export]'."
