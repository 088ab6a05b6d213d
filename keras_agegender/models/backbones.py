"""Backbones: Caffe (Levi & Hassner), ResNet34 and Squeeze-and-Excitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import initializers, layers, ops

SIZE = 5
ALPHA = 1e-4


def local_response_normalization(x: Any, name: str) -> Any:
    """Divides every activation by the energy of its neighboring channels.

    y[c] = x[c] / (1 + alpha / size * sum of x[c']² over |c' - c| <= 2) ** 0.75, with
    alpha 1e-4 and size 5. Caffe and PyTorch divide alpha by the size in the same way,
    `tf.nn.local_response_normalization` does not. The output is float32 under every
    dtype policy: squares of activations above 255 overflow float16.

    Source: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural
    Networks", 2012, section 3.3; the constants are those of Levi & Hassner 2015.
    """
    inputs = keras.Input(x.shape[1:], dtype="float32", name="features")
    channel = np.arange(inputs.shape[-1])
    window = np.abs(channel[:, None] - channel[None, :]) <= SIZE // 2
    # A product with a band of ones trains 1.2 to 4 times as fast on a CPU as a sum of
    # shifted slices, and rsqrt with sqrt up to twice as fast as a power.
    energy = ops.matmul(ops.square(inputs), window.astype("float32"))
    root = ops.rsqrt(energy * (ALPHA / SIZE) + 1.0)
    scale = root * ops.sqrt(root)  # (…) ** (-1/2 - 1/4)
    return keras.Model(inputs, inputs * scale, name=name)(x)


@dataclass(frozen=True)
class CaffeVariant:
    """A Caffe network."""

    filters: tuple[int, ...]  # of each convolution
    normalized: tuple[int, ...]  # numbers of convolutions with LRN after their pooling
    hidden_layers: int  # fully connected layers of 512 units


# The report, 2.1, models 1 to 4.
CAFFE_VARIANTS = {
    "caffe": CaffeVariant((96, 256, 384), normalized=(1, 2), hidden_layers=2),
    "caffe_2conv": CaffeVariant((96, 256), normalized=(1, 2), hidden_layers=2),
    "caffe_2conv_1fc": CaffeVariant((96, 256), normalized=(1,), hidden_layers=1),
    "caffe_1conv": CaffeVariant((96,), normalized=(1,), hidden_layers=1),
}

# Kernel, stride, padding of convolutions 1 to 3.
CAFFE_CONVOLUTIONS = ((7, 4, "valid"), (5, 1, "same"), (3, 1, "same"))
CAFFE_HIDDEN_UNITS = 512


def caffe_backbone(image: Any, variant: CaffeVariant, dropout_rate: float = 0.5) -> Any:
    """Adds a Caffe network without its output layer after an image tensor.

    Weights are initialized by He's rule and biases to 0. The authors use normal
    distributions (0.01 for convolutions, 0.005 for hidden layers; biases of 1 for
    conv2, fc1 and fc2) for pixels up to 255 minus the mean image. With Adam on pixels
    in [0, 1] these did not learn an easy task in the 100 steps in which He's rule did.

    Source: Levi & Hassner, "Age and Gender Classification Using Convolutional Neural
    Networks", CVPR Workshops 2015; sizes checked against the network definitions that
    the authors published (GilLevi/AgeGenderDeepLearning).
    """
    x = image
    for number, filters in enumerate(variant.filters, start=1):
        kernel, stride, padding = CAFFE_CONVOLUTIONS[number - 1]
        x = layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        x = _pool(x, number)
        if number in variant.normalized:
            x = local_response_normalization(x, name=f"lrn{number}")
    x = layers.Flatten(name="flatten")(x)
    for number in range(1, variant.hidden_layers + 1):
        x = layers.Dense(
            CAFFE_HIDDEN_UNITS,
            activation="relu",
            kernel_initializer="he_normal",
            name=f"fc{number}",
        )(x)
        x = layers.Dropout(dropout_rate, name=f"dropout{number}")(x)
    return x


def _pool(x: Any, number: int) -> Any:
    """Adds max pooling 3 × 3, stride 2, with a size rounded up, as in Caffe."""
    # 56 rows become 28: ceil((56 - 3) / 2) + 1. A row of zeros below completes the last
    # window; after a ReLU it is never the maximum.
    rows, columns = x.shape[1:3]
    below, right = (rows - 3) % 2, (columns - 3) % 2
    if below or right:
        x = layers.ZeroPadding2D(((0, below), (0, right)), name=f"pool{number}_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name=f"pool{number}")(x)


STACKWISE_FILTERS = (64, 128, 256, 512)
RESNET34_STACKWISE_BLOCKS = (3, 4, 6, 3)


def resnet34_backbone(image: Any, width: float = 1.0) -> Any:
    """Adds ResNet34 up to its last activation after an image tensor.

    Padding, initialization and batch normalization are those of torchvision.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
    (arXiv 1512.03385), table 1.
    """
    widths = [_scaled(filters, width) for filters in STACKWISE_FILTERS]
    x = _convolution(image, widths[0], kernel=7, stride=2, name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    # Padding with zeros equals padding with -inf here: a ReLU precedes.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    stacks = zip(widths, RESNET34_STACKWISE_BLOCKS, strict=True)
    for stack, (filters, blocks) in enumerate(stacks, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stack > 1 and block == 1 else 1
            x = _basic_block(x, filters, stride, name=f"stack{stack}_block{block}")
    return x


def _scaled(filters: int, width: float) -> int:
    """Rounds a scaled width to a multiple of 8, at least 8."""
    return max(8, 8 * round(filters * width / 8))


def _basic_block(x: Any, filters: int, stride: int, name: str) -> Any:
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = _convolution(x, filters, 1, stride, name=f"{name}_shortcut")
    x = _convolution(x, filters, 3, stride, name=f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _convolution(x, filters, 3, 1, name=f"{name}_conv2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _convolution(x: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
    """Adds a convolution with symmetric padding and batch normalization."""
    padding = "same"  # equals symmetric padding where the stride is 1
    if stride > 1:
        padding = "valid"
        if kernel > 1:
            x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        name=name,
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def squeeze_excite(x: Any, ratio: int = 16, name: str = "se") -> Any:
    """Scales each channel of a feature map by a learned gate in (0, 1).

    `ratio` is the number of channels per unit of the bottleneck.

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
