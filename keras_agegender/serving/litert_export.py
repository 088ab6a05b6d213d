"""Writing a LiteRT file, in float or with weights of 8 bits."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_agegender.faces.pixel_graph import crop_size
from keras_agegender.quiet import no_standard_error
from keras_agegender.serving.crop_graph import (
    CROPS,
    crop_function,
)
from keras_agegender.serving.export_folder import METADATA_FILE
from keras_agegender.serving.served_model import Served


def write_litert(served: Served, partial: Path, int8: bool = False) -> None:
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
