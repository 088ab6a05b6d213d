"""LiteRT files."""

from __future__ import annotations

import functools
import json
import os
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_agegender.errors import one_line
from keras_agegender.files import check_file
from keras_agegender.serving import model_format

if TYPE_CHECKING:
    from keras_agegender.serving.bundle import ExportBundle


def write_litert(
    bundle: ExportBundle, file: Path, metadata: Mapping[str, Any], int8: bool = False
) -> None:
    """Writes a LiteRT file with its metadata in a ZIP archive at the end."""
    # Where associated files are stored:
    # https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
    import keras
    import tensorflow as tf

    from keras_agegender.serving.bundle import CROPS, crop_function

    batch = metadata["file"].get("batch_size")
    spec = tf.TensorSpec((batch, *bundle.graph.spec.crop_size, 3), tf.uint8, CROPS)
    archive = keras.export.ExportArchive()
    archive.track(bundle.network)
    # A file of a bare function would silently lack the weights.
    archive.add_endpoint("serving_default", crop_function(bundle), [spec])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if int8:
            # Dynamic ranges: fixed ones changed a quarter of a MobileNet's age classes.
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            content = converter.convert()
        except Exception as error:  # the converter's class is private
            reason = one_line(error, 300)
            raise ValueError(
                f"The model cannot be converted to LiteRT: {reason}"
            ) from None
    file.write_bytes(content)
    with zipfile.ZipFile(file, "a") as attached:
        attached.writestr(
            model_format.METADATA_FILE, json.dumps(metadata, ensure_ascii=False)
        )


write_litert_int8 = functools.partial(write_litert, int8=True)


def open_litert(
    file: Path, num_threads: int | None = None
) -> model_format.InferenceModel:
    """Loads a LiteRT file; by default on all cores."""
    model = LiteRtModel(file, num_threads or os.cpu_count() or 1)
    return model_format.InferenceModel(
        model.metadata, model.predict, takes_crops=True, crop_size=model.crop_size
    )


class LiteRtModel:
    """Runs an exported LiteRT file on face crops, without TensorFlow.

    Args:
        file: The file, in float or int8.
        num_threads: Threads of LiteRT. Defaults to 1.

    Attributes:
        metadata: As agegender.json of a SavedModel; `unzip` extracts it from the file.
        crop_size: (height, width) that crops must have.

    Raises:
        ValueError: If LiteRT is not installed, cannot read the file, or the file does
            not match the checksum beside it.

    Example:
    >>> model = LiteRtModel("face.tflite")  # doctest: +SKIP
    >>> model.predict(crops)["age_group"]  # doctest: +SKIP
    array([4])
    """

    def __init__(self, file: str | Path, num_threads: int = 1) -> None:
        if not Path(file).is_file():
            raise ValueError(f"LiteRT file not found: {file}.")
        check_file(Path(file))
        self.metadata: dict[str, Any] = model_format.read_metadata(
            _read_archive(file), file
        )
        with model_format.optional_package("ai_edge_litert"):
            from ai_edge_litert.interpreter import Interpreter
        try:
            self._interpreter = Interpreter(str(file), num_threads=num_threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = one_line(error, 300)
            raise ValueError(f"LiteRT cannot load {file}: {reason}") from None
        # An interpreter has one set of buffers: threads take turns.
        self._lock = threading.Lock()
        self._run = self._interpreter.get_signature_runner()
        (details,) = self._run.get_input_details().values()
        self._input = details["name"].removeprefix("serving_default_").split(":")[0]
        height, width = details["shape"][1:3]
        self.crop_size: tuple[int, int] = (int(height), int(width))
        self._batch = self.metadata.get("file", {}).get("batch_size")

    def predict(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the predictions for face crops; see `OnnxModel.predict`."""
        model_format.check_crops(crops, self.crop_size)
        if self._batch is None:
            with self._lock:
                return self._run(**{self._input: crops})
        # A file of a fixed batch size: the last batch is filled up with black.
        rest = -len(crops) % self._batch
        padded = np.concatenate([crops, np.zeros((rest, *crops.shape[1:]), "uint8")])
        with self._lock:
            parts = [
                {k: v.copy() for k, v in self._run(**{self._input: part}).items()}
                for part in np.split(padded, len(padded) // self._batch)
            ]
        return {
            k: np.concatenate([p[k] for p in parts])[: len(crops)] for k in parts[0]
        }


def _read_archive(file: str | Path) -> bytes:
    """Returns agegender.json from the archive appended to the model."""
    try:
        with (
            zipfile.ZipFile(file) as archive,
            archive.open(model_format.METADATA_FILE) as stream,
        ):
            written = stream.read(model_format.MAX_METADATA_BYTES + 1)
    # RuntimeError: an encrypted archive or an unknown compression.
    except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError, zlib.error):
        written = b""
    if not 0 < len(written) <= model_format.MAX_METADATA_BYTES:
        raise ValueError(
            f"The file {file} has no metadata, or is damaged. Expected a file written "
            "by `agegender export --format litert`."
        )
    return written
