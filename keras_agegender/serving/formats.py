"""Model formats: how each is opened, checked and written."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from keras_agegender.console import quiet_start
from keras_agegender.files import (
    CHECKSUMS_FILE,
    check_output_dir,
    check_sizes,
    directory_hash,
    file_hash,
    partial_directory,
)
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.saved_model import check_operations

# What TensorFlow writes right into the folder of a SavedModel.
SAVED_MODEL_FILES = ("saved_model.pb", "fingerprint.pb", "variables", "assets")
METADATA_FILE = "agegender.json"
# What a process leaves that was killed, or found no room, while it wrote a file: JSON
# of this library's, or what TensorFlow gives its name when it is whole.
HALF_WRITTEN = re.compile(
    r"\.(agegender|checksums)\.\d+\.partial\.json"
    r"|(saved_model|fingerprint)\.pb\.tmp[0-9a-f]+"
)


def check_new_export(directory: Path, overwrite: bool) -> None:
    """Makes sure that an export can be made in a folder.

    Raises:
        ValueError: If it is a file, holds other things, or holds an export that may not
            be overwritten.
    """
    if check_output_dir(directory, METADATA_FILE, "export") and not overwrite:
        raise ValueError(
            f"There is an export in {directory} already. Choose another directory, or "
            "overwrite it (--overwrite)."
        )
    partial = partial_directory(directory)  # what is in it will be replaced
    known = {METADATA_FILE, CHECKSUMS_FILE, *SAVED_MODEL_FILES}
    names = {entry.name for entry in partial.glob("*")} - known
    foreign = sorted(name for name in names if not HALF_WRITTEN.fullmatch(name))
    if foreign:
        raise ValueError(
            f"{partial} holds other things than an unfinished export: {foreign[0]!r}. "
            "Move them away, or choose another directory."
        )


def check_export(directory: Path) -> None:
    """Makes sure that a folder holds a SavedModel.

    Raises:
        ValueError: If it does not; it says how to make one.
    """
    if not (directory / "saved_model.pb").is_file():
        raise ValueError(
            f"There is no exported model in {directory}, and no run. Expected what "
            "`agegender export RUN --out MODEL` wrote, or a run."
        )
    check_sizes(directory, "Export the run again (--overwrite).")


# Format -> how its file's name ends; a SavedModel is a folder.
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "litert-int8": ".tflite"}
FORMATS = ("savedmodel", *SUFFIXES)
# Under it agegender.json lies in an ONNX file's `metadata_props`.
METADATA_KEY = "agegender"
MOST_METADATA = 1_000_000  # bytes; a ZIP archive may say a few and hold gigabytes


class ModelFile(Protocol):
    """What `OnnxModel` and `LiteRtModel` have in common."""

    metadata: dict

    @property
    def crop_size(self) -> tuple[int, int] | None:
        """(height, width) that crops must have; `None`: any."""

    def answer(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Answers about uint8 crops of shape (batch, height, width, 3)."""


def check_format(format: str) -> None:
    """Raises ValueError unless a model can be exported in that format."""
    if format not in FORMATS:
        raise ValueError(
            f"Invalid `format`. Expected one of {FORMATS}. Received: format={format!r}."
        )


def check_new_model(target: Path, format: str, overwrite: bool) -> None:
    """Makes sure that an export of a format can be made: a folder or a file.

    Raises:
        ValueError: If there is no such format, or `check_new_export` or
            `check_new_file` says so.
    """
    check_format(format)
    if format == "savedmodel":
        check_new_export(target, overwrite)
    else:
        check_new_file(target, format, overwrite)


def check_new_file(file: Path, format: str, overwrite: bool) -> None:
    """Makes sure that a model file can be written.

    Raises:
        ValueError: If its name does not end as the format's do, it is a folder, or it
            is there and may not be overwritten.
    """
    if file.suffix != SUFFIXES[format]:
        raise ValueError(
            f"Invalid file for format {format!r}. Expected a name that ends in "
            f"{SUFFIXES[format]}. Received: {file}."
        )
    if file.is_dir():
        raise ValueError(f"Invalid file. {file} is a folder. Expected a file to write.")
    if file.exists() and not overwrite:
        raise ValueError(
            f"There is a file {file} already. Choose another name, or overwrite it "
            "(--overwrite)."
        )


