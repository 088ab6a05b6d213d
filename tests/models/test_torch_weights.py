"""ResNet34 weights of PyTorch: the same features, or clear words why not."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.models.builder import build_model
from keras_agegender.models.registry import IMAGENET_MEAN, IMAGENET_STD
from keras_agegender.models.weights import LAYOUTS, load_torch_weights

safetensors = pytest.importorskip("safetensors.numpy")
SIZE = (64, 64)


@pytest.fixture(scope="module")
def state():
    """Random weights under torchvision's names, with its classifier."""
    rng = np.random.default_rng(0)
    model = build_model("resnet34", "gender", image_size=SIZE)
    made = {}
    for source, name in LAYOUTS[0].names.items():
        layer = model.get_layer(name)
        if isinstance(layer, keras.layers.Conv2D):
            kernel = rng.normal(size=layer.kernel.shape) / np.sqrt(
                np.prod(layer.kernel.shape[:3])
            )
            made[f"{source}.weight"] = kernel.transpose(3, 2, 0, 1)
        else:
            shape = layer.gamma.shape
            made[f"{source}.weight"] = rng.uniform(0.5, 1.5, shape)
            made[f"{source}.bias"] = rng.normal(0, 0.1, shape)
            made[f"{source}.running_mean"] = rng.normal(0, 0.1, shape)
            made[f"{source}.running_var"] = rng.uniform(0.5, 1.5, shape)
            made[f"{source}.num_batches_tracked"] = np.zeros(())
    made["fc.weight"], made["fc.bias"] = np.zeros((1000, 512)), np.zeros(1000)
    return {k: np.ascontiguousarray(v, dtype="float32") for k, v in made.items()}


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet34.safetensors"
    safetensors.save_file(state, path)
    return path


def features(model, images):
    trunk = keras.Model(model.input, model.get_layer("stack4_block3_relu2").output)
    return trunk.predict(images, verbose=0)


def test_what_is_loaded_is_listed(file):
    model = build_model("resnet_se", "ordinal", image_size=SIZE)
    report = load_torch_weights(model, file)
    assert len(report.loaded) == 72  # 36 convolutions, each with its normalisation
    names = {"gender", *(f"age{k}" for k in range(1, 9))}
    assert names <= set(report.skipped)
    assert {"fc.bias (of the file)", "fc.weight (of the file)"} <= set(report.skipped)
    assert any("se" in name for name in set(report.skipped) - names)


def test_equals_torch(state, file):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = {k: torch.from_numpy(v) for k, v in state.items()}

    def block(x, name, bn, stride):
        kernel = weights[f"{name}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        parts = [weights[f"{bn}.{p}"] for p in ("running_mean", "running_var")]
        return functional.batch_norm(
            x, *parts, weights[f"{bn}.weight"], weights[f"{bn}.bias"]
        )

    images = np.random.default_rng(1).random((2, *SIZE, 3)).astype("float32")
    x = torch.from_numpy(images.transpose(0, 3, 1, 2))
    x = torch.relu(block(x, "conv1", "bn1", 2))
    x = functional.max_pool2d(x, 3, 2, 1)
    for stack, blocks in enumerate((3, 4, 6, 3), start=1):
        for k in range(blocks):
            name, stride = f"layer{stack}.{k}", 2 if stack > 1 and k == 0 else 1
            shortcut = x
            if stride == 2:
                shortcut = block(x, f"{name}.downsample.0", f"{name}.downsample.1", 2)
            x = torch.relu(block(x, f"{name}.conv1", f"{name}.bn1", stride))
            x = torch.relu(block(x, f"{name}.conv2", f"{name}.bn2", 1) + shortcut)
    expected = x.numpy().transpose(0, 2, 3, 1)
    model = build_model("resnet34", "gender", image_size=SIZE)
    load_torch_weights(model, file, mean=None)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        features(model, images) / scale, expected / scale, atol=1e-5
    )


def test_normalisation_is_folded_into_the_first_layer(file):
    """But for the border, as if pixels had been normalised before."""
    images = np.random.default_rng(1).random((2, *SIZE, 3)).astype("float32")
    normalised = ((images - IMAGENET_MEAN) / IMAGENET_STD).astype("float32")
    results = []
    for mean, given in ((IMAGENET_MEAN, images), (None, normalised)):
        model = build_model("resnet34", "gender", image_size=SIZE)
        load_torch_weights(model, file, mean=mean)
        first = keras.Model(model.input, model.get_layer("conv1_bn").output)
        results.append(first.predict(given, verbose=0))
    inside = np.s_[:, 2:-2, 2:-2]
    np.testing.assert_allclose(results[0][inside], results[1][inside], atol=1e-4)
    assert np.abs(results[0] - results[1]).max() > 1e-2


def test_state_dicts_of_torch(state, file, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "resnet34.pth"
    torch.save(
        {"state_dict": {f"module.{k}": torch.from_numpy(v) for k, v in state.items()}},
        path,
    )
    models = [build_model("resnet34", "gender", image_size=SIZE) for _ in range(2)]
    for model, source in zip(models, (path, file), strict=True):
        load_torch_weights(model, source)
    a, b = (model.get_layer("stack3_block2_conv1").get_weights() for model in models)
    np.testing.assert_array_equal(a, b)


def test_files_and_models_that_do_not_fit(state, file, tmp_path):
    model = build_model("resnet34", "gender", image_size=SIZE)
    with pytest.raises(ValueError, match="no weights file"):
        load_torch_weights(model, tmp_path / "nothing.pth")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no")
    with pytest.raises(ValueError, match="is no safetensors file"):
        load_torch_weights(model, broken)
    resnet18 = {k: v for k, v in state.items() if "layer3.5" not in k}
    safetensors.save_file(resnet18, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no ResNet34: it has no 'layer3\.5"):
        load_torch_weights(model, tmp_path / "other.safetensors")
    caffe = build_model("caffe", "gender", image_size=SIZE)
    with pytest.raises(ValueError, match="Expected the trunk of 'resnet34'"):
        load_torch_weights(caffe, file)
