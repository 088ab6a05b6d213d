"""Transfer of weights: what fits is equal, the rest is untouched and listed."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.models.builder import build_model
from keras_agegender.models.weights import transfer_weights

SIZE = {"image_size": (32, 32), "augment": False}


def test_the_trunk_is_copied_and_new_heads_are_not():
    source = build_model("resnet34", "attributes", **SIZE)
    target = build_model("resnet34", "ordinal", **SIZE)
    before = target.get_layer("gender").get_weights()
    report = transfer_weights(source, target)
    assert set(report.skipped) == {"gender", *(f"age{k}" for k in range(1, 9))}
    assert len(report.loaded) == 2 * 36  # 33 + 3 shortcut convolutions, batch norms
    for name in report.loaded:
        for a, b in zip(
            source.get_layer(name).get_weights(),
            target.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(before, target.get_layer("gender").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "9 skipped" in str(report)


def test_other_shapes_are_skipped_and_said():
    source = build_model("caffe", "gender", image_size=(64, 64))
    target = build_model("caffe", "gender", image_size=(96, 96))
    report = transfer_weights(source, target)
    assert list(report.skipped) == ["fc1"]
    assert "shapes" in report.skipped["fc1"]
    assert "gender" in report.loaded


def dense_model(name, **units):
    """A chain of dense layers: name of a layer -> its units."""
    x = inputs = keras.Input((3,))
    for layer, count in units.items():
        x = keras.layers.Dense(count, name=layer)(x)
    return keras.Model(inputs, x, name=name)


def test_frozen_layers_that_find_no_weights_are_an_error():
    """Two of three: one has another shape, one is not there. The new head may learn."""
    source = dense_model("plain", one=4, two=5)
    target = dense_model("deep", one=4, two=6, three=7, head=1)
    before = [w.copy() for w in target.get_weights()]
    for name in ("one", "two", "three"):
        target.get_layer(name).trainable = False
    message = (
        "those of 'plain', another trunk than 'deep': 2 of 3 frozen layers found none "
        "there. 'two': shapes"
    )
    with pytest.raises(ValueError, match=message):
        transfer_weights(source, target)
    for a, b in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # not even the layer that fits
    for name in ("two", "three"):
        target.get_layer(name).trainable = True
    report = transfer_weights(source, target)
    assert report.loaded == ("one",)
    assert set(report.skipped) == {"two", "three", "head"}


def test_nothing_fits():
    source = build_model("caffe", "gender", image_size=(64, 64))
    x = keras.Input((3,))
    target = keras.Model(x, keras.layers.Dense(2, name="other")(x))
    with pytest.raises(ValueError, match="No layer of 'caffe' fits"):
        transfer_weights(source, target)
