"""Export: a trained model becomes one self-contained TensorFlow SavedModel.

In: a run directory, a `.keras` file or a model. Out: a folder that any TensorFlow
program loads with `tf.saved_model.load`, without this package and without Keras. Pixels
are prepared and answers decoded inside it; augmentation is not in it.

    signatures["serving_default"](image_bytes=…)   JPEG or PNG files of face crops
    signatures["faces"](faces=…)                   float32 in [0, 1], prepared already
    signatures["photo"](photo_bytes=…)             one photo; its faces are found inside

All answer with every output of the model under its name and, where the encoding knows
them, `age_group`, `age_group_probabilities`, `heads_agree`, `gender_id` and
`male_probability`, a row per face. `photo` adds `boxes` (left, top, right, bottom in
pixels), `scores` and `landmarks`, from left to right. `agegender.json` beside the model
says what the numbers mean.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_agegender.encodings.catalogue import get_encoding
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.graph_cropping import GraphCropper
from keras_agegender.files import now, versions, write_json
from keras_agegender.input_pipeline.pixels import (
    decode_picture,
    get_pipeline,
    preprocess_for_evaluation,
)
from keras_agegender.labels import GENDERS
from keras_agegender.models.augmentation import strip_augmentation
from keras_agegender.models.heads import stored_encoding
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.predictor import METADATA_FILE

FORMAT = 1

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
# Behind the name of an extra head: its most probable class, or its number in its unit.
ANSWER = "_answer"


def export(
    model: RunDirectory | keras.Model | str | Path,
    directory: str | Path,
    *,
    encoding: Encoding | str | None = None,
    pipeline: str | None = None,
    crop_options: CropOptions | None = None,
    crop_size: tuple[int, int] | None = None,
    detector: MtcnnDetector | None = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model as a SavedModel that answers in age groups and genders.

    The folder appears under its name only when it is complete. EXIF orientation is not
    read inside a SavedModel: `serving_default` expects upright pictures, as `Predictor`
    gives it.

    Args:
        model: A run or its directory, of which the best model is taken; a `.keras`
            file; or a Keras model.
        directory: Folder to make.
        encoding: What decodes the outputs. `None` takes the run's; needed otherwise.
        pipeline: `"resnet"` or `"caffe"`: how pixels were prepared in training. `None`
            takes the run's, or `"resnet"`.
        crop_options: How faces were cut out for training, which `Predictor` repeats.
            `None` takes those of the run's dataset. A model without any saw whole
            pictures or is of unknown origin; `Predictor` then cuts by default options.
        crop_size: (height, width) that crops were stored with for training. `None`
            takes that of the run's dataset, or leaves crops in their own size.
        detector: Whose settings the signature `photo` finds faces by; `None` is
            `MtcnnDetector()`.
        metadata: Anything else to keep in agegender.json, under `"user"`.
        overwrite: Whether an export in that folder may be replaced.

    Returns:
        The folder.

    Raises:
        ValueError: If the backend is not TensorFlow, the folder exists, or model,
            encoding and pipeline do not fit together.

    Example:
    >>> export("runs/1", "saved_models/first")  # doctest: +SKIP
    """
    _check_backend()
    directory = Path(directory)
    _check_target(directory, overwrite)
    source = _open(model, crop_options)
    crop_options = crop_options or source.get("crop_options")
    crop_size = crop_size or source.get("crop_size")
    pipeline = pipeline or source.get("pipeline", "resnet")
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
    description = {
        **_describe(network, encoding, pipeline, source),
        "crop": crop_options.to_dict() if crop_options else None,
        "crop_size": list(crop_size) if crop_size else None,
        "user": dict(metadata or {}),
    }
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    cropper = GraphCropper(_without_skip(crop_options or CropOptions()), detector)
    _write_saved_model(network, encoding, image_size, pipeline, cropper, partial)
    write_json(partial / METADATA_FILE, description)
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(partial, directory)
    return directory


def serving_functions(
    model: keras.Model,
    encoding: Encoding,
    image_size: tuple[int, int],
    pipeline: str,
    cropper: GraphCropper,
) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    """Returns the functions behind the signatures, by name.

    Args:
        model: A model without augmentation.
        encoding: What decodes its outputs.
        image_size: (height, width) of its input, in pixels.
        pipeline: `"resnet"` or `"caffe"`.
        cropper: Finds and cuts out the faces of a photo.
    """

    def faces(faces: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = _named_outputs(model(faces, training=False), encoding)
        answers = dict(outputs)
        for field, value in encoding.decode(outputs)._asdict().items():
            if value is not None:
                is_id = field in ("age_group", "gender", "median_age_group")
                value = tf.cast(value, tf.int64) if is_id else value
                answers[DECODED_NAMES[field]] = value
        for head in encoding.extra_heads:
            value = encoding.answer(head.name, outputs).values
            answers[f"{head.name}{ANSWER}"] = tf.cast(value, tf.float32)
        return answers

    def prepare(data: tf.Tensor) -> tf.Tensor:
        return preprocess_for_evaluation(decode_picture(data), image_size, pipeline)

    def photo(photo_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = decode_picture(photo_bytes)
        found = cropper.find(image)

        def prepare_face(face: tuple) -> tf.Tensor:
            crop = cropper.cut(image, *face)
            return preprocess_for_evaluation(crop, image_size, pipeline)

        crops = tf.map_fn(
            prepare_face,
            (found.boxes, found.landmarks),
            fn_output_signature=tf.TensorSpec((*image_size, 3), tf.float32),
        )
        # Without a face a black one: fused convolutions take no empty batch.
        count = tf.shape(crops)[0]
        crops = tf.pad(
            crops, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]]
        )
        answers = faces(tf.ensure_shape(crops, (None, *image_size, 3)))
        return {
            **{name: value[:count] for name, value in answers.items()},
            **found._asdict(),
        }

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(prepare, image_bytes, fn_output_signature=tf.float32)
        return faces(tf.ensure_shape(images, (None, *image_size, 3)))

    return {"serving_default": serving_default, "faces": faces, "photo": photo}


