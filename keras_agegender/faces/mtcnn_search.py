"""What of a picture MTCNN searches: a reduced copy, the same in and out of a graph."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

SMALLEST_FACE = 12  # what the first network sees
# A face of this many pixels is enough for all three networks: a picture is searched on
# a copy in which the smallest face asked for has no more.
SEARCHED_FACE = 20


class SearchCopy(NamedTuple):
    """A picture as it is searched.

    Attributes:
        image: The copy. Shape (height, width, 3), uint8.
        min_face_size: Smallest face to search for, in its pixels.
        factor: (x, y) from its pixels to those of the picture. Shape (2,).
    """

    image: tf.Tensor
    min_face_size: tf.Tensor
    factor: tf.Tensor


def search_copy(image: tf.Tensor, min_face_size: float, max_side: int) -> SearchCopy:
    """Reduces a picture until its smallest face has 20 pixels.

    Args:
        image: RGB. Shape (height, width, 3), uint8.
        min_face_size: Smallest face: a share of the shorter side of the picture below
            1, or pixels.
        max_side: Longest side of the copy, in pixels; it wins over the smallest face.
    """
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    least = tf.constant(min_face_size, tf.float32)
    if min_face_size < 1:
        least *= tf.reduce_min(size)
    scale = SEARCHED_FACE / tf.maximum(least, float(SMALLEST_FACE))
    scale = tf.minimum(tf.minimum(scale, max_side / tf.reduce_max(size)), 1.0)
    reduced = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)

    def reduce() -> tf.Tensor:
        copy = tf.image.resize(image[tf.newaxis], reduced, method="area")[0]
        return tf.cast(tf.round(copy), tf.uint8)

    return SearchCopy(
        tf.cond(scale == 1.0, lambda: image, reduce),
        tf.maximum(least * scale, float(SMALLEST_FACE)),
        (size / tf.cast(reduced, tf.float32))[::-1],
    )
