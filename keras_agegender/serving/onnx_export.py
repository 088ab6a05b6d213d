"""Writing an ONNX file: the graph from crops to answers, and what it means."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_agegender.serving.crop_graph import CROPS, crop_function
from keras_agegender.serving.model_file import METADATA_KEY, needs_export
from keras_agegender.serving.served_model import Served

# The oldest set of operations with all that is used; ONNX Runtime reads it since 1.12.
OPSET = 17


def write_onnx(served: Served, file: Path) -> None:
    """Writes the file, without metadata; crops may have any size.

    Args:
        served: What to write.
        file: Its name.

    Raises:
        ValueError: If a package is not installed, or an operation has no counterpart in
            ONNX.
    """
    with needs_export("onnx"):
        import onnx
    with needs_export("tf2onnx"):
        import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it warns, and writes
    spec = [tf.TensorSpec((None, None, None, 3), tf.uint8, name=CROPS)]
    function = tf.function(crop_function(served), spec, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, spec, opset=OPSET)
    for dimension, name in enumerate(("batch", "height", "width")):
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_param = name
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The model cannot be written as ONNX: {reason}") from None
    onnx.save(model, str(file))


def describe_onnx(file: Path, metadata: Mapping[str, Any]) -> None:
    """Puts metadata into an ONNX file."""
    import onnx

    model = onnx.load(str(file))
    text = json.dumps(metadata, ensure_ascii=False)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, str(file))
