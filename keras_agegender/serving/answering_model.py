"""What answers about faces: one function over arrays, whatever file or folder holds it.

`MODEL_KINDS` is the one list of what `Predictor` loads; another kind is a row in it.
Recognizing a model loads no framework.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from keras_agegender.files import directory_hash, file_hash
from keras_agegender.quiet import quiet_start
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.export_folder import METADATA_FILE, check_export
from keras_agegender.serving.model_file import SUFFIXES, check_model_file
from keras_agegender.serving.saved_model_check import check_operations

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MODEL_VARIABLE = "KERAS_AGEGENDER_MODEL"
# In a checkout; wheels come without it.
DEFAULT_MODEL = Path(__file__).parents[2] / "saved_models" / "utkface-compact"

Answers: TypeAlias = "dict[str, np.ndarray]"


class AnsweringModel(NamedTuple):
    """A model that is loaded.

    Attributes:
        metadata: What its agegender.json says, or would.
        answer: Turns faces of shape (num_faces, height, width, 3) into every output and
            decoded answer of the signature `faces`.
        takes_crops: Whether these faces are crops, uint8 of `crop_size`, which it
            resizes itself. Defaults to false: prepared ones, float32 in [0, 1].
    """

    metadata: dict[str, Any]
    answer: Callable[[np.ndarray], Answers]
    takes_crops: bool = False


class ModelKind(NamedTuple):
    """A kind of file or folder that answers.

    Attributes:
        name: What it is called.
        recognize: Whether a path is one, complete or not.
        check: Raises a `ValueError` if it is not complete.
        load: Loads it.
        identity: A hash of what determines its answers.
    """

    name: str
    recognize: Callable[[Path], bool]
    check: Callable[[Path], object]
    load: Callable[[Path], AnsweringModel]
    identity: Callable[[Path], str]


def model_kind(path: str | Path) -> ModelKind | None:
    """Returns of which kind a model is; `None` of what is no model."""
    path = Path(path)
    return next((kind for kind in MODEL_KINDS if kind.recognize(path)), None)


def check_answering_model(path: str | Path) -> ModelKind:
    """Returns the kind of a model that can be loaded.

    Raises:
        ValueError: If it is no model, or an incomplete one.
    """
    kind = model_kind(path)
    if kind is None:
        raise ValueError(
            f"There is no exported model in {path}, and no run. Expected what "
            "`agegender export RUN --out MODEL` wrote, a run, or a .keras file."
        )
    kind.check(Path(path))
    return kind


def load_answering_model(path: str | Path) -> AnsweringModel:
    """Loads a model of any kind.

    Raises:
        ValueError: If it is no model, or one that is incomplete or damaged.
    """
    model = check_answering_model(path).load(Path(path))
    if "pixels" not in model.metadata:
        raise ValueError(
            f"The export in {path} is of an older version, which did not write "
            "down its pixels. Export the run again."
        )
    return model


def model_identity(path: str | Path) -> str:
    """Returns a hash of all that determines a model's answers."""
    return check_answering_model(path).identity(Path(path))


def default_model() -> Path:
    """Returns the model that answers where none is named.

    It is the one that the environment variable KERAS_AGEGENDER_MODEL names or, in a
    checkout, saved_models/utkface-compact.

    Raises:
        ValueError: If there is none, or the variable names something else.

    Example:
    >>> Predictor(default_model()).predict("photo.jpg")  # doctest: +SKIP
    """
    named = os.environ.get(DEFAULT_MODEL_VARIABLE)
    if named:
        if model_kind(named) is None:
            raise ValueError(
                f"Invalid {DEFAULT_MODEL_VARIABLE}. Expected a run, an export or a "
                f".keras file. Received: {named}."
            )
        return Path(named)
    if model_kind(DEFAULT_MODEL) is None:
        raise ValueError(
            "There is no default model here. Name a model: a run, an export or a "
            f".keras file, or set {DEFAULT_MODEL_VARIABLE}."
        )
    return DEFAULT_MODEL


# -- exports ---------------------------------------------------------------------------