def read_metadata(written: str | bytes, file: str | Path) -> dict[str, Any]:
    """Returns what a model file says about itself.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        metadata = json.loads(written)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise ValueError(
            f"The file {file} is damaged: what it says about its outputs is no JSON "
            "object. Export it again."
        )
    return metadata


def check_crops(crops: np.ndarray, size: tuple[int, int] | None) -> None:
    """Raises ValueError unless crops are a batch of RGB pictures of that size."""
    shape = tuple(getattr(crops, "shape", ()))
    kind = getattr(crops, "dtype", type(crops).__name__)
    fits = isinstance(crops, np.ndarray) and crops.dtype == np.uint8
    fits = fits and len(shape) == 4 and shape[3] == 3 and 0 not in shape
    if not fits or size not in (None, shape[1:3]):
        sides = "height, width" if size is None else f"{size[0]}, {size[1]}"
        raise ValueError(
            f"Invalid `crops`. Expected uint8 of shape (batch, {sides}, 3), no side 0. "
            f"Received: {kind} of shape {shape}."
        )


def check_model_file(file: Path, format: str, runtime: str) -> None:
    """Raises ValueError unless a model file is there, and what it is opened with.

    Args:
        file: The file.
        format: What it is called: ONNX or LiteRT.
        runtime: The package that opens it. It is looked for and not imported.
    """
    if not file.is_file():
        raise ValueError(f"There is no {format} file {file}.")
    if importlib.util.find_spec(runtime) is None:
        raise ValueError(_not_installed(runtime))


@contextlib.contextmanager
def needs_export(package: str) -> Iterator[None]:
    """Turns the lack of a package into an error that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ValueError(_not_installed(package)) from None


def _not_installed(package: str) -> str:
    return f"{package} is not installed: pip install 'keras-agegender[export]'."


DEFAULT_MODEL_VARIABLE = "KERAS_AGEGENDER_MODEL"
# In a checkout; wheels come without it.
DEFAULT_MODEL = Path(__file__).parents[2] / "saved_models" / "utkface-compact"

Outputs: TypeAlias = "dict[str, np.ndarray]"


class InferenceModel(NamedTuple):
    """A model that is loaded.

    Attributes:
        metadata: What its agegender.json says, or would.
        answer: Turns faces of shape (num_faces, height, width, 3) into every output and
            decoded answer of the signature `faces`.
        takes_crops: Whether these faces are crops, uint8 of `crop_size`, which it
            resizes itself. Defaults to false: prepared ones, float32 in [0, 1].
    """

    metadata: dict[str, Any]
    answer: Callable[[np.ndarray], Outputs]
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
    load: Callable[[Path], InferenceModel]
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


def load_answering_model(path: str | Path) -> InferenceModel:
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


def _load_export(directory: Path) -> InferenceModel:
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

    return InferenceModel(metadata, network)


def _with_constants(function: Any) -> Callable[[np.ndarray], Outputs]:
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


def _on_arrays(network: Callable[[Any], dict[str, Any]]) -> Callable[..., Outputs]:
    """Returns a network of tensors as one of arrays."""
    import tensorflow as tf

    def answer(pixels: np.ndarray) -> Outputs:
        outputs = network(tf.constant(pixels))
        return {name: value.numpy() for name, value in outputs.items()}

    return answer


def _load_onnx(file: Path) -> InferenceModel:
    from keras_agegender.serving.onnx_format import OnnxModel

    model = OnnxModel(file)
    return InferenceModel(model.metadata, model.answer, takes_crops=True)


def _check_onnx(file: Path) -> None:
    check_model_file(file, "ONNX", "onnxruntime")


def _load_litert(file: Path) -> InferenceModel:
    from keras_agegender.serving.litert import LiteRtModel

    model = LiteRtModel(file, num_threads=os.cpu_count() or 1)
    return InferenceModel(model.metadata, model.answer, takes_crops=True)


def _check_litert(file: Path) -> None:
    check_model_file(file, "LiteRT", "ai_edge_litert")


# -- runs and .keras files -------------------------------------------------------------


def _load_run(directory: Path) -> InferenceModel:
    return _serve(RunDirectory.open(directory))


def _load_keras_file(file: Path) -> InferenceModel:
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


def _serve(model: RunDirectory | Path, **options: Any) -> InferenceModel:
    with quiet_start():
        from keras_agegender.serving.bundle import constant_network, serve

    served = serve(model, **options)
    return InferenceModel(served.metadata, _on_arrays(constant_network(served)))


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
