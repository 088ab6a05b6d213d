"""EfficientNet-Lite0, in the layout of the published ImageNet weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import initializers, layers

# The published weights were trained on (pixel - 127) / 128 with pixels in [0, 255].
SCALE, OFFSET = 255.0 / 128.0, -127.0 / 128.0
STEM_FILTERS = 32
TOP_FILTERS = 1280
# Share of residual branches that training drops in the last block.
DROP_CONNECT_RATE = 0.2


@dataclass(frozen=True)
class Stack:
    """A number of blocks of the same width."""

    blocks: int
    filters: int
    kernel: int  # side of the depthwise kernel
    stride: int  # of the first block
    expansion: int  # hidden channels per input channel


EFFICIENTNET_LITE0_STACKS = (
    Stack(1, 16, kernel=3, stride=1, expansion=1),
    Stack(2, 24, kernel=3, stride=2, expansion=6),
    Stack(2, 40, kernel=5, stride=2, expansion=6),
    Stack(3, 80, kernel=3, stride=2, expansion=6),
    Stack(3, 112, kernel=5, stride=1, expansion=6),
    Stack(4, 192, kernel=5, stride=2, expansion=6),
    Stack(1, 320, kernel=3, stride=1, expansion=6),
)


def efficientnet_lite0_backbone(image: Any) -> Any:
    """Adds EfficientNet-Lite0 up to its last activation after an image tensor.

    EfficientNet-B0 without squeeze-and-excitation and with ReLU6 instead of swish. Its
    first layer scales pixels to the range of the published weights. Training drops
    residual branches, up to 20 % of them in the last block.

    Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks", ICML 2019 (arXiv 1905.11946); the Lite variant is TensorFlow's
    `efficientnet/lite`, the source of padding, normalization and scaling.
    """
    x = layers.Rescaling(SCALE, OFFSET, name="stem_scale")(image)
    x = _convolution(x, STEM_FILTERS, 3, name="stem_conv", stride=2)
    x = layers.ReLU(6.0, name="stem_relu")(x)
    total = sum(stack.blocks for stack in EFFICIENTNET_LITE0_STACKS)
    number = 0
    for k, stack in enumerate(EFFICIENTNET_LITE0_STACKS, start=1):
        for block in range(1, stack.blocks + 1):
            x = _inverted_residual(
                x,
                stack,
                stride=stack.stride if block == 1 else 1,
                drop_rate=DROP_CONNECT_RATE * number / total,
                name=f"stack{k}_block{block}",
            )
            number += 1
    x = _convolution(x, TOP_FILTERS, 1, name="top_conv")
    return layers.ReLU(6.0, name="top_relu")(x)


def _inverted_residual(
    inputs: Any, stack: Stack, stride: int, drop_rate: float, name: str
) -> Any:
    """Adds an inverted residual block."""
    x = inputs
    if stack.expansion > 1:
        filters = x.shape[-1] * stack.expansion
        x = _convolution(x, filters, 1, name=f"{name}_expand")
        x = layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
    x = layers.DepthwiseConv2D(
        stack.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_initializer(),
        name=f"{name}_depthwise",
    )(x)
    x = _normalization(x, f"{name}_depthwise_bn")
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = _convolution(x, stack.filters, 1, name=f"{name}_project")
    if stride > 1 or inputs.shape[-1] != stack.filters:
        return x
    if drop_rate:
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(
            x
        )
    return layers.Add(name=f"{name}_add")([x, inputs])


def _convolution(
    x: Any, filters: int, kernel: int, *, name: str, stride: int = 1
) -> Any:
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=name,
    )(x)
    return _normalization(x, f"{name}_bn")


def _normalization(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _initializer() -> initializers.Initializer:
    return initializers.VarianceScaling(
        2.0, mode="fan_out", distribution="untruncated_normal"
    )
