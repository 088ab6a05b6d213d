"""Exports a run as one self-contained model."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.faces.preprocessing_graph import crop_size
from keras_agegender.files import (
    atomic_write,
    disk_errors,
    exclusive_lock,
    lock_beside,
    partial_directory,
    replace_directory,
    sidecar,
    write_checksums,
    write_json,
    write_sidecar,
)
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.bundle import ExportBundle, serve
from keras_agegender.serving.formats import (
    METADATA_FILE,
    ModelFile,
    check_new_file,
    check_new_model,
)
from keras_agegender.serving.litert import LiteRtModel, describe_litert, write_litert
from keras_agegender.serving.onnx_format import OnnxModel, describe_onnx, write_onnx
from keras_agegender.serving.verify_export import (
    TOLERANCES,
    Comparison,
    Tolerance,
    check_drift,
    compare_answers,
    find_faces,
)


def export(
    model: RunDirectory | keras.Model | str | Path,
    directory: str | Path,
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
    format: str = "savedmodel",
    crops: str | Path | None = None,
    report: Callable[[str], None] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model that answers in age groups and genders, as folder or file.

    A SavedModel is a folder; ONNX and LiteRT are one file each, which takes face crops
    as they are stored (`OnnxModel`, `LiteRtModel`). Either appears under its name only
    when it is complete, a file only when its runtime gave the Keras model's answers.

    Args:
        model: A run or its directory, of which the best model is taken; a `.keras`
            file; or a Keras model.
        directory: Folder or file to make.
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
        license: Terms of the weights, kept in agegender.json under `"license"`.
            `None` (default) keeps those of a run's terms.json.
        format: `"savedmodel"` (default), `"onnx"`, `"litert"`, or `"litert-int8"` with
            weights of 8 bits.
        crops: A prepared dataset or a folder of face crops: whom a file is compared on.
            `None` takes the run's dataset where it still is, drawn faces otherwise.
        report: Called with size, speed and agreement of a file, `print` for instance.
        overwrite: Whether an export of that name may be replaced.

    Returns:
        The folder or file. A SavedModel has no signatures `photo` and `photos` if faces
        were found by another detector than MTCNN; a warning says so.

    Raises:
        ValueError: If the backend is not TensorFlow, the folder or file exists, model,
            encoding and pipeline do not fit together, or a file answers otherwise than
            the Keras model.

    Example:
    >>> export("runs/1", "saved_models/first")  # doctest: +SKIP
    >>> export("runs/1", "first.tflite", format="litert-int8")  # doctest: +SKIP
    """
    directory = Path(directory)
    check_new_model(directory, format, overwrite)
    served = serve(
        model,
        encoding=encoding,
        pixels=pixels,
        pipeline=pipeline,
        crop_options=crop_options,
        crop_size=crop_size,
        detector=detector,
        calibration=calibration,
        metadata=metadata,
    )
    if license is not None:
        served.metadata["license"] = license
    if format == "savedmodel":
        _export_folder(served, directory)
    else:
        comparison = export_file(
            served, directory, format, run=_run_of(model), crops=crops, overwrite=True
        )
        if report is not None:
            report(str(comparison))
    return directory


def _run_of(model: Any) -> RunDirectory | None:
    if isinstance(model, RunDirectory):
        return model
    is_run = isinstance(model, (str, Path)) and Path(model).suffix != ".keras"
    return RunDirectory(Path(model)) if is_run else None


def _export_folder(served: ExportBundle, directory: Path) -> None:
    path = served.graph.path
    if "photo" not in served.functions:
        warnings.warn(
            f"The export has no signature `photo`: faces were found by {path.detector}"
            ", which no SavedModel can hold. `detector` of `export` names another.",
            stacklevel=3,
        )
    partial = partial_directory(directory)
    refusal = f"Another process exports to {directory}. Choose another directory."
    with exclusive_lock(lock_beside(directory), refusal):
        shutil.rmtree(partial, ignore_errors=True)
        _write_saved_model(served, partial)
        write_json(partial / METADATA_FILE, served.metadata)
        write_checksums(partial)  # last: whatever is not in it is not finished
        replace_directory(partial, directory)


def _write_saved_model(served: ExportBundle, directory: Path) -> None:
    shape = (None, *served.graph.image_size, 3)
    inputs = {
        "serving_default": tf.TensorSpec((None,), tf.string, name="image_bytes"),
        "faces": tf.TensorSpec((None, None, None, 3), tf.uint8, name="faces"),
        "inputs": tf.TensorSpec(shape, tf.float32, name="inputs"),
        "photo": tf.TensorSpec((), tf.string, name="photo_bytes"),
        "photos": tf.TensorSpec((None,), tf.string, name="photo_bytes"),
    }
    archive = keras.export.ExportArchive()
    archive.track(served.network)
    archive.pixels = served.graph  # its networks' weights are saved too
    for name, function in served.functions.items():
        archive.add_endpoint(name, function, input_signature=[inputs[name]])
    with disk_errors(directory):
        archive.write_out(str(directory), verbose=False)


def export_file(
    served: ExportBundle,
    file: Path,
    format: str,
    *,
    run: RunDirectory | None = None,
    crops: str | Path | None = None,
    tolerance: Tolerance | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Writes a model as one file that takes face crops, and says how well it answers.

    Args:
        served: What to write.
        file: Its name, which ends in .onnx or .tflite.
        format: `"onnx"`, `"litert"` or `"litert-int8"`.
        run: The run that the model is of; its dataset has faces to compare on.
        crops: A prepared dataset or a folder of face crops to compare on instead.
        tolerance: What answers may differ by; `None` is the format's own.
        overwrite: Whether a file of that name may be replaced.

    Returns:
        How it answers beside the Keras model, and its size and speed.

    Raises:
        ValueError: If it answers otherwise than the Keras model: there is no file then.
    """
    check_new_file(file, format, overwrite)
    compared = find_faces(run, crops, served.graph)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial:
        description = {**served.metadata, **_describe_file(served, format)}
        if format == "onnx":
            write_onnx(served, partial)
            describe_onnx(partial, description)
        else:
            int8 = format == "litert-int8"
            write_litert(served, partial, int8)
            describe_litert(partial, description)
        model: ModelFile
        model = OnnxModel(partial, 1) if format == "onnx" else LiteRtModel(partial)
        size = partial.stat().st_size
        comparison = compare_answers(served, model, compared, size)
        check_drift(comparison, tolerance or TOLERANCES[format], format)
        sidecar(file).unlink(missing_ok=True)  # of the file that was there
    write_sidecar(file)
    return comparison


def _describe_file(served: ExportBundle, format: str) -> dict:
    size = None if format == "onnx" else list(crop_size(served.graph.path))
    return {
        "signatures": ["crops"],
        "file": {
            "format": format,
            "crop_size": size,
            "tolerance": TOLERANCES[format]._asdict(),
        },
    }
