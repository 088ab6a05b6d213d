"""Backbones: shapes and parameters by hand, and the numbers of PyTorch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_agegender.encodings.head import Head
from keras_agegender.models.backbones import (
    CAFFE_VARIANTS,
    RESNET34_STACKWISE_BLOCKS,
    STACKWISE_FILTERS,
    _pool,
    local_response_normalization,
    squeeze_excite,
)
from keras_agegender.models.builder import build_model

CONV1 = 7 * 7 * 3 * 96 + 96  # 14,208
CONV2 = 5 * 5 * 96 * 256 + 256  # 614,656
CONV3 = 3 * 3 * 256 * 384 + 384  # 885,120
FC2 = 512 * 512 + 512  # 262,656
GENDER_PARAMETERS = 512 * 1 + 1
AGE_PARAMETERS = 512 * 8 + 8

# Layer -> output shape at 227 × 227, parameters. fc1 takes the flattened last map.
CAFFE_LAYERS = {
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
        "gender": ((1,), GENDER_PARAMETERS),
        "age": ((8,), AGE_PARAMETERS),
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
        "gender": ((1,), GENDER_PARAMETERS),
        "age": ((8,), AGE_PARAMETERS),
    },
    "caffe_2conv_1fc": {
        "conv1": ((56, 56, 96), CONV1),
        "pool1": ((28, 28, 96), 0),
        "lrn1": ((28, 28, 96), 0),
        "conv2": ((28, 28, 256), CONV2),
        "pool2": ((14, 14, 256), 0),
        "fc1": ((512,), 14 * 14 * 256 * 512 + 512),
        "gender": ((1,), GENDER_PARAMETERS),
        "age": ((8,), AGE_PARAMETERS),
    },
    "caffe_1conv": {
        "conv1": ((56, 56, 96), CONV1),
        "pool1": ((28, 28, 96), 0),
        "lrn1": ((28, 28, 96), 0),
        "fc1": ((512,), 28 * 28 * 96 * 512 + 512),  # 38,535,680
        "gender": ((1,), GENDER_PARAMETERS),
        "age": ((8,), AGE_PARAMETERS),
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
    assert found == CAFFE_LAYERS[name]
    assert model.count_params() == TOTALS[name] + GENDER_PARAMETERS + AGE_PARAMETERS
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


def test_caffe_equals_torch():
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
        conv.weight.data.mul_(8)  # activations for which normalization matters
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


# -- resnet34 --------------------------------------------------------------------------

# Output shapes at 224 × 224.
RESNET34_SHAPES = {
    "conv1": (112, 112, 64),
    "pool1": (56, 56, 64),
    **{f"stack1_block{block}_relu2": (56, 56, 64) for block in (1, 2, 3)},
    **{f"stack2_block{block}_relu2": (28, 28, 128) for block in (1, 2, 3, 4)},
    **{f"stack3_block{block}_relu2": (14, 14, 256) for block in (1, 2, 3, 4, 5, 6)},
    **{f"stack4_block{block}_relu2": (7, 7, 512) for block in (1, 2, 3)},
    "stack2_block1_shortcut": (28, 28, 128),
    "stack2_block1_conv1": (28, 28, 128),
    "global_pool": (512,),
    "gender": (1,),
    "age": (8,),
}
SQUEEZE_EXCITE_SHAPES = {
    "se_squeeze": (1, 1, 512),
    "se_reduce": (1, 1, 32),
    "se_expand": (1, 1, 512),
    "se_scale": (7, 7, 512),
}
# Trainable parameters by prefix of the layers' names: kernels and, with each
# convolution, 2 per channel of its batch normalization.
RESNET34_PARAMETERS = {
    "conv1": 7 * 7 * 3 * 64 + 2 * 64,  # 9,536
    "stack1": 3 * 2 * (9 * 64 * 64 + 2 * 64),  # 221,952
    # First block: 64 -> 128, 128 -> 128, 1 × 1 shortcut. Then three of 128 -> 128.
    "stack2": (9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 3 * 2 * 128)
    + 3 * 2 * (9 * 128 * 128 + 2 * 128),  # 230,144 + 886,272
    "stack3": (9 * 128 * 256 + 9 * 256 * 256 + 128 * 256 + 3 * 2 * 256)
    + 5 * 2 * (9 * 256 * 256 + 2 * 256),  # 919,040 + 5,903,360
    "stack4": (9 * 256 * 512 + 9 * 512 * 512 + 256 * 512 + 3 * 2 * 512)
    + 2 * 2 * (9 * 512 * 512 + 2 * 512),  # 3,673,088 + 9,441,280
    "se": (512 * 32 + 32) + (32 * 512 + 512),  # 33,312
    "gender": 512 * 1 + 1,
    "age": 512 * 8 + 8,
}


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize("name", ["resnet34", "resnet_se"])
def test_shapes_and_parameters(name):
    model = build_model(name)
    parameters, shapes = dict(RESNET34_PARAMETERS), dict(RESNET34_SHAPES)
    if name == "resnet_se":
        shapes |= SQUEEZE_EXCITE_SHAPES
    else:
        del parameters["se"]
    assert {k: model.get_layer(k).output.shape[1:] for k in shapes} == shapes
    found = dict.fromkeys(parameters, 0)
    for layer in model.layers:
        trainable = count(layer.trainable_weights)
        if trainable:
            found[layer.name.split("_")[0]] += trainable
    assert found == parameters
    # Moving means and variances, 2 per channel:
    # 64 + 6 * 64 + (8 * 128 + 128) + (12 * 256 + 256) + (6 * 512 + 512) = 8,512.
    moving = [w for layer in model.layers for w in layer.non_trainable_weights]
    assert count(moving) == 17_024


def test_trunk_has_torchvision_s_parameters():
    # torchvision's resnet34 has 21,797,672, of them 512 * 1000 + 1000 in its fc.
    trunk = [
        v for k, v in RESNET34_PARAMETERS.items() if k.startswith(("conv", "stack"))
    ]
    assert sum(trunk) == 21_284_672 == 21_797_672 - 513_000


def test_where_the_block_sits():
    names = [layer.name for layer in build_model("resnet_se").layers]
    start = names.index("stack4_block3_relu2")
    assert names[start:-2] == [
        "stack4_block3_relu2",
        "se_squeeze",
        "se_reduce",
        "se_expand",
        "se_scale",
        "global_pool",
        "encoding",
    ]
    assert set(names[-2:]) == {"gender", "age"}


def test_weights_start_by_the_backward_he_rule():
    kernel = build_model("resnet34", image_size=(32, 32)).get_layer("conv1").kernel
    # 64 filters of 7 × 7: standard deviation sqrt(2 / (7 * 7 * 64)) = 0.02525, within
    # 1 / sqrt(2 * 9,408) = 0.7 % of it per standard error.
    assert float(keras.ops.std(kernel)) == pytest.approx(0.02525, rel=0.03)


def test_blocks_start_from_different_weights():
    model = build_model("resnet34", image_size=(32, 32))
    first, second = (
        keras.ops.convert_to_numpy(model.get_layer(f"stack1_block{n}_conv1").kernel)
        for n in (1, 2)
    )
    assert not np.allclose(first, second)


def reference_resnet34(torch):
    """Returns PyTorch's architecture with random weights and statistics, one output."""
    nn = torch.nn

    def convolution(inputs, filters, kernel, stride):
        conv = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False)
        norm = nn.BatchNorm2d(filters)
        for values in (norm.weight.data, norm.running_var):
            values.uniform_(0.5, 1.5)
        for values in (norm.bias.data, norm.running_mean):
            values.normal_(0, 0.1)
        return nn.Sequential(conv, norm)

    class BasicBlock(nn.Module):
        def __init__(self, inputs, filters, stride):
            super().__init__()
            self.conv1 = convolution(inputs, filters, 3, stride)
            self.conv2 = convolution(filters, filters, 3, 1)
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != filters:
                self.shortcut = convolution(inputs, filters, 1, stride)

        def forward(self, x):
            return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))

    class ResNet34(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = convolution(3, 64, 7, 2)
            self.pool = nn.MaxPool2d(3, 2, padding=1)
            self.blocks = nn.ModuleDict()
            inputs = 64
            stacks = zip(STACKWISE_FILTERS, RESNET34_STACKWISE_BLOCKS, strict=True)
            for stack, (filters, blocks) in enumerate(stacks, start=1):
                for block in range(1, blocks + 1):
                    stride = 2 if stack > 1 and block == 1 else 1
                    name = f"stack{stack}_block{block}"
                    self.blocks[name] = BasicBlock(inputs, filters, stride)
                    inputs = filters
            self.fc = nn.Linear(512, 1)

        def forward(self, x):
            x = self.pool(torch.relu(self.conv1(x)))
            for block in self.blocks.values():
                x = block(x)
            return x, self.fc(x.mean(dim=(2, 3)))

    torch.manual_seed(0)
    return ResNet34().eval()


def copy_to_model(reference, model):
    def as_numpy(tensor):
        return tensor.detach().numpy()

    def copy(name, pair):
        conv, norm = pair
        kernel = as_numpy(conv.weight).transpose(2, 3, 1, 0)
        model.get_layer(name).set_weights([kernel])
        norms = norm.weight, norm.bias, norm.running_mean, norm.running_var
        model.get_layer(f"{name}_bn").set_weights([as_numpy(x) for x in norms])

    copy("conv1", reference.conv1)
    for name, block in reference.blocks.items():
        copy(f"{name}_conv1", block.conv1)
        copy(f"{name}_conv2", block.conv2)
        if len(list(block.shortcut.children())):
            copy(f"{name}_shortcut", block.shortcut)
    fc = reference.fc
    model.get_layer("fc").set_weights([as_numpy(fc.weight).T, as_numpy(fc.bias)])


@pytest.mark.parametrize("size", [(96, 96), (75, 110)])
def test_resnet34_equals_torch(size):
    torch = pytest.importorskip("torch")
    reference = reference_resnet34(torch)
    head = Head("fc", "regression")
    model = build_model("resnet34", None, heads=[head], image_size=size)
    copy_to_model(reference, model)
    images = np.random.default_rng(0).random((2, *size, 3)).astype("float32")
    with torch.no_grad():
        features, output = reference(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    last = model.get_layer("stack4_block3_relu2").output
    both = keras.Model(model.input, {"features": last, **model.output})
    found = both.predict(images, verbose=0)
    # Without normalization of batches to hold them, activations reach some tens.
    scale = float(features.abs().max())
    np.testing.assert_allclose(
        found["features"] / scale,
        features.numpy().transpose(0, 2, 3, 1) / scale,
        atol=1e-5,
    )
    np.testing.assert_allclose(found["fc"], output.numpy(), atol=1e-4)


# -- squeeze excite --------------------------------------------------------------------


def test_squeeze_excite_equals_its_definition():
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


def test_squeeze_excite_parameters():
    inputs = keras.Input((7, 7, 512))
    model = keras.Model(inputs, squeeze_excite(inputs))
    # (512 * 32 + 32) + (32 * 512 + 512) = 16,416 + 16,896
    assert model.count_params() == 33_312


@pytest.mark.parametrize("ratio", [4, 16])
def test_ratio_sets_the_bottleneck(ratio):
    inputs = keras.Input((2, 2, 64))
    model = keras.Model(inputs, squeeze_excite(inputs, ratio=ratio, name="gate"))
    assert model.get_layer("gate_reduce").units == 64 // ratio


# -- local response normalization ------------------------------------------------------


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
