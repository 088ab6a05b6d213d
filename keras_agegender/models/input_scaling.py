"""From pixels in [0, 1] to the range that a backbone was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Means of blue, green and red that Caffe's ImageNet models take off.
CAFFE_MEAN = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class InputScaling:
    """y = x * scale + offset, channel by channel.

    Attributes:
        scale: One factor, or one per channel.
        offset: One summand, or one per channel.
        reverses_channels: Whether red and blue change places first.
    """

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    reverses_channels: bool = False


# By the name that `build_model(input_scaling=…)` takes.
INPUT_SCALINGS = {
    "0..1": InputScaling(),
    "0..255": InputScaling(255.0),
    "-1..1": InputScaling(2.0, -1.0),
    "imagenet": InputScaling(
        tuple(1.0 / std for std in IMAGENET_STD),
        tuple(
            -mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
        ),
    ),
    "caffe": InputScaling(255.0, tuple(-mean for mean in CAFFE_MEAN), True),
}


def get_input_scaling(scaling: str | Sequence[float]) -> InputScaling:
    """Returns a scaling by its name, or one of a factor and a summand.

    Args:
        scaling: A key of `INPUT_SCALINGS`, or a pair (scale, offset) of numbers.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> get_input_scaling("-1..1") == get_input_scaling((2, -1))
        True
    """
    if isinstance(scaling, str) and scaling in INPUT_SCALINGS:
        return INPUT_SCALINGS[scaling]
    pair = [] if isinstance(scaling, str) else list(scaling)
    if len(pair) == 2 and all(isinstance(number, (int, float)) for number in pair):
        return InputScaling(float(pair[0]), float(pair[1]))
    raise ValueError(
        f"Invalid `input_scaling`. Expected one of {list(INPUT_SCALINGS)} or a pair "
        f"(scale, offset) of numbers. Received: input_scaling={scaling!r}."
    )


def scale_input(image: Any, scaling: InputScaling) -> Any:
    """Puts a scaling behind an image tensor, in layers that plain Keras loads.

    Args:
        image: Image tensor in [0, 1]. Shape (batch, height, width, 3).
        scaling: What to apply.

    Returns:
        A tensor of the same shape; the same tensor where nothing changes.
    """
    from keras import layers, ops  # recipes read the names before Keras loads

    if scaling.reverses_channels:
        image = ops.flip(image, axis=-1)
    if scaling.scale == 1.0 and scaling.offset == 0.0:
        return image
    scale, offset = (
        list(value) if isinstance(value, tuple) else value
        for value in (scaling.scale, scaling.offset)
    )
    return layers.Rescaling(scale, offset, dtype="float32", name="input_scaling")(image)
