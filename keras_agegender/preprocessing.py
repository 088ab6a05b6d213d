"""Layers that travel inside a model: augmentation, and models without it.

The augmentation layers act in training only. An exported model must not hold them all
the same: formats without a training mode refuse their random operations.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

AUGMENTATION_LAYERS = (layers.RandomFlip, layers.RandomContrast)


def augment(
    image: Any, contrast_factor: float = 0.2, seed: int | None = None
) -> Any:
    """Puts a random horizontal flip and a random contrast behind an image tensor.

    Args:
        image: Image tensor, values in [0, 1]. Shape (batch, height, width, 3).
        contrast_factor: Contrast is scaled by a factor drawn from
            [1 - contrast_factor, 1 + contrast_factor]. Defaults to 0.2.
        seed: Seed of the two layers; `None` takes Keras' global one.

    Returns:
        A tensor of the same shape and range.

    Source: the report, 1.3 (RandomFlip and RandomContrast as layers of the model).
    """
    image = layers.RandomFlip("horizontal", seed=seed, name="random_flip")(image)
    return layers.RandomContrast(
        contrast_factor, value_range=(0.0, 1.0), seed=seed, name="random_contrast"
    )(image)


def strip_augmentation(model: keras.Model) -> keras.Model:
    """Returns the model without its augmentation layers, sharing all its weights.

    Args:
        model: A functional model whose augmentation layers, if any, follow its input.

    Returns:
        A model with the same outputs for the same images; the model itself if there is
        nothing to strip.
    """
    if not any(isinstance(layer, AUGMENTATION_LAYERS) for layer in model.layers):
        return model

    def skip(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, AUGMENTATION_LAYERS):
            return args[0]
        return layer(*args, **kwargs)

    return keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=skip
    )
