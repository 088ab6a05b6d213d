"""Layers that travel inside a model: picture to input, augmentation, and its removal.

Each function returns a built-in Keras layer, so that a file with it loads with plain
Keras. The augmentation layers act in `fit` and not in `evaluate` and `predict`. An
exported model must not hold them all the same: formats without a training mode refuse
their random operations, and a bare `model(images)`, which leaves `training` out, runs
them (their `training` is True by default).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

AUGMENTATION_LAYERS = (layers.RandomFlip, layers.RandomContrast)
CONTRAST_FACTOR = 0.2


def scale(name: str = "scale") -> layers.Layer:
    """Returns a layer from pixel values in [0, 255] to float32 in [0, 1]."""
    return layers.Rescaling(1.0 / 255.0, dtype="float32", name=name)


def resize(image_size: tuple[int, int], name: str = "resize") -> layers.Layer:
    """Returns a layer that resizes pictures: bilinear, antialiased, ratio not kept.

    Args:
        image_size: (height, width) in pixels.
        name: Name of the layer.

    Example:
        >>> resize((224, 224)).compute_output_shape((None, 300, 200, 3))
        (None, 224, 224, 3)
    """
    return layers.Resizing(
        *image_size,
        interpolation="bilinear",
        antialias=True,
        dtype="float32",
        name=name,
    )


def center_crop(image_size: tuple[int, int], name: str = "center_crop") -> layers.Layer:
    """Returns a layer that cuts the middle out of pictures at least that large.

    Args:
        image_size: (height, width) in pixels.
        name: Name of the layer.
    """
    return layers.CenterCrop(*image_size, dtype="float32", name=name)


def random_flip(seed: int | None = None, name: str = "random_flip") -> layers.Layer:
    """Returns a layer that mirrors half of the images, left and right, in training.

    Args:
        seed: Its seed; `None` draws one from Keras' global seed.
        name: Name of the layer.
    """
    return layers.RandomFlip("horizontal", seed=seed, name=name)


def random_contrast(
    factor: float = CONTRAST_FACTOR,
    seed: int | None = None,
    name: str = "random_contrast",
) -> layers.Layer:
    """Returns a layer that spreads or narrows pixel values in [0, 1], in training.

    Args:
        factor: The distance of every pixel to its channel's mean is multiplied by a
            number drawn from [1 - factor, 1 + factor] for each image. In [0, 1].
            Defaults to 0.2.
        seed: Its seed; `None` draws one from Keras' global seed.
        name: Name of the layer.
    """
    # A pair: Keras 3.15 makes [1, 1 + factor] of one number, against its documentation.
    return layers.RandomContrast(
        (factor, factor), value_range=(0.0, 1.0), seed=seed, name=name
    )


def augment(
    image: Any, contrast_factor: float = CONTRAST_FACTOR, seed: int | None = None
) -> Any:
    """Puts a random horizontal flip and a random contrast behind an image tensor.

    Args:
        image: Image tensor, values in [0, 1]. Shape (batch, height, width, 3).
        contrast_factor: As in `random_contrast`. Defaults to 0.2.
        seed: Seed of the flip; the contrast takes seed + 1. From one seed both would
            draw the same numbers, so that mirrored images had the lower contrasts.
            `None` draws two from Keras' global seed.

    Returns:
        A tensor of the same shape and range.

    Source: the report, 1.3 (RandomFlip and RandomContrast as layers of the model). It
    does not state the contrast's factor.
    """
    image = random_flip(seed)(image)
    contrast_seed = None if seed is None else seed + 1
    return random_contrast(contrast_factor, contrast_seed)(image)


def strip_augmentation(model: keras.Model) -> keras.Model:
    """Returns the model without its augmentation layers, sharing all its weights.

    Models nested in the model are stripped too. The result is not compiled. Layers are
    the same objects, so that their `output` is still the tensor of the first model.

    Args:
        model: A functional model with augmentation layers anywhere, or with none.

    Returns:
        A functional model with the same name and the same outputs for the same images;
        the model itself if there is nothing to strip.

    Raises:
        ValueError: If augmentation sits in a Sequential or subclassed model: these
            have no graph of calls to rebuild.

    Example:
        >>> from keras_agegender.models.builder import build_model
        >>> model = build_model("resnet34", "gender")
        >>> len(model.layers) - len(strip_augmentation(model).layers)
        2
    """
    if not _holds_augmentation(model):
        return model

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, AUGMENTATION_LAYERS):
            return args[0]
        return layer(*args, **kwargs)

    def reuse(layer: keras.layers.Layer) -> keras.layers.Layer:
        return strip_augmentation(layer) if _is_model(layer) else layer

    return keras.models.clone_model(model, clone_function=reuse, call_function=call)


def _is_model(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.Model)


def _holds_augmentation(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, AUGMENTATION_LAYERS):
        return True
    return _is_model(layer) and any(map(_holds_augmentation, layer.layers))