def _load_export(directory: Path) -> AnsweringModel:
    file = directory / METADATA_FILE
    if not file.is_file():
        raise ValueError(
            f"The SavedModel in {directory} has no {METADATA_FILE}; it is not one that "
            "`agegender export` wrote."
        )
    with quiet_start():
        import tensorflow as tf

    check_operations(directory)
    try:
        metadata = json.loads(file.read_text("utf-8"))
        loaded = tf.saved_model.load(str(directory))
        # Before format 3 it was `faces` that took prepared ones.
        name = "inputs" if "inputs" in loaded.signatures else "faces"
        network = _with_constants(loaded.signatures[name])
    except (ValueError, KeyError, OSError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The export in {directory} is damaged: {reason}") from None

    return AnsweringModel(metadata, network)


def _with_constants(function: Any) -> Callable[[np.ndarray], Answers]:
    """Returns a function whose weights are constants, which TensorFlow makes faster.

    Args:
        function: A concrete function of one tensor that returns a dictionary.
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    frozen = convert_variables_to_constants_v2(function)
    # The converted function returns a list, in the order in which `tf.nest` flattens.
    names = sorted(function.structured_outputs)

    return _on_arrays(lambda pixels: dict(zip(names, frozen(pixels), strict=True)))


def _on_arrays(network: Callable[[Any], dict[str, Any]]) -> Callable[..., Answers]:
    """Returns a network of tensors as one of arrays."""
    import tensorflow as tf

    def answer(pixels: np.ndarray) -> Answers:
        outputs = network(tf.constant(pixels))
        return {name: value.numpy() for name, value in outputs.items()}

    return answer


def _load_onnx(file: Path) -> AnsweringModel:
    from keras_agegender.serving.onnx_model import OnnxModel

    model = OnnxModel(file)
    return AnsweringModel(model.metadata, model.answer, takes_crops=True)


def _check_onnx(file: Path) -> None:
    check_model_file(file, "ONNX", "onnxruntime")


def _load_litert(file: Path) -> AnsweringModel:
    from keras_agegender.serving.litert_model import LiteRtModel

    model = LiteRtModel(file, num_threads=os.cpu_count() or 1)
    return AnsweringModel(model.metadata, model.answer, takes_crops=True)


def _check_litert(file: Path) -> None:
    check_model_file(file, "LiteRT", "ai_edge_litert")


# -- runs and .keras files -------------------------------------------------------------


def _load_run(directory: Path) -> AnsweringModel:
    return _serve(RunDirectory.open(directory))


def _load_keras_file(file: Path) -> AnsweringModel:
    run = RunDirectory(file.parent)
    if not run.recipe_file.is_file():
        return _serve(file)
    # A model of a run: the run knows its pixels. Its calibration is the best one's.
    recipe = run.recipe()
    return _serve(
        file,
        encoding=run.encoding(),
        pixels=run.pixels(),
        pipeline=recipe.data.pipeline,
        calibration=run.calibration() if file.name == run.best_model.name else None,
    )


def _serve(model: RunDirectory | Path, **options: Any) -> AnsweringModel:
    with quiet_start():
        from keras_agegender.serving.served_model import constant_network, serve

    served = serve(model, **options)
    return AnsweringModel(served.metadata, _on_arrays(constant_network(served)))


def _check_keras_file(file: Path) -> None:
    if not file.is_file():
        raise ValueError(f"There is no model file {file}.")


def _run_identity(directory: Path) -> str:
    run = RunDirectory(directory)
    files = (run.best_model, run.recipe_file, run.calibration_file)
    return "-".join(file_hash(file) for file in files if file.is_file())


MODEL_KINDS = (
    ModelKind(
        "run",
        lambda path: RunDirectory(path).recipe_file.is_file(),
        RunDirectory.open,
        _load_run,
        _run_identity,
    ),
    ModelKind(
        ".keras file",
        lambda path: path.suffix == ".keras",
        _check_keras_file,
        _load_keras_file,
        file_hash,
    ),
    ModelKind(
        "ONNX file",
        lambda path: path.suffix == SUFFIXES["onnx"],
        _check_onnx,
        _load_onnx,
        file_hash,
    ),
    ModelKind(
        "LiteRT file",
        lambda path: path.suffix == SUFFIXES["litert"],
        _check_litert,
        _load_litert,
        file_hash,
    ),
    ModelKind(
        "export",
        lambda path: any(
            (path / name).is_file() for name in ("saved_model.pb", METADATA_FILE)
        ),
        check_export,
        _load_export,
        lambda path: directory_hash(path, "*.*"),
    ),
)
