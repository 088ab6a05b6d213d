"""Augmentation: random changes of training images, as a value and as Keras layers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# The classes of `keras.layers` that `Augmentation.layers` returns.
LAYERS = (
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation"),
    *("RandomContrast", "RandomBrightness", "RandomSaturation", "RandomGaussianBlur"),
    "RandomErasing",
)
UNIT = (0.0, 1.0)
# Settings that no Keras layer implements.
DATA_ONLY = ("low_resolution", "jpeg_quality")
ERASED_AREA = (0.02, 0.33)  # share of the image; Zhong et al. 2020
ERASED_VALUE = 0.5
BLUR_KERNEL = 7  # side in pixels: three standard deviations


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn separately for each image.

    The same settings work in two places, with the same distributions: as Keras layers
    at the start of a model (`build_model(augment=…)`), which exports do not contain, or
    in `tf.data` (`make_train_dataset(augment=…)`). The defaults are those of the
    report, a flip and contrast; it does not state the amount of contrast, here 0.2. All
    other changes are off at 0 (or `None`). They are applied in the order listed, to
    pixels in [0, 1]. If an image moves, its border is repeated.

    Args:
        flip: Whether half of the images are flipped horizontally.
        rotation: Largest angle, in degrees, in either direction, in [0, 180].
        zoom: The image shows 1 + u times its width and height, about its center, with
            u from [-zoom, zoom], in [0, 1).
        shift: Largest shift, in either direction, as a share of height and width, in
            [0, 1].
        contrast: The distance of pixels to their channel's mean is multiplied by a
            number from [1 - contrast, 1 + contrast], in [0, 1].
        brightness: A number from [-brightness, brightness] is added, in [0, 1].
        saturation: Saturation is multiplied by f / (1 - f), with f from
            [0.5 - saturation, 0.5 + saturation], in [0, 0.5).
        blur: Largest standard deviation of a Gaussian blur, in pixels, in [0, 1].
            A layer draws one for all images of a batch.
        low_resolution: The image is downsampled to a share of its sides, drawn from
            [1 - low_resolution, 1], and upsampled again, in [0, 1). Only in `tf.data`.
        jpeg_quality: Lowest quality of a JPEG compression, drawn from
            [jpeg_quality, 100]; `None` does not compress. Only in `tf.data`.
        erasing: Probability that a rectangle of 2 to 33 % of the image becomes gray, in
            [0, 1].

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
        """Checks that Keras layers implement all settings."""
        unsupported = [name for name in DATA_ONLY if getattr(self, name)]
        if unsupported:
            raise ValueError(
                f"Invalid `augment`. No Keras layer implements "
                f"{' or '.join(unsupported)}. Pass it to `make_train_dataset`; in a "
                f"recipe, set augmentation.where = 'data'. Received: {self}."
            )

    def layers(self, seed: int | None = None) -> list[keras.Layer]:
        """Returns the Keras layers of this augmentation, in their order.

        They are built-in layers, active in `fit` and not in `evaluate` and `predict`.

        Args:
            seed: Seed of the first layer; the others have their own, as layers of the
                same seed draw the same numbers. `None` uses Keras' global seed.
        """
        from keras import layers

        self.check_layers()
        a = self
        # float32 in mixed precision too: 16 bits cannot represent pixel coordinates.
        unit = {"value_range": UNIT, "dtype": "float32"}
        border = {"fill_mode": "nearest", "interpolation": "bilinear"}
        border["dtype"] = "float32"
        makers: list[tuple[Any, Any]] = [
            (a.flip, lambda seed: layers.RandomFlip(
                "horizontal", seed=seed, dtype="float32", name="random_flip")),
            (a.rotation, lambda seed: layers.RandomRotation(
                a.rotation / 360, seed=seed, name="random_rotation", **border)),
            (a.zoom, lambda seed: layers.RandomZoom(
                (-a.zoom, a.zoom), seed=seed, name="random_zoom", **border)),
            (a.shift, lambda seed: layers.RandomTranslation(
                a.shift, a.shift, seed=seed, name="random_shift", **border)),
            # A pair: of one number Keras 3.15 makes [1, 1 + factor].
            (a.contrast, lambda seed: layers.RandomContrast(
                (a.contrast, a.contrast), seed=seed,
                name="random_contrast", **unit)),
            (a.brightness, lambda seed: layers.RandomBrightness(
                a.brightness, seed=seed, name="random_brightness", **unit)),
            (a.saturation, lambda seed: layers.RandomSaturation(
                (0.5 - a.saturation, 0.5 + a.saturation), seed=seed,
                name="random_saturation", **unit)),
            (a.blur, lambda seed: layers.RandomGaussianBlur(
                (1.0, 1.0), kernel_size=BLUR_KERNEL, sigma=(0.0, a.blur),
                seed=seed, name="random_blur", **unit)),
            (a.erasing, lambda seed: layers.RandomErasing(
                (a.erasing, a.erasing), scale=ERASED_AREA, fill_value=ERASED_VALUE,
                seed=seed, name="random_erasing", **unit)),
        ]  # fmt: skip
        return [
            make(None if seed is None else seed + place)
            for place, (enabled, make) in enumerate(makers)
            if enabled
        ]


def add_augmentation(
    image: Any, augmentation: Augmentation, seed: int | None = None
) -> Any:
    """Adds the layers of an augmentation after an image tensor in [0, 1]."""
    for layer in augmentation.layers(seed):
        image = layer(image)
    return image


def is_augmentation(layer: Any) -> bool:
    """Returns whether a layer is one that `Augmentation.layers` returns."""
    from keras import layers

    return isinstance(layer, tuple(getattr(layers, name) for name in LAYERS))


def strip_augmentation(model: keras.Model) -> keras.Model:
    """Returns the model without its augmentation layers, sharing all its weights.

    Export formats without a training mode reject random operations, and calling the
    model runs them, as their `training` is `True` by default.
    """
    import keras

    def is_model(layer: keras.Layer) -> bool:
        return isinstance(layer, keras.Model)

    def has_augmentation(layer: keras.Layer) -> bool:
        return is_augmentation(layer) or (
            is_model(layer) and any(map(has_augmentation, layer.layers))
        )

    def is_only_augmentation(layer: keras.Layer) -> bool:
        return is_augmentation(layer) or (
            isinstance(layer, keras.Sequential)
            and all(map(is_only_augmentation, layer.layers))
        )

    def reuse(layer: keras.Layer) -> keras.Layer:
        is_whole = is_model(layer) and not is_only_augmentation(layer)
        return strip_augmentation(layer) if is_whole else layer

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if is_only_augmentation(layer) else layer(*args, **kwargs)

    if not has_augmentation(model):
        return model
    if isinstance(model, keras.Sequential):
        layers = [reuse(la) for la in model.layers if not is_only_augmentation(la)]
        start = keras.Input(batch_shape=model.input_shape)
        return keras.Sequential([start, *layers], name=model.name)
    return keras.models.clone_model(model, clone_function=reuse, call_function=call)
