"""An exported LiteRT file, answering; LiteRT alone is needed."""

from __future__ import annotations

import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.checksums import check_file
from keras_agegender.quiet import no_standard_error
from keras_agegender.serving.export_folder import METADATA_FILE
from keras_agegender.serving.model_file import (
    MOST_METADATA,
    check_crops,
    needs_export,
    read_metadata,
)


class LiteRtModel:
    """Answers about face crops from a file that `export(…, format="litert")` wrote.

    Args:
        file: The file, in float or int8.
        num_threads: Of LiteRT. Defaults to 1.

    Attributes:
        metadata: What agegender.json of a SavedModel says. It lies in the file as a ZIP
            archive behind the model: `unzip` reads it.
        crop_size: (height, width) that crops must have.

    Raises:
        ValueError: If LiteRT is not installed, or cannot read the file, or it is not
            what the checksum beside it says.

    Example:
    >>> model = LiteRtModel("face.tflite")  # doctest: +SKIP
    >>> model.answer(crops)["age_group"]  # doctest: +SKIP
    array([4])
    """

    def __init__(self, file: str | Path, num_threads: int = 1) -> None:
        if not Path(file).is_file():
            raise ValueError(f"There is no LiteRT file {file}.")
        check_file(Path(file))
        self.metadata: dict[str, Any] = read_metadata(_read_archive(file), file)
        self._interpreter = open_interpreter(file, num_threads)
        # An interpreter has one set of buffers: threads take turns.
        self._alone = threading.Lock()
        self._answer = self._interpreter.get_signature_runner()
        (details,) = self._answer.get_input_details().values()
        self._input = details["name"].removeprefix("serving_default_").split(":")[0]
        height, width = details["shape"][1:3]
        self.crop_size: tuple[int, int] = (int(height), int(width))

    def answer(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Answers about face crops; see `OnnxModel.answer`."""
        check_crops(crops, self.crop_size)
        with self._alone:
            return self._answer(**{self._input: crops})


def _read_archive(file: str | Path) -> bytes:
    """Returns agegender.json, which lies in an archive behind the model."""
    try:
        with (
            zipfile.ZipFile(file) as archive,
            archive.open(METADATA_FILE) as stream,
        ):
            written = stream.read(MOST_METADATA + 1)
    # An archive may say that it is encrypted, or packed as nobody unpacks it.
    except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError, zlib.error):
        written = b""
    if not 0 < len(written) <= MOST_METADATA:
        raise ValueError(
            f"The file {file} says nothing about its outputs, or is damaged; it is not "
            "one that `agegender export --format litert` wrote."
        )
    return written


def open_interpreter(file: str | Path, num_threads: int = 1) -> Any:
    """Returns LiteRT's interpreter of a file; ValueError if it cannot read it."""
    with needs_export("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter
    try:
        with no_standard_error():  # a line about its own delegate, in C++
            interpreter = Interpreter(str(file), num_threads=num_threads)
            interpreter.allocate_tensors()
            return interpreter
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"LiteRT cannot load {file}: {reason}") from None
