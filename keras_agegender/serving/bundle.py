"""What an export contains: model, preprocessing, calibration and signatures."""

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
from keras_agegender.models.builder import stored_encoding
from keras_agegender.models.inference import fold_for_inference
from keras_agegender.models.weights import load_model
from keras_agegender.run_directory import RunDirectory

# Field of `Decoded` -> name of the exported output.
DECODED_NAMES = {
    "age_group": "age_group",
    "age_probabilities": "age_group_probabilities",
    "heads_agree": "heads_agree",
    "gender": "gender_id",
    "gender_probability": "male_probability",
    "age_years": "age_years",
    "median_age_group": "median_age_group",
}
# The same of `PredictionSets`: bool masks, a column for each age group or gender.
SET_NAMES = {"age_group": "age_group_set", "gender": "gender_set"}


# Of `photos`: how many faces were found in each photo.
COUNTS = "counts"


def serving_functions(
    model: keras.Model,
    encoding: Encoding,
    graph: PreprocessingGraph,
    calibration: Calibration | None = None,
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns the functions behind the signatures, by name.

    `faces` takes crops as they are stored and resizes them; `inputs` what comes out of
    that: `Predictor` keeps its faces small until they are answered about.

    Args:
        model: A model without augmentation.
        encoding: What decodes its outputs.
        graph: What is done to the pixels, the model's input included.
        calibration: What makes its probabilities honest; `None` (default) leaves them.
    """
    path = graph.path
    shape = (None, *graph.image_size, 3)

    def inputs(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = _named_outputs(model(inputs, training=False), encoding)
        if calibration is not None:
            outputs = calibration.apply(outputs, encoding)
        answers = dict(outputs)
        decoded = encoding.decode(outputs)
        if calibration is not None:
            for field, members in calibration.sets(decoded)._asdict().items():
                if members is not None:
                    answers[SET_NAMES[field]] = members
        for field, value in decoded._asdict().items():
            if value is not None:
                is_id = field in ("age_group", "gender", "median_age_group")
                value = tf.cast(value, tf.int64) if is_id else value
                answers[DECODED_NAMES[field]] = value
        for head in encoding.extra_heads:
            value = encoding.decode_head(head.name, outputs).values
            answers[f"{head.name}{ANSWER}"] = tf.cast(value, tf.float32)
        return answers

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
    answer: Callable[..., dict[str, tf.Tensor]], graph: PreprocessingGraph
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns `photo` and `photos`, which find the faces themselves.

    Args:
        answer: Answers about prepared faces.
        graph: What is done to the pixels.
    """
    shape = (None, *graph.image_size, 3)

    def whole_inputs(photo_bytes: tf.Tensor) -> tuple[tf.Tensor, PhotoFaces]:
        image = graph.decode(photo_bytes)
        box = full_box(tf.shape(image)[:2])[tf.newaxis]
        found = PhotoFaces(box, tf.zeros((1,)), tf.zeros((1, 5, 2)))
        return graph.to_input(graph.whole(image))[tf.newaxis], found

    def face_inputs(photo_bytes: tf.Tensor) -> tuple[tf.Tensor, PhotoFaces]:
        image = graph.decode(photo_bytes)
        found = graph.find(image)
        inputs = tf.map_fn(
            lambda face: graph.to_input(graph.face(image, *face)),
            (found.boxes, found.landmarks),
            fn_output_signature=tf.TensorSpec(shape[1:], tf.float32),
        )
        return inputs, found

    def any_number(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answers about no face too."""
        count = tf.shape(inputs)[0]
        # Without a face a black one: fused convolutions take no empty batch.
        padding = [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]]
        answers = answer(tf.ensure_shape(tf.pad(inputs, padding), shape))
        return {name: value[:count] for name, value in answers.items()}

    inputs_of = whole_inputs if graph.path.crop is None else face_inputs

    def photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, found = inputs_of(photo_bytes)
        return {**any_number(inputs), **found._asdict()}

    def photos(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = (shape, (None, 4), (None,), (None, 5, 2))

        def flat(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pixels, found = inputs_of(data)
            return pixels, *found

        inputs, *found = tf.map_fn(
            flat,
            photo_bytes,
            fn_output_signature=tuple(
                tf.RaggedTensorSpec(row, tf.float32, ragged_rank=0) for row in rows
            ),
        )
        # Of no photo at all the pixels have no shape.
        together = any_number(tf.reshape(inputs.values, (-1, *shape[1:])))
        answers = {name: inputs.with_values(value) for name, value in together.items()}
        answers |= dict(zip(PhotoFaces._fields, found, strict=True))
        padded = {name: _padded(value) for name, value in answers.items()}
        return {**padded, COUNTS: tf.cast(inputs.row_lengths(), tf.int64)}

    return {"photo": photo, "photos": photos}


def _padded(rows: tf.RaggedTensor) -> tf.Tensor:
    """Makes rows of all photos equally long: ids with -1, all else with 0."""
    fill = tf.cast(MISSING if rows.dtype == tf.int64 else 0, rows.dtype)
    return rows.to_tensor(default_value=fill)


def _named_outputs(outputs: Any, encoding: Encoding) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in encoding.output_names}
    return {encoding.output_names[0]: outputs}


# 3: `faces` takes uint8 crops of any size, what it took before is `inputs`.
FORMAT = 3


class ExportBundle(NamedTuple):
    """What an export holds.

    Attributes:
        network: The model without augmentation, folded for inference.
        graph: What is done to the pixels.
        functions: Signature -> function.
        metadata: What agegender.json says.
    """

    network: keras.Model
    graph: PreprocessingGraph
    functions: dict[str, Callable[..., dict[str, tf.Tensor]]]
    metadata: dict[str, Any]


def serve(
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
) -> ExportBundle:
    """Returns what `export` writes, of the same arguments, without writing it."""
    _check_backend()
    source = _open(model)
    encoding = encoding or source.get("encoding") or stored_encoding(source["model"])
    if encoding is None:
        raise ValueError(
            "Missing `encoding`. Expected the name the model was built with, for "
            "instance 'categorical'; a run directory knows its own."
        )
    encoding = get_encoding(encoding)
    _check_stored(stored_encoding(source["model"]), encoding)
    network = fold_for_inference(strip_augmentation(source["model"]))
    image_size = _check_model(network, encoding)
    path = _stored_path(pixels, source, crop_options, crop_size, detector)
    path = path.with_input(image_size, _enlarge(path, source, pipeline))
    graph = PreprocessingGraph(path)
    calibration = calibration or source.get("calibration")
    functions = serving_functions(network, encoding, graph, calibration)
    description = {
        **_describe(network, encoding, source),
        "calibration": calibration.to_dict() if calibration else None,
        "pixels": path.to_dict(),
        "signatures": list(functions),
        "license": source.get("terms", {}).get("license"),
        "limits": source.get("terms", {}).get("limits"),
        "user": dict(metadata or {}),
    }
    return ExportBundle(network, graph, functions, description)


def constant_network(
    served: ExportBundle,
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the signature `inputs` with weights that are constants.

    TensorFlow makes it faster than one with variables, and it is traced once: turning
    variables into constants afterwards takes half a second.
    """
    weights = [(variable, variable.numpy()) for variable in served.network.variables]

    def network(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        constants = [(variable, tf.constant(value)) for variable, value in weights]
        with keras.StatelessScope(state_mapping=constants):
            return served.functions["inputs"](inputs)

    spec = tf.TensorSpec((None, *served.graph.image_size, 3), tf.float32)
    return tf.function(network, [spec], autograph=False).get_concrete_function()


def _stored_path(
    pixels: Preprocessing | None,
    source: Mapping[str, Any],
    crop_options: CropOptions | None,
    crop_size: tuple[int, int] | None,
    detector: MtcnnDetector | None,
) -> Preprocessing:
    """Returns the path as the run wrote it down, with what `export` was told."""
    path = pixels or source.get("pixels")
    if path is None:
        if "recipe" in source and crop_options is None:
            raise ValueError(
                "The run does not say what was done to its pixels: its dataset was not "
                "made by `prepare`, or an older version trained it. Say it with "
                "`pixels`."
            )
        path = Preprocessing(crop=crop_options)
    changes: dict[str, Any] = {}
    if crop_options is not None:
        changes["crop"] = crop_options
    if crop_size is not None:
        changes["stored_size"] = crop_size
    if detector is not None:
        changes["detector"] = detector.settings()
    return replace(path, **changes)


def _enlarge(
    path: Preprocessing, source: Mapping[str, Any], pipeline: str | None
) -> float:
    if pipeline is None and path.image_size is not None:
        return path.enlarge
    return get_pipeline_preset(pipeline or source.get("pipeline", "resnet")).enlarge


def _open(model: RunDirectory | keras.Model | str | Path) -> dict[str, Any]:
    """Returns a model and whatever is known about how it came to be."""
    if isinstance(model, keras.Model):
        return {"model": model}
    if isinstance(model, (str, Path)) and Path(model).suffix == ".keras":
        return {"model": load_model(model)}
    run = model if isinstance(model, RunDirectory) else RunDirectory.open(model)
    recipe, info = run.recipe(), run.info()
    return {
        "model": run.load_model(),
        "encoding": run.encoding(),
        "pipeline": recipe.data.pipeline,
        "pixels": run.pixels(),
        "calibration": run.calibration(),
        "terms": run.terms(),
        "recipe": recipe.to_dict(),
        "training": {
            key: info[key]
            for key in (
                "identity",
                "seed",
                "splits",
                "data_sha256",
                "versions",
                "finished",
            )  # fmt: skip
            if key in info
        },
        "metrics": _read_json(run.path / "metrics.json"),
    }


def _describe(
    model: keras.Model, encoding: Encoding, source: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the part of agegender.json that does not depend on `export`'s options."""
    return {
        "format": FORMAT,
        "model": model.name,
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
    }


def _check_stored(stored: Encoding | None, encoding: Encoding) -> None:
    """Raises ValueError if the model was built to mean something else."""
    if stored is None or sorted(stored.output_names) != sorted(encoding.output_names):
        return  # outputs of other names are another error
    for head in stored.heads:
        other = encoding.head(head.name)
        if replace(head, loss_weight=1.0) != replace(other, loss_weight=1.0):
            raise ValueError(
                f"Invalid `encoding`. The model was built with {head}: its output "
                f"{head.name!r} asks {head.question!r}. Received: {other}."
            )
    if stored.age_groups != encoding.age_groups:
        raise ValueError(
            f"Invalid `encoding`. The model was built for the age groups "
            f"{stored.age_groups}. Received: {encoding.age_groups}."
        )


def class_names(head: Head) -> list[str]:
    """Returns the names of a head's classes; none of a head that says numbers."""
    if head.spec.is_number:
        return []
    return [head.class_name(index) for index in range(head.num_values)]


def _check_model(model: keras.Model, encoding: Encoding) -> tuple[int, int]:
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
            f"Invalid model. An output is named {clash[0]!r}, a name that "
            f"exports have for something else. Taken: {taken}."
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
            "A SavedModel is written by the TensorFlow backend. Set "
            "KERAS_BACKEND=tensorflow; a .keras file trained on another backend loads "
            f"there. Received: KERAS_BACKEND={keras.backend.backend()}."
        )


def _read_json(file: Path) -> Any:
    return read_json(file) if file.is_file() else None


# Name of the input.
CROPS = "crops"


def crop_function(served: ExportBundle) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the function that answers about crops as they are stored.

    It takes uint8 RGB of shape (batch, height, width, 3) and returns what the signature
    `faces` returns, without the operations that only TensorFlow has.
    """
    size, enlarge = served.graph.image_size, served.graph.path.enlarge

    def answer(crops: tf.Tensor) -> dict[str, tf.Tensor]:
        return served.functions["inputs"](_to_input(crops, size, enlarge))

    return answer


def _to_input(crops: tf.Tensor, size: tuple[int, int], enlarge: float) -> tf.Tensor:
    """Does to a batch what `PreprocessingGraph.to_input` does to a picture."""
    height, width = (
        side or tf.shape(crops)[axis]
        for axis, side in ((1, crops.shape[1]), (2, crops.shape[2]))
    )
    pixels = tf.transpose(tf.cast(crops, tf.float32), (0, 2, 3, 1))
    pixels = tf.matmul(pixels, _constant(height, size[0], enlarge), transpose_b=True)
    pixels = tf.transpose(pixels, (0, 3, 2, 1))
    pixels = tf.matmul(pixels, _constant(width, size[1], enlarge), transpose_b=True)
    pixels = tf.transpose(pixels, (0, 1, 3, 2))
    pixels = tf.clip_by_value(pixels / np.float32(255), 0.0, 1.0)
    return tf.ensure_shape(pixels, (None, *size, 3))


def _constant(source: Any, target: int, enlarge: float) -> Any:
    """Returns the matrix, as numbers where the number of pixels is known."""
    if not isinstance(source, int):
        return resize_matrix(source, target, enlarge)
    with tf.init_scope():
        return resize_matrix(source, target, enlarge).numpy()
