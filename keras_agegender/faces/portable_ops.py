"""Image operations of TensorFlow that ONNX lacks, in operations that it has.

Inside `portable_graph`, `geometry` and `mtcnn` build graphs of these. They compute the
same, but TensorFlow runs its own operations faster.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

_is_portable = contextvars.ContextVar("_is_portable", default=False)


@contextlib.contextmanager
def portable_graph() -> Iterator[None]:
    """Builds functions that are traced inside out of portable operations."""
    token = _is_portable.set(True)
    try:
        yield
    finally:
        _is_portable.reset(token)


def is_portable() -> bool:
    """Returns whether the graph must consist of portable operations."""
    return _is_portable.get()


def resize_area(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Replaces `tf.image.resize` with `method="area"`, for one image."""
    size = tf.cast(size, tf.int64)
    step = tf.cast(tf.shape(images)[1:3], tf.float32) / tf.cast(size, tf.float32)
    return _resample(images, tf.zeros(2), step, size, area=True)


def scale_and_translate(
    images: tf.Tensor, size: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor
) -> tf.Tensor:
    """Replaces `ScaleAndTranslate`, a triangle kernel, antialiased, for one image."""
    return _resample(images, -translation / scale, 1.0 / scale, tf.cast(size, tf.int64))


def _resample(
    images: tf.Tensor,
    first: tf.Tensor,
    step: tf.Tensor,
    size: tf.Tensor,
    area: bool = False,
) -> tf.Tensor:
    """Resamples one image: `size` rows and columns of `step` pixels from `first` on."""
    height, width = size[0], tf.shape(images, tf.int64)[2]
    images = tf.reshape(images, tf.stack([1, -1, 3 * width]))
    images = _resample_rows(images, first[0], step[0], height, area)
    # The planes of three colors, turned over: columns become rows.
    images = tf.transpose(tf.reshape(images, tf.stack([height, -1, 3])), (2, 1, 0))
    images = _resample_rows(images, first[1], step[1], size[1], area)
    return tf.expand_dims(tf.transpose(images, (2, 1, 0)), 0)


def _resample_rows(
    images: tf.Tensor, first: tf.Tensor, step: tf.Tensor, count: tf.Tensor, area: bool
) -> tf.Tensor:
    """Resamples the rows of images of shape (depth, rows, columns)."""
    last = tf.cast(tf.shape(images, tf.int64)[1] - 1, tf.float32)
    # Distance from the center of a row at which the kernel is zero.
    reach = step * 0.5 + 0.5 if area else tf.maximum(step, 1.0)
    places = tf.cast(tf.range(count), tf.float32)
    centers = tf.expand_dims((places + 0.5) * step + (first - 0.5), 1)
    num_taps = tf.cast(tf.math.ceil(2 * reach), tf.int64) + 1
    rows = tf.floor(centers - reach) + tf.cast(tf.range(num_taps), tf.float32)
    weights = reach - tf.abs(rows - centers)
    if area:
        weights = tf.clip_by_value(weights, 0.0, 1.0)
    else:
        # Rows beyond the image do not count; a row whose center is beyond is black.
        inside = (rows >= 0) & (rows <= last)
        inside &= (centers >= -0.5) & (centers <= last + 0.5)
        weights = tf.nn.relu(weights) * tf.cast(inside, tf.float32)
    total = tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.expand_dims(weights / tf.maximum(total, 1e-6), 1)
    rows = tf.cast(tf.clip_by_value(rows, 0.0, last), tf.int64)
    pixels = tf.cast(tf.gather(images, rows, axis=1), tf.float32)
    return tf.squeeze(tf.matmul(weights, pixels), 2)


def sample(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Interpolates an image bilinearly at points; beyond it, the border is repeated."""
    size = tf.shape(image)
    rows, columns = (
        tf.clip_by_value(places, 0.0, tf.cast(size[axis] - 1, tf.float32))
        for axis, places in enumerate((rows, columns))
    )
    # Each pixel with its right, lower and lower right neighbor: one look-up, not four.
    image = tf.concat([image, tf.concat([image[:, 1:], image[:, -1:]], 1)], axis=2)
    image = tf.concat([image, tf.concat([image[1:], image[-1:]], 0)], axis=2)
    top, left = tf.floor(rows), tf.floor(columns)
    places = tf.cast(top, tf.int32) * size[1] + tf.cast(left, tf.int32)
    pixels = tf.cast(tf.gather(tf.reshape(image, (-1, 12)), places), tf.float32)
    for share in (rows - top, columns - left):
        first, second = tf.split(pixels, 2, axis=-1)
        pixels = first + (second - first) * tf.expand_dims(share, -1)
    return pixels
