"""The networks that this library knows by name, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras_agegender.models.caffe import (
    CAFFE_IMAGE_SIZE,
    CAFFE_VARIANTS,
    caffe_backbone,
)
from keras_agegender.models.efficientnet_lite0 import (
    EFFICIENTNET_LITE0_IMAGE_SIZE,
    efficientnet_lite0_backbone,
)
from keras_agegender.models.resnet34 import RESNET34_IMAGE_SIZE, resnet34_backbone
from keras_agegender.models.squeeze_excite import squeeze_excite


@dataclass(frozen=True)
class Network:
    """A network that `build_model` knows.

    Attributes:
        features: Image tensor in [0, 1], `dropout_rate`, `width` -> features, a map or
            a vector per image.
        image_size: Default (height, width) in pixels.
        minimum: Smallest height and width it can take.
        augments: Whether flip and contrast are layers of the model.
        has_width: Whether it can be made wider or narrower.
    """

    features: Callable[..., Any]
    image_size: tuple[int, int]
    minimum: int
    augments: bool
    has_width: bool = False


def _resnet_features(
    image: Any, dropout_rate: float, width: float, excite: bool
) -> Any:
    x = resnet34_backbone(image, width)
    return squeeze_excite(x) if excite else x


def _caffe_features(image: Any, dropout_rate: float, width: float, variant: str) -> Any:
    return caffe_backbone(image, CAFFE_VARIANTS[variant], dropout_rate)


def _efficientnet_lite0_features(image: Any, dropout_rate: float, width: float) -> Any:
    return efficientnet_lite0_backbone(image)


NETWORKS = {
    **{
        # A pooling needs 2 rows. One behind conv1: (11 - 7) / 4 + 1 = 2. Two: 4 rows
        # pool to 2, 4 = (19 - 7) / 4 + 1. Three: 8 pool to 4, 8 = (35 - 7) / 4 + 1.
        name: Network(
            features=partial(_caffe_features, variant=name),
            image_size=CAFFE_IMAGE_SIZE,
            minimum={1: 11, 2: 19, 3: 35}[len(variant.filters)],
            augments=False,
        )
        for name, variant in CAFFE_VARIANTS.items()
    },
    **{
        name: Network(
            features=partial(_resnet_features, excite=excite),
            image_size=RESNET34_IMAGE_SIZE,
            minimum=32,
            augments=True,
            has_width=True,
        )
        for name, excite in (("resnet34", False), ("resnet_se", True))
    },
    "efficientnet_lite0": Network(
        features=_efficientnet_lite0_features,
        image_size=EFFICIENTNET_LITE0_IMAGE_SIZE,
        minimum=32,
        augments=True,
    ),
}


def list_models() -> list[str]:
    """Returns the names that `build_model` takes.

    - `caffe`: Levi & Hassner 2015; `caffe_2conv`, `caffe_2conv_1fc` and `caffe_1conv`
      are the report's smaller ones.
    - `resnet34`: He et al. 2016; `resnet_se` has a Squeeze-and-Excitation block behind
      its last activation (Hu et al. 2018).
    - `efficientnet_lite0`: Tan & Le 2019, made small enough for telephones.

    Besides these, `build_model` takes any network of `keras.applications`, as
    `"keras.applications:EfficientNetV2B0"`, and networks of your own.
    """
    return list(NETWORKS)
