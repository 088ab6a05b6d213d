"""Image operations of TensorFlow that ONNX lacks, in operations that it has.

Inside `portable_graph`, `geometry` and `mtcnn` build graphs of these. They compute the
same, but TensorFlow runs its own operations faster.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import numpy as np
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
    places = tf.expand_dims(tf.cast(tf.range(count), tf.float32), 1)
    if area:  # in the order of TensorFlow's operations, to the same rounding
        begin, end = places * step, (places + 1.0) * step
        num_taps = tf.cast(tf.math.ceil(step), tf.int64) + 1
        rows = tf.floor(begin) + tf.cast(tf.range(num_taps), tf.float32)
        shared = tf.minimum(end, rows + 1.0) - tf.maximum(begin, rows)
        weights = tf.nn.relu(shared) / step
    else:
        reach = tf.maximum(step, 1.0)  # from a row's center to where the kernel ends
        centers = (places + 0.5) * step + (first - 0.5)
        num_taps = tf.cast(tf.math.ceil(2 * reach), tf.int64) + 1
        rows = tf.floor(centers - reach) + tf.cast(tf.range(num_taps), tf.float32)
        # Rows beyond the image do not count; a row whose center is beyond is black.
        inside = (rows >= 0) & (rows <= last)
        inside &= (centers >= -0.5) & (centers <= last + 0.5)
        weights = tf.nn.relu(reach - tf.abs(rows - centers))
        weights *= tf.cast(inside, tf.float32)
        total = tf.reduce_sum(weights, axis=1, keepdims=True)
        weights = weights / tf.maximum(total, 1e-6)
    rows = tf.cast(tf.clip_by_value(rows, 0.0, last), tf.int64)
    pixels = tf.cast(tf.gather(images, rows, axis=1), tf.float32)
    return tf.squeeze(tf.matmul(tf.expand_dims(weights, 1), pixels), 2)


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


# -- JPEG ------------------------------------------------------------------------------

# ITU T.81, Annex K: quantization at quality 50, of luminance and of chrominance.
_LUMINANCE = """
    16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56
    14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
    49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMINANCE = """
    17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99
    47 66 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
# JFIF 1.02, in units of 1 / 65536 as in libjpeg: from (R, G, B) to (Y, Cb - 128,
# Cr - 128), and back.
_TO_YCC = np.array(
    [[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], "float32"
) / np.float32(65536)
_TO_RGB = np.array(
    [[65536, 0, 91881], [65536, -22554, -46802], [65536, 116130, 0]], "float32"
) / np.float32(65536)

# Left half of libjpeg's cosine transform of 8 values, in units of 1 / 8192 as it rounds
# them. Even rows are symmetric, odd rows antisymmetric.
_COSINES = np.array(
    [[8192, 8192, 8192, 8192],
     [11363, 9633, 6437, 2260],
     [10703, 4433, -4433, -10703],
     [9633, -2259, -11362, -6436],
     [8192, -8192, -8192, 8192],
     [6437, -11362, 2261, 9633],
     [4433, -10704, 10704, -4433],
     [2260, -6436, 9633, -11363]],
    "float32",
) / np.float32(8192)  # fmt: skip
_COSINES = np.concatenate(
    [_COSINES, _COSINES[:, ::-1] * np.resize([1, -1], (8, 1))], axis=1, dtype="float32"
)


def compress_jpeg(image: tf.Tensor, quality: int) -> tf.Tensor:
    """Returns what `tf.io.decode_jpeg` makes of `tf.io.encode_jpeg`'s file.

    The coding itself is lossless. What changes pixels is rounding: of YCbCr, of chroma
    at half the resolution, and of the cosine transform. It is as in libjpeg, "islow".
    """
    rows, columns = (image.shape[axis] or tf.shape(image)[axis] for axis in (0, 1))
    # Chroma blocks cover 16 x 16 pixels. Encoders repeat the border up to there.
    height, width = ((side + 15) // 16 * 16 for side in (rows, columns))
    for axis, (known, side) in enumerate(((rows, height), (columns, width))):
        if not isinstance(known, int) or known != side:
            places = tf.minimum(tf.range(side), known - 1)
            image = tf.gather(image, places, axis=axis)
    pixels = tf.reshape(tf.cast(image, tf.float32), (-1, 3))
    planes = tf.matmul(_TO_YCC, pixels, transpose_b=True)
    planes = tf.floor(planes + np.array([[0.5], [0.49998], [0.49998]], "float32"))
    luma = tf.reshape(planes[:1] - 128.0, (1, height, width))
    chroma = tf.reshape(planes[1:], (2, height // 2, 2, width // 2, 2))
    turns = tf.cast(tf.range(width // 2) % 2, tf.float32)
    # Halves are rounded down and up in turns.
    chroma = tf.floor(tf.reduce_mean(chroma, axis=(2, 4)) + (turns * 0.25 + 0.25))
    luma = _quantize(luma, _LUMINANCE, quality, height, width) + 128.0
    chroma = _quantize(chroma, _CHROMINANCE, quality, height // 2, width // 2)
    luma = luma[:, :rows, :columns]
    chroma = chroma[:, : (rows + 1) // 2, : (columns + 1) // 2]
    chroma = _double(chroma, 1)[:, :rows]
    # Rounded to 1/16, and halves in turns.
    chroma = _double(chroma, 2, np.array([0.5, 0.4375], "float32"))
    chroma = tf.floor(chroma)[:, :, :columns]
    planes = tf.concat([tf.reshape(luma, (1, -1)), tf.reshape(chroma, (2, -1))], axis=0)
    pixels = tf.matmul(planes, _TO_RGB, transpose_a=True, transpose_b=True)
    pixels = tf.clip_by_value(tf.round(pixels), 0.0, 255.0)
    return tf.cast(tf.reshape(pixels, (rows, columns, 3)), tf.uint8)


def _quantize(
    planes: tf.Tensor, table: str, quality: int, height: Any, width: Any
) -> tf.Tensor:
    """Rounds cosine transforms of 8 x 8 blocks to multiples of a table's steps."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (np.array(table.split(), int) * scale + 50) // 100
    steps = np.clip(steps, 1, 255).reshape(8, 8).astype("float32")
    steps = tf.tile(steps, (height // 8, width // 8))

    def across(planes: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
        planes = tf.matmul(tf.reshape(planes, (-1, 8)), matrix)
        return tf.floor(tf.reshape(planes, (-1, height, width)) + 0.5)

    def down(planes: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
        planes = tf.matmul(matrix, tf.reshape(planes, (-1, 8, width)))
        return tf.floor(tf.reshape(planes, (-1, height, width)) + 0.5)

    # After one direction, values are rounded to 1/4; coefficients to 1/8.
    coefficients = down(across(planes, 4 * _COSINES.T), _COSINES / 4)
    # A little more than the quotient: halves are rounded away from zero.
    coefficients = tf.round(coefficients * ((1 + 1e-6) / 8) / steps) * steps
    planes = across(down(coefficients, 4 * _COSINES.T), _COSINES / 32)
    return tf.clip_by_value(planes, -128.0, 127.0)


def _double(planes: tf.Tensor, axis: int, rounding: Any = 0.0) -> tf.Tensor:
    """Doubles the values along an axis, 3/4 of the nearest and 1/4 of the next one."""
    size = [known or tf.shape(planes)[at] for at, known in enumerate(planes.shape)]
    places = tf.range(size[axis])
    before = tf.gather(planes, tf.maximum(places - 1, 0), axis=axis)
    after = tf.gather(planes, tf.minimum(places + 1, size[axis] - 1), axis=axis)
    planes = planes * 0.75
    pairs = tf.stack([planes + before * 0.25, planes + after * 0.25], axis + 1)
    size[axis] *= 2
    return tf.reshape(pairs + rounding, size)
