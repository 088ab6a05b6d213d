"""LiteRT files."""

from __future__ import annotations

import json
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_agegender.console import no_standard_error
from keras_agegender.faces.preprocessing_graph import crop_size
from keras_agegender.files import check_file
from keras_agegender.serving.bundle import CROPS, ExportBundle, crop_function
from keras_agegender.serving.formats import (
    METADATA_FILE,
    MOST_METADATA,
    check_crops,
    needs_export,
    read_metadata,
)


def write_litert(served: ExportBundle, partial: Path, int8: bool = False) -> None:
    """Writes the file, without metadata.

    In int8, weights of convolutions and dense layers have 8 bits, and a layer turns what
    comes in into 8 bits by the range that it sees then. Ranges that are fixed beforehand
    cost a MobileNet a quarter of its answers about age.

    Args:
        served: What to write.
        partial: Its name, which ends in .tflite.
        int8: Whether weights are in int8. Defaults to `False`.

    Raises:
        ValueError: If LiteRT is not installed, or lacks an operation.

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quant
    """  # noqa: E501
    with tempfile.TemporaryDirectory() as folder, no_standard_error():
        spec = tf.TensorSpec((None, *crop_size(served.graph.path), 3), tf.uint8, CROPS)
        archive = keras.export.ExportArchive()
        archive.track(served.network)
        # A file of a bare function would lack the weights, without a word.
        archive.add_endpoint("serving_default", crop_function(served), [spec])
        archive.write_out(folder, verbose=False)
        partial.write_bytes(_convert(folder, int8))


def describe_litert(file: Path, metadata: Mapping[str, Any]) -> None:
    """Puts metadata into a LiteRT file: a ZIP archive behind the model.

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata, which
    keeps associated files that way.
    """
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(METADATA_FILE, json.dumps(metadata, ensure_ascii=False))


def _convert(folder: str, int8: bool) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        return converter.convert()
    except Exception as error:  # the converter's class is private
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The model cannot be written for LiteRT: {reason}") from None


class LiteRtModel:
    """Answers about face crops from a file that `export(…, format="litert")` wrote.

    Args:
        file: The file, in float or int8.
        num_threads: Of LiteRT. Defaults to 1.

    Attributes:
        metadata: What agegender.json of a SavedModel says. It lies in the file as a ZIP
            archive behind the model: `unzip` reads it.
        crop_size: (height, width) that crops must have.

    Raises:
        ValueError: If LiteRT is not installed, or cannot read the file, or it is not
            what the checksum beside it says.

    Example:
    >>> model = LiteRtModel("face.tflite")  # doctest: +SKIP
    >>> model.answer(crops)["age_group"]  # doctest: +SKIP
    array([4])
    """

    def __init__(self, file: str | Path, num_threads: int = 1) -> None:
        if not Path(file).is_file():
            raise ValueError(f"There is no LiteRT file {file}.")
        check_file(Path(file))
        self.metadata: dict[str, Any] = read_metadata(_read_archive(file), file)
        self._interpreter = open_interpreter(file, num_threads)
        # An interpreter has one set of buffers: threads take turns.
        self._alone = threading.Lock()
        self._answer = self._interpreter.get_signature_runner()
        (details,) = self._answer.get_input_details().values()
        self._input = details["name"].removeprefix("serving_default_").split(":")[0]
        height, width = details["shape"][1:3]
        self.crop_size: tuple[int, int] = (int(height), int(width))

    def answer(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Answers about face crops; see `OnnxModel.answer`."""
        check_crops(crops, self.crop_size)
        with self._alone:
            return self._answer(**{self._input: crops})


def _read_archive(file: str | Path) -> bytes:
    """Returns agegender.json, which lies in an archive behind the model."""
    try:
        with (
            zipfile.ZipFile(file) as archive,
            archive.open(METADATA_FILE) as stream,
        ):
            written = stream.read(MOST_METADATA + 1)
    # An archive may say that it is encrypted, or packed as nobody unpacks it.
    except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError, zlib.error):
        written = b""
    if not 0 < len(written) <= MOST_METADATA:
        raise ValueError(
            f"The file {file} says nothing about its outputs, or is damaged; it is not "
            "one that `agegender export --format litert` wrote."
        )
    return written


def open_interpreter(file: str | Path, num_threads: int = 1) -> Any:
    """Returns LiteRT's interpreter of a file; ValueError if it cannot read it."""
    with needs_export("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter
    try:
        with no_standard_error():  # a line about its own delegate, in C++
            interpreter = Interpreter(str(file), num_threads=num_threads)
            interpreter.allocate_tensors()
            return interpreter
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"LiteRT cannot load {file}: {reason}") from None
