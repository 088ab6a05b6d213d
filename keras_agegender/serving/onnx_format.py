"""ONNX files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
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
# The oldest operator set that suffices, and that of files that find faces; ONNX Runtime
# reads them since 1.12 and 1.14.
OPSET, PHOTO_OPSET = 17, 18
IMAGE, WHOLE_IMAGE = "image", "whole_image"  # inputs of files that take photos


def write_onnx(bundle: ExportBundle, file: Path, metadata: Mapping[str, Any]) -> None:
    """Writes an ONNX file that takes a photo, or crops, of any size."""
    with model_format.optional_package("onnx"):
        import onnx

    takes_photos = metadata["file"]["input"] == "photo"
    model = (_convert_photo if takes_photos else _convert_crops)(bundle)
    rows = "faces" if takes_photos else "batch"
    dimensions = ("height", "width") if takes_photos else ("batch", "height", "width")
    for dimension, name in enumerate(dimensions):
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_param = name
    # The heads in the order of the metadata, then the decoded values.
    heads = {name: place for place, name in enumerate(metadata["outputs"])}
    outputs = sorted(
        model.graph.output, key=lambda o: (heads.get(o.name, len(heads)), o.name)
    )
    for output in outputs:
        output.type.tensor_type.shape.dim[0].dim_param = rows
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


def _convert_crops(bundle: ExportBundle) -> Any:
    import tensorflow as tf

    from keras_agegender.serving.bundle import CROPS, crop_function

    spec = [tf.TensorSpec((None, None, None, 3), tf.uint8, name=CROPS)]
    return _convert(crop_function(bundle), spec, OPSET)


def _convert_photo(bundle: ExportBundle) -> Any:
    """Returns a model of an image and an optional input `whole_image`."""
    import onnx
    import tensorflow as tf

    from keras_agegender.faces.portable_ops import portable_graph
    from keras_agegender.serving.bundle import photo_function

    spec = [
        tf.TensorSpec((None, None, 3), tf.uint8, name=IMAGE),
        tf.TensorSpec((), tf.bool, name=WHOLE_IMAGE),
    ]
    with portable_graph():
        model = _convert(photo_function(bundle), spec, PHOTO_OPSET)
    share_constants(model.graph)
    # An input that is also an initializer is optional.
    default = onnx.numpy_helper.from_array(np.array(False), WHOLE_IMAGE)
    model.graph.initializer.append(default)
    return model


def share_constants(graph: Any) -> None:
    """Moves the large constants of loops and branches to the graph, equal ones once."""
    names: dict[bytes, str] = {}

    def share(inner: Any, outer: dict[str, str]) -> None:
        renamed, own = dict(outer), []
        for constant in inner.initializer:
            if len(constant.raw_data) < 4 * FLOAT16_SIZE:
                own.append(constant)
                continue
            content = bytes([constant.data_type, *bytes(str(constant.dims), "ascii")])
            content += constant.raw_data
            if content not in names:
                names[content] = constant.name
                graph.initializer.append(constant)
            renamed[constant.name] = names[content]
        inner.ClearField("initializer")
        inner.initializer.extend(own)
        for node in inner.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            for body in _bodies(node):
                share(body, renamed)

    for node in graph.node:
        for body in _bodies(node):
            share(body, {})


def _bodies(node: Any) -> list[Any]:
    """Returns the graphs inside a node: the body of a loop, the branches of an `If`."""
    return [value.g for value in node.attribute if value.HasField("g")]


def _convert(function: Callable[..., Any], spec: list[Any], opset: int) -> Any:
    with model_format.optional_package("tf2onnx"):
        import tf2onnx
    import tensorflow as tf

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it warns, and writes
    model, _ = tf2onnx.convert.from_function(
        tf.function(function, spec, autograph=False),
        spec,
        opset=opset,
        custom_op_handlers={"CropAndResize": (_crop_and_resize, [])},
    )
    return model


def _crop_and_resize(context: Any, node: Any, name: str, args: Any) -> None:
    """Converts `CropAndResize` to `RoiAlign` with one sample for each pixel.

    TensorFlow puts the first and last sample on the edges of a box, `RoiAlign` half a
    step inside: boxes grow by half a step. Samples outside the image get the
    extrapolation value: `RoiAlign` makes them 0, so it is subtracted before and added
    after.
    """
    from tf2onnx import utils

    image, boxes, index, _ = node.input
    side = int(node.inputs[3].get_tensor_value()[0])
    fill = node.get_attr_value("extrapolation_value")
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
    context.remove_node(node.name)

    def op(kind: str, *inputs: str, **attributes: Any) -> str:
        return context.make_node(kind, [*inputs], attr=attributes).output[0]

    def const(value: Any, dtype: str = "float32") -> str:
        made = context.make_const(utils.make_name("const"), np.array(value, dtype))
        return made.output[0]

    def ints(*values: int) -> str:
        return const(values, "int64")

    pixels = op("Cast", op("Transpose", image, perm=[0, 3, 1, 2]), to=_FLOAT)
    size = op("Gather", op("Shape", image), ints(1, 2))
    last_pixel = op("Sub", op("Cast", size, to=_FLOAT), const(1.0))
    # (y, x) of the first and the last sample, and the step between two.
    first = op("Mul", op("Gather", boxes, ints(0, 1), axis=1), last_pixel)
    last = op("Mul", op("Gather", boxes, ints(2, 3), axis=1), last_pixel)
    step = op("Mul", op("Sub", last, first), const(1 / (side - 1)))
    half = op("Mul", step, const(0.5))
    corners = op(
        "Concat",
        op("Add", op("Sub", first, half), const(0.5)),
        op("Add", op("Add", last, half), const(0.5)),
        axis=1,
    )
    sampled = op(
        "RoiAlign",
        op("Sub", pixels, const(fill)),
        op("Gather", corners, ints(1, 0, 3, 2), axis=1),
        op("Cast", index, to=_INT64),
        output_height=side,
        output_width=side,
        spatial_scale=1.0,
        sampling_ratio=1,
        coordinate_transformation_mode="half_pixel",
    )
    steps = op("Mul", op("Unsqueeze", step, ints(2)), const(np.arange(side)))
    places = op("Add", op("Unsqueeze", first, ints(2)), steps)  # (boxes, 2, side)
    inside = op(
        "And",
        op("GreaterOrEqual", places, const(0.0)),
        op("LessOrEqual", places, op("Unsqueeze", last_pixel, ints(1))),
    )
    inside = op("Cast", inside, to=_FLOAT)
    for axis, others in ((0, (1, 3)), (1, (1, 2))):
        mask = op("Gather", inside, const(axis, "int64"), axis=1)
        sampled = op("Mul", sampled, op("Unsqueeze", mask, ints(*others)))
    context.make_node(
        "Transpose",
        [op("Add", sampled, const(fill))],
        attr={"perm": [0, 2, 3, 1]},
        name=name,
        outputs=outputs,
        shapes=shapes,
        dtypes=dtypes,
    )


_FLOAT, _INT64 = 1, 7  # onnx.TensorProto.FLOAT and INT64


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

    def predict_photo(
        self, image: np.ndarray, whole_image: bool = False
    ) -> dict[str, np.ndarray]:
        """Returns the predictions for the faces of a photo.

        Args:
            image: RGB, upright, as `kag.faces.read_image` returns it. Shape (height,
                width, 3), uint8.
            whole_image: Whether to predict the whole image as one face of score 0
                instead of searching faces. Defaults to `False`.

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
        if not whole_image:
            return self._run(image)
        optional = [i.name for i in self._session.get_overridable_initializers()]
        if WHOLE_IMAGE not in optional:
            raise ValueError(
                f"Invalid `whole_image`. The file has no input {WHOLE_IMAGE!r}. Export "
                "the run again, or pass a run, a .keras file or a SavedModel."
            )
        return self._run(image, **{WHOLE_IMAGE: np.array(True)})

    def _run(self, pixels: np.ndarray, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        values = self._session.run(self._names, {self._input: pixels, **inputs})
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

    Weights in 8 bits have a scale for each output channel, the first axis. Those of
    loops and branches stay as they are: rounding would move boxes and change pixels.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights, nodes = [], []
    network = {name for node in model.graph.node for name in node.input}
    for weight in model.graph.initializer:
        values, name = numpy_helper.to_array(weight), weight.name
        small = values.dtype != np.float32 or values.size < FLOAT16_SIZE
        if small or name not in network:
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
