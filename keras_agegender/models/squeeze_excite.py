"""Squeeze-and-Excitation: channels weighted by what the whole map shows."""

from __future__ import annotations

from typing import Any

from keras import layers


def squeeze_excite(x: Any, ratio: int = 16, name: str = "se") -> Any:
    """Scales each channel of a feature map by a learned gate in (0, 1).

    Args:
        x: Feature map. Shape (batch, height, width, channels).
        ratio: Channels per unit of the bottleneck. Defaults to the paper's 16.
        name: Prefix of the layers' names.

    Returns:
        A feature map of the same shape.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv 1709.01507).
    """
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    gate = layers.Dense(
        max(1, channels // ratio),
        activation="relu",
        kernel_initializer="he_normal",
        name=f"{name}_reduce",
    )(gate)
    gate = layers.Dense(channels, activation="sigmoid", name=f"{name}_expand")(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])
