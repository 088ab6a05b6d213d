"""Folding for inference: the same predictions from fewer layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_agegender.models.builder import build_model
from keras_agegender.models.inference import fold_for_inference


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def with_random_statistics(model):
    """Normalizations as after training: at first they do next to nothing."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights(
                [generator.uniform(0.5, 2, w.shape) for w in layer.weights]
            )
        elif isinstance(layer, keras.Model):
            with_random_statistics(layer)
    return model


def predictions(model):
    images = np.random.default_rng(1).random((2, *model.input.shape[1:]), "float32")
    outputs = model(images, training=False)
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]


def assert_same_predictions(model, folded):
    for mine, other in zip(predictions(model), predictions(folded), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_kernel_and_bias_by_hand():
    # (2x + 1 - 3) / sqrt(3.75 + 0.25) * 4 + 5 = 4x + 1
    x = keras.Input((1, 1, 1))
    convolution = layers.Conv2D(1, 1)
    normalization = layers.BatchNormalization(epsilon=0.25)
    model = keras.Model(x, normalization(convolution(x)))
    convolution.set_weights([np.full((1, 1, 1, 1), 2.0), np.ones(1)])
    normalization.set_weights([np.array([v]) for v in (4.0, 5.0, 3.0, 3.75)])
    folded = fold_for_inference(model)
    assert kinds(folded) == ["InputLayer", "Conv2D"]
    kernel, bias = folded.layers[1].get_weights()
    assert (kernel.item(), bias.item()) == pytest.approx((4.0, 1.0))
    assert convolution.get_weights()[0].item() == 2.0  # the model is as it was


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_depthwise_with_a_multiplier(options):
    x = keras.Input((5, 5, 3))
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    y = layers.BatchNormalization(**options)(y)
    model = with_random_statistics(keras.Model(x, y))
    folded = fold_for_inference(model)
    assert kinds(folded) == ["InputLayer", "DepthwiseConv2D"]
    assert_same_predictions(model, folded)


@pytest.mark.parametrize(
    ("size", "padding", "is_same"),
    [
        (8, ((0, 1), (0, 1)), True),  # 8 pixels, 3 wide, every 2nd: one more behind
        (9, ((0, 1), (0, 1)), False),  # one on each side
        (9, 1, True),
        (8, ((1, 0), (1, 0)), False),
    ],
)
def test_zero_padding_that_is_the_same_as_same(size, padding, is_same):
    x = keras.Input((size, size, 2))
    y = layers.ZeroPadding2D(padding)(x)
    y = layers.Conv2D(4, 3, strides=2, use_bias=False)(y)
    model = with_random_statistics(keras.Model(x, layers.BatchNormalization()(y)))
    folded = fold_for_inference(model)
    assert ("ZeroPadding2D" not in kinds(folded)) == is_same
    assert "BatchNormalization" not in kinds(folded)
    assert_same_predictions(model, folded)


def test_layers_that_cannot_be_folded_do_not_change():
    x = keras.Input((6, 6, 3))
    activated = layers.BatchNormalization()(layers.Conv2D(2, 3, activation="relu")(x))
    other_axis = layers.BatchNormalization(axis=1)(layers.Conv2D(2, 3)(x))
    training = layers.BatchNormalization()(layers.Conv2D(2, 3)(x), training=True)
    model = with_random_statistics(keras.Model(x, [activated, other_axis, training]))
    folded = fold_for_inference(model)
    assert kinds(folded).count("BatchNormalization") == 3
    assert_same_predictions(model, folded)


def test_a_convolution_with_another_use_is_unchanged():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(2, 3)(x)
    model = keras.Model(x, [layers.BatchNormalization()(y), layers.ReLU()(y)])
    model = with_random_statistics(model)
    folded = fold_for_inference(model)
    assert kinds(folded).count("Conv2D") == 2
    assert_same_predictions(model, folded)


def test_a_nested_model_is_folded():
    x = keras.Input((8, 8, 3))
    inside = keras.Model(x, layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    y = keras.Input((8, 8, 3))
    model = with_random_statistics(keras.Model(y, layers.Flatten()(inside(y))))
    folded = fold_for_inference(model)
    assert "BatchNormalization" not in kinds(folded.layers[1])
    assert_same_predictions(model, folded)


def test_a_whole_network_with_its_names():
    model = build_model("resnet_se", "ordinal", image_size=(32, 32))
    model = with_random_statistics(model)
    folded = fold_for_inference(model)
    assert folded.name == model.name
    assert folded.output_names == model.output_names
    assert len(folded.layers) < len(model.layers)


def test_a_sequential_model_does_not_change():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 3)])
    assert fold_for_inference(model) is model
