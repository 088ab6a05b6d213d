"""Input scalings: Keras' own preprocessing, and what reaches a backbone."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

from keras_agegender.models.builder import build_model
from keras_agegender.models.registry import (
    APPLICATIONS,
    INPUT_SCALINGS,
    application_scaling,
    get_input_scaling,
    scale_input,
)

PIXELS = np.random.default_rng(0).random((2, 4, 5, 3)).astype("float32")
NAMES = sorted(name for names in APPLICATIONS.values() for name in names)


def scaled(scaling, pixels=PIXELS):
    image = keras.Input(pixels.shape[1:])
    model = keras.Model(image, scale_input(image, get_input_scaling(scaling)))
    return np.asarray(model.predict(pixels, verbose=0))


def test_every_network_of_keras_applications_is_known_once():
    assert NAMES == sorted(n for n in dir(keras.applications) if n[0].isupper())
    assert set(APPLICATIONS) <= set(INPUT_SCALINGS)


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_keras_preprocess_input(name):
    """Each network's module has a function for pixels in [0, 255]."""
    module = importlib.import_module(getattr(keras.applications, name).__module__)
    expected = module.preprocess_input(255 * PIXELS.copy())
    found = scaled(application_scaling(name))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_networks_of_0_to_255_scale_by_themselves():
    model = keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    first = [x for x in model.layers if isinstance(x, keras.layers.Rescaling)][0]
    assert (first.scale, first.offset) == (1 / 127.5, -1.0)
    assert application_scaling("MobileNetV3Small") == "0..255"


def test_a_pair_and_a_name():
    np.testing.assert_allclose(scaled((3, -0.5)), 3 * PIXELS - 0.5, rtol=1e-6)
    image = keras.Input(PIXELS.shape[1:])
    assert scale_input(image, get_input_scaling("0..1")) is image
    for wrong in ("0..2", (1, 2, 3), ("a", "b"), [1]):
        with pytest.raises(ValueError, match="Invalid `input_scaling`"):
            get_input_scaling(wrong)


def first_pixels(model):
    return np.asarray(
        keras.Model(model.input, model.get_layer("seen").output).predict(
            PIXELS, verbose=0
        )
    )


def test_the_backbone_sees_the_range_asked_for():
    def backbone(image):
        return keras.layers.Activation("linear", name="seen")(image)

    size = {"image_size": (4, 5), "augment": False}
    np.testing.assert_array_equal(first_pixels(build_model(backbone, **size)), PIXELS)
    for scaling in ("-1..1", "caffe", (2, 3)):
        model = build_model(backbone, input_scaling=scaling, **size)
        np.testing.assert_allclose(first_pixels(model), scaled(scaling), atol=1e-5)
