"""Export: a trained model becomes one self-contained TensorFlow SavedModel.

In: a run directory, a `.keras` file or a model. Out: a folder that any TensorFlow
program loads with `tf.saved_model.load`, without this package and without Keras. Pixels
are prepared and answers decoded inside it; augmentation is not in it.

    signatures["serving_default"](image_bytes=…)   files of face crops
    signatures["faces"](faces=…)                   float32 in [0, 1], prepared already
    signatures["photo"](photo_bytes=…)             one photo; its faces are found inside

All answer with every output of the model under its name and, where the encoding knows
them, `age_group`, `age_group_probabilities`, `heads_agree`, `gender_id` and
`male_probability`, a row per face; of a calibrated model all probabilities are
calibrated, and `age_group_set` and `gender_set` say which are in the set of answers.
`photo` adds `boxes` (left, top, right, bottom in
pixels of the upright photo), `scores` and `landmarks`, from left to right; of a model
that was trained on whole pictures it answers in one row, about the whole picture.

Files are those that `read_image` reads: JPEG, PNG, GIF, WebP and BMP; others are errors
that name their format. `Predictor` sees the same pixels: both carry out the `PixelPath`
in `agegender.json`, which also says what the numbers mean.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.catalogue import get_encoding
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.faces.boxes import full_box
from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.pixel_graph import PhotoFaces, PixelGraph
from keras_agegender.faces.pixel_path import PixelPath
from keras_agegender.files import now, versions, write_json
from keras_agegender.input_pipeline.pixels import get_preprocessing
from keras_agegender.labels import GENDERS
from keras_agegender.models.augmentation import strip_augmentation
from keras_agegender.models.heads import stored_encoding
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.export_folder import METADATA_FILE, check_new_export

FORMAT = 2

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
# The same of `AnswerSets`: bool masks, a column for each age group or gender.
SET_NAMES = {"age_group": "age_group_set", "gender": "gender_set"}
# Behind the name of an extra head: its most probable class, or its number in its unit.
ANSWER = "_answer"


def export(
    model: RunDirectory | keras.Model | str | Path,
    directory: str | Path,
    *,
    encoding: Encoding | str | None = None,
    pixels: PixelPath | None = None,
    pipeline: str | None = None,
    crop_options: CropOptions | None = None,
    crop_size: tuple[int, int] | None = None,
    detector: MtcnnDetector | None = None,
    calibration: Calibration | None = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model as a SavedModel that answers in age groups and genders.

    The folder appears under its name only when it is complete.

    Args:
        model: A run or its directory, of which the best model is taken; a `.keras`
            file; or a Keras model.
        directory: Folder to make.
        encoding: What decodes the outputs. `None` takes the run's; needed otherwise.
        pixels: What was done to the pixels in training, which signatures and
            `Predictor` repeat: `load_prepared(…).pixels` for instance. `None` takes
            what the run wrote down when it was trained; of other models it is what
            `prepare` does by default, whole pictures or, with `crop_options`, crops.
        pipeline: `"resnet"` or `"caffe"`: how the input was prepared in training.
            `None` takes the run's, or `"resnet"`.
        crop_options: Replaces how faces were cut out.
        crop_size: Replaces the (height, width) that pictures were stored with.
        detector: Replaces the detector whose settings faces are found by.
        calibration: Temperatures and sets to answer with. `None` takes the run's
            calibration.json, if `calibrate` was called.
        metadata: Anything else to keep in agegender.json, under `"user"`.
        overwrite: Whether an export in that folder may be replaced.

    Returns:
        The folder. There is no signature `photo` in it if faces were found by another
        detector than MTCNN; a warning says so.

    Raises:
        ValueError: If the backend is not TensorFlow, the folder exists, or model,
            encoding and pipeline do not fit together.

    Example:
    >>> export("runs/1", "saved_models/first")  # doctest: +SKIP
    """
    _check_backend()
    directory = Path(directory)
    check_new_export(directory, overwrite)
    source = _open(model)
    encoding = encoding or source.get("encoding") or stored_encoding(source["model"])
    if encoding is None:
        raise ValueError(
            "Missing `encoding`. Expected the name the model was built with, for "
            "instance 'categorical'; a run directory knows its own."
        )
    encoding = get_encoding(encoding)
    _check_stored(stored_encoding(source["model"]), encoding)
    network = strip_augmentation(source["model"])
    image_size = _check_model(network, encoding)
    path = _stored_path(pixels, source, crop_options, crop_size, detector)
    path = path.with_input(image_size, _enlarge(path, source, pipeline))
    graph = PixelGraph(path)
    calibration = calibration or source.get("calibration")
    functions = serving_functions(network, encoding, graph, calibration)
    description = {
        **_describe(network, encoding, source),
        "calibration": calibration.to_dict() if calibration else None,
        "pixels": path.to_dict(),
        "signatures": list(functions),
        "user": dict(metadata or {}),
    }
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _write_saved_model(network, functions, graph, partial)
    write_json(partial / METADATA_FILE, description)
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(partial, directory)
    return directory


def _stored_path(
    pixels: PixelPath | None,
    source: Mapping[str, Any],
    crop_options: CropOptions | None,
    crop_size: tuple[int, int] | None,
    detector: MtcnnDetector | None,
) -> PixelPath:
    """Returns the path as the run wrote it down, with what `export` was told."""
    path = pixels or source.get("pixels")
    if path is None:
        if "recipe" in source and crop_options is None:
            raise ValueError(
                "The run does not say what was done to its pixels: its dataset was not "
                "made by `prepare`, or an older version trained it. Say it with "
                "`pixels`."
            )
        path = PixelPath(crop=crop_options)
    changes: dict[str, Any] = {}
    if crop_options is not None:
        changes["crop"] = crop_options
    if crop_size is not None:
        changes["stored_size"] = crop_size
    if detector is not None:
        changes["detector"] = detector.settings()
    return replace(path, **changes)


