"""From face crops to answers, in operations that every runtime has.

What ONNX and LiteRT files hold: uint8 crops of any number in, every output and decoded
answer out. The resizing of `PixelGraph` is one operation of TensorFlow's own. Here it
is what it amounts to: a product with a matrix for the rows and one for the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_agegender.faces.pixel_graph import enlarged_size
from keras_agegender.serving.served_model import Served

# Name of the input.
CROPS = "crops"
# What turns pixels into the network's input carries this name inside the graph.
PIXELS_SCOPE = "pixels"


def crop_function(served: Served) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the function that answers about crops as they are stored.

    It takes uint8 RGB of shape (batch, height, width, 3) and returns what the signature
    `faces` returns, without the operations that only TensorFlow has.
    """
    size, enlarge = served.graph.image_size, served.graph.path.enlarge

    def answer(crops: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.name_scope(PIXELS_SCOPE):
            inputs = _to_input(crops, size, enlarge)
        return served.functions["inputs"](inputs)

    return answer


def resize_matrix(source: Any, target: int, enlarge: float = 1.0) -> tf.Tensor:
    """Returns the matrix that resizes a column of pixels: bilinear, antialiased.

    Args:
        source: How many pixels there are, a number or a scalar tensor.
        target: How many are wanted.
        enlarge: Their center is cut out of this many times as many; at least 1.

    Returns:
        Weights, the sum of each row is 1. Shape (target, source), float32.

    Example:
    >>> (7 * resize_matrix(4, 2).numpy()).round().astype(int).tolist()
    [[3, 3, 1, 0], [0, 1, 3, 3]]
    """
    (large, _) = enlarged_size((target, target), enlarge)
    first = (large - target) // 2
    count = tf.cast(source, tf.float32)
    step = count / large
    centers = (tf.range(target, dtype=tf.float32) + (first + 0.5)) * step - 0.5
    distance = tf.abs(centers[:, tf.newaxis] - tf.range(count)[tf.newaxis, :])
    weights = tf.maximum(1.0 - distance / tf.maximum(step, 1.0), 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _to_input(crops: tf.Tensor, size: tuple[int, int], enlarge: float) -> tf.Tensor:
    """Does to a batch what `PixelGraph.to_input` does to a picture."""
    height, width = (
        side or tf.shape(crops)[axis]
        for axis, side in ((1, crops.shape[1]), (2, crops.shape[2]))
    )
    pixels = tf.transpose(tf.cast(crops, tf.float32), (0, 2, 3, 1))
    pixels = tf.matmul(pixels, _constant(height, size[0], enlarge), transpose_b=True)
    pixels = tf.transpose(pixels, (0, 3, 2, 1))
    pixels = tf.matmul(pixels, _constant(width, size[1], enlarge), transpose_b=True)
    pixels = tf.transpose(pixels, (0, 1, 3, 2))
    pixels = tf.clip_by_value(pixels / np.float32(255), 0.0, 1.0)
    return tf.ensure_shape(pixels, (None, *size, 3))


def _constant(source: Any, target: int, enlarge: float) -> Any:
    """Returns the matrix, as numbers where the number of pixels is known."""
    if not isinstance(source, int):
        return resize_matrix(source, target, enlarge)
    with tf.init_scope():
        return resize_matrix(source, target, enlarge).numpy()
