"""Backbones by name: built-in networks, `keras.applications` and custom functions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_agegender.errors import did_you_mean, one_line

if TYPE_CHECKING:
    import keras

# -- input scaling ---------------------------------------------------------------------

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Means of blue, green and red that Caffe's ImageNet models subtract.
CAFFE_MEAN = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class InputScaling:
    """y = x * scale + offset of pixels in [0, 1]: one number each, or per channel."""

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    reverses_channels: bool = False  # RGB becomes BGR first


# By the name that `build_model(input_scaling=…)` takes.
INPUT_SCALINGS = {
    "0..1": InputScaling(),
    "0..255": InputScaling(255.0),
    "-1..1": InputScaling(2.0, -1.0),
    "imagenet": InputScaling(
        tuple(1.0 / std for std in IMAGENET_STD),
        tuple(
            -mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
        ),
    ),
    "caffe": InputScaling(255.0, tuple(-mean for mean in CAFFE_MEAN), True),
}


def get_input_scaling(scaling: str | Sequence[float]) -> InputScaling:
    """Returns a scaling by its name or as a pair (scale, offset) of numbers."""
    if isinstance(scaling, str) and scaling in INPUT_SCALINGS:
        return INPUT_SCALINGS[scaling]
    pair = [] if isinstance(scaling, str) else list(scaling)
    if len(pair) == 2 and all(isinstance(number, (int, float)) for number in pair):
        return InputScaling(float(pair[0]), float(pair[1]))
    raise ValueError(
        f"Invalid `input_scaling`. Expected one of {list(INPUT_SCALINGS)} or a pair "
        f"(scale, offset) of numbers. Received: input_scaling={scaling!r}."
    )


def scale_input(image: Any, scaling: InputScaling) -> Any:
    """Adds the layers of a scaling after an image tensor in [0, 1]."""
    from keras import layers, ops

    if scaling.reverses_channels:
        image = ops.flip(image, axis=-1)
    if scaling.scale == 1.0 and scaling.offset == 0.0:
        return image
    scale, offset = (
        list(value) if isinstance(value, tuple) else value
        for value in (scaling.scale, scaling.offset)
    )
    return layers.Rescaling(scale, offset, dtype="float32", name="input_scaling")(image)


# -- built-in networks -----------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A row of `NETWORKS`."""

    features: Callable[..., Any]  # image in [0, 1], `dropout_rate`, `width` -> features
    image_size: tuple[int, int] = (224, 224)  # default (height, width) in pixels
    minimum: int = 32  # smallest height and width, in pixels
    augments: bool = True  # whether flip and contrast are layers of the model
    has_width: bool = False  # whether the number of channels can be changed


def _caffe(variant: str, image: Any, dropout_rate: float, width: float) -> Any:
    from keras_agegender.models.backbones import CAFFE_VARIANTS, caffe_backbone

    return caffe_backbone(image, CAFFE_VARIANTS[variant], dropout_rate)


def _resnet34(image: Any, dropout_rate: float, width: float) -> Any:
    from keras_agegender.models.backbones import resnet34_backbone

    return resnet34_backbone(image, width)


def _resnet_se(image: Any, dropout_rate: float, width: float) -> Any:
    from keras_agegender.models.backbones import squeeze_excite

    return squeeze_excite(_resnet34(image, dropout_rate, width))


def _efficientnet_lite0(image: Any, dropout_rate: float, width: float) -> Any:
    from keras_agegender.models.efficientnet_lite import efficientnet_lite0_backbone

    return efficientnet_lite0_backbone(image)


NETWORKS = {
    **{
        # Pooling needs 2 rows. After one convolution: (11 - 7) / 4 + 1 = 2. After two:
        # 4 rows pool to 2, 4 = (19 - 7) / 4 + 1. After three: 8 pool to 4,
        # 8 = (35 - 7) / 4 + 1.
        name: Network(partial(_caffe, name), (227, 227), minimum, augments=False)
        for name, minimum in (
            ("caffe", 35),
            ("caffe_2conv", 19),
            ("caffe_2conv_1fc", 19),
            ("caffe_1conv", 11),
        )
    },
    "resnet34": Network(_resnet34, has_width=True),
    "resnet_se": Network(_resnet_se, has_width=True),
    "efficientnet_lite0": Network(_efficientnet_lite0),
}


