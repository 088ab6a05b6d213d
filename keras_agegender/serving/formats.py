"""The table of model formats and its lookups.

A new format is a row here and, if it needs code, one module.
"""

from __future__ import annotations

import os
from pathlib import Path

from keras_agegender.files import directory_hash, file_hash
from keras_agegender.run_directory import RunDirectory, find_checkpoint
from keras_agegender.serving import litert, onnx_format, saved_model
from keras_agegender.serving.model_format import InferenceModel, ModelFormat, Tolerance


def _open_checkpoint(path: Path, num_threads: int | None = None) -> InferenceModel:
    """Opens a run or `.keras` file like its SavedModel export."""
    from keras_agegender.serving.bundle import build_export_bundle, constant_network

    bundle = build_export_bundle(path)
    return InferenceModel(
        bundle.metadata, saved_model.on_arrays(constant_network(bundle))
    )


def _check_run(path: Path) -> None:
    run = RunDirectory(path)
    suffixes = {row.suffix for row in export_formats().values()} - {""}
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes)
    if files and not run.best_model.is_file():
        raise ValueError(
            f"The run in {path} has no checkpoint yet: best.keras is missing. It "
            f"contains the exported model {files[0]}. Pass that file instead."
        )
    find_checkpoint(path)


def _checkpoint_identity(path: Path) -> str:
    """Returns a hash of a checkpoint and of the run's files that it uses."""
    checkpoint = find_checkpoint(path)
    files = [checkpoint.file]
    if checkpoint.run is not None:
        files.append(checkpoint.run.recipe_file)
        if checkpoint.is_best and checkpoint.run.calibration_file.is_file():
            files.append(checkpoint.run.calibration_file)
    return "-".join(map(file_hash, files))


FLOAT_TOLERANCE = Tolerance(largest=1e-3, mean=1e-4, agreement=0.99)
COMPACT_TOLERANCE = Tolerance(largest=0.05, mean=5e-3, agreement=0.97)
INT8_TOLERANCE = Tolerance(largest=1.0, mean=0.03, agreement=0.9)

# The first row that recognizes a path opens it; `export` writes those with `write`.
FORMATS = (
    ModelFormat(
        "run",
        "run",
        _open_checkpoint,
        recognize=lambda path: RunDirectory(path).recipe_file.is_file(),
        check=_check_run,
        identity=_checkpoint_identity,
    ),
    ModelFormat(
        "keras",
        ".keras file",
        _open_checkpoint,
        suffix=".keras",
        check=find_checkpoint,
        identity=_checkpoint_identity,
    ),
    ModelFormat(
        "savedmodel",
        "SavedModel",
        saved_model.open_saved_model,
        recognize=saved_model.is_saved_model,
        check=saved_model.check_saved_model,
        identity=lambda path: directory_hash(path, "*.*"),
        write=saved_model.write_saved_model,
    ),
    ModelFormat(
        "onnx",
        "ONNX file",
        onnx_format.open_onnx,
        suffix=".onnx",
        runtime="onnxruntime",
        write=onnx_format.write_onnx,
        tolerance=FLOAT_TOLERANCE,
        any_crop_size=True,
        finds_faces=True,
    ),
    ModelFormat(
        "onnx-compact",
        "ONNX file, weights in 8 and 16 bits",
        onnx_format.open_onnx,
        suffix=".onnx",
        runtime="onnxruntime",
        write=onnx_format.write_compact_onnx,
        tolerance=COMPACT_TOLERANCE,
        any_crop_size=True,
        finds_faces=True,
    ),
    ModelFormat(
        "litert",
        "LiteRT file",
        litert.open_litert,
        suffix=".tflite",
        runtime="ai_edge_litert",
        write=litert.write_litert,
        tolerance=FLOAT_TOLERANCE,
    ),
    ModelFormat(
        "litert-int8",
        "LiteRT file, int8",
        litert.open_litert,
        suffix=".tflite",
        runtime="ai_edge_litert",
        write=litert.write_litert_int8,
        tolerance=INT8_TOLERANCE,
    ),
)


