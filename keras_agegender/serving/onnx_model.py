"""An exported ONNX file, answering; ONNX Runtime alone is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.checksums import check_file
from keras_agegender.serving.model_file import (
    METADATA_KEY,
    check_crops,
    needs_export,
    read_metadata,
)


class OnnxModel:
    """Answers about face crops from a file that `export(…, format="onnx")` wrote.

    Args:
        file: The file.
        num_threads: Of ONNX Runtime; `None` (default) is its own choice.

    Attributes:
        metadata: What agegender.json of a SavedModel says.
        crop_size: (height, width) that crops must have; `None`: any.

    Raises:
        ValueError: If ONNX Runtime is not installed, or cannot read the file, or it is
            not what the checksum beside it says.

    Example:
    >>> model = OnnxModel("face.onnx")  # doctest: +SKIP
    >>> model.answer(crops)["age_group"]  # doctest: +SKIP
    array([4])
    """

    crop_size: tuple[int, int] | None = None

    def __init__(self, file: str | Path, num_threads: int | None = None) -> None:
        with needs_export("onnxruntime"):
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        if not Path(file).is_file():
            raise ValueError(f"There is no ONNX file {file}.")
        check_file(Path(file))
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes derive from Exception alone
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"ONNX Runtime cannot load {file}: {reason}") from None
        written = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if written is None:
            raise ValueError(
                f"The file {file} says nothing about its outputs; it is not one that "
                "`agegender export --format onnx` wrote."
            )
        self.metadata: dict[str, Any] = read_metadata(written, file)
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    def answer(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Answers about face crops.

        Args:
            crops: RGB, cut out as the metadata's `pixels` say. Shape (batch, height,
                width, 3), uint8.

        Returns:
            Name of an output or of a decoded answer -> array with a row per crop, as
            the signatures of a SavedModel name them.

        Raises:
            ValueError: If the crops have another shape or type.
        """
        check_crops(crops, self.crop_size)
        values = self._session.run(self._names, {self._input: crops})
        return dict(zip(self._names, values, strict=True))
