"""Occlusion maps: which parts of an image a prediction depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

STEPS = 12  # positions along a side
SQUARE = 0.25  # side of the square, relative to that of the image
SMALLEST_SCALE = 0.02  # smaller changes of a probability have pale colors


def occlusion_map(
    image: Any,
    probability: Callable[[np.ndarray], np.ndarray],
    *,
    steps: int = STEPS,
    square: float = SQUARE,
) -> np.ndarray:
    """Returns how much a probability drops when a square of the image is covered.

    The square has the mean color of the image.

    Args:
        image: A model's input. Shape (height, width, channels).
        probability: Function of images, shape (batch, height, width, channels), that
            returns the probability of the predicted class, shape (batch,).
        steps: Number of positions along each side, 2 or more. Defaults to 12.
        square: Side of the square relative to that of the image, in (0, 1]. Defaults to
            0.25.

    Returns:
        Drop of the probability at each position: above 0 if the covered part supports
        the prediction, below 0 if it contradicts it. Shape (steps, steps).

    Raises:
        ValueError: If the shape of the image, `steps` or `square` is invalid.

    Example:
    >>> image = np.zeros((8, 8, 1)); image[0, 0] = 1.0
    >>> found = occlusion_map(image, lambda x: x.max((1, 2, 3)), steps=2, square=0.5)
    >>> found.round(2).tolist()  # covered by the mean of all pixels, 1 / 64
    [[0.98, 0.0], [0.0, 0.0]]
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            "Invalid `image`. Expected shape (height, width, channels). Received: "
            f"shape {image.shape}."
        )
    if steps < 2 or not 0 < square <= 1:
        raise ValueError(
            "Invalid `steps` or `square`. Expected steps >= 2, and a square in (0, 1]. "
            f"Received: steps={steps}, square={square}."
        )
    height, width = image.shape[:2]
    sides = [max(1, round(square * side)) for side in (height, width)]
    tops, lefts = (
        np.linspace(0, side - covered, steps).round().astype("int64")
        for side, covered in zip((height, width), sides, strict=True)
    )
    covered = np.repeat(image[None], steps * steps + 1, axis=0)  # the last one is whole
    gray = image.mean(axis=(0, 1))
    for place in range(steps * steps):
        top, left = tops[place // steps], lefts[place % steps]
        covered[place, top : top + sides[0], left : left + sides[1]] = gray
    found = np.asarray(probability(covered), "float64")
    return (found[-1] - found[:-1]).reshape(steps, steps)


def draw_occlusion(image: np.ndarray, drop: np.ndarray, size: int = 224) -> Any:
    """Draws an occlusion map over an RGB image, red where the drop is high."""
    import matplotlib

    base = Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)
    reach = max(float(np.abs(drop).max()), SMALLEST_SCALE)
    scaled = Image.fromarray((drop / reach).astype("float32"))
    values = np.asarray(scaled.resize((size, size), Image.Resampling.BICUBIC))
    colors = matplotlib.colormaps["RdBu_r"](np.clip(values, -1, 1) / 2 + 0.5)[..., :3]
    # The image is gray where the drop is 0.
    opacity = 0.65 * np.clip(np.abs(values), 0, 1)[..., None]
    gray = np.asarray(base.convert("L"), "float32")[..., None].repeat(3, axis=2)
    mixed = (1 - opacity) * gray + opacity * 255 * colors
    return mixed.round().astype("uint8")
