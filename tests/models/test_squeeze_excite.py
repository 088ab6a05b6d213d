"""Squeeze-and-Excitation against its definition in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.models.backbones import squeeze_excite


def test_equals_its_definition():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (2, 3, 4, 32)).astype("float32")
    inputs = keras.Input((3, 4, 32))
    model = keras.Model(inputs, squeeze_excite(inputs))
    weights = [rng.normal(0, 1, w.shape) for w in model.weights]
    assert [w.shape for w in weights] == [(32, 2), (2,), (2, 32), (32,)]
    model.set_weights(weights)
    reduce, reduce_bias, expand, expand_bias = weights
    squeezed = features.mean(axis=(1, 2))
    hidden = np.maximum(squeezed @ reduce + reduce_bias, 0)
    gate = 1 / (1 + np.exp(-(hidden @ expand + expand_bias)))
    np.testing.assert_allclose(
        model.predict(features, verbose=0), features * gate[:, None, None, :], atol=1e-5
    )


def test_parameters():
    inputs = keras.Input((7, 7, 512))
    model = keras.Model(inputs, squeeze_excite(inputs))
    # (512 * 32 + 32) + (32 * 512 + 512) = 16,416 + 16,896
    assert model.count_params() == 33_312


@pytest.mark.parametrize("ratio", [4, 16])
def test_ratio_sets_the_bottleneck(ratio):
    inputs = keras.Input((2, 2, 64))
    model = keras.Model(inputs, squeeze_excite(inputs, ratio=ratio, name="gate"))
    assert model.get_layer("gate_reduce").units == 64 // ratio
