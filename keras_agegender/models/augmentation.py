"""Augmentation as a value: what training changes in its pictures at random."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# What no Keras layer does.
DATA_ONLY = ("low_resolution", "jpeg_quality")
ERASED_AREA = (0.02, 0.33)  # share of the picture; Zhong et al. 2020
ERASED_VALUE = 0.5
BLUR_KERNEL = 7  # side in pixels: three standard deviations


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training pictures, drawn anew for every picture.

    One definition with two places: as Keras layers at the head of a model
    (`build_model(augment=…)`), stripped from exports, or in `tf.data`
    (`make_train_dataset(augment=…)`), with the same distributions. The defaults are the
    report's: a flip and a contrast of 0.2, which is not stated there. All changes but
    the flip are off at 0 (or `None`); they act in the order listed, on pixels in
    [0, 1].

    Args:
        flip: Whether half of the pictures are mirrored, left and right.
        rotation: Greatest angle, in degrees, either way, in [0, 180].
        zoom: The picture is shrunk or enlarged about its center: it shows 1 + u times
            the width and height, u drawn from [-zoom, zoom], in [0, 1).
        shift: Greatest shift, either way, as a share of height and width, in [0, 1].
        contrast: The distance of pixels to their channel's mean is multiplied by a
            number from [1 - contrast, 1 + contrast], in [0, 1].
        brightness: A number from [-brightness, brightness] is added, in [0, 1].
        saturation: Saturation is multiplied by f / (1 - f), f drawn from
            [0.5 - saturation, 0.5 + saturation], in [0, 0.5).
        blur: Greatest standard deviation of a Gaussian blur, in pixels, in [0, 1].
            A layer draws one for all pictures of a batch.
        low_resolution: The picture is reduced to a share of its sides, drawn from
            [1 - low_resolution, 1], and enlarged again, in [0, 1). Only in `tf.data`.
        jpeg_quality: Lowest quality of a JPEG compression, drawn from
            [jpeg_quality, 100]; `None` for none. Only in `tf.data`.
        erasing: Probability that a rectangle of 2 to 33 % of the picture is made gray,
            in [0, 1].

    Where something leaves the picture, its border is repeated.

    Raises:
        ValueError: If a setting is out of range.

    Example:
    >>> Augmentation(rotation=10, shift=0.05).rotation
    10

    Source: the report, 1.3; Zhong et al., "Random Erasing Data Augmentation", AAAI 2020
    (arXiv 1708.04896).
    """

    flip: bool = True
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    contrast: float = 0.2
    brightness: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0
    low_resolution: float = 0.0
    jpeg_quality: int | None = None
    erasing: float = 0.0

    def __post_init__(self) -> None:
        limits = {"rotation": 180.0, "saturation": 0.499, "zoom": 0.99}
        limits |= {"low_resolution": 0.99}
        for name in (
            *("rotation", "zoom", "shift", "contrast", "brightness", "saturation"),
            *("blur", "low_resolution", "erasing"),
        ):
            value, limit = getattr(self, name), limits.get(name, 1.0)
            if not 0 <= value <= limit:
                raise ValueError(
                    f"Invalid `{name}`. Expected a float in [0, {limit:g}]. "
                    f"Received: {name}={value!r}."
                )
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ValueError(
                "Invalid `jpeg_quality`. Expected None or an int in [1, 100]. "
                f"Received: jpeg_quality={self.jpeg_quality!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values."""
        return asdict(self)

    def check_layers(self) -> None:
        """Makes sure that all of it can stand in a model.

        Raises:
            ValueError: If something is asked for that no Keras layer does.
        """
        asked = [name for name in DATA_ONLY if getattr(self, name)]
        if asked:
            raise ValueError(
                f"Invalid `augment`. No Keras layer does {' or '.join(asked)}: give it "
                "to `make_train_dataset`, in a recipe with augmentation.where = "
                f"'data'. Received: {self}."
            )
