"""What an export contains: network, preprocessing, calibration and signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_agegender.datasets.pipeline import get_pipeline_preset
from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import ANSWER, Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.geometry import full_box, resize_matrix
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.faces.preprocessing_graph import PhotoFaces, PreprocessingGraph
from keras_agegender.files import now, read_json, versions
from keras_agegender.labels import GENDERS, MISSING
from keras_agegender.models.augmentation import strip_augmentation
from keras_agegender.models.inference import fold_for_inference
from keras_agegender.models.weights import load_model, stored_encoding
from keras_agegender.run_directory import RunDirectory, find_checkpoint
from keras_agegender.serving.predictions import DECODED_NAMES, SET_NAMES

# Output of `photos`: how many faces were found in each photo.
COUNTS = "counts"


def serving_functions(
    model: keras.Model,
    encoding: Encoding,
    graph: PreprocessingGraph,
    calibration: Calibration | None = None,
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns the functions behind the signatures, by name.

    `faces` takes crops as they are stored and resizes them; `inputs` takes the resized
    ones, which `Predictor` keeps until their batch is full.
    """
    path = graph.spec
    shape = (None, *graph.image_size, 3)

    def inputs(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = _named_outputs(model(inputs, training=False), encoding)
        if calibration is not None:
            outputs = calibration.apply(outputs, encoding)
        named = dict(outputs)
        decoded = encoding.decode(outputs)
        if calibration is not None:
            for field, members in calibration.sets(decoded)._asdict().items():
                if members is not None:
                    named[SET_NAMES[field]] = members
        for field, value in decoded._asdict().items():
            if value is not None:
                is_id = field in ("age_group", "gender", "median_age_group")
                value = tf.cast(value, tf.int64) if is_id else value
                named[DECODED_NAMES[field]] = value
        for head in encoding.extra_heads:
            value = encoding.decode_head(head.name, outputs).values
            named[f"{head.name}{ANSWER}"] = tf.cast(value, tf.float32)
        return named

    def faces(faces: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(graph.to_input, faces, fn_output_signature=tf.float32)
        return inputs(tf.ensure_shape(pixels, shape))

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(graph.face_file, image_bytes, fn_output_signature=tf.float32)
        return inputs(tf.ensure_shape(images, shape))

    functions: dict[str, Any] = {
        "serving_default": serving_default,
        "faces": faces,
        "inputs": inputs,
    }
    if path.crop is None or path.uses_mtcnn:
        functions |= _photo_functions(inputs, graph)
    return functions


def _photo_functions(
    predict: Callable[..., dict[str, tf.Tensor]], graph: PreprocessingGraph
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns `photo` and `photos`, which find the faces themselves."""
    shape = (None, *graph.image_size, 3)

    def inputs_of(photo_bytes: tf.Tensor) -> tuple[tf.Tensor, PhotoFaces]:
        image = graph.decode(photo_bytes)
        if graph.spec.crop is None:
            return _whole_input(graph, image), _whole_image(image)
        found = graph.find(image)
        return _face_inputs(graph, image, found), found

    def any_number(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(inputs)[0]
        # A black face in place of none: fused convolutions take no empty batch.
        padding = [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]]
        outputs = predict(tf.ensure_shape(tf.pad(inputs, padding), shape))
        return {name: value[:count] for name, value in outputs.items()}

    def photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, found = inputs_of(photo_bytes)
        return {**any_number(inputs), **found._asdict()}

    def photos(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        shapes = (shape, (None, 4), (None,), (None, 5, 2))

        def flat(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pixels, found = inputs_of(data)
            return pixels, *found

        inputs, *found = tf.map_fn(
            flat,
            photo_bytes,
            fn_output_signature=tuple(
                tf.RaggedTensorSpec(row, tf.float32, ragged_rank=0) for row in shapes
            ),
        )
        # Without any photo, the pixels have no shape.
        flat_outputs = any_number(tf.reshape(inputs.values, (-1, *shape[1:])))
        rows = {name: inputs.with_values(value) for name, value in flat_outputs.items()}
        rows |= dict(zip(PhotoFaces._fields, found, strict=True))
        padded = {name: _padded(value) for name, value in rows.items()}
        return {**padded, COUNTS: tf.cast(inputs.row_lengths(), tf.int64)}

    return {"photo": photo, "photos": photos}


def _whole_image(image: tf.Tensor) -> PhotoFaces:
    """Returns a whole image as a face of score 0."""
    box = full_box(tf.shape(image)[:2])[tf.newaxis]
    return PhotoFaces(box, tf.zeros((1,)), tf.zeros((1, 5, 2)))


def _whole_input(graph: PreprocessingGraph, image: tf.Tensor) -> tf.Tensor:
    return graph.to_input(graph.whole(image))[tf.newaxis]


def _face_inputs(
    graph: PreprocessingGraph, image: tf.Tensor, found: PhotoFaces
) -> tf.Tensor:
    return tf.map_fn(
        lambda face: graph.to_input(graph.face(image, *face)),
        (found.boxes, found.landmarks),
        fn_output_signature=tf.TensorSpec((*graph.image_size, 3), tf.float32),
    )


def photo_function(bundle: ExportBundle) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns the signature `photo` of pixels instead of a file, for `portable_graph`.

    Its second argument is whether to predict the whole image as one face instead of
    searching faces.
    """
    graph, predict = bundle.graph, bundle.functions["inputs"]

    def photo(image: tf.Tensor, whole_image: tf.Tensor) -> dict[str, tf.Tensor]:
        whole = _whole_image(image)
        if graph.spec.crop is None:
            return {**predict(_whole_input(graph, image)), **whole._asdict()}
        found = graph.find(image)
        count = tf.shape(found.boxes)[0]
        # Without a face, the network runs too, as no operation takes an empty batch.
        inputs = tf.cond(
            whole_image | tf.equal(count, 0),
            lambda: _whole_input(graph, image),
            lambda: _face_inputs(graph, image, found),
        )
        outputs = predict(tf.ensure_shape(inputs, (None, *graph.image_size, 3)))
        rows = tf.cond(whole_image, lambda: tf.range(1), lambda: tf.range(count))
        chosen = {name: tf.gather(value, rows) for name, value in outputs.items()}
        places = tf.where(whole_image, count, rows)  # the whole image comes last
        for name, faces, last in zip(found._fields, found, whole, strict=True):
            chosen[name] = tf.gather(tf.concat([faces, last], axis=0), places)
        return chosen

    return photo


def _padded(rows: tf.RaggedTensor) -> tf.Tensor:
    """Pads the rows of all photos to one length: ids with -1, other values with 0."""
    fill = tf.cast(MISSING if rows.dtype == tf.int64 else 0, rows.dtype)
    return rows.to_tensor(default_value=fill)


def _named_outputs(outputs: Any, encoding: Encoding) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in encoding.output_names}
    return {encoding.output_names[0]: outputs}


# Version of agegender.json: `faces` takes uint8 crops of any size.
FORMAT = 3


class ExportBundle(NamedTuple):
    """What an export contains."""

    network: keras.Model  # without augmentation, folded for inference
    graph: PreprocessingGraph
    functions: dict[str, Callable[..., dict[str, tf.Tensor]]]  # by signature
    metadata: dict[str, Any]  # agegender.json
    run: RunDirectory | None = None

    @property
    def encoding(self) -> Encoding:
        """The encoding of the network's outputs."""
        return Encoding.from_dict(self.metadata["encoding"])


def build_export_bundle(
    model: RunDirectory | keras.Model | str | Path,
    *,
    encoding: Encoding | str | None = None,
    pixels: Preprocessing | None = None,
    pipeline: str | None = None,
    crop_options: CropOptions | None = None,
    crop_size: tuple[int, int] | None = None,
    detector: MtcnnDetector | None = None,
    calibration: Calibration | None = None,
    metadata: Mapping[str, Any] | None = None,
    license: str | None = None,
) -> ExportBundle:
    """Returns what `export` writes, for the same arguments, without writing it."""
    _check_backend()
    source = _load(model)
    built_with = stored_encoding(source["model"])
    encoding = encoding or source.get("encoding") or built_with
    if encoding is None:
        raise ValueError(
            "Missing `encoding`. Expected the encoding that the model was built with, "
            "e.g. 'categorical'."
        )
    encoding = get_encoding(encoding)
    _check_encoding(built_with, encoding)
    network = fold_for_inference(strip_augmentation(source["model"]))
    if isinstance(network.output, (list, tuple)):
        outputs = dict(zip(network.output_names, network.output, strict=True))
        network = keras.Model(network.input, outputs, name=network.name)
    image_size = _check_network(network, encoding)
    path = _preprocessing(pixels, source, crop_options, crop_size, detector)
    if pipeline is None and path.image_size is not None:
        enlarge = path.enlarge
    else:
        preset = pipeline or source.get("pipeline", "resnet")
        enlarge = get_pipeline_preset(preset).enlarge
    graph = PreprocessingGraph(path.with_input(image_size, enlarge))
    calibration = calibration or source.get("calibration")
    functions = serving_functions(network, encoding, graph, calibration)
    terms = source.get("terms", {})
    description = {
        "format": FORMAT,
        "model": network.name,
        "created": now(),
        "age_groups": list(encoding.age_groups.names),
        "genders": list(GENDERS),
        "encoding": encoding.to_dict(),
        "outputs": list(encoding.output_names),
        "extra_heads": [
            {"name": h.name, "kind": h.head_type, "classes": class_names(h)}
            for h in encoding.extra_heads
        ],
        **{key: source.get(key) for key in ("recipe", "training", "metrics")},
        "versions": versions(),
        "calibration": calibration.to_dict() if calibration else None,
        "pixels": graph.spec.to_dict(),
        "signatures": list(functions),
        "license": terms.get("license") if license is None else license,
        "limits": terms.get("limits"),
        "auxiliary_outputs": terms.get("auxiliary_outputs", []),
        "user": dict(metadata or {}),
    }
    return ExportBundle(network, graph, functions, description, source.get("run"))


def constant_network(
    bundle: ExportBundle,
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the signature `inputs` with constant weights: TensorFlow runs it faster.

    Traced once: turning variables into constants afterwards takes half a second.
    """
    weights = [(variable, variable.numpy()) for variable in bundle.network.variables]

    def network(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        constants = [(variable, tf.constant(value)) for variable, value in weights]
        with keras.StatelessScope(state_mapping=constants):
            return bundle.functions["inputs"](inputs)

    spec = tf.TensorSpec((None, *bundle.graph.image_size, 3), tf.float32)
    return tf.function(network, [spec], autograph=False).get_concrete_function()


def _preprocessing(
    pixels: Preprocessing | None,
    source: Mapping[str, Any],
    crop_options: CropOptions | None,
    crop_size: tuple[int, int] | None,
    detector: MtcnnDetector | None,
) -> Preprocessing:
    """Returns the run's preprocessing with the changes that `export` was given."""
    path = pixels or source.get("pixels")
    if path is None:
        if "recipe" in source and crop_options is None:
            raise ValueError(
                "The run has no record of its preprocessing: its dataset was not "
                "written by `prepare`. Pass `pixels`."
            )
        path = Preprocessing(crop=crop_options)
    changes: dict[str, Any] = {}
    if crop_options is not None:
        changes["crop"] = crop_options
    if crop_size is not None:
        changes["stored_size"] = crop_size
    if detector is not None:
        changes["detector"] = detector.settings()
    return replace(path, **changes).for_photos()


def _load(model: RunDirectory | keras.Model | str | Path) -> dict[str, Any]:
    """Returns a model and what its run records about it."""
    if isinstance(model, keras.Model):
        return {"model": model}
    checkpoint = find_checkpoint(model)
    run, loaded = checkpoint.run, load_model(checkpoint.file)
    if run is None:
        return {"model": loaded}
    recipe, info = run.recipe(), run.info()
    training = ("identity", "seed", "splits", "data_sha256", "versions", "finished")
    metrics = run.path / "metrics.json"
    return {
        "model": loaded,
        "run": run,
        "encoding": run.encoding(),
        "pipeline": recipe.data.pipeline,
        "pixels": run.pixels(),
        "calibration": run.calibration() if checkpoint.is_best else None,
        "terms": run.terms(),
        "recipe": recipe.to_dict(),
        "training": {key: info[key] for key in training if key in info},
        "metrics": (
            read_json(metrics) if checkpoint.is_best and metrics.is_file() else None
        ),
    }


def _check_encoding(stored: Encoding | None, encoding: Encoding) -> None:
    """Checks that the encoding is the one that the model was built with."""
    if stored is None or sorted(stored.output_names) != sorted(encoding.output_names):
        return  # outputs of other names are another error
    for head in stored.heads:
        other = encoding.head(head.name)
        if replace(head, loss_weight=1.0) != replace(other, loss_weight=1.0):
            raise ValueError(
                f"Invalid `encoding`. The model was built with {head}. Expected "
                f"question={head.question!r} for output {head.name!r}. "
                f"Received: {other}."
            )
    if stored.age_groups != encoding.age_groups:
        raise ValueError(
            f"Invalid `encoding`. The model was built for the age groups "
            f"{stored.age_groups}. Received: {encoding.age_groups}."
        )


def class_names(head: Head) -> list[str]:
    """Returns the names of a head's classes; empty for a head that predicts numbers."""
    if head.spec.is_number:
        return []
    return [head.class_name(index) for index in range(head.num_values)]


def _check_network(model: keras.Model, encoding: Encoding) -> tuple[int, int]:
    """Returns the (height, width) of the model's input."""
    names = model.output_names
    if sorted(names) != sorted(encoding.output_names):
        raise ValueError(
            f"Invalid `encoding`. The model's outputs are {sorted(names)}, those of "
            f"{encoding.name!r} are {sorted(encoding.output_names)}."
        )
    decoded = {*DECODED_NAMES.values(), *SET_NAMES.values()}
    taken = sorted(decoded | {*PhotoFaces._fields, COUNTS})
    clash = sorted(set(names) & set(taken))
    if clash:
        raise ValueError(
            f"Invalid model. The output name {clash[0]!r} is reserved in exports. "
            f"Reserved: {taken}."
        )
    shape = model.input_shape
    if len(shape) != 4 or shape[-1] != 3 or None in shape[1:]:
        raise ValueError(
            "Invalid model. Expected one input of shape (None, height, width, 3). "
            f"Received: {shape}."
        )
    return shape[1], shape[2]


def _check_backend() -> None:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Exports require the TensorFlow backend. Set KERAS_BACKEND=tensorflow; it "
            "can load .keras files of any backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}."
        )


# Name of the input.
CROPS = "crops"


def crop_function(bundle: ExportBundle) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the signature `faces` without the operations that only TensorFlow has."""
    height, width = bundle.graph.image_size
    enlarge = bundle.graph.spec.enlarge

    def predict(crops: tf.Tensor) -> dict[str, tf.Tensor]:
        rows, columns = (crops.shape[axis] or tf.shape(crops)[axis] for axis in (1, 2))
        pixels = tf.transpose(tf.cast(crops, tf.float32), (0, 2, 3, 1))
        matrix = _resize_matrix(rows, height, enlarge)
        pixels = tf.transpose(tf.matmul(pixels, matrix, transpose_b=True), (0, 3, 2, 1))
        matrix = _resize_matrix(columns, width, enlarge)
        pixels = tf.transpose(tf.matmul(pixels, matrix, transpose_b=True), (0, 1, 3, 2))
        pixels = tf.clip_by_value(pixels / np.float32(255), 0.0, 1.0)
        inputs = tf.ensure_shape(pixels, (None, height, width, 3))
        return bundle.functions["inputs"](inputs)

    return predict


def _resize_matrix(source: Any, target: int, enlarge: float) -> Any:
    """Returns the matrix, as a constant if the size is known."""
    if not isinstance(source, int):
        return resize_matrix(source, target, enlarge)
    with tf.init_scope():
        return resize_matrix(source, target, enlarge).numpy()
