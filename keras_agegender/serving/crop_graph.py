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

from keras_agegender.faces.resampling import resize_matrix
from keras_agegender.serving.served_model import Served

# Name of the input.
CROPS = "crops"


def crop_function(served: Served) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the function that answers about crops as they are stored.

    It takes uint8 RGB of shape (batch, height, width, 3) and returns what the signature
    `faces` returns, without the operations that only TensorFlow has.
    """
    size, enlarge = served.graph.image_size, served.graph.path.enlarge

    def answer(crops: tf.Tensor) -> dict[str, tf.Tensor]:
        return served.functions["inputs"](_to_input(crops, size, enlarge))

    return answer


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
