"""Models from a backbone and heads, with augmentation in front."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.head_types import LAYER_PART
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.models import registry
from keras_agegender.models.augmentation import Augmentation, add_augmentation
from keras_agegender.models.weights import (
    ENCODING_LAYER,
    load_backbone_weights,
    store_encoding,
)


def build_heads(features: Any, heads: Sequence[Head]) -> dict[str, Any]:
    """Adds the output layers of heads after features; returns output name -> tensor."""
    return {
        name: output
        for head in heads
        for name, output in head.spec.build(head, features).items()
    }


def build_model(
    backbone: registry.BackboneLike = "resnet_se",
    encoding: str | Encoding | None = "categorical",
    *,
    image_size: tuple[int, int] | None = None,
    heads: Sequence[Head] = (),
    question: str | None = None,
    augment: bool | Augmentation = True,
    dropout_rate: float = 0.5,
    width: float = 1.0,
    input_scaling: str | Sequence[float] | None = None,
    backbone_weights: str | Path | None = None,
    attribute_features: bool = False,
    seed: int | None = None,
    model_name: str | None = None,
) -> keras.Model:
    """Builds an ordinary functional Keras model with named outputs.

    It is not compiled; `get_encoding(…).compile_arguments()` returns losses, loss
    weights and metrics for it, and `get_encoding(…).encode(…)` the targets for `fit`.
    Files saved from it load with plain Keras.

    A Keras model as backbone is inlined: the new model has copies of its layers, with
    their names and weights, for freezing, weight transfer and export. The passed model
    does not change. A subclassed model has no graph of layers and becomes one layer.

    Args:
        backbone: One of `list_models()`; a network of `keras.applications`, such as
            `"keras.applications:EfficientNetV2B0"`, optionally cut after a layer,
            `"keras.applications:MobileNet/conv_pw_11_relu"`; a `keras.Model` without
            its classifier (such as KerasHub's backbones); a callable, from image tensor
            to features tensor; or `"module:name"` of one of the last two. Features of
            shape (batch, rows, columns, channels) are averaged over rows and columns;
            those of shape (batch, n) are used directly. Defaults to `"resnet_se"`.
        encoding: One of `list_encodings()`, an `Encoding`, or `None` for a model with
            custom `heads` only. Defaults to `"categorical"`.
        image_size: (height, width) of the input in pixels; `None` is the size of the
            backbone: 227 × 227 for Caffe, that of a Keras model, else 224 × 224.
        heads: Custom heads, after those of the encoding.
        question: `"older"` or `"younger"`, for ordinal heads.
        augment: An `Augmentation` whose layers come first in the model, active in `fit`
            and not in `evaluate` and `predict`; if you call the model directly, pass
            `training`, which is `True` by default in Keras' random layers. `True`
            (default) is `Augmentation()`, a flip and contrast, except for the Caffe
            networks, whose flip is in the input pipeline. `False` adds no layers.
        dropout_rate: Dropout of the Caffe networks' hidden layers, in [0, 1). Defaults
            to 0.5.
        width: Multiplies the channels of `resnet34` and `resnet_se`, above 0: 0.5 has
            about a quarter of the weights. Defaults to 1.0.
        input_scaling: The pixel range of the backbone: `"0..1"`, `"0..255"`, `"-1..1"`,
            `"imagenet"` (standardized, as in PyTorch), `"caffe"` (0 to 255, BGR, minus
            the mean), or a pair (scale, offset) for pixels in [0, 1]. `None` is the
            range of a named backbone, and [0, 1] for a Keras model and a callable.
        backbone_weights: Initial weights of the backbone: a `.keras` file with layers
            of the same names, or PyTorch weights as in `load_torch_weights`; for
            `keras.applications` also `"imagenet"`, which Keras downloads, or its own
            `.h5` file. `None` keeps random weights, or those of a Keras model.
        attribute_features: Whether CelebA's 40 attributes, an output layer each, are
            between backbone and heads, so that the outputs of a model pretrained with
            the encoding `"attributes"` are the features of the new heads. Defaults to
            `False`.
        seed: Seed of the augmentation layers.
        model_name: Name of the Keras model; `None` is that of the backbone.

    Returns:
        A `keras.Model` from images, float32 in [0, 1] of shape (batch, *image_size, 3),
        to a dict of outputs. It warns once about arrays of pixels in [0, 255].

    Raises:
        ValueError: If a name is unknown, a size is too small, weights do not fit, or
            two heads share a name.

    Example:
        >>> model = build_model("resnet_se", encoding="ordinal")
        >>> len(model.output)
        9
        >>> trunk = keras.Sequential(
        ...     [keras.Input((64, 64, 3)), keras.layers.Conv2D(8, 3, name="conv")]
        ... )
        >>> [layer.name for layer in build_model(trunk, augment=False).layers][:4]
        ['image', 'conv', 'global_pool', 'encoding']

    Source: the report, section 2.
    """
    if not 0 <= dropout_rate < 1:
        raise ValueError(
            "Invalid `dropout_rate`. Expected a float in [0, 1). "
            f"Received: dropout_rate={dropout_rate}."
        )
    outputs = _outputs(encoding, question, heads)
    resolved = registry.resolve_backbone(
        backbone,
        image_size,
        dropout_rate=dropout_rate,
        width=width,
        input_scaling=input_scaling,
        weights=backbone_weights,
    )
    image = keras.Input((*resolved.image_size, 3), name="image")
    x = image
    if isinstance(augment, Augmentation):
        x = add_augmentation(x, augment, seed)
    elif augment and resolved.augments:
        x = add_augmentation(x, Augmentation(), seed)
    features = _pooled(resolved.features(registry.scale_input(x, resolved.scaling)))
    if backbone_weights is not None:
        trunk = keras.Model(image, features, name=resolved.name)
        load_backbone_weights(trunk, backbone_weights)
    if attribute_features:
        attributes = build_heads(features, get_encoding("attributes").heads)
        features = layers.Concatenate(name="attributes")(list(attributes.values()))
    features = store_encoding(features, outputs)
    predictions = build_heads(features, outputs.heads)
    model = keras.Model(image, predictions, name=model_name or resolved.name)
    _check_pixels(model)
    return model


LARGEST_PIXEL = 2.0  # above [0, 1], far below 255
FIRST_IMAGES = 32  # of an array, that are checked


def _check_pixels(model: keras.Model) -> None:
    """Makes a model warn once about arrays of images with pixels in [0, 255]."""
    warned: list[bool] = []

    def checked(name: str) -> Callable[..., Any]:
        @functools.wraps(getattr(keras.Model, name))
        def call(x: Any = None, *args: Any, **kwargs: Any) -> Any:
            is_array = isinstance(x, np.ndarray) and x.size > 0
            if is_array and not warned and np.max(x[:FIRST_IMAGES]) > LARGEST_PIXEL:
                warned.append(True)
                warnings.warn(
                    "Pixels should be in [0, 1]. Received values up to "
                    f"{np.max(x[:FIRST_IMAGES]):g}: divide images by 255.",
                    stacklevel=2,
                )
            return getattr(type(model), name)(model, x, *args, **kwargs)

        return call

    for name in ("fit", "evaluate", "predict"):
        setattr(model, name, checked(name))


def attach_heads(
    features: Any,
    encoding: str | Encoding | None = "categorical",
    *,
    heads: Sequence[Head] = (),
    question: str | None = None,
) -> dict[str, Any]:
    """Adds an encoding's output layers to a functional graph.

    Args:
        features: A tensor of the graph. Features of shape (batch, rows, columns,
            channels) are averaged over rows and columns first; those of shape
            (batch, n) are used directly.
        encoding: As in `build_model`. Defaults to `"categorical"`.
        heads: Custom heads, after those of the encoding.
        question: `"older"` or `"younger"`, for ordinal heads.

    Returns:
        Output name -> tensor, the outputs for `keras.Model`; the keys are those of the
        encoding's losses and metrics.

    Raises:
        ValueError: If features have another number of axes, or a name is unknown.

    Example:
        >>> image = keras.Input((32, 32, 3))
        >>> x = keras.layers.Conv2D(8, 3, activation="relu")(image)
        >>> model = keras.Model(image, attach_heads(x, "ordinal"))
        >>> list(model.output)[:3]
        ['gender', 'age1', 'age2']
    """
    outputs = _outputs(encoding, question, heads)
    return build_heads(store_encoding(_pooled(features), outputs), outputs.heads)


def _pooled(features: Any) -> Any:
    """Returns one vector per image."""
    shape = getattr(features, "shape", None)
    if shape is not None and len(shape) == 2:
        return features
    if shape is not None and len(shape) == 4:
        return layers.GlobalAveragePooling2D(name="global_pool")(features)
    raise ValueError(
        "Invalid features. Expected a tensor of shape (batch, n) or (batch, rows, "
        f"columns, channels). Received: {features!r}."
    )


def _outputs(
    encoding: str | Encoding | None, question: str | None, heads: Sequence[Head]
) -> Encoding:
    if encoding is not None:
        return get_encoding(encoding, question=question, heads=heads)
    if question is not None:
        raise ValueError(
            "Invalid `question`. Expected None without an encoding. "
            f"Received: question={question!r}."
        )
    if not heads:
        raise ValueError(
            "Invalid `encoding`. Expected an encoding or at least one of `heads`. "
            "Received: encoding=None, heads=()."
        )
    return Encoding("custom", heads=()).with_heads(heads)


def freeze_all_but_last(
    model: keras.Model, num_layers: int, outputs: Collection[str]
) -> list[str]:
    """Freezes all layers except the outputs and the last layers before them.

    Layers without weights count too, as in the report, and each layer of an inlined
    backbone; a subclassed model is one layer. Frozen batch normalization uses its
    stored statistics. Call it before `compile`.

    Args:
        model: The model; its layers are changed.
        num_layers: Number of layers before the outputs that train.
        outputs: Names of output layers, and of layers that belong to them.

    Returns:
        Names of the layers that have weights and train.

    Raises:
        ValueError: If `num_layers` is negative.

    Example:
        >>> from keras_agegender.models.builder import build_model
        >>> model = build_model("resnet34", "categorical")
        >>> freeze_all_but_last(model, 3, ("gender", "age"))[:1]
        ['age']
    """
    if num_layers < 0:
        raise ValueError(
            "Invalid `num_layers`. Expected a non-negative number. "
            f"Received: num_layers={num_layers}."
        )
    # A coral or corn head is several layers, named after it.
    parts = tuple(f"{name}{LAYER_PART}" for name in outputs)
    before = [
        layer
        for layer in model.layers
        if layer.name not in {*outputs, ENCODING_LAYER}
        and not layer.name.startswith(parts)
    ]
    for layer in before[: max(len(before) - num_layers, 0)]:
        layer.trainable = False
    return [layer.name for layer in model.layers if layer.trainable_weights]
