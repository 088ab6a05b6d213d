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

from keras_agegender.models.augmentation import (
    BLUR_KERNEL,
    ERASED_AREA,
    ERASED_VALUE,
    Augmentation,
)

AUGMENTATION_LAYERS = (
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomZoom,
    layers.RandomTranslation,
    layers.RandomContrast,
    layers.RandomBrightness,
    layers.RandomSaturation,
    layers.RandomGaussianBlur,
    layers.RandomErasing,
)
CONTRAST_FACTOR = 0.2
UNIT = (0.0, 1.0)


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


def augmentation_layers(
    augmentation: Augmentation, seed: int | None = None
) -> list[layers.Layer]:
    """Returns the Keras layers that do an augmentation, in their order.

    Args:
        augmentation: What to do.
        seed: Seed of the first; each has one of its own. From the same seed all would
            draw the same numbers, so that mirrored images had the lower contrasts.
            `None` draws them from Keras' global seed.

    Raises:
        ValueError: If something is asked for that no Keras layer does.
    """
    augmentation.check_layers()
    a = augmentation
    border = {"fill_mode": "nearest", "interpolation": "bilinear"}
    makers: list[tuple[Any, Any]] = [
        (a.flip, lambda seed: random_flip(seed)),
        (a.rotation, lambda seed: layers.RandomRotation(
            a.rotation / 360, seed=seed, name="random_rotation", **border)),
        (a.zoom, lambda seed: layers.RandomZoom(
            (-a.zoom, a.zoom), seed=seed, name="random_zoom", **border)),
        (a.shift, lambda seed: layers.RandomTranslation(
            a.shift, a.shift, seed=seed, name="random_shift", **border)),
        (a.contrast, lambda seed: random_contrast(a.contrast, seed)),
        (a.brightness, lambda seed: layers.RandomBrightness(
            a.brightness, value_range=UNIT, seed=seed, name="random_brightness")),
        (a.saturation, lambda seed: layers.RandomSaturation(
            (0.5 - a.saturation, 0.5 + a.saturation), value_range=UNIT, seed=seed,
            name="random_saturation")),
        (a.blur, lambda seed: layers.RandomGaussianBlur(
            (1.0, 1.0), kernel_size=BLUR_KERNEL, sigma=(0.0, a.blur),
            value_range=UNIT, seed=seed, name="random_blur")),
        (a.erasing, lambda seed: layers.RandomErasing(
            (a.erasing, a.erasing), scale=ERASED_AREA, fill_value=ERASED_VALUE,
            value_range=UNIT, seed=seed, name="random_erasing")),
    ]  # fmt: skip
    return [
        make(None if seed is None else seed + place)
        for place, (asked, make) in enumerate(makers)
        if asked
    ]


def augment(
    image: Any, augmentation: Augmentation | None = None, seed: int | None = None
) -> Any:
    """Puts an augmentation's layers behind an image tensor.

    Args:
        image: Image tensor, values in [0, 1]. Shape (batch, height, width, 3).
        augmentation: What to do; `None` is `Augmentation()`, the report's.
        seed: As in `augmentation_layers`.

    Returns:
        A tensor of the same shape and range.

    Source: the report, 1.3 (RandomFlip and RandomContrast as layers of the model). It
    does not state the contrast's factor.
    """
    for layer in augmentation_layers(augmentation or Augmentation(), seed):
        image = layer(image)
    return image


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
