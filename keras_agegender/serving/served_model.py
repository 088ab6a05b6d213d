"""What an export holds: a run, a file or a model becomes functions and a description.

`export` writes it into a folder; `Predictor` takes it as it is where it is given a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.catalogue import get_encoding
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.pixel_graph import PhotoFaces, PixelGraph
from keras_agegender.faces.pixel_path import PixelPath
from keras_agegender.files import now, read_json, versions
from keras_agegender.input_pipeline.pixels import get_preprocessing
from keras_agegender.labels import GENDERS
from keras_agegender.models.augmentation import strip_augmentation
from keras_agegender.models.folding import fold_for_inference
from keras_agegender.models.heads import stored_encoding
from keras_agegender.models.model_files import load_model
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.output_names import DECODED_NAMES, SET_NAMES
from keras_agegender.serving.signatures import COUNTS, serving_functions

# 3: `faces` takes uint8 crops of any size, what it took before is `inputs`.
FORMAT = 3


class Served(NamedTuple):
    """What an export holds.

    Attributes:
        network: The model without augmentation, folded for inference.
        graph: What is done to the pixels.
        functions: Signature -> function.
        metadata: What agegender.json says.
    """

    network: keras.Model
    graph: PixelGraph
    functions: dict[str, Callable[..., dict[str, tf.Tensor]]]
    metadata: dict[str, Any]


def serve(
    model: RunDirectory | keras.Model | str | Path,
    *,
    encoding: Encoding | str | None = None,
    pixels: PixelPath | None = None,
    pipeline: str | None = None,
    crop_options: CropOptions | None = None,
    crop_size: tuple[int, int] | None = None,
    detector: MtcnnDetector | None = None,
    calibration: Calibration | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Served:
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
    graph = PixelGraph(path)
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
    return Served(network, graph, functions, description)


def constant_network(served: Served) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
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
