"""ONNX files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_agegender.files import check_file
from keras_agegender.serving.bundle import CROPS, ExportBundle, crop_function
from keras_agegender.serving.formats import (
    METADATA_KEY,
    check_crops,
    needs_export,
    read_metadata,
)

# The oldest set of operations with all that is used; ONNX Runtime reads it since 1.12.
OPSET = 17


def write_onnx(served: ExportBundle, file: Path) -> None:
    """Writes the file, without metadata; crops may have any size.

    Args:
        served: What to write.
        file: Its name.

    Raises:
        ValueError: If a package is not installed, or an operation has no counterpart in
            ONNX.
    """
    with needs_export("onnx"):
        import onnx
    with needs_export("tf2onnx"):
        import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it warns, and writes
    spec = [tf.TensorSpec((None, None, None, 3), tf.uint8, name=CROPS)]
    function = tf.function(crop_function(served), spec, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, spec, opset=OPSET)
    for dimension, name in enumerate(("batch", "height", "width")):
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_param = name
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The model cannot be written as ONNX: {reason}") from None
    onnx.save(model, str(file))


def describe_onnx(file: Path, metadata: Mapping[str, Any]) -> None:
    """Puts metadata into an ONNX file."""
    import onnx

    model = onnx.load(str(file))
    text = json.dumps(metadata, ensure_ascii=False)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, str(file))


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
