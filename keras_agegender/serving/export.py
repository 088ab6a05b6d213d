"""Export: a trained model becomes one self-contained TensorFlow SavedModel, or a file.

In: a run directory, a `.keras` file or a model. Out: an ONNX or LiteRT file
(`file_export`), or a folder that any TensorFlow
program loads with `tf.saved_model.load`, without this package and without Keras. Pixels
are prepared and answers decoded inside it; augmentation is not in it.

    signatures["serving_default"](image_bytes=…)   files of face crops
    signatures["faces"](faces=…)                   face crops, uint8 RGB of any one size
    signatures["inputs"](inputs=…)                 faces prepared already, float32 in
                                                   [0, 1] of the network's own size
    signatures["photo"](photo_bytes=…)             one photo; its faces are found inside
    signatures["photos"](photo_bytes=…)            a batch of them

All answer with every output of the model under its name and, where the encoding knows
them, `age_group`, `age_group_probabilities`, `heads_agree`, `gender_id` and
`male_probability`, a row per face; of a calibrated model all probabilities are
calibrated, and `age_group_set` and `gender_set` say which are in the set of answers.
`photo` adds `boxes` (left, top, right, bottom in
pixels of the upright photo), `scores` and `landmarks`, from left to right; of a model
that was trained on whole pictures it answers in one row, about the whole picture.
`photos` answers the same with a row per photo, and in it a row per face; `counts` says
how many of them are faces. What pads the others is -1 of ids, 0 and false of all else.

Files are those that `read_image` reads: JPEG, PNG, GIF, WebP and BMP; others are errors
that name their format. `Predictor` sees the same pixels: both carry out the `PixelPath`
in `agegender.json`, which also says what the numbers mean.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_agegender.checksums import write_checksums
from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.faces.cropping import CropOptions
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.pixel_path import PixelPath
from keras_agegender.files import (
    disk_errors,
    lock_beside,
    only_writer,
    partial_directory,
    replace_directory,
    write_json,
)
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.export_folder import METADATA_FILE
from keras_agegender.serving.model_file import check_new_model
from keras_agegender.serving.served_model import Served, serve


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
        from keras_agegender.serving.file_export import export_file

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


def _export_folder(served: Served, directory: Path) -> None:
    path = served.graph.path
    if "photo" not in served.functions:
        warnings.warn(
            f"The export has no signature `photo`: faces were found by {path.detector}"
            ", which no SavedModel can hold. `detector` of `export` names another.",
            stacklevel=3,
        )
    partial = partial_directory(directory)
    refusal = f"Another process exports to {directory}. Choose another directory."
    with only_writer(lock_beside(directory), refusal):
        shutil.rmtree(partial, ignore_errors=True)
        _write_saved_model(served, partial)
        write_json(partial / METADATA_FILE, served.metadata)
        write_checksums(partial)  # last: whatever is not in it is not finished
        replace_directory(partial, directory)


def _write_saved_model(served: Served, directory: Path) -> None:
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