def list_models() -> list[str]:
    """Returns the names that `build_model` accepts.

    - `caffe`: Levi & Hassner 2015; `caffe_2conv`, `caffe_2conv_1fc` and `caffe_1conv`
      are the smaller variants of the report.
    - `resnet34`: He et al. 2016; `resnet_se` has a Squeeze-and-Excitation block after
      its last activation (Hu et al. 2018).
    - `efficientnet_lite0`: Tan & Le 2019, in the variant for mobile devices.

    `build_model` also takes any network of `keras.applications`, such as
    `"keras.applications:EfficientNetV2B0"`, and custom networks.
    """
    return list(NETWORKS)


# -- keras.applications ----------------------------------------------------------------

PREFIX = "keras.applications:"
CUT = "/"  # between a network and the layer that it ends with

# By input scaling. Networks of 0..255 have scaling layers of their own.
APPLICATIONS = {
    "0..255": (
        *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
        *(f"EfficientNetB{number}" for number in range(8)),
        *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
        "MobileNetV3Small", "MobileNetV3Large",
    ),
    "-1..1": (
        "InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "NASNetMobile",
        "NASNetLarge", "ResNet50V2", "ResNet101V2", "ResNet152V2", "Xception",
    ),
    "caffe": ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
    "imagenet": ("DenseNet121", "DenseNet169", "DenseNet201"),
}  # fmt: skip


def backbone_names() -> list[str]:
    """Returns all names of built-in networks and of `keras.applications`."""
    return [*NETWORKS, *(PREFIX + n for names in APPLICATIONS.values() for n in names)]


def is_backbone_name(name: str) -> bool:
    """Returns whether a name can be a backbone's, without importing it."""
    if name.startswith(PREFIX):
        return name.partition(CUT)[0] in backbone_names()
    return ":" in name or name in NETWORKS


def application_scaling(name: str) -> str:
    """Returns the input scaling of a `keras.applications` model by its name."""
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
    """Returns a network of `keras.applications` without its classifier."""
    import keras

    name, cut, last = name.partition(CUT)
    if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
        raise ValueError(f"Weights file not found: {weights}.")
    try:
        network = getattr(keras.applications, name)(
            weights=weights, include_top=False, input_shape=(*image_size, 3)
        )
    except Exception as error:
        if weights is None:
            raise
        advice = "Without internet access, pass the path of a local file instead. "
        raise ValueError(
            f"Could not load `backbone_weights` {weights!r} into {name}. "
            f"{advice if weights == 'imagenet' else ''}Keras: {one_line(error, 200)}"
        ) from error
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


# -- any backbone ----------------------------------------------------------------------

BackboneLike: TypeAlias = "str | keras.Model | Callable[[Any], Any]"
DEFAULT_IMAGE_SIZE = (224, 224)
# What `load_backbone_weights` reads: Keras models and PyTorch's weights.
WEIGHT_FILES = (".keras", ".safetensors", ".npz", ".pth", ".pt")
# A smaller factor of a Rescaling in the first layers expects pixels in [0, 255].
LARGEST_PIXEL_SCALE = 1.0 / 64.0
FRONT_LAYERS = 5


@dataclass(frozen=True)
class Backbone:
    """A backbone that is ready to be called."""

    name: str  # default name of the Keras model
    features: Callable[[Any], Any]  # image tensor in the range of `scaling` -> features
    image_size: tuple[int, int]  # (height, width) of the input in pixels
    augments: bool  # whether flip and contrast may be layers of the model
    scaling: InputScaling  # converts pixels in [0, 1] to its input


