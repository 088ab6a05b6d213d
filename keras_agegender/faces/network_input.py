"""The last part of the pixel path: a stored picture becomes the network's input."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from keras_agegender.faces.pixel_path import PixelPath
from keras_agegender.faces.resampling import multiply, resize, resize_matrix


def stored_to_input(
    picture: tf.Tensor, image_size: tuple[int, int], path: PixelPath
) -> tf.Tensor:
    """Turns a stored picture into the network's input; see `PixelGraph.to_input`.

    Pictures of the stored size are multiplied with two matrices, as in model files. All
    others are resized: it gives the same up to rounding, and takes twice the time.
    """
    height, width = image_size
    large = enlarged_size((height, width), path.enlarge)
    top, left = (large[0] - height) // 2, (large[1] - width) // 2

    def any_size() -> tf.Tensor:
        image = unit_pixels(picture, large)
        return image[top : top + height, left : left + width]

    if path.stored_size is None:
        return tf.ensure_shape(any_size(), (height, width, 3))
    rows, columns = (
        _constant_matrix(source, target, path.enlarge)
        for source, target in zip(path.stored_size, (height, width), strict=True)
    )
    image = tf.cond(
        tf.reduce_all(tf.shape(picture)[:2] == tf.constant(path.stored_size)),
        lambda: _to_unit(multiply(picture, rows, columns)),
        any_size,
    )
    return tf.ensure_shape(image, (height, width, 3))


def enlarged_size(image_size: tuple[int, int], enlarge: float) -> tuple[int, int]:
    """Returns the (height, width) out of which the input is cut."""
    return round(image_size[0] * enlarge), round(image_size[1] * enlarge)


def unit_pixels(picture: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes a picture and scales it from [0, 255] to [0, 1], float32."""
    return _to_unit(resize(picture, size))


@functools.cache
def _constant_matrix(source: int, target: int, enlarge: float) -> np.ndarray:
    with tf.init_scope():
        return np.asarray(resize_matrix(source, target, enlarge))


def _to_unit(pixels: tf.Tensor) -> tf.Tensor:
    # The kernel's weights sum to 1.0000002.
    return tf.clip_by_value(pixels / 255.0, 0.0, 1.0)