def _enlarge(path: PixelPath, source: Mapping[str, Any], pipeline: str | None) -> float:
    if pipeline is None and path.image_size is not None:
        return path.enlarge
    return get_preprocessing(pipeline or source.get("pipeline", "resnet")).enlarge


def serving_functions(
    model: keras.Model,
    encoding: Encoding,
    graph: PixelGraph,
    calibration: Calibration | None = None,
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns the functions behind the signatures, by name.

    Args:
        model: A model without augmentation.
        encoding: What decodes its outputs.
        graph: What is done to the pixels, the model's input included.
        calibration: What makes its probabilities honest; `None` (default) leaves them.
    """
    path = graph.path
    shape = (None, *graph.image_size, 3)

    def faces(faces: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = _named_outputs(model(faces, training=False), encoding)
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
            value = encoding.answer(head.name, outputs).values
            answers[f"{head.name}{ANSWER}"] = tf.cast(value, tf.float32)
        return answers

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(graph.face_file, image_bytes, fn_output_signature=tf.float32)
        return faces(tf.ensure_shape(images, shape))

    def whole_photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = graph.decode(photo_bytes)
        answers = faces(graph.to_input(graph.whole(image))[tf.newaxis])
        box = full_box(tf.shape(image)[:2])[tf.newaxis]
        found = PhotoFaces(box, tf.zeros((1,)), tf.zeros((1, 5, 2)))
        return {**answers, **found._asdict()}

    def photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = graph.decode(photo_bytes)
        found = graph.find(image)
        inputs = tf.map_fn(
            lambda face: graph.to_input(graph.face(image, *face)),
            (found.boxes, found.landmarks),
            fn_output_signature=tf.TensorSpec(shape[1:], tf.float32),
        )
        # Without a face a black one: fused convolutions take no empty batch.
        count = tf.shape(inputs)[0]
        inputs = tf.pad(
            inputs, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]]
        )
        answers = faces(tf.ensure_shape(inputs, shape))
        return {
            **{name: value[:count] for name, value in answers.items()},
            **found._asdict(),
        }

    functions: dict[str, Any] = {"serving_default": serving_default, "faces": faces}
    if path.crop is None:
        functions["photo"] = whole_photo
    elif path.uses_mtcnn:
        functions["photo"] = photo
    else:
        warnings.warn(
            f"The export has no signature `photo`: faces were found by {path.detector}"
            ", which no SavedModel can hold. `detector` of `export` names another.",
            stacklevel=3,
        )
    return functions


def _write_saved_model(
    model: keras.Model,
    functions: Mapping[str, Callable[..., dict[str, tf.Tensor]]],
    graph: PixelGraph,
    directory: Path,
) -> None:
    shape = (None, *graph.image_size, 3)
    inputs = {
        "serving_default": tf.TensorSpec((None,), tf.string, name="image_bytes"),
        "faces": tf.TensorSpec(shape, tf.float32, name="faces"),
        "photo": tf.TensorSpec((), tf.string, name="photo_bytes"),
    }
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.pixels = graph  # its networks' weights are saved too
    for name, function in functions.items():
        archive.add_endpoint(name, function, input_signature=[inputs[name]])
    archive.write_out(str(directory), verbose=False)


def _open(model: RunDirectory | keras.Model | str | Path) -> dict[str, Any]:
    """Returns a model and whatever is known about how it came to be."""
    if isinstance(model, keras.Model):
        return {"model": model}
    if isinstance(model, (str, Path)) and Path(model).suffix == ".keras":
        if not Path(model).is_file():
            raise ValueError(f"There is no model file {model}.")
        return {"model": keras.saving.load_model(model)}
    run = model if isinstance(model, RunDirectory) else RunDirectory.open(model)
    recipe, info = run.recipe(), run.info()
    return {
        "model": run.load_model(),
        "encoding": run.encoding(),
        "pipeline": recipe.data.pipeline,
        "pixels": run.pixels(),
        "calibration": run.calibration(),
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
            {"name": h.name, "kind": h.kind, "classes": class_names(h)}
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
    if head.kind in ("regression", "years"):
        return []
    return [head.class_name(index) for index in range(head.num_values)]


def _named_outputs(outputs: Any, encoding: Encoding) -> dict[str, Any]:
    if isinstance(outputs, Mapping):
        return {name: outputs[name] for name in encoding.output_names}
    return {encoding.output_names[0]: outputs}


def _check_model(model: keras.Model, encoding: Encoding) -> tuple[int, int]:
    """Returns the (height, width) of the model's input."""
    names = model.output_names
    if sorted(names) != sorted(encoding.output_names):
        raise ValueError(
            f"Invalid `encoding`. The model's outputs are {sorted(names)}, those of "
            f"{encoding.name!r} are {sorted(encoding.output_names)}."
        )
    taken = sorted({*DECODED_NAMES.values(), *SET_NAMES.values()})
    clash = sorted(set(names) & set(taken))
    if clash:
        raise ValueError(
            f"Invalid model. An output is named {clash[0]!r}, which is the name of a "
            f"decoded answer. Taken: {taken}."
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
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