def export_formats() -> dict[str, ModelFormat]:
    """Returns the formats that `export` writes, by name; the first is the default."""
    return {row.name: row for row in FORMATS if row.write is not None}


def find_format(path: str | Path) -> ModelFormat | None:
    """Returns the format of a model, complete or not; `None` if it is not a model."""
    path = Path(path)
    return next((row for row in FORMATS if row.recognizes(path)), None)


def check_model(path: str | Path) -> ModelFormat:
    """Returns the format of a model that can be loaded. Imports no framework."""
    row = find_format(path)
    if row is None:
        released = sorted(file.stem for file in RELEASED.glob("*.onnx"))
        raise ValueError(
            f"{path} contains neither an exported model nor a run. Expected an export "
            "(`agegender export RUN --out MODEL`), a run, a .keras file, or a released "
            f"model: {released}."
        )
    row.check_complete(Path(path))
    return row


def load_model(path: str | Path) -> InferenceModel:
    """Loads a model of any format."""
    return check_model(path).open(Path(path), None)


def model_identity(path: str | Path) -> str:
    """Returns a hash of everything that determines a model's predictions."""
    return check_model(path).identity(Path(path))


def check_new_export(target: Path, format: str, overwrite: bool) -> ModelFormat:
    """Returns the row of a format. Imports no framework."""
    rows = export_formats()
    if format not in rows:
        raise ValueError(
            f"Invalid `format`. Expected one of {tuple(rows)}. "
            f"Received: format={format!r}."
        )
    suffix = rows[format].suffix
    if not suffix:
        saved_model.check_new_folder(target, overwrite)
    elif target.suffix != suffix:
        raise ValueError(
            f"Invalid file for format {format!r}. Expected a name that ends in "
            f"{suffix}. Received: {target}."
        )
    elif target.is_dir():
        raise ValueError(
            f"Invalid file. Expected a file. Received: {target}, a folder."
        )
    elif target.exists() and not overwrite:
        raise ValueError(
            f"{target} already exists. Choose another name, or overwrite it "
            "(--overwrite)."
        )
    return rows[format]


DEFAULT_MODEL_VARIABLE = "KERAS_AGEGENDER_MODEL"
# Released models that wheels contain, and those of a checkout.
RELEASED = Path(__file__).with_name("models")
CHECKOUT = Path(__file__).parents[2] / "saved_models"
DEFAULT_NAME = "utkface-compact"


def find_model(model: str | Path | None = None) -> Path:
    """Returns the path of a model: a path, a released model's name, or the default."""
    if model is None:
        return default_model()
    if find_format(model) is None and Path(model).name == str(model):
        released = RELEASED / f"{model}.onnx"
        for path in (released, CHECKOUT / model / released.name, CHECKOUT / model):
            if find_format(path) is not None and path.exists():
                return path
    return Path(model)


def default_model() -> Path:
    """Returns the default model.

    It is the value of the environment variable KERAS_AGEGENDER_MODEL, a path or name,
    or the released model utkface-compact.

    Raises:
        ValueError: If the variable is set to something else.

    Example:
    >>> Predictor(default_model()).predict("photo.jpg")  # doctest: +SKIP
    """
    named = os.environ.get(DEFAULT_MODEL_VARIABLE)
    if named:
        if find_format(path := find_model(named)) is None:
            raise ValueError(
                f"Invalid {DEFAULT_MODEL_VARIABLE}. Expected a run, an export, a "
                f".keras file or a released model. Received: {named}."
            )
        return path
    path = find_model(DEFAULT_NAME)
    if find_format(path) is None:
        raise ValueError(
            "No default model found. Pass a model: a run, an export or a .keras file, "
            f"or set {DEFAULT_MODEL_VARIABLE}."
        )
    return path
