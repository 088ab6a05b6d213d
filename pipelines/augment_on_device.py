"""Augmentation of a batch on the accelerator: what `make_train_dataset` does, in JAX.

The distributions are those of `keras_agegender.Augmentation`, in the same order; every
picture of a batch draws its own. Two parts come near without being equal: reduced
pictures have one of 24 sizes, and JPEG is its color subsampling and the rounding of its
8 × 8 cosine coefficients, without a file.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from keras_agegender.models.augmentation import (
    BLUR_KERNEL,
    ERASED_AREA,
    ERASED_VALUE,
    Augmentation,
)

BLUR_RADIUS = BLUR_KERNEL // 2
REDUCTIONS = 24

# Quantization at quality 50: JPEG's standard, Annex K.1.
LUMINANCE = np.array(
    [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
     [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
     [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
     [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]],
    "float32",
)  # fmt: skip
CHROMINANCE = np.full((8, 8), 99.0, "float32")
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99],
                       [47, 66, 99, 99]]  # fmt: skip
# Rows: luma, blue and red difference of RGB (JFIF).
YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]],
    "float32",
)


def augment_batch(images: Any, augmentation: Augmentation, key: Any) -> Any:
    """Changes every picture of a batch at random.

    Args:
        images: Values in [0, 1]. Shape (batch, side, side, 3); with `jpeg_quality` the
            side is a multiple of 16.
        augmentation: What to do.
        key: JAX's key of the batch; the same one gives the same result.

    Returns:
        An array of the same shape and range.
    """
    a = augmentation
    changes = (
        (a.flip or a.rotation or a.zoom or a.shift, partial(_move, a=a)),
        (a.contrast, partial(_change_contrast, limit=a.contrast)),
        (a.brightness, partial(_change_brightness, limit=a.brightness)),
        (a.saturation, partial(_change_saturation, limit=a.saturation)),
        (a.blur, partial(_blur, limit=a.blur)),
        (a.low_resolution, partial(_reduce, limit=a.low_resolution)),
        (a.jpeg_quality, partial(_compress, lowest=a.jpeg_quality or 100)),
        (a.erasing, partial(_erase, probability=a.erasing)),
    )
    for (asked, change), own in zip(
        changes, jax.random.split(key, len(changes)), strict=True
    ):
        if asked:
            images = jnp.clip(change(images, own), 0.0, 1.0)
    return images


def _draw(key: Any, count: int, low: float, high: float) -> Any:
    """Returns a number per picture, to be multiplied with pictures."""
    return jax.random.uniform(key, (count, 1, 1, 1), minval=low, maxval=high)


def _move(images: Any, key: Any, a: Augmentation) -> Any:
    """Flips, rotates, zooms and shifts in one interpolation."""
    count, side = images.shape[:2]
    keys = jax.random.split(key, 5)
    angle = _draw(keys[0], count, -a.rotation, a.rotation)[..., 0] * math.pi / 180
    scale = 1.0 + _draw(keys[1], count, -a.zoom, a.zoom)[..., 0]
    down, right = (_draw(k, count, -a.shift, a.shift)[..., 0] * side for k in keys[2:4])
    mirror = jnp.where(
        _draw(keys[4], count, 0.0, 1.0)[..., 0] < 0.5 * a.flip, -1.0, 1.0
    )
    middle = (side - 1) / 2
    rows = (jnp.arange(side, dtype="float32") - middle)[None, :, None] - down
    columns = (jnp.arange(side, dtype="float32") - middle)[
        None, None, :
    ] * mirror - right
    cos, sin = jnp.cos(angle) * scale, jnp.sin(angle) * scale
    return _bilinear(
        images,
        sin * columns + cos * rows + middle,
        cos * columns - sin * rows + middle,
    )


def _bilinear(images: Any, rows: Any, columns: Any) -> Any:
    """Reads pictures at places; behind the border stands what is on it."""
    last = images.shape[1] - 1
    rows, columns = jnp.clip(rows, 0, last), jnp.clip(columns, 0, last)
    top, left = jnp.floor(rows).astype("int32"), jnp.floor(columns).astype("int32")
    below, beside = jnp.minimum(top + 1, last), jnp.minimum(left + 1, last)
    picture = jnp.arange(len(images))[:, None, None]
    share_y, share_x = (rows - top)[..., None], (columns - left)[..., None]
    upper = images[picture, top, left] * (1 - share_x)
    upper += images[picture, top, beside] * share_x
    lower = images[picture, below, left] * (1 - share_x)
    lower += images[picture, below, beside] * share_x
    return upper * (1 - share_y) + lower * share_y


def _change_contrast(images: Any, key: Any, limit: float) -> Any:
    mean = images.mean((1, 2), keepdims=True)
    factor = 1.0 + _draw(key, len(images), -limit, limit)
    return (images - mean) * factor + mean


def _change_brightness(images: Any, key: Any, limit: float) -> Any:
    return images + _draw(key, len(images), -limit, limit)


def _change_saturation(images: Any, key: Any, limit: float) -> Any:
    """Moves colors from or to the largest channel, as HSV's saturation does."""
    share = 0.5 + _draw(key, len(images), -limit, limit)
    factor = share / (1.0 - share)
    high = images.max(-1, keepdims=True)
    low = images.min(-1, keepdims=True)
    saturation = (high - low) / jnp.maximum(high, 1e-6)
    # No color gets more than full saturation.
    factor = jnp.minimum(factor, 1.0 / jnp.maximum(saturation, 1e-6))
    return high - (high - images) * factor