def _write_saved_model(
    model: keras.Model,
    encoding: Encoding,
    image_size: tuple[int, int],
    pipeline: str,
    cropper: GraphCropper,
    directory: Path,
) -> None:
    functions = serving_functions(model, encoding, image_size, pipeline, cropper)
    inputs = {
        "serving_default": tf.TensorSpec((None,), tf.string, name="image_bytes"),
        "faces": tf.TensorSpec((None, *image_size, 3), tf.float32, name="faces"),
        "photo": tf.TensorSpec((), tf.string, name="photo_bytes"),
    }
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.cropper = cropper  # its networks' weights are saved too
    for name, function in functions.items():
        archive.add_endpoint(name, function, input_signature=[inputs[name]])
    archive.write_out(str(directory), verbose=False)


def _open(
    model: RunDirectory | keras.Model | str | Path, crop_options: CropOptions | None
) -> dict[str, Any]:
    """Returns a model and whatever is known about how it came to be."""
    if isinstance(model, keras.Model):
        return {"model": model}
    if isinstance(model, (str, Path)) and Path(model).suffix == ".keras":
        if not Path(model).is_file():
            raise ValueError(f"There is no model file {model}.")
        return {"model": keras.saving.load_model(model)}
    run = model if isinstance(model, RunDirectory) else RunDirectory.open(model)
    recipe, info = run.recipe(), run.info()
    crop_options, crop_size = _preparation(info, crop_options)
    return {
        "model": run.load_model(),
        "encoding": run.encoding(),
        "pipeline": recipe.data.pipeline,
        "crop_options": crop_options,
        "crop_size": crop_size,
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


def _preparation(
    info: Mapping[str, Any], crop_options: CropOptions | None
) -> tuple[CropOptions | None, tuple[int, int] | None]:
    """Returns how a run's faces were cut out: from run.json, else from its dataset."""
    from keras_agegender.datasets.prepared import PREPARATION_FILE

    made = info.get("preparation")
    if made is None:
        dataset = Path(info.get("data", ""))
        if crop_options is None and not dataset.is_dir():
            raise ValueError(
                f"The run's dataset is not in {dataset} any more, so how its faces "
                "were cut out is unknown. Say it with `crop_options`."
            )
        made = _read_json(dataset / PREPARATION_FILE) or {}
    crop, size = made.get("crop"), made.get("output_size")
    if crop_options is None and crop:
        crop_options = CropOptions.from_dict(crop)
    return crop_options, tuple(size) if crop and size else None


def _describe(
    model: keras.Model,
    encoding: Encoding,
    pipeline: str,
    source: Mapping[str, Any],
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
        "image_size": list(model.input_shape[1:3]),
        "pipeline": {"name": pipeline, "enlarge": get_pipeline(pipeline).enlarge},
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
    clash = sorted(set(names) & set(DECODED_NAMES.values()))
    if clash:
        raise ValueError(
            f"Invalid model. An output is named {clash[0]!r}, which is the name of a "
            f"decoded answer. Taken: {sorted(DECODED_NAMES.values())}."
        )
    shape = model.input_shape
    if len(shape) != 4 or shape[-1] != 3 or None in shape[1:]:
        raise ValueError(
            "Invalid model. Expected one input of shape (None, height, width, 3). "
            f"Received: {shape}."
        )
    return shape[1], shape[2]


def _check_target(directory: Path, overwrite: bool) -> None:
    if not directory.exists():
        return
    ours = directory.is_dir() and (
        (directory / METADATA_FILE).is_file() or not any(directory.iterdir())
    )
    if not ours:
        raise ValueError(f"{directory} exists and is no export; it is left alone.")
    if not overwrite and any(directory.iterdir()):
        raise ValueError(
            f"There is an export in {directory} already. Choose another directory, or "
            "overwrite it."
        )


def _check_backend() -> None:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A SavedModel is written by the TensorFlow backend. Set "
            "KERAS_BACKEND=tensorflow; a .keras file trained on another backend loads "
            f"there. Received: KERAS_BACKEND={keras.backend.backend()}."
        )


def _without_skip(options: CropOptions) -> CropOptions:
    """A photo without faces has no rows, so the fallback does not matter here."""
    return replace(options, fallback="center")


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
