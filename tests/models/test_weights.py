"""Weights: transfer, PyTorch files and Keras files in safe mode."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_agegender as kag
from keras_agegender.models.builder import build_model
from keras_agegender.models.registry import IMAGENET_MEAN, IMAGENET_STD
from keras_agegender.models.weights import (
    LAYOUTS,
    load_model,
    load_torch_weights,
    read_state,
    transfer_weights,
)

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


def test_other_shapes_are_skipped_and_reported():
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
        "of 'plain' do not fit the backbone of 'deep': 2 of 3 frozen layers have no "
        "matching weights. 'two': shapes"
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


def test_no_matching_layer_is_an_error():
    source = build_model("caffe", "gender", image_size=(64, 64))
    x = keras.Input((3,))
    target = keras.Model(x, keras.layers.Dense(2, name="other")(x))
    with pytest.raises(ValueError, match="No layer of 'caffe' matches"):
        transfer_weights(source, target)


# -- heads -----------------------------------------------------------------------------


def small_model(*heads, encoding=None, **options):
    return kag.build_model(
        "caffe_1conv", encoding, heads=heads, image_size=(16, 16), seed=0, **options
    )


def predictions(model):
    images = np.random.default_rng(0).random((6, 16, 16, 3), "float32")
    return model.predict(images, verbose=0)


def test_classes_in_another_order_are_reordered_by_name():
    """The class order of the alphabet: asian, black, white."""
    released = kag.Head("race", "categorical", classes=("White", "black", "asian"))
    sorted_by_name = kag.Head(
        "race", "categorical", classes=("asian", "black", "white")
    )
    source, target = small_model(released), small_model(sorted_by_name)
    report = transfer_weights(source, target)
    assert report.heads == {"race": "kept, classes reordered"}
    before, after = predictions(source)["race"], predictions(target)["race"]
    np.testing.assert_allclose(after, before[:, [2, 1, 0]], atol=1e-6)


def test_two_classes_in_the_other_order_change_the_sign():
    source = small_model(kag.Head("hat", classes=("hat", "bare")))
    target = small_model(kag.Head("hat", classes=("bare", "hat")))
    assert transfer_weights(source, target).heads["hat"].startswith("kept")
    both = [predictions(model)["hat"] for model in (source, target)]
    np.testing.assert_allclose(both[1], 1.0 - both[0], atol=1e-6)


def test_numbers_keep_their_unit():
    """20 + 5 u before equals 10 + 2 v after, with u and v the outputs."""
    source = small_model(kag.Head("weight", "regression", mean=20.0, scale=5.0))
    target = small_model(kag.Head("weight", "regression", mean=10.0, scale=2.0))
    assert transfer_weights(source, target).heads == {"weight": "kept"}
    before, after = (predictions(model)["weight"] for model in (source, target))
    np.testing.assert_allclose(10 + 2 * after, 20 + 5 * before, rtol=1e-5)


OTHER_GROUPS = "0-9,10-19,20-29,30-39,40-49,50-59,60-69,70+"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            {"heads": [kag.Head("race", "categorical", classes=("a", "b", "c"))]},
            {"heads": [kag.Head("race", "categorical", classes=("a", "b", "d"))]},
            "classes a, b, c in the source, a, b, d here",
        ),
        (
            {"heads": [kag.Head("size", "corn", classes=("s", "m", "l"))]},
            {"heads": [kag.Head("size", "corn", classes=("l", "m", "s"))]},
            "classes s, m, l in the source",
        ),
        (
            {"heads": [kag.Head("race", "categorical", 3)]},
            {"heads": [kag.Head("race", "categorical", classes=("a", "b", "c"))]},
            "classes without names in the source",
        ),
        (
            {"heads": [kag.Head("x", column="Smiling")]},
            {"heads": [kag.Head("x", column="Bald")]},
            "column Smiling in the source, Bald here",
        ),
        (
            {"encoding": kag.get_encoding("ordinal", question="older")},
            {"encoding": kag.get_encoding("ordinal", question="younger")},
            "question 'older' in the source, 'younger' here",
        ),
        (
            {"encoding": kag.get_encoding("categorical")},
            {"encoding": kag.get_encoding("categorical", age_groups=OTHER_GROUPS)},
            "age groups 0-2, .* in the source, 0-9, .* here",
        ),
        (
            {"encoding": kag.get_encoding("coral")},
            {"encoding": kag.get_encoding("corn")},
            "head type 'coral' in the source, 'corn' here",
        ),
    ],
)
def test_heads_of_another_meaning_are_skipped(old, new, reason):
    options = {"encoding": None, "image_size": (16, 16)}
    source = kag.build_model("caffe_1conv", **{**options, **old})
    target = kag.build_model("caffe_1conv", **{**options, **new})
    before = {layer.name: layer.get_weights() for layer in target.layers}
    report = transfer_weights(source, target)
    (found,) = (s for s in report.heads.values() if s.startswith("skipped"))
    assert re.match(f"skipped: {reason}", found)
    assert found in report.summary
    for name in report.skipped:
        for a, b in zip(
            before[name], target.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_new_and_dropped_heads_are_listed():
    source = small_model(kag.Head("glasses"), encoding="years")
    target = small_model(kag.Head("hat"), encoding="years")
    report = transfer_weights(source, target)
    assert report.heads == {
        "gender": "kept", "age": "kept", "glasses": "dropped", "hat": "new"
    }  # fmt: skip
    assert report.summary.count("  head ") == 4


def test_an_open_last_age_group_may_end_anywhere():
    groups = ["0-17,18-64,65-100", "0-17,18-64,65+"]
    models = [
        small_model(encoding=kag.get_encoding("categorical", age_groups=g))
        for g in groups
    ]
    assert transfer_weights(*models).heads == {"gender": "kept", "age": "kept"}


def test_a_source_without_an_encoding_gives_no_heads():
    image = keras.Input((16, 16, 3), name="image")
    features = keras.layers.Flatten()(image)
    heads = {"hat": keras.layers.Dense(1, "sigmoid", name="hat")(features)}
    source = keras.Model(image, heads)
    target = kag.build_model(
        lambda x: keras.layers.Flatten()(x), None, heads=[kag.Head("hat")],
        image_size=(16, 16), augment=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="unknown classes in the source"):
        transfer_weights(source, target)


# -- torch weights ---------------------------------------------------------------------

safetensors = pytest.importorskip("safetensors.numpy")
TORCH_SIZE = (64, 64)


@pytest.fixture(scope="module")
def torch_state():
    """Random weights under torchvision's names, with its classifier."""
    rng = np.random.default_rng(0)
    model = build_model("resnet34", "gender", image_size=TORCH_SIZE)
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
def torch_file(torch_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet34.safetensors"
    safetensors.save_file(torch_state, path)
    return path


def torch_features(model, images):
    trunk = keras.Model(model.input, model.get_layer("stack4_block3_relu2").output)
    return trunk.predict(images, verbose=0)


def test_what_is_loaded_is_listed(torch_file):
    model = build_model("resnet_se", "ordinal", image_size=TORCH_SIZE)
    report = load_torch_weights(model, torch_file)
    assert len(report.loaded) == 72  # 36 convolutions, each with its normalization
    names = {"gender", *(f"age{k}" for k in range(1, 9))}
    assert names <= set(report.skipped)
    assert {"fc.bias (of the file)", "fc.weight (of the file)"} <= set(report.skipped)
    assert any("se" in name for name in set(report.skipped) - names)


def test_equals_torch(torch_state, torch_file):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = {k: torch.from_numpy(v) for k, v in torch_state.items()}

    def block(x, name, bn, stride):
        kernel = weights[f"{name}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        parts = [weights[f"{bn}.{p}"] for p in ("running_mean", "running_var")]
        return functional.batch_norm(
            x, *parts, weights[f"{bn}.weight"], weights[f"{bn}.bias"]
        )

    images = np.random.default_rng(1).random((2, *TORCH_SIZE, 3)).astype("float32")
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
    model = build_model("resnet34", "gender", image_size=TORCH_SIZE)
    load_torch_weights(model, torch_file, mean=None)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        torch_features(model, images) / scale, expected / scale, atol=1e-5
    )


def test_normalization_is_folded_into_the_first_layer(torch_file):
    """But for the border, as if pixels had been normalised before."""
    images = np.random.default_rng(1).random((2, *TORCH_SIZE, 3)).astype("float32")
    normalised = ((images - IMAGENET_MEAN) / IMAGENET_STD).astype("float32")
    results = []
    for mean, given in ((IMAGENET_MEAN, images), (None, normalised)):
        model = build_model("resnet34", "gender", image_size=TORCH_SIZE)
        load_torch_weights(model, torch_file, mean=mean)
        first = keras.Model(model.input, model.get_layer("conv1_bn").output)
        results.append(first.predict(given, verbose=0))
    inside = np.s_[:, 2:-2, 2:-2]
    np.testing.assert_allclose(results[0][inside], results[1][inside], atol=1e-4)
    assert np.abs(results[0] - results[1]).max() > 1e-2


def test_state_dicts_of_torch(torch_state, torch_file, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "resnet34.pth"
    torch.save(
        {
            "state_dict": {
                f"module.{k}": torch.from_numpy(v) for k, v in torch_state.items()
            }
        },
        path,
    )
    models = [
        build_model("resnet34", "gender", image_size=TORCH_SIZE) for _ in range(2)
    ]
    for model, source in zip(models, (path, torch_file), strict=True):
        load_torch_weights(model, source)
    a, b = (model.get_layer("stack3_block2_conv1").get_weights() for model in models)
    np.testing.assert_array_equal(a, b)


def test_files_and_models_that_do_not_fit(torch_state, torch_file, tmp_path):
    model = build_model("resnet34", "gender", image_size=TORCH_SIZE)
    with pytest.raises(ValueError, match="Weights file not found"):
        load_torch_weights(model, tmp_path / "nothing.pth")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no")
    with pytest.raises(ValueError, match="is not a weights file of safetensors"):
        load_torch_weights(model, broken)
    resnet18 = {k: v for k, v in torch_state.items() if "layer3.5" not in k}
    safetensors.save_file(resnet18, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"complete ResNet34: 'layer3\.5"):
        load_torch_weights(model, tmp_path / "other.safetensors")
    caffe = build_model("caffe", "gender", image_size=TORCH_SIZE)
    with pytest.raises(ValueError, match="Expected the backbone 'resnet34'"):
        load_torch_weights(caffe, torch_file)


# -- model files -----------------------------------------------------------------------


def model_of(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(inputs))


def test_an_honest_model_is_loaded(tmp_path):
    model = model_of(layers.Dense(2))
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", compile=False)
    assert loaded.count_params() == 10


def test_lambda_layers_are_not_run(tmp_path):
    model_of(layers.Lambda(lambda x: x + 1)).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"m.keras contains Python code \(a Lambda"):
        load_model(tmp_path / "m.keras")


class Own(layers.Layer):
    """A class that is not registered."""

    def call(self, inputs):
        return inputs


def test_classes_that_are_not_imported(tmp_path):
    model_of(Own()).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="m.keras contains an unknown class"):
        load_model(tmp_path / "m.keras")


