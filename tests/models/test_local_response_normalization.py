"""LRN: numbers by hand, and those of PyTorch and TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_agegender.models.backbones import local_response_normalization


def normalize(features):
    inputs = keras.Input(features.shape[1:])
    model = keras.Model(inputs, local_response_normalization(inputs, "lrn"))
    return ops.convert_to_numpy(model(features))


@pytest.fixture
def features():
    # Activations large enough that the energy matters: 30² * 5 * 2e-5 = 0.09.
    return np.random.default_rng(0).normal(0, 30, (2, 5, 4, 11)).astype("float32")


def test_numbers_by_hand():
    # 1 + 1e-4 / 5 * 750,000 = 16, and 16 ** 0.75 = 8. The window reaches 2 channels to
    # either side: channels 0 to 4 see channel 2, channel 5 does not.
    channels = np.array([1, 1, np.sqrt(750_000), 1, 1, 1, 0], dtype="float32")
    found = normalize(channels.reshape(1, 1, 1, 7))[0, 0, 0]
    expected = [1 / 8, 1 / 8, np.sqrt(750_000) / 8, 1 / 8, 1 / 8, 1, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_pixels_do_not_mix(features):
    found = normalize(features)
    np.testing.assert_allclose(
        normalize(features[:, 2:3, 1:2]), found[:, 2:3, 1:2], rtol=1e-6
    )


def test_equals_torch(features):
    torch = pytest.importorskip("torch")
    reference = torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    expected = reference(torch.from_numpy(features.transpose(0, 3, 1, 2))).numpy()
    found = normalize(features)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-5)
    assert not np.allclose(found, features, rtol=1e-3)  # it does something


def test_equals_tensorflow(features):
    tf = pytest.importorskip("tensorflow")
    # TensorFlow does not divide alpha by the size of the window.
    expected = tf.nn.local_response_normalization(
        features, depth_radius=2, bias=1.0, alpha=1e-4 / 5, beta=0.75
    )
    np.testing.assert_allclose(normalize(features), expected.numpy(), rtol=1e-5)


def test_large_activations_survive_mixed_precision(features):
    features *= 100  # squares up to 1e8, beyond float16's 65,504
    expected = normalize(features.astype("float16").astype("float32"))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        found = normalize(features.astype("float16"))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
