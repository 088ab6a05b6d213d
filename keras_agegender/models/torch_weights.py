"""PyTorch's ResNet34 weights, torchvision's and timm's, in this library's ResNet34."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_agegender.models.resnet34 import STACKWISE_BLOCKS
from keras_agegender.models.weights import WeightTransfer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def load_torch_weights(
    model: keras.Model,
    file: str | Path,
    *,
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
) -> WeightTransfer:
    """Loads a local file of ResNet34 weights into a model with that trunk.

    PyTorch's models expect pixels with mean and deviation taken off; this library's
    take them in [0, 1]. The first convolution and its normalisation are changed to make
    up for it. That is exact but for the outermost three pixels of the picture, which
    the convolution pads with zeros: black here, the mean colour there.

    Args:
        model: A `resnet34` or `resnet_se`; other layers stay as they are.
        file: A state dict, `.pth` or `.pt` (needs PyTorch), or `.safetensors` (needs
            the extra `safetensors`), of torchvision's or timm's `resnet34`.
        mean: Mean of each channel that was taken off in training; `None` leaves the
            first layer as it is. Defaults to ImageNet's.
        std: Deviation that it was divided by. Defaults to ImageNet's.

    Returns:
        Which layers were loaded, and which not and why: the classifier has no layer
        here, heads none there.

    Raises:
        ValueError: If the file is no ResNet34, or the model has no such trunk.
        ImportError: If what reads such files is not installed.

    Example:
    >>> model = build_model("resnet_se", "ordinal")  # doctest: +SKIP
    >>> print(load_torch_weights(model, "resnet34.a1_in1k.safetensors"))
    ... # doctest: +SKIP
    """
    state = _read_state(Path(file))
    names = _layer_names()
    absent = sorted(
        f"{source}.weight" for source in names if f"{source}.weight" not in state
    )
    if absent:
        raise ValueError(
            f"{file} holds no ResNet34: it has no {absent[0]!r} and {len(absent) - 1} "
            f"more. It begins with {sorted(state)[:3]}."
        )
    layers = {layer.name: layer for layer in model.layers}
    missing = [name for name in names.values() if name not in layers]
    if missing:
        raise ValueError(
            f"Invalid model {model.name!r}. Expected the trunk of 'resnet34' or "
            f"'resnet_se'. It has no layer {missing[0]!r}."
        )
    for source, name in names.items():
        _load_layer(layers[name], state, source, Path(file))
    if mean is not None and std is not None:
        _fold_normalization(layers["conv1"], layers["conv1_bn"], mean, std)
    skipped = {
        name: "the file has no layer of that kind"
        for name, layer in layers.items()
        if layer.weights and name not in names.values()
    }
    used = tuple(f"{source}." for source in names)
    for key in sorted(state):
        if not key.startswith(used):
            skipped[f"{key} (of the file)"] = "the model has no such layer"
    return WeightTransfer(tuple(names.values()), skipped)


def _layer_names() -> dict[str, str]:
    """Returns PyTorch's module -> layer here."""
    names = {"conv1": "conv1", "bn1": "conv1_bn"}
    for stack, blocks in enumerate(STACKWISE_BLOCKS, start=1):
        for block in range(blocks):
            source, name = f"layer{stack}.{block}", f"stack{stack}_block{block + 1}"
            for k in (1, 2):
                names[f"{source}.conv{k}"] = f"{name}_conv{k}"
                names[f"{source}.bn{k}"] = f"{name}_conv{k}_bn"
            if stack > 1 and block == 0:
                names[f"{source}.downsample.0"] = f"{name}_shortcut"
                names[f"{source}.downsample.1"] = f"{name}_shortcut_bn"
    return names


def _load_layer(
    layer: Any, state: Mapping[str, np.ndarray], source: str, file: Path
) -> None:
    if isinstance(layer, keras.layers.Conv2D):
        # PyTorch: (out, in, height, width); Keras: (height, width, in, out).
        weights = [state[f"{source}.weight"].transpose(2, 3, 1, 0)]
    else:
        parts = ("weight", "bias", "running_mean", "running_var")
        weights = [state[f"{source}.{part}"] for part in parts]
    expected = [tuple(w.shape) for w in layer.weights]
    found = [w.shape for w in weights]
    if expected != found:
        raise ValueError(
            f"{file} holds no ResNet34: {source} has shapes {found}, expected "
            f"{expected}."
        )
    layer.set_weights(weights)


def _fold_normalization(
    convolution: Any, norm: Any, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Lets the first layer take pixels in [0, 1].

    conv((x - m) / s, w) = conv(x, w / s) - sum(w * m / s), and a constant that a
    normalisation is given may as well be added to the mean it takes off.
    """
    (kernel,) = convolution.get_weights()
    scaled = kernel / np.reshape(std, (1, 1, 3, 1))
    convolution.set_weights([scaled])
    gamma, beta, running_mean, running_var = norm.get_weights()
    shift = np.einsum("hwio,i->o", scaled, np.asarray(mean, scaled.dtype))
    norm.set_weights([gamma, beta, running_mean + shift, running_var])


def _read_state(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise ValueError(f"There is no weights file {file}.")
    if file.suffix == ".safetensors":
        try:
            from safetensors.numpy import load_file
        except ImportError as error:
            raise ImportError(
                f"{file} needs the package safetensors: "
                "pip install 'keras-agegender[safetensors]'."
            ) from error
        try:
            return dict(load_file(file))
        except Exception as error:
            raise ValueError(f"{file} is no safetensors file: {error}.") from error
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{file} needs PyTorch to be read (pip install torch); a .safetensors file "
            "does not."
        ) from error
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{file} is no state dict of PyTorch: {reason}.") from error
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): v.numpy() for name, v in state.items()}
