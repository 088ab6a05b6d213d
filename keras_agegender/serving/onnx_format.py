"""ONNX files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_agegender.errors import one_line
from keras_agegender.files import check_file
from keras_agegender.serving import model_format

if TYPE_CHECKING:
    from keras_agegender.serving.bundle import ExportBundle

# Key of the metadata in a file's `metadata_props`.
METADATA_KEY = "agegender"
# The oldest operator set that suffices; ONNX Runtime reads it since 1.12.
OPSET = 17


def write_onnx(bundle: ExportBundle, file: Path, metadata: Mapping[str, Any]) -> None:
    """Writes an ONNX file that takes crops of any size."""
    with model_format.optional_package("onnx"):
        import onnx
    with model_format.optional_package("tf2onnx"):
        import tf2onnx
    import tensorflow as tf

    from keras_agegender.serving.bundle import CROPS, crop_function

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it warns, and writes
    spec = [tf.TensorSpec((None, None, None, 3), tf.uint8, name=CROPS)]
    function = tf.function(crop_function(bundle), spec, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, spec, opset=OPSET)
    for dimension, name in enumerate(("batch", "height", "width")):
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_param = name
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = one_line(error, 300)
        raise ValueError(f"The model cannot be converted to ONNX: {reason}") from None
    text = json.dumps(metadata, ensure_ascii=False)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, str(file))


def open_onnx(
    file: Path, num_threads: int | None = None
) -> model_format.InferenceModel:
    """Loads an ONNX file."""
    model = OnnxModel(file, num_threads)
    return model_format.InferenceModel(model.metadata, model.predict, takes_crops=True)


class OnnxModel:
    """Runs an exported ONNX file on face crops, without TensorFlow.

    Args:
        file: The file.
        num_threads: Threads of ONNX Runtime. Defaults to its own choice.

    Attributes:
        metadata: As agegender.json of a SavedModel.
        crop_size: (height, width) that crops must have; `None`: any.

    Raises:
        ValueError: If ONNX Runtime is not installed, cannot read the file, or the file
            does not match the checksum beside it.

    Example:
    >>> model = OnnxModel("face.onnx")  # doctest: +SKIP
    >>> model.predict(crops)["age_group"]  # doctest: +SKIP
    array([4])
    """

    crop_size: tuple[int, int] | None = None

    def __init__(self, file: str | Path, num_threads: int | None = None) -> None:
        with model_format.optional_package("onnxruntime"):
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        if not Path(file).is_file():
            raise ValueError(f"ONNX file not found: {file}.")
        check_file(Path(file))
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes derive from Exception alone
            reason = one_line(error, 300)
            raise ValueError(f"ONNX Runtime cannot load {file}: {reason}") from None
        written = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if written is None:
            raise ValueError(
                f"The file {file} has no metadata. Expected a file written by "
                "`agegender export --format onnx`."
            )
        self.metadata: dict[str, Any] = model_format.read_metadata(written, file)
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    def predict(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the predictions for face crops.

        Args:
            crops: RGB, cropped as `pixels` of the metadata describes. Shape (batch,
                height, width, 3), uint8.

        Returns:
            Name of an output or decoded value -> array with a row for each crop; the
            names are those of a SavedModel's signatures.

        Raises:
            ValueError: If the crops have another shape or type.
        """
        model_format.check_crops(crops, self.crop_size)
        values = self._session.run(self._names, {self._input: crops})
        return dict(zip(self._names, values, strict=True))
