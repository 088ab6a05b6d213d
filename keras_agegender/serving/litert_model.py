"""An exported LiteRT file, answering; LiteRT alone is needed."""

from __future__ import annotations

import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.quiet import no_standard_error
from keras_agegender.serving.export_folder import METADATA_FILE
from keras_agegender.serving.model_file import check_crops, needs_export


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
        ValueError: If LiteRT is not installed, or cannot read the file.

    Example:
    >>> model = LiteRtModel("face.tflite")  # doctest: +SKIP
    >>> model.answer(crops)["age_group"]  # doctest: +SKIP
    array([4])
    """

    def __init__(self, file: str | Path, num_threads: int = 1) -> None:
        if not Path(file).is_file():
            raise ValueError(f"There is no LiteRT file {file}.")
        try:
            with zipfile.ZipFile(file) as archive:
                written = archive.read(METADATA_FILE)
        except (zipfile.BadZipFile, KeyError):
            raise ValueError(
                f"The file {file} says nothing about its outputs; it is not one that "
                "`agegender export --format litert` wrote."
            ) from None
        self.metadata: dict[str, Any] = json.loads(written)
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