def resolve_backbone(
    backbone: BackboneLike,
    image_size: tuple[int, int] | None = None,
    *,
    dropout_rate: float = 0.5,
    width: float = 1.0,
    input_scaling: str | Sequence[float] | None = None,
    weights: str | Path | None = None,
) -> Backbone:
    """Returns the backbone for a name, Keras model or callable, as in `build_model`."""
    size = _checked_size(image_size)
    scaling = None if input_scaling is None else get_input_scaling(input_scaling)
    if weights is not None:
        weights = None if Path(weights).suffix in WEIGHT_FILES else str(weights)
    is_application = isinstance(backbone, str) and backbone.startswith(PREFIX)
    if weights is not None and not is_application:
        raise ValueError(
            f"Invalid `backbone_weights`. Expected a file, one of {WEIGHT_FILES}; only "
            "networks of keras.applications accept others. "
            f"Received: backbone_weights={weights!r}."
        )
    if isinstance(backbone, str) and ":" not in backbone:
        return _named(backbone, size, dropout_rate, width, scaling)
    import keras

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


def _named(
    name: str,
    size: tuple[int, int] | None,
    dropout_rate: float,
    width: float,
    scaling: InputScaling | None,
) -> Backbone:
    if name not in NETWORKS:
        raise ValueError(
            f"Invalid `backbone`. Expected one of {list_models()}, a network of Keras "
            f"such as '{PREFIX}ResNet50', a custom function as 'module:function', a "
            "keras.Model or a callable. Received: "
            f"backbone={name!r}.{did_you_mean(name, NETWORKS)}"
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
            f"Invalid `width`. Expected a number above 0, and 1.0 except for {wide}. "
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
    from keras_agegender.models.inference import inline_model

    shape = getattr(model, "input_shape", None)
    own: Any = (None, None)
    if isinstance(shape, tuple) and len(shape) == 4:
        own = shape[1:3]
    if size and any(b not in (None, a) for a, b in zip(size, own, strict=True)):
        raise ValueError(
            f"Invalid `image_size`. The backbone {model.name!r} requires {own}. "
            f"Received: image_size={size}."
        )
    if size is None:
        size = DEFAULT_IMAGE_SIZE if None in own else own
    scaling = scaling or InputScaling()
    return Backbone(model.name, partial(inline_model, model), size, True, scaling)


def _check_own_scaling(model: keras.Model, scaling: InputScaling | None) -> None:
    """Checks that a model does not seem to scale pixels of [0, 255] itself."""
    import keras

    for layer in getattr(model, "layers", [])[:FRONT_LAYERS] if scaling is None else ():
        is_scaling = isinstance(layer, keras.layers.Rescaling)
        if is_scaling and np.max(layer.scale) < LARGEST_PIXEL_SCALE:
            raise ValueError(
                f"Missing `input_scaling`. The layer {layer.name!r} of the backbone "
                f"{model.name!r} seems to expect pixels in another range than [0, 1], "
                f"such as '0..255'. Expected one of {list(INPUT_SCALINGS)}."
            )


def _imported(name: str) -> Any:
    """Returns the object that "module:attribute" names."""
    # Recipes may be untrusted: only objects that the package itself defines are
    # returned, not its imports, such as the `os` of "module:os.system".
    module, _, attribute = name.partition(":")
    expected = "Invalid `backbone`. Expected 'module:function' of a module that "
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(
            f"{expected}is not part of the standard library. "
            f"Received: backbone={name!r}."
        )
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
            if isinstance(found, ModuleType) or part.startswith("__"):
                raise ValueError(f"{part!r} is not defined in {module}")
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{expected}can be imported. Received: backbone={name!r}: {error}."
        ) from error
    origin = found.func if isinstance(found, partial) else found
    package = str(getattr(origin, "__module__", None)).partition(".")[0]
    allowed = (module.partition(".")[0], "keras", "keras_agegender")
    if callable(found) and package not in allowed:
        raise ValueError(
            f"{expected}defines it. Received: backbone={name!r}, which is defined in "
            f"{package!r}."
        )
    return found


def _checked_call(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wraps a function given by name such that its errors name it."""

    @wraps(function)
    def call(image: Any) -> Any:
        try:
            return function(image)
        except TypeError as error:
            raise ValueError(
                "Invalid `backbone`. Expected a function from an image tensor to "
                f"features. {function.__module__}:{function.__qualname__}: {error}."
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
