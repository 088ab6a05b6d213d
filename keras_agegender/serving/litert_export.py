"""Writing a LiteRT file, in float or with the network in int8."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_agegender.faces.pixel_graph import crop_size
from keras_agegender.models.heads import PART
from keras_agegender.quiet import no_standard_error
from keras_agegender.serving.crop_graph import (
    CROPS,
    PIXELS_SCOPE,
    crop_function,
)
from keras_agegender.serving.export_folder import METADATA_FILE
from keras_agegender.serving.litert_model import open_interpreter
from keras_agegender.serving.served_model import Served
from keras_agegender.serving.signatures import NETWORK_SCOPE

# Stay in float: 1/256 is coarse for a probability of 101 years, and their logarithms,
# by which calibration works, would be coarser.
FLOAT_OPERATIONS = ["SOFTMAX", "LOGISTIC"]
# So do layers of these names: thresholds of ranks, and response normalization, whose
# squares span too many orders of magnitude.
FLOAT_LAYERS = (PART, "/lrn")


def write_litert(
    served: Served, partial: Path, representative: np.ndarray | None = None
) -> None:
    """Writes the file, without metadata.

    Args:
        served: What to write.
        partial: Its name, which ends in .tflite.
        representative: Crops whose activations say the range of the integers. Shape
            (count, height, width, 3), uint8. `None` (default) writes floats.

    Raises:
        ValueError: If LiteRT is not installed, or lacks an operation.
    """
    with tempfile.TemporaryDirectory() as folder, no_standard_error():
        spec = tf.TensorSpec((None, *crop_size(served.graph.path), 3), tf.uint8, CROPS)
        archive = keras.export.ExportArchive()
        archive.track(served.network)
        # A file of a bare function would lack the weights, without a word.
        archive.add_endpoint("serving_default", crop_function(served), [spec])
        archive.write_out(folder, verbose=False)
        partial.write_bytes(_convert(_converter(folder)))
        if representative is not None:
            names = _names_in_float(partial)
            partial.write_bytes(_quantize(_converter(folder), representative, names))


def describe_litert(file: Path, metadata: Mapping[str, Any]) -> None:
    """Puts metadata into a LiteRT file: a ZIP archive behind the model.

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata, which
    keeps associated files that way.
    """
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(METADATA_FILE, json.dumps(metadata, ensure_ascii=False))


def _converter(folder: str) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _convert(converter: Any) -> bytes:
    try:
        return converter.convert()
    except Exception as error:  # the converter's class is private
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The model cannot be written for LiteRT: {reason}") from None


def _quantize(converter: Any, crops: np.ndarray, names: list[str]) -> bytes:
    """Converts with weights and activations in int8, apart from some operations."""

    def examples() -> Iterator[dict[str, np.ndarray]]:
        for crop in crops:
            yield {CROPS: crop[np.newaxis]}
        # Every value of a byte: the range of pixels is all of it, whatever the crops.
        values = np.arange(crops[0].size, dtype="int64") % 256
        yield {CROPS: values.astype("uint8").reshape(1, *crops[0].shape)}

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    # The one public way of TensorFlow to leave operations in float. It is experimental,
    # and in TensorFlow 2.21 opens its file with `tf.lite.Interpreter`, which that
    # version calls "scheduled for deletion". Its successor, litert-quantizer, quantizes
    # a float file and would do without TensorFlow; 0.11 wants exactly one version of
    # ai-edge-litert, as no dependency here does.
    # https://developers.google.com/edge/litert/quantization/tflq_to_litertq_migration
    if not hasattr(tf.lite.experimental, "QuantizationDebugger"):
        raise ValueError(
            "The format 'litert-int8' needs tf.lite.experimental.QuantizationDebugger, "
            f"which TensorFlow has up to 2.21 at least. Received: {tf.__version__}."
        )
    options = tf.lite.experimental.QuantizationDebugOptions(
        denylisted_ops=FLOAT_OPERATIONS, denylisted_nodes=names
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it opens what it wrote with TensorFlow's own
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=examples, debug_options=options
        )
    return debugger.get_nondebug_quantized_model()


def _names_in_float(file: Path) -> list[str]:
    """Returns what of a float file stays in float: decoding, and some layers."""
    details = open_interpreter(file).get_tensor_details()
    names = {tensor["name"] for tensor in details if tensor["name"]}
    return sorted(
        name
        for name in names
        if not any(f"{scope}/" in name for scope in (NETWORK_SCOPE, PIXELS_SCOPE))
        or any(layer in name for layer in FLOAT_LAYERS)
    )
