"""`build_model`: a network by name with the outputs of an encoding."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import layers

from keras_agegender.encodings.catalogue import get_encoding
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.models import augmentation, caffe, resnet34
from keras_agegender.models.augmentation_options import Augmentation
from keras_agegender.models.heads import build_heads
from keras_agegender.models.squeeze_excite import squeeze_excite


@dataclass(frozen=True)
class Network:
    """A network that `build_model` knows.

    Attributes:
        features: Image tensor, dropout rate -> features of shape (batch, n).
        image_size: Default (height, width) in pixels.
        minimum: Smallest height and width it can take.
        augments: Whether flip and contrast are layers of the model.
    """

    features: Callable[[Any, float], Any]
    image_size: tuple[int, int]
    minimum: int
    augments: bool


def _resnet_features(image: Any, dropout_rate: float, excite: bool) -> Any:
    x = resnet34.resnet34_backbone(image)
    if excite:
        x = squeeze_excite(x)
    return layers.GlobalAveragePooling2D(name="global_pool")(x)


def _caffe_features(image: Any, dropout_rate: float, variant: str) -> Any:
    return caffe.caffe_backbone(image, caffe.VARIANTS[variant], dropout_rate)


NETWORKS = {
    **{
        # A pooling needs 2 rows. One behind conv1: (11 - 7) / 4 + 1 = 2. Two: 4 rows
        # pool to 2, 4 = (19 - 7) / 4 + 1. Three: 8 pool to 4, 8 = (35 - 7) / 4 + 1.
        name: Network(
            features=partial(_caffe_features, variant=name),
            image_size=caffe.IMAGE_SIZE,
            minimum={1: 11, 2: 19, 3: 35}[len(variant.filters)],
            augments=False,
        )
        for name, variant in caffe.VARIANTS.items()
    },
    **{
        name: Network(
            features=partial(_resnet_features, excite=excite),
            image_size=resnet34.IMAGE_SIZE,
            minimum=32,
            augments=True,
        )
        for name, excite in (("resnet34", False), ("resnet_se", True))
    },
}


def list_models() -> list[str]:
    """Returns the names that `build_model` takes.

    - `caffe`: Levi & Hassner 2015; `caffe_2conv`, `caffe_2conv_1fc` and `caffe_1conv`
      are the report's smaller ones.
    - `resnet34`: He et al. 2016; `resnet_se` has a Squeeze-and-Excitation block behind
      its last activation (Hu et al. 2018).
    """
    return list(NETWORKS)


def build_model(
    name: str = "resnet_se",
    encoding: str | Encoding | None = "categorical",
    *,
    image_size: tuple[int, int] | None = None,
    heads: Sequence[Head] = (),
    question: str | None = None,
    augment: bool | Augmentation = True,
    dropout_rate: float = 0.5,
    attribute_features: bool = False,
    seed: int | None = None,
    model_name: str | None = None,
) -> keras.Model:
    """Builds an ordinary functional Keras model with named outputs.

    It is not compiled; `get_encoding(…).compile_arguments()` has losses, weights and
    metrics for it. Files saved from it load with plain Keras.

    Args:
        name: One of `list_models()`. Defaults to `"resnet_se"`.
        encoding: One of `list_encodings()`, an `Encoding`, or `None` for a model with
            just your own `heads`. Defaults to `"categorical"`.
        image_size: (height, width) of the input in pixels; `None` is the network's own:
            227 × 227 for Caffe, 224 × 224 for ResNet.
        heads: Outputs of your own behind the encoding's.
        question: `"older"` or `"younger"`, for ordinal heads.
        augment: An `Augmentation` whose layers the model begins with, active in `fit`
            and not in `evaluate` and `predict`; where you call the model yourself pass
            `training`, as Keras' random layers take its absence for True. True
            (default) is `Augmentation()`, a flip and a contrast, for a ResNet, and
            nothing for the Caffe networks, whose flip is in the input pipeline. False
            is none.
        dropout_rate: Dropout of the Caffe networks' hidden layers, in [0, 1). Defaults
            to 0.5.
        attribute_features: Whether CelebA's 40 attributes, an output layer each, stand
            between network and heads: what a model pretrained with the encoding
            `"attributes"` says feeds the new heads. Defaults to False.
        seed: Seed of the augmentation layers.
        model_name: Name of the Keras model; `None` takes the network's.

    Returns:
        A `keras.Model` from images, float32 in [0, 1] of shape (batch, *image_size, 3),
        to a dict of outputs.

    Raises:
        ValueError: If a name is unknown, a size too small, or two heads share a name.

    Example:
        >>> model = build_model("resnet_se", encoding="ordinal")
        >>> len(model.output)
        9

    Source: the report, section 2.
    """
    if name not in NETWORKS:
        close = difflib.get_close_matches(str(name), NETWORKS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Invalid `name`. Expected one of {list_models()}. Received: "
            f"name={name!r}.{hint}"
        )
    network = NETWORKS[name]
    size = _checked_size(image_size, network, name)
    if not 0 <= dropout_rate < 1:
        raise ValueError(
            "Invalid `dropout_rate`. Expected a float in [0, 1). "
            f"Received: dropout_rate={dropout_rate}."
        )
    outputs = _outputs(encoding, question, heads)
    image = keras.Input((*size, 3), name="image")
    x = image
    if isinstance(augment, Augmentation):
        x = augmentation.augment(x, augment, seed=seed)
    elif augment and network.augments:
        x = augmentation.augment(x, seed=seed)
    features = network.features(x, dropout_rate)
    if attribute_features:
        attributes = build_heads(features, get_encoding("attributes").heads)
        features = layers.Concatenate(name="attributes")(list(attributes.values()))
    predictions = build_heads(features, outputs.heads)
    return keras.Model(image, predictions, name=model_name or name)


def _outputs(
    encoding: str | Encoding | None, question: str | None, heads: Sequence[Head]
) -> Encoding:
    if encoding is not None:
        return get_encoding(encoding, question=question, heads=heads)
    if question is not None:
        raise ValueError(
            "Invalid `question`. Expected None where there is no encoding. "
            f"Received: question={question!r}."
        )
    if not heads:
        raise ValueError(
            "Invalid `encoding`. Expected an encoding or at least one of `heads`. "
            "Received: encoding=None, heads=()."
        )
    return Encoding("custom", heads=()).with_heads(heads)


def _checked_size(image_size: Any, network: Network, name: str) -> tuple[int, int]:
    if image_size is None:
        return network.image_size
    size = tuple(image_size) if isinstance(image_size, Sequence) else ()
    if len(size) != 2 or not all(type(side) is int for side in size):
        raise ValueError(
            "Invalid `image_size`. Expected (height, width), two ints in pixels. "
            f"Received: image_size={image_size!r}."
        )
    if min(size) < network.minimum:
        raise ValueError(
            f"Invalid `image_size`. Expected at least {network.minimum} pixels a side "
            f"for {name!r}. Received: image_size={image_size}."
        )
    return size