def _blur(images: Any, key: Any, limit: float) -> Any:
    places = jnp.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype="float32")
    for axis, own in zip((1, 2), jax.random.split(key), strict=True):
        sigma = _draw(own, len(images), 0.0, limit) + 1e-6
        weights = jnp.exp(-jnp.square(places / sigma[..., 0]) / 2)  # (batch, 1, 7)
        weights /= weights.sum(-1, keepdims=True)
        padding = [(0, 0)] * 4
        padding[axis] = (BLUR_RADIUS, BLUR_RADIUS)
        padded = jnp.pad(images, padding)
        images = sum(
            jax.lax.slice_in_dim(padded, k, k + images.shape[axis], axis=axis)
            * weights[:, :, k, None, None]
            for k in range(len(places))
        )
    return images


def _reduce(images: Any, key: Any, limit: float) -> Any:
    """Makes pictures smaller and large again: two products with a matrix."""
    tables = jnp.asarray(_reductions(images.shape[1], limit))
    which = jax.random.randint(key, (len(images),), 0, len(tables))
    own = tables[which]
    count, side = images.shape[:2]
    for _ in range(2):  # rows, then columns
        lines = jnp.matmul(own, images.reshape(count, side, -1))
        images = lines.reshape(images.shape).swapaxes(1, 2)
    return images


def _reductions(side: int, limit: float) -> np.ndarray:
    """Returns matrices that reduce a column of pixels and enlarge it again."""
    identity = np.eye(side, dtype="float32")
    tables = []
    for share in np.linspace(1.0 - limit, 1.0, REDUCTIONS):
        small = max(1, round(side * share))
        with jax.ensure_compile_time_eval():
            down = jax.image.resize(identity, (small, side), "linear")
            tables.append(np.asarray(jax.image.resize(down, (side, side), "linear")))
    return np.stack(tables)


def _compress(images: Any, key: Any, lowest: int) -> Any:
    """Rounds 8 × 8 cosine coefficients as a JPEG of a drawn quality does."""
    quality = jax.random.randint(key, (len(images),), lowest, 101).astype("float32")
    percent = jnp.where(quality < 50, 5000.0 / quality, 200.0 - 2.0 * quality)
    ycc = jnp.stack(_mixed(YCC, [images[..., c] * 255.0 for c in range(3)]))
    luma = _round_blocks(ycc[0] - 128.0, percent, LUMINANCE) + 128.0
    count, side = images.shape[:2]
    halves = ycc[1:].reshape(2, count, side // 2, 2, side // 2, 2).mean((3, 5))
    colors = [
        _round_blocks(half, percent, CHROMINANCE).repeat(2, 1).repeat(2, 2)
        for half in halves
    ]
    return jnp.stack(_mixed(np.linalg.inv(YCC), [luma, *colors]), -1) / 255.0


def _mixed(matrix: np.ndarray, channels: Any) -> list[Any]:
    """Returns a matrix times three channels, as sums: it is too small for more."""
    return [
        sum(factor * channel for factor, channel in zip(row, channels, strict=True))
        for row in matrix.tolist()
    ]


def _round_blocks(plane: Any, percent: Any, table: np.ndarray) -> Any:
    count, side = plane.shape[:2]
    k, n = np.ogrid[:8, :8]
    cosines = np.cos((2 * n + 1) * k * np.pi / 16) * np.where(k == 0, 0.5**0.5, 1) / 2
    cosines = cosines.astype("float32")
    blocks = plane.reshape(count, side // 8, 8, side // 8, 8)
    steps = jnp.floor((table * percent[:, None, None] + 50.0) / 100.0)
    steps = jnp.clip(steps, 1.0, 255.0)[:, None, :, None, :]
    found = _transformed(_transformed(blocks, cosines, 2), cosines, 4)
    found = jnp.round(found / steps) * steps
    blocks = _transformed(_transformed(found, cosines.T, 2), cosines.T, 4)
    return blocks.reshape(plane.shape)


def _transformed(blocks: Any, matrix: np.ndarray, axis: int) -> Any:
    """Returns a matrix times the eight numbers along an axis, as a list of sums."""
    parts = [jax.lax.index_in_dim(blocks, i, axis, keepdims=True) for i in range(8)]
    shape = [1] * blocks.ndim
    shape[axis] = 8
    return sum(part * matrix[:, i].reshape(shape) for i, part in enumerate(parts))


def _erase(images: Any, key: Any, probability: float) -> Any:
    count, side = images.shape[:2]
    of_chance, of_area, of_place = jax.random.split(key, 3)
    low, high = ERASED_AREA
    area = jax.random.uniform(of_area, (2, count), minval=low, maxval=high)
    sides = side * jnp.sqrt(area)
    start = jax.random.uniform(of_place, (2, count)) * (side - sides)
    places = jnp.arange(side)[None]
    rows, columns = (
        (places >= start[k, :, None]) & (places < (start + sides)[k, :, None])
        for k in (0, 1)
    )
    chosen = jax.random.uniform(of_chance, (count,)) < probability
    inside = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
    return jnp.where(inside[..., None], ERASED_VALUE, images)
