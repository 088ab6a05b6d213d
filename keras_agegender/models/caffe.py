"""The Caffe network of Levi & Hassner and the report's three smaller ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import layers

from keras_agegender.models.local_response_normalization import (
    local_response_normalization,
)


@dataclass(frozen=True)
class CaffeVariant:
    """What tells one Caffe network from another.

    Attributes:
        filters: Filters of each convolution.
        normalized: Numbers of the convolutions whose pooling LRN follows.
        hidden_layers: Fully connected layers of 512 units before the heads.
    """

    filters: tuple[int, ...]
    normalized: tuple[int, ...]
    hidden_layers: int


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
CAFFE_IMAGE_SIZE = (227, 227)


def caffe_backbone(image: Any, variant: CaffeVariant, dropout_rate: float = 0.5) -> Any:
    """Puts a Caffe network without its output layer behind an image tensor.

    Weights start by He's rule and biases at 0. The authors' files have normal
    distributions instead (0.01 for convolutions, 0.005 for hidden layers; the biases of
    conv2, fc1 and fc2 at 1), which suit their input, pixels up to 255 less the mean
    image. With Adam on pixels in [0, 1] those learned nothing of an easy task in the
    100 steps that He's rule solved it in.

    Args:
        image: Image tensor in [0, 1]. Shape (batch, height, width, 3); 227 × 227 in
            the paper, at least 35 × 35 with three convolutions.
        variant: Which of the four.
        dropout_rate: Dropout behind each hidden layer, in [0, 1). Defaults to 0.5.

    Returns:
        Features. Shape (batch, 512).

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
    """Max pooling 3 × 3, stride 2, as Caffe rounds it: up.

    At 56 rows that is 28: ceil((56 - 3) / 2) + 1. A row of zeros below makes the last
    window whole; behind a ReLU it never wins.
    """
    rows, columns = x.shape[1:3]
    below, right = (rows - 3) % 2, (columns - 3) % 2
    if below or right:
        x = layers.ZeroPadding2D(((0, below), (0, right)), name=f"pool{number}_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name=f"pool{number}")(x)
