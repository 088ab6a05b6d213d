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
    # The heads in the order of the metadata, then the decoded values.
    heads = {name: place for place, name in enumerate(metadata["outputs"])}
    outputs = sorted(
        model.graph.output, key=lambda o: (heads.get(o.name, len(heads)), o.name)
    )
    for output in outputs:
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.ClearField("output")
    model.graph.output.extend(outputs)
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
    """Loads an ONNX file; by default on one thread, as photos run in parallel."""
    model = OnnxModel(file, num_threads or 1)
    if model.takes_photos:
        return model_format.InferenceModel(
            model.metadata, model.predict_photo, takes_photos=True
        )
    return model_format.InferenceModel(model.metadata, model.predict, takes_crops=True)


class OnnxModel:
    """Runs an exported ONNX file on photos or face crops, without TensorFlow.

    Args:
        file: The file.
        num_threads: Threads of ONNX Runtime. Defaults to its own choice.

    Attributes:
        metadata: As agegender.json of a SavedModel.
        crop_size: (height, width) that crops must have; `None`: any.
        takes_photos: Whether the file finds the faces of photos; otherwise it takes
            face crops.

    Raises:
        ValueError: If ONNX Runtime is not installed, cannot read the file, or the file
            does not match the checksum beside it.

    Example:
    >>> model = OnnxModel("model.onnx")  # doctest: +SKIP
    >>> model.predict_photo(image)["age_years"]  # doctest: +SKIP
    array([41.2], dtype=float32)
    """

    crop_size: tuple[int, int] | None = None

    def __init__(self, file: str | Path, num_threads: int | None = None) -> None:
        with model_format.optional_package("onnxruntime"):
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Idle threads that spin take the cores from other sessions and threads.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
        self.takes_photos = self.metadata.get("file", {}).get("input") == "photo"
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
        if self.takes_photos:
            raise ValueError("The file takes photos, not crops. Use `predict_photo`.")
        model_format.check_crops(crops, self.crop_size)
        return self._run(crops)

    def predict_photo(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the predictions for the faces of a photo.

        Args:
            image: RGB, upright, as `kag.faces.read_image` returns it. Shape (height,
                width, 3), uint8.

        Returns:
            As `predict`, and `"boxes"`, `"scores"` and `"landmarks"` in pixels, with a
            row for each face, from left to right.

        Raises:
            ValueError: If the image has another shape or type, or the file takes crops.
        """
        if not self.takes_photos:
            raise ValueError("The file takes crops, not photos. Use `predict`.")
        fits = isinstance(image, np.ndarray) and image.dtype == np.uint8
        if not fits or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            shape = getattr(image, "shape", None)
            dtype = getattr(image, "dtype", type(image).__name__)
            raise ValueError(
                "Invalid `image`. Expected uint8 of shape (height, width, 3). "
                f"Received: {dtype} of shape {shape}."
            )
        return self._run(image)

    def _run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        values = self._session.run(self._names, {self._input: pixels})
        return dict(zip(self._names, values, strict=True))


# Weights of layers from this size on are stored in 8 bits, and from that size on in 16.
INT8_SIZE, FLOAT16_SIZE = 500_000, 1024


def write_compact_onnx(
    bundle: ExportBundle, file: Path, metadata: Mapping[str, Any]
) -> None:
    """Writes an ONNX file of half the size or less, which is as fast once loaded."""
    import onnx

    write_onnx(bundle, file, metadata)
    model = onnx.load(str(file))
    compact_weights(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def compact_weights(model: Any) -> None:
    """Stores weights in 8 and 16 bits; the runtime converts them once, when it loads.

    Weights in 8 bits have a scale for each output channel, the first axis.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights, nodes = [], []
    for weight in model.graph.initializer:
        values, name = numpy_helper.to_array(weight), weight.name
        if values.dtype != np.float32 or values.size < FLOAT16_SIZE:
            weights.append(weight)
            continue
        stored, scale = values.astype("float16"), None
        if values.size >= INT8_SIZE and values.ndim > 1:
            axes = tuple(range(1, values.ndim))
            scale = np.abs(values).max(axis=axes, keepdims=True) / np.float32(127)
            stored = np.rint(values / np.maximum(scale, 1e-30)).astype("int8")
        weights.append(numpy_helper.from_array(stored, f"{name}/stored"))
        cast = name if scale is None else f"{name}/cast"
        nodes.append(
            helper.make_node("Cast", [f"{name}/stored"], [cast], to=TensorProto.FLOAT)
        )
        if scale is not None:
            weights.append(numpy_helper.from_array(scale, f"{name}/scale"))
            nodes.append(helper.make_node("Mul", [cast, f"{name}/scale"], [name]))
    nodes += model.graph.node
    for field, content in (("initializer", weights), ("node", nodes)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(content)