def test_damaged_files(tmp_path):
    file = tmp_path / "m.keras"
    with pytest.raises(ValueError, match="Model file not found"):
        load_model(file)
    model_of(layers.Dense(2)).save(file)
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b"Dense")] ^= 1
    for content in (b"", whole[: len(whole) // 2], bytes(changed)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="m.keras is damaged"):
            load_model(file)


class Command:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_torch_files_execute_no_code(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": Command(str(tmp_path / "ran"))}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not a file of weights for torch"):
        read_state(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def with_config(source, target, change, **metadata):
    """Copies a Keras file with another config and other metadata."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps(change(json.loads(content))).encode()
            if name == "metadata.json":
                content = json.dumps({**json.loads(content), **metadata}).encode()
            new.writestr(name, content)


def test_a_file_of_a_newer_keras_is_named(tmp_path):
    """Keras itself says that a setting is not recognized."""
    model_of(keras.layers.Dense(3)).save(tmp_path / "old.keras")

    def add_setting(config):
        config["config"]["layers"][1]["config"]["made_up"] = 1
        return config

    new = tmp_path / "new.keras"
    with_config(tmp_path / "old.keras", new, add_setting, keras_version="99.1.0")
    with pytest.raises(ValueError, match=r"saved by Keras 99.1.0 and .* Update Keras"):
        load_model(new)
    same = tmp_path / "same.keras"
    with_config(tmp_path / "old.keras", same, add_setting)
    with pytest.raises(ValueError, match="is damaged"):
        load_model(same)


RELEASE = Path(__file__).parents[2] / "saved_models" / "utkface-compact" / "best.keras"


def test_the_released_weights_have_no_settings_of_newer_keras_versions():
    """They load with Keras 3.12 to 3.15, with the same outputs (tried by hand)."""
    with zipfile.ZipFile(RELEASE) as file:
        text = file.read("config.json").decode()
    for name in ("input_axes", "renorm", "quantization_config"):
        assert f'"{name}' not in text
