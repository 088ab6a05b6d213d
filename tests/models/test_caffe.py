"""The four Caffe networks: layers, shapes and parameters worked by hand, pooling."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.encodings.head import Head
from keras_agegender.models.backbones import CAFFE_VARIANTS, _pool
from keras_agegender.models.builder import build_model

CONV1 = 7 * 7 * 3 * 96 + 96  # 14,208
CONV2 = 5 * 5 * 96 * 256 + 256  # 614,656
CONV3 = 3 * 3 * 256 * 384 + 384  # 885,120
FC2 = 512 * 512 + 512  # 262,656
GENDER = 512 * 1 + 1
AGE = 512 * 8 + 8

# Layer -> output shape at 227 × 227, parameters. fc1 takes the flattened last map.
LAYERS = {
    "caffe": {
        "conv1": ((56, 56, 96), CONV1),  # (227 - 7) / 4 + 1
        "pool1": ((28, 28, 96), 0),  # ceil((56 - 3) / 2) + 1
        "lrn1": ((28, 28, 96), 0),
        "conv2": ((28, 28, 256), CONV2),
        "pool2": ((14, 14, 256), 0),
        "lrn2": ((14, 14, 256), 0),
        "conv3": ((14, 14, 384), CONV3),
        "pool3": ((7, 7, 384), 0),
        "fc1": ((512,), 7 * 7 * 384 * 512 + 512),  # 9,634,304
        "fc2": ((512,), FC2),
        "gender": ((1,), GENDER),
        "age": ((8,), AGE),
    },
    "caffe_2conv": {
        "conv1": ((56, 56, 96), CONV1),
        "pool1": ((28, 28, 96), 0),
        "lrn1": ((28, 28, 96), 0),
        "conv2": ((28, 28, 256), CONV2),
        "pool2": ((14, 14, 256), 0),
        "lrn2": ((14, 14, 256), 0),
        "fc1": ((512,), 14 * 14 * 256 * 512 + 512),  # 25,690,624
        "fc2": ((512,), FC2),
        "gender": ((1,), GENDER),
        "age": ((8,), AGE),
    },
    "caffe_2conv_1fc": {
        "conv1": ((56, 56, 96), CONV1),
        "pool1": ((28, 28, 96), 0),
        "lrn1": ((28, 28, 96), 0),
        "conv2": ((28, 28, 256), CONV2),
        "pool2": ((14, 14, 256), 0),
        "fc1": ((512,), 14 * 14 * 256 * 512 + 512),
        "gender": ((1,), GENDER),
        "age": ((8,), AGE),
    },
    "caffe_1conv": {
        "conv1": ((56, 56, 96), CONV1),
        "pool1": ((28, 28, 96), 0),
        "lrn1": ((28, 28, 96), 0),
        "fc1": ((512,), 28 * 28 * 96 * 512 + 512),  # 38,535,680
        "gender": ((1,), GENDER),
        "age": ((8,), AGE),
    },
}
# Without the heads.
TOTALS = {
    "caffe": 11_410_944,
    "caffe_2conv": 26_582_144,
    "caffe_2conv_1fc": 26_319_488,
    "caffe_1conv": 38_549_888,
}


@pytest.mark.parametrize("name", list(CAFFE_VARIANTS))
def test_layer_by_layer(name):
    model = build_model(name)
    found = {
        layer.name: (tuple(layer.output.shape[1:]), layer.count_params())
        for layer in model.layers
        # These have no parameters, and the shape of what is before them.
        if not layer.name.endswith("_pad")
        and layer.name not in ("image", "flatten", "dropout1", "dropout2", "encoding")
    }
    assert found == LAYERS[name]
    assert model.count_params() == TOTALS[name] + GENDER + AGE
    assert not model.non_trainable_weights


@pytest.mark.parametrize(
    ("rows", "pooled"), [(56, 28), (28, 14), (14, 7), (57, 28), (9, 4), (4, 2), (3, 1)]
)
def test_pooling_rounds_up(rows, pooled):
    assert _pool(keras.Input((rows, rows + 1, 2)), 1).shape[1] == pooled


@pytest.mark.parametrize("rows", [56, 57, 9, 4])
def test_pooling_equals_torch_s_ceil_mode(rows):
    torch = pytest.importorskip("torch")
    shape = (1, rows, rows + 1, 2)
    features = np.random.default_rng(0).random(shape).astype("float32")
    inputs = keras.Input(shape[1:])
    found = keras.Model(inputs, _pool(inputs, 1)).predict(features, verbose=0)
    expected = torch.nn.MaxPool2d(3, 2, ceil_mode=True)(
        torch.from_numpy(features.transpose(0, 3, 1, 2))
    ).numpy()
    np.testing.assert_array_equal(found, expected.transpose(0, 2, 3, 1))


def test_equals_torch():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    reference = nn.Sequential(
        nn.Conv2d(3, 96, 7, stride=4),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
        nn.Conv2d(96, 256, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )
    model = build_model("caffe", None, heads=[Head("x")], image_size=(99, 115))
    for number, index in ((1, 0), (2, 4), (3, 8)):
        conv = reference[index]
        conv.weight.data.mul_(8)  # activations for which normalisation matters
        kernel = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
        bias = conv.bias.detach().numpy()
        model.get_layer(f"conv{number}").set_weights([kernel, bias])
    images = np.random.default_rng(0).random((2, 99, 115, 3)).astype("float32")
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    trunk = keras.Model(model.input, model.get_layer("pool3").output)
    found = trunk.predict(images, verbose=0)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        found / scale, expected.transpose(0, 2, 3, 1) / scale, atol=1e-5
    )


def test_hidden_layers_drop_out_in_training():
    model = build_model("caffe", image_size=(40, 40), dropout_rate=0.25)
    rates = [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert rates == [0.25, 0.25, 0.0]  # the last keeps the encoding
