"""`keras.applications` as backbones: their names, and the input each one wants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_agegender.suggestion import did_you_mean

if TYPE_CHECKING:
    import keras

PREFIX = "keras.applications:"
CUT = "/"  # between a network and the layer that it ends with

# By input scaling. Those of 0..255 scale it themselves, in layers of their own.
APPLICATIONS = {
    "0..255": (
        *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
        *(f"EfficientNetB{number}" for number in range(8)),
        *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
        "MobileNetV3Small",
        "MobileNetV3Large",
    ),
    "-1..1": (
        "InceptionResNetV2",
        "InceptionV3",
        "MobileNet",
        "MobileNetV2",
        "NASNetMobile",
        "NASNetLarge",
        "ResNet50V2",
        "ResNet101V2",
        "ResNet152V2",
        "Xception",
    ),
    "caffe": ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
    "imagenet": ("DenseNet121", "DenseNet169", "DenseNet201"),
}


def application_scaling(name: str) -> str:
    """Returns the input scaling of a `keras.applications` model.

    Args:
        name: Its name there, without a prefix; a layer behind `/` is left out of
            account.

    Raises:
        ValueError: If no network there has that name.

    Example:
        >>> application_scaling("ResNet50V2")
        '-1..1'
        >>> application_scaling("MobileNet/conv_pw_11_relu")
        '-1..1'
    """
    name = name.partition(CUT)[0]
    scalings = {known: key for key, names in APPLICATIONS.items() for known in names}
    if name not in scalings:
        hint = did_you_mean(name, scalings, PREFIX)
        raise ValueError(
            "Invalid `backbone`. Expected the name of a network of "
            f"keras.applications. Received: backbone={PREFIX + name!r}.{hint}"
        )
    return scalings[name]


def build_application(
    name: str, image_size: tuple[int, int], weights: str | None
) -> keras.Model:
    """Returns a network of `keras.applications` without its classifier.

    Args:
        name: Its name there, and after a `/` the layer that it ends with, if not the
            last: `"MobileNet/conv_pw_11_relu"`.
        image_size: (height, width) of its input in pixels.
        weights: `"imagenet"` (downloaded by Keras), the path of an `.h5` file of
            weights without the classifier, or `None` for random weights.

    Raises:
        ValueError: If the weights can neither be downloaded nor read, or there is no
            such layer.
    """
    import keras  # recipes read the names before Keras loads

    name, cut, last = name.partition(CUT)
    network = _construct(name, image_size, weights)
    if not cut:
        return network
    names = [layer.name for layer in network.layers]
    if last not in names:
        raise ValueError(
            f"Invalid `backbone`. Expected a layer of {name} after {CUT!r}, such as "
            f"{names[-1]!r}. Received: backbone={PREFIX}{name}{CUT}{last}."
            f"{did_you_mean(last, names)}"
        )
    output = network.get_layer(last).output
    return keras.Model(network.input, output, name=f"{network.name}_{last}")


def _construct(
    name: str, image_size: tuple[int, int], weights: str | None
) -> keras.Model:
    import keras

    constructor = getattr(keras.applications, name)
    arguments = {"include_top": False, "input_shape": (*image_size, 3)}
    if weights is None:
        return constructor(weights=None, **arguments)
    if weights != "imagenet" and not Path(weights).is_file():
        raise ValueError(f"There is no weights file {weights}.")
    try:
        return constructor(weights=weights, **arguments)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        advice = (
            "Without a network, give the path of a local file instead. "
            if weights == "imagenet"
            else ""
        )
        raise ValueError(
            f"Could not load `backbone_weights` {weights!r} into {name}. {advice}"
            f"Keras says: {reason}"
        ) from error
