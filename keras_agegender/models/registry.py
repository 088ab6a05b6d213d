"""Backbones by name: built-in networks, `keras.applications` and your own functions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_agegender.errors import did_you_mean
from keras_agegender.models.backbones import (
    CAFFE_IMAGE_SIZE,
    CAFFE_VARIANTS,
    RESNET34_IMAGE_SIZE,
    caffe_backbone,
    resnet34_backbone,
    squeeze_excite,
)
from keras_agegender.models.efficientnet_lite import (
    EFFICIENTNET_LITE0_IMAGE_SIZE,
    efficientnet_lite0_backbone,
)
from keras_agegender.models.inference import inline_model
from keras_agegender.models.input_scaling import (
    INPUT_SCALINGS,
    InputScaling,
    get_input_scaling,
)
from keras_agegender.models.weights import (
    load_model,
    load_torch_weights,
    transfer_weights,
)


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


BackboneLike: TypeAlias = str | keras.Model | Callable[[Any], Any]
DEFAULT_IMAGE_SIZE = (224, 224)
# What `load_backbone_weights` reads: Keras models and PyTorch's weights.
WEIGHT_FILES = (".keras", ".safetensors", ".npz", ".pth", ".pt")
# A factor this small, in a Rescaling among the first layers, is for [0, 255].
LARGEST_PIXEL_SCALE = 1.0 / 64.0
FRONT_LAYERS = 5


@dataclass(frozen=True)
class Backbone:
    """A backbone that is ready to be called.

    Attributes:
        name: Name of the Keras model, unless another one is given.
        features: Image tensor in the range of `scaling` -> features.
        image_size: (height, width) of the input in pixels.
        augments: Whether flip and contrast may be layers of the model.
        scaling: What makes its input of pixels in [0, 1].
    """

    name: str
    features: Callable[[Any], Any]
    image_size: tuple[int, int]
    augments: bool
    scaling: InputScaling


def resolve_backbone(
    backbone: BackboneLike,
    image_size: tuple[int, int] | None = None,
    *,
    dropout_rate: float = 0.5,
    width: float = 1.0,
    input_scaling: str | Sequence[float] | None = None,
    weights: str | Path | None = None,
) -> Backbone:
    """Returns what a backbone's name, Keras model or callable stands for.

    Args:
        backbone: As in `build_model`, and so are the others.
        image_size: (height, width) in pixels, or `None` for the backbone's own.
        dropout_rate: Dropout of the Caffe networks.
        width: Multiplier of the ResNets' channels.
        input_scaling: A scaling, or `None` for the backbone's own.
        weights: `"imagenet"` or a file. Files that `load_backbone_weights` reads are
            left to it.

    Raises:
        ValueError: If there is no such backbone, or the arguments do not fit it.
    """
    size = _checked_size(image_size)
    scaling = None if input_scaling is None else get_input_scaling(input_scaling)
    weights = None if weights is None or _is_read_here(weights) else str(weights)
    is_application = isinstance(backbone, str) and backbone.startswith(PREFIX)
    if weights is not None and not is_application:
        raise ValueError(
            f"Invalid `backbone_weights`. Expected a file, one of {WEIGHT_FILES}; just "
            "the networks of keras.applications take others. "
            f"Received: backbone_weights={weights!r}."
        )
    if isinstance(backbone, str) and ":" not in backbone:
        return _named(backbone, size, dropout_rate, width, scaling)
    if width != 1.0:
        raise ValueError(
            f"Invalid `width`. Expected 1.0 for {backbone!r}. Received: width={width}."
        )
    if is_application:
        name = str(backbone).removeprefix(PREFIX)
        scaling = scaling or INPUT_SCALINGS[application_scaling(name)]
        backbone = build_application(name, size or DEFAULT_IMAGE_SIZE, weights)
        return _of_model(backbone, size, scaling)
    if isinstance(backbone, str):
        backbone = _imported(backbone)
        if not isinstance(backbone, keras.Model) and callable(backbone):
            backbone = _checked_call(backbone)
    if isinstance(backbone, keras.Model):
        _check_own_scaling(backbone, scaling)
        return _of_model(backbone, size, scaling)
    if not callable(backbone):
        raise ValueError(
            "Invalid `backbone`. Expected a name, a keras.Model or a callable. "
            f"Received: backbone={backbone!r}."
        )
    name = getattr(backbone, "__name__", type(backbone).__name__)
    name = name if name.isidentifier() else "custom"  # of a lambda
    return Backbone(
        name, backbone, size or DEFAULT_IMAGE_SIZE, True, scaling or InputScaling()
    )


def load_backbone_weights(backbone: keras.Model, file: str | Path) -> None:
    """Loads a file of weights into a backbone.

    Args:
        backbone: A model from images to features.
        file: A `.keras` file, of which layers of the same name are taken, or PyTorch's
            weights as `load_torch_weights` reads them. Any other file was for
            `resolve_backbone`, and nothing is done.

    Raises:
        ValueError: If a layer of the backbone finds no weights in the file.
    """
    file = Path(file)
    if not _is_read_here(file):
        return
    if file.suffix != ".keras":
        load_torch_weights(backbone, file)
        return
    if not file.is_file():
        raise ValueError(f"There is no weights file {file}.")
    source = load_model(file, compile=False)
    skipped = transfer_weights(source, backbone).skipped
    for name, reason in skipped.items():
        raise ValueError(
            f"{file} does not fit the backbone {backbone.name!r}: {len(skipped)} of "
            f"its layers find no weights there. {name!r}: {reason}."
        )


def _is_read_here(weights: str | Path) -> bool:
    return Path(weights).suffix in WEIGHT_FILES


def _named(
    name: str,
    size: tuple[int, int] | None,
    dropout_rate: float,
    width: float,
    scaling: InputScaling | None,
) -> Backbone:
    if name not in NETWORKS:
        hint = did_you_mean(name, NETWORKS)
        raise ValueError(
            f"Invalid `backbone`. Expected one of {list_models()}, a network of Keras "
            f"as '{PREFIX}ResNet50', your own function as 'module:function', a "
            f"keras.Model or a callable. Received: backbone={name!r}.{hint}"
        )
    network = NETWORKS[name]
    if size and min(size) < network.minimum:
        raise ValueError(
            f"Invalid `image_size`. Expected at least {network.minimum} pixels a side "
            f"for {name!r}. Received: image_size={size}."
        )
    if width != 1.0 and not network.has_width or not width > 0:
        wide = [name for name, network in NETWORKS.items() if network.has_width]
        raise ValueError(
            f"Invalid `width`. Expected a number above 0, and 1.0 but for {wide}. "
            f"Received: width={width} for {name!r}."
        )
    return Backbone(
        name,
        partial(network.features, dropout_rate=dropout_rate, width=width),
        size or network.image_size,
        network.augments,
        scaling or InputScaling(),
    )


def _of_model(
    model: keras.Model, size: tuple[int, int] | None, scaling: InputScaling | None
) -> Backbone:
    shape = getattr(model, "input_shape", None)
    own: Any = (None, None)
    if isinstance(shape, tuple) and len(shape) == 4:
        own = shape[1:3]
    if size and any(b not in (None, a) for a, b in zip(size, own, strict=True)):
        raise ValueError(
            f"Invalid `image_size`. The backbone {model.name!r} takes {own}. "
            f"Received: image_size={size}."
        )
    if size is None:
        size = DEFAULT_IMAGE_SIZE if None in own else own
    scaling = scaling or InputScaling()
    return Backbone(model.name, partial(inline_model, model), size, True, scaling)


def _check_own_scaling(model: keras.Model, scaling: InputScaling | None) -> None:
    """Refuses to guess where a model scales pixels of [0, 255] itself."""
    first = getattr(model, "layers", [])[:FRONT_LAYERS]
    small = [
        layer.name
        for layer in first
        if isinstance(layer, keras.layers.Rescaling)
        and np.max(layer.scale) < LARGEST_PIXEL_SCALE
    ]
    if scaling is None and small:
        raise ValueError(
            f"Missing `input_scaling`. The layer {small[0]!r} of the backbone "
            f"{model.name!r} looks as if it took pixels of another range than [0, 1]: "
            f"say which, '0..255' for instance. Expected one of {list(INPUT_SCALINGS)}."
        )


def _imported(name: str) -> Any:
    """Returns the object that "module:attribute" names."""
    module, _, attribute = name.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        # A recipe may come from a stranger: nothing in there builds a network.
        raise ValueError(
            "Invalid `backbone`. Expected 'module:function' of a module that builds "
            f"networks, not of one of Python's own. Received: backbone={name!r}."
        )
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "Invalid `backbone`. Expected 'module:function' of a module that can be "
            f"imported. Received: backbone={name!r}: {error}."
        ) from error
    return found


def _checked_call(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a function that was given by name; not every one takes an image."""

    @wraps(function)
    def call(image: Any) -> Any:
        try:
            return function(image)
        except TypeError as error:
            raise ValueError(
                "Invalid `backbone`. Expected a function from an image tensor to "
                f"features. {function.__module__}:{function.__qualname__} says: "
                f"{error}."
            ) from error

    return call


def _checked_size(image_size: Any) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = tuple(image_size) if isinstance(image_size, Sequence) else ()
    if len(size) != 2 or not all(type(side) is int for side in size):
        raise ValueError(
            "Invalid `image_size`. Expected (height, width), two ints in pixels. "
            f"Received: image_size={image_size!r}."
        )
    return size


NETWORK_NAMES = (
    "caffe",
    "caffe_2conv",
    "caffe_2conv_1fc",
    "caffe_1conv",
    "resnet34",
    "resnet_se",
    "efficientnet_lite0",
)
