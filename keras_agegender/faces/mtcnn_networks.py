"""The three networks of MTCNN, with the `mtcnn` package's weights, as plain TensorFlow.

Each takes pixels in [0, 255], any dtype. P-Net, which sees the most pixels by far, is
rearranged so that nothing but convolutions and one pooling touches full-size maps; the
answers are those of the network as published, up to rounding.
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


class ProposalNetwork:
    """P-Net: 12 × 12 pixels, every second one, to offsets and the score of a face."""

    def __init__(self) -> None:
        w = load_weights("pnet")
        # conv1 with the scaling of pixels folded in.
        kernel, bias, slope = w[0] / SPREAD, w[1], w[2].reshape(-1)
        bias = bias - kernel.sum((0, 1, 2)) * MEAN
        # Where a PReLU's slope is not negative, it can wait until after max pooling.
        # Where it is, PReLU(x) = max(x, slope * x): both are computed, then pooled.
        rising = np.flatnonzero(slope >= 0)
        bent = np.flatnonzero(slope < 0)
        order = np.concatenate([rising, bent])
        self.conv1 = np.concatenate(
            [kernel[..., order], kernel[..., bent] * slope[bent]], axis=-1
        )
        self.bias1 = np.concatenate([bias[order], bias[bent] * slope[bent]])
        self.slope1, self.num_rising = slope[rising], len(rising)
        self.conv2, self.bias2, self.slope2 = w[3][:, :, order], w[4], w[5].reshape(-1)
        # PReLU(x) = slope * x + (1 - slope) * max(x, 0). The first part is linear, so
        # conv3 and both outputs behind it are one convolution; the second is a ReLU,
        # which TensorFlow fuses with conv3.
        slope3 = w[8].reshape(-1)
        outputs = np.concatenate([w[9], w[11]], axis=-1)[0, 0]
        output_bias = np.concatenate([w[10], w[12]])
        self.conv3, self.bias3 = w[6], w[7]
        self.linear = np.einsum("hwim,m,mo->hwio", w[6], slope3, outputs)
        self.linear_bias = (w[7] * slope3) @ outputs + output_bias
        self.rectified = ((1 - slope3)[:, np.newaxis] * outputs)[np.newaxis, np.newaxis]

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns offsets (batch, rows, columns, 4), scores (batch, rows, columns)."""
        x = tf.nn.conv2d(tf.cast(pixels, tf.float32), self.conv1, 1, "VALID")
        x = tf.nn.max_pool2d(x, 2, 2, "SAME") + self.bias1
        end = self.num_rising + (x.shape[-1] - self.num_rising) // 2
        x = tf.concat(
            [
                prelu(x[..., : self.num_rising], self.slope1),
                tf.maximum(x[..., self.num_rising : end], x[..., end:]),
            ],
            axis=-1,
        )
        x = tf.nn.bias_add(tf.nn.conv2d(x, self.conv2, 1, "VALID"), self.bias2)
        x = prelu(x, self.slope2)
        bent = tf.nn.bias_add(tf.nn.conv2d(x, self.conv3, 1, "VALID"), self.bias3)
        bent = tf.nn.conv2d(tf.nn.relu(bent), self.rectified, 1, "VALID")
        x = bent + tf.nn.conv2d(x, self.linear, 1, "VALID") + self.linear_bias
        return x[..., :4], probability(x[..., 4:])


class RefinementNetwork:
    """R-Net: patches of 24 × 24 to offsets and scores."""

    side = 24

    def __init__(self) -> None:
        self.weights = load_weights("rnet")

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns offsets (patches, 4) and scores (patches,)."""
        w = self.weights
        x = (pixels - MEAN) / SPREAD
        x = tf.nn.max_pool2d(_convolve(x, w[0:3]), 3, 2, "SAME")
        x = tf.nn.max_pool2d(_convolve(x, w[3:6]), 3, 2, "VALID")
        x = prelu(_flat(_convolve(x, w[6:9])) @ w[9] + w[10], w[11])
        return x @ w[12] + w[13], probability(x @ w[14] + w[15])


class OutputNetwork:
    """O-Net: patches of 48 × 48 to offsets, landmarks and scores."""

    side = 48

    def __init__(self) -> None:
        self.weights = load_weights("onet")

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns offsets (patches, 4), points (patches, 10) and scores (patches,).

        Points are five x, then five y, as shares of the patch.
        """
        w = self.weights
        x = (pixels - MEAN) / SPREAD
        x = tf.nn.max_pool2d(_convolve(x, w[0:3]), 3, 2, "SAME")
        x = tf.nn.max_pool2d(_convolve(x, w[3:6]), 3, 2, "VALID")
        x = tf.nn.max_pool2d(_convolve(x, w[6:9]), 2, 2, "SAME")
        x = prelu(_flat(_convolve(x, w[9:12])) @ w[12] + w[13], w[14])
        scores = probability(x @ w[19] + w[20])
        return x @ w[15] + w[16], x @ w[17] + w[18], scores


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
