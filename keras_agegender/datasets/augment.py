"""Augmentation in `tf.data`: what the layers of `models.augmentation` do, and more."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_agegender.faces.decoding import decode_jpeg
from keras_agegender.faces.geometry import resize, to_bytes
from keras_agegender.models.augmentation import (
    BLUR_KERNEL,
    ERASED_AREA,
    ERASED_VALUE,
    Augmentation,
)


def augment_image(image: tf.Tensor, augmentation: Augmentation, seed: Any) -> tf.Tensor:
    """Changes one picture at random.

    Args:
        image: RGB, values in [0, 1]. Shape (height, width, 3), float32.
        augmentation: What to do.
        seed: Two integers; the same seed gives the same result. Shape (2,).

    Returns:
        A picture of the same shape and range.

    Example:
    >>> image = tf.random.stateless_uniform((8, 8, 3), (1, 2))
    >>> augment_image(image, Augmentation(), (3, 4)).shape
    TensorShape([8, 8, 3])
    """
    shape = image.shape
    seeds = iter(tf.unstack(tf.random.split(seed, 12)))
    a = augmentation
    for asked, change in (
        (a.flip, lambda x, s: tf.image.stateless_random_flip_left_right(x, s)),
        (a.rotation or a.zoom or a.shift, lambda x, s: _move(x, a, s)),
        (a.contrast, lambda x, s: _change_contrast(x, a.contrast, s)),
        (a.brightness, lambda x, s: _in_range(x + _draw(s, a.brightness))),
        (a.saturation, lambda x, s: _change_saturation(x, a.saturation, s)),
        (a.blur, lambda x, s: _blur(x, a.blur, s)),
        (a.low_resolution, lambda x, s: _reduce(x, a.low_resolution, s)),
        (a.jpeg_quality, lambda x, s: _compress(x, a.jpeg_quality or 100, s)),
        (a.erasing, lambda x, s: _erase(x, a.erasing, s)),
    ):
        of_change = next(
            seeds
        )  # switching one change off leaves the others as they are
        if asked:
            image = change(image, of_change)
    return tf.ensure_shape(image, shape)


def _draw(seed: tf.Tensor, limit: float, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Returns numbers from [-limit, limit]."""
    return tf.random.stateless_uniform(shape, seed, -limit, limit)


def _in_range(image: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(image, 0.0, 1.0)


def _move(image: tf.Tensor, a: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Rotates, zooms and shifts in one step, so that pixels are interpolated once."""
    of_angle, of_zoom, of_shift = tf.unstack(tf.random.split(seed, 3))
    angle = _draw(of_angle, a.rotation * math.pi / 180)
    scale = 1.0 + _draw(of_zoom, a.zoom)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    down, right = tf.unstack(_draw(of_shift, a.shift, (2,)) * size)
    middle_y, middle_x = tf.unstack((size - 1) / 2)
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    x, y = -middle_x - right, -middle_y - down
    transform = tf.stack(  # pixel of the result -> pixel of the picture
        [
            *(cos, -sin, middle_x + cos * x - sin * y),
            *(sin, cos, middle_y + sin * x + cos * y),
            *(0.0, 0.0),
        ]
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )[0]


def _change_contrast(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(image, axis=(0, 1), keepdims=True)
    return _in_range((image - mean) * (1.0 + _draw(seed, limit)) + mean)


def _change_saturation(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    factor = 0.5 + _draw(seed, limit)
    return _in_range(tf.image.adjust_saturation(image, factor / (1.0 - factor)))


def _blur(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    """Blurs with a standard deviation along each axis."""
    sigma = tf.random.stateless_uniform((2,), seed, 0.0, limit) + 1e-6
    places = tf.range(BLUR_KERNEL, dtype=tf.float32) - BLUR_KERNEL // 2
    weights = tf.exp(-tf.square(places[:, tf.newaxis] / sigma) / 2)
    weights /= tf.reduce_sum(weights, axis=0)
    kernel = weights[:, tf.newaxis, 0] * weights[tf.newaxis, :, 1]
    kernel = tf.tile(kernel[..., tf.newaxis, tf.newaxis], (1, 1, 3, 1))
    blurred = tf.nn.depthwise_conv2d(image[tf.newaxis], kernel, [1] * 4, "SAME")
    return _in_range(blurred[0])


def _reduce(image: tf.Tensor, limit: float, seed: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    share = 1.0 - tf.random.stateless_uniform((), seed, 0.0, limit)
    small = tf.maximum(tf.cast(tf.round(size * share), tf.int32), 1)
    return _in_range(resize(resize(image, small), tf.shape(image)[:2]))


def _compress(image: tf.Tensor, lowest: int, seed: tf.Tensor) -> tf.Tensor:
    quality = tf.random.stateless_uniform((), seed, lowest, 101, tf.int32)
    file = tf.raw_ops.EncodeJpegVariableQuality(
        images=to_bytes(image * 255.0), quality=quality
    )
    return tf.cast(decode_jpeg(file), tf.float32) / 255.0


def _erase(image: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    of_chance, of_area, of_place = tf.unstack(tf.random.split(seed, 3))
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    sides = size * tf.sqrt(tf.random.stateless_uniform((2,), of_area, *ERASED_AREA))
    start = tf.random.stateless_uniform((2,), of_place) * (size - sides)
    rows, columns = (tf.range(side) for side in tf.unstack(size))
    inside_rows = (rows >= start[0]) & (rows < start[0] + sides[0])
    inside_columns = (columns >= start[1]) & (columns < start[1] + sides[1])
    chosen = tf.random.stateless_uniform((), of_chance) < probability
    inside = inside_rows[:, tf.newaxis] & inside_columns & chosen
    return tf.where(inside[..., tf.newaxis], ERASED_VALUE, image)
