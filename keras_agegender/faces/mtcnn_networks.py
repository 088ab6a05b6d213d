"""The three networks of MTCNN, with the `mtcnn` package's weights, as plain TensorFlow.

Each takes pixels in [0, 255], any dtype. They are rearranged so that nothing but
convolutions and poolings touches full-size maps; the answers are those of the networks
as published, up to rounding.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Networks were trained on (pixel - MEAN) / SPREAD.
MEAN, SPREAD = 127.5, 128.0

Weights = Sequence[np.ndarray]


def load_weights(name: str) -> list[np.ndarray]:
    """Reads `pnet`, `rnet` or `onet` from the `mtcnn` package, in order of layers."""
    import joblib

    file = importlib.resources.files("mtcnn.assets.weights") / f"{name}.lz4"
    with importlib.resources.as_file(file) as path:
        return [np.asarray(w, "float32") for w in joblib.load(path)]


class PooledConvolution:
    """A convolution, PReLU and max pooling, in the order that takes the least time.

    Where a PReLU's slope is not negative, it can wait until after pooling. Where it is,
    PReLU(x) = max(x, slope * x): both are computed, then pooled.

    Args:
        weights: Kernel, bias and slope.
        window: Side of what is pooled; every second pixel.
        padding: Of the pooling, `"SAME"` or `"VALID"`.

    Attributes:
        order: Where each channel that comes out was among those of the kernel.
    """

    def __init__(self, weights: Weights, window: int, padding: str) -> None:
        kernel, bias, slope = weights[0], weights[1], weights[2].reshape(-1)
        rising, bent = np.flatnonzero(slope >= 0), np.flatnonzero(slope < 0)
        self.order = np.concatenate([rising, bent])
        self.kernel = np.concatenate(
            [kernel[..., self.order], kernel[..., bent] * slope[bent]], axis=-1
        )
        self.bias = np.concatenate([bias[self.order], bias[bent] * slope[bent]])
        self.slope, self.num_rising = slope[rising], len(rising)
        self.window, self.padding = window, padding

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the channels in `order`."""
        x = tf.nn.conv2d(x, self.kernel, 1, "VALID")
        x = tf.nn.max_pool2d(x, self.window, 2, self.padding) + self.bias
        if self.num_rising == len(self.order):
            return prelu(x, self.slope)
        end = len(self.order)
        rising = prelu(x[..., : self.num_rising], self.slope)
        bent = tf.maximum(x[..., self.num_rising : end], x[..., end:])
        return tf.concat([rising, bent], axis=-1)


class ProposalNetwork:
    """P-Net: 12 × 12 pixels, every second one, to offsets and the score of a face."""

    def __init__(self) -> None:
        w = load_weights("pnet")
        self.part1 = PooledConvolution(_of_pixels(w[0:3]), 2, "SAME")
        self.part2 = _reading(w[3:6], self.part1)
        # PReLU(x) = slope * x + (1 - slope) * max(x, 0), and x = max(x, 0) - max(-x, 0)
        # where x is what the outputs make of the linear first part. So conv3 is one
        # convolution with a ReLU, which TensorFlow fuses, and a small one behind it.
        slope3 = w[8].reshape(-1)
        outputs = np.concatenate([w[9], w[11]], axis=-1)[0, 0]
        linear = np.einsum("hwim,m,mo->hwio", w[6], slope3, outputs)
        linear_bias = (w[7] * slope3) @ outputs
        self.conv3 = np.concatenate([w[6], linear, -linear], axis=-1)
        self.bias3 = np.concatenate([w[7], linear_bias, -linear_bias])
        same = np.eye(outputs.shape[1], dtype="float32")
        rectified = (1 - slope3)[:, np.newaxis] * outputs
        self.conv4 = np.concatenate([rectified, same, -same])[np.newaxis, np.newaxis]
        self.bias4 = np.concatenate([w[10], w[12]])

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns offsets (batch, rows, columns, 4), scores (batch, rows, columns)."""
        x = _convolve(self.part1(tf.cast(pixels, tf.float32)), self.part2)
        x = tf.nn.bias_add(tf.nn.conv2d(x, self.conv3, 1, "VALID"), self.bias3)
        x = tf.nn.conv2d(tf.nn.relu(x), self.conv4, 1, "VALID")
        x = tf.nn.bias_add(x, self.bias4)
        return x[..., :4], probability(x[..., 4:])


class RefinementNetwork:
    """R-Net: patches of 24 × 24 to offsets and scores."""

    side = 24

    def __init__(self) -> None:
        self.weights = w = load_weights("rnet")
        self.part1 = PooledConvolution(_of_pixels(w[0:3]), 3, "SAME")
        self.part2 = PooledConvolution(_reading(w[3:6], self.part1), 3, "VALID")
        self.part3 = _reading(w[6:9], self.part2)

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns offsets (patches, 4) and scores (patches,)."""
        w = self.weights
        x = _flat(_convolve(self.part2(self.part1(pixels)), self.part3))
        x = prelu(x @ w[9] + w[10], w[11])
        return x @ w[12] + w[13], probability(x @ w[14] + w[15])


class OutputNetwork:
    """O-Net: patches of 48 × 48 to offsets, landmarks and scores."""

    side = 48

    def __init__(self) -> None:
        self.weights = w = load_weights("onet")
        self.part1 = PooledConvolution(_of_pixels(w[0:3]), 3, "SAME")
        self.part2 = PooledConvolution(_reading(w[3:6], self.part1), 3, "VALID")
        self.part3 = PooledConvolution(_reading(w[6:9], self.part2), 2, "SAME")
        self.part4 = _reading(w[9:12], self.part3)

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns offsets (patches, 4), points (patches, 10) and scores (patches,).

        Points are five x, then five y, as shares of the patch.
        """
        w = self.weights
        x = self.part3(self.part2(self.part1(pixels)))
        x = prelu(_flat(_convolve(x, self.part4)) @ w[12] + w[13], w[14])
        scores = probability(x @ w[19] + w[20])
        return x @ w[15] + w[16], x @ w[17] + w[18], scores


def _of_pixels(w: Weights) -> Weights:
    """Returns a first layer's weights with the scaling of pixels folded in."""
    kernel = w[0] / SPREAD
    return kernel, w[1] - kernel.sum((0, 1, 2)) * MEAN, w[2]


def _reading(w: Weights, before: PooledConvolution) -> Weights:
    """Returns a layer's weights, its inputs in the order in which they come."""
    return w[0][:, :, before.order], w[1], w[2]


def prelu(x: tf.Tensor, slope: np.ndarray) -> tf.Tensor:
    """Returns x where it is positive, else slope * x."""
    if slope.max() <= 1:
        return tf.maximum(x, slope * x)
    return tf.nn.relu(x) + slope * tf.minimum(x, 0.0)


def probability(logits: tf.Tensor) -> tf.Tensor:
    """Returns the softmax of the second of two classes, a face."""
    return tf.sigmoid(logits[..., 1] - logits[..., 0])


def _convolve(x: tf.Tensor, w: Weights) -> tf.Tensor:
    x = tf.nn.bias_add(tf.nn.conv2d(x, w[0], 1, "VALID"), w[1])
    return prelu(x, w[2].reshape(-1))


def _flat(x: tf.Tensor) -> tf.Tensor:
    x = tf.transpose(x, (0, 2, 1, 3))  # the weights were trained column by column
    return tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))
