"""`ModelFormat`: how a format is written, opened and checked."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from keras_agegender.files import file_hash

if TYPE_CHECKING:
    from keras_agegender.serving.bundle import ExportBundle

# Name of an export's metadata: a file of a SavedModel, an entry of a model file.
METADATA_FILE = "agegender.json"
MAX_METADATA_BYTES = 1_000_000  # a ZIP archive may declare a few and hold gigabytes

Outputs: TypeAlias = "dict[str, np.ndarray]"


class InferenceModel(NamedTuple):
    """A loaded model.

    `predict` takes faces of shape (num_faces, height, width, 3): uint8 crops if
    `takes_crops`, of `crop_size` unless it is `None`; otherwise the network's input. It
    returns the outputs of the signature `faces`. If `takes_photos`, it takes one RGB
    image, and `whole_image=True` to predict it as one face, and returns those of
    `photo`. `metadata` is agegender.json.
    """

    metadata: dict[str, Any]
    predict: Callable[..., Outputs]
    takes_crops: bool = False
    crop_size: tuple[int, int] | None = None
    takes_photos: bool = False


class Tolerance(NamedTuple):
    """Tolerance of a file's predictions relative to the Keras model's."""

    largest: float  # difference of any probability of any face
    mean: float  # mean difference of an output's probabilities
    agreement: float  # minimum share of faces with the same class, for every output


@dataclass(frozen=True)
class ModelFormat:
    """A row of `formats.FORMATS`.

    Attributes:
        name: Value of `format` and `--format`.
        title: Name in messages and help.
        open: Loads a model from a path, with a number of threads (`None`: the runtime's
            default).
        suffix: Suffix of a file; empty for a folder.
        runtime: Optional package that opens it.
        recognize: Whether a path is of this format, complete or not. Defaults to a
            comparison of the suffix.
        check: Raises a `ValueError` unless the model is complete, without importing a
            framework. Defaults to a check of the file and the runtime.
        identity: Returns a hash of everything that determines the predictions.
        write: Writes a bundle with its metadata to a path, if `export` has the format.
        tolerance: Tolerance of an exported file; `None` if it must be equal.
        any_crop_size: Whether an exported file takes crops of any size.
        finds_faces: Whether an exported file can find the faces of a photo.
    """

    name: str
    title: str
    open: Callable[[Path, int | None], InferenceModel]
    suffix: str = ""
    runtime: str | None = None
    recognize: Callable[[Path], bool] | None = None
    check: Callable[[Path], object] | None = None
    identity: Callable[[Path], str] = file_hash
    write: Callable[[ExportBundle, Path, Mapping[str, Any]], object] | None = None
    tolerance: Tolerance | None = None
    any_crop_size: bool = False
    finds_faces: bool = False

    def recognizes(self, path: Path) -> bool:
        """Returns whether a path is of this format, complete or not."""
        if self.recognize is not None:
            return self.recognize(path)
        return path.suffix == self.suffix

    def check_complete(self, path: Path) -> None:
        """Raises a `ValueError` unless the model can be opened."""
        if self.check is not None:
            self.check(path)
            return
        if not path.is_file():
            raise ValueError(f"{self.title} not found: {path}.")
        if self.runtime and importlib.util.find_spec(self.runtime) is None:
            raise ValueError(_not_installed(self.runtime))


def read_metadata(written: str | bytes, file: str | Path) -> dict[str, Any]:
    """Returns the metadata of a model file; `ValueError` unless it is a JSON object."""
    try:
        metadata = json.loads(written)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise ValueError(
            f"The file {file} is damaged: its metadata is not a JSON object. Export it "
            "again."
        )
    return metadata


def check_crops(crops: np.ndarray, size: tuple[int, int] | None) -> None:
    """Checks that crops are a batch of RGB images of that size."""
    shape = tuple(getattr(crops, "shape", ()))
    dtype = getattr(crops, "dtype", type(crops).__name__)
    fits = isinstance(crops, np.ndarray) and crops.dtype == np.uint8
    fits = fits and len(shape) == 4 and shape[3] == 3 and 0 not in shape
    if not fits or size not in (None, shape[1:3]):
        sides = "height, width" if size is None else f"{size[0]}, {size[1]}"
        raise ValueError(
            f"Invalid `crops`. Expected uint8 of shape (batch, {sides}, 3) with "
            f"non-empty sides. Received: {dtype} of shape {shape}."
        )


@contextlib.contextmanager
def optional_package(package: str) -> Iterator[None]:
    """Turns a missing package into an error with installation instructions."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ValueError(_not_installed(package)) from None


def _not_installed(package: str) -> str:
    return f"{package} is not installed: pip install 'keras-agegender[export]'."
