"""Networks: shapes and parameter counts by hand, every combination trains and reloads."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_agegender.encodings import Head, get_encoding
from keras_agegender.models.builder import NETWORKS, build_model, list_models
from keras_agegender.preprocessing import AUGMENTATION_LAYERS, strip_augmentation

# Worked by hand, without heads.
CONV1 = 7 * 7 * 3 * 96 + 96  # 14,208
CONV2 = 5 * 5 * 96 * 256 + 256  # 614,656
CONV3 = 3 * 3 * 256 * 384 + 384  # 885,120
FC2 = 512 * 512 + 512  # 262,656
PARAMETERS = {
    # fc1 takes the map behind the last pooling: 7 × 7 × 384, 14 × 14 × 256, 28 × 28 × 96
    "caffe": CONV1 + CONV2 + CONV3 + (7 * 7 * 384 * 512 + 512) + FC2,
    "caffe_2conv": CONV1 + CONV2 + (14 * 14 * 256 * 512 + 512) + FC2,
    "caffe_2conv_1fc": CONV1 + CONV2 + (14 * 14 * 256 * 512 + 512),
    "caffe_1conv": CONV1 + (28 * 28 * 96 * 512 + 512),
    # torchvision's resnet34 has 21,797,672; its fc is 512 * 1000 + 1000 of them.
    "resnet34": 21_797_672 - 513_000,
    # squeeze 512 -> 32 -> 512: 16,416 + 16,896
    "resnet_se": 21_797_672 - 513_000 + (512 * 32 + 32) + (32 * 512 + 512),
}
# Means and variances of batch normalisation: 2 per channel, and channels are
# 64 + 6 * 64 + (8 * 128 + 128) + (12 * 256 + 256) + (6 * 512 + 512) = 8,512.
MOVING_STATISTICS = 2 * (64 + 384 + 1152 + 3328 + 3584)


def small(name, **kwargs):
    size = max(NETWORKS[name].minimum, 32)
    return build_model(name, image_size=(size, size), **kwargs)


def images_for(model, count=4):
    return np.random.default_rng(0).random((count, *model.input.shape[1:])).astype(
        "float32"
    )


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize("name", list_models())
def test_parameters_equal_the_hand_count(name):
    model = build_model(name, None, heads=[Head("gender")])
    assert count(model.trainable_variables) == PARAMETERS[name] + 512 + 1
    moving = MOVING_STATISTICS if name.startswith("resnet") else 0
    weights = [w for layer in model.layers for w in layer.non_trainable_weights]
    assert count(weights) == moving
    assert MOVING_STATISTICS == 17_024


CAFFE_SHAPES = {
    "conv1": (56, 56, 96),  # (227 - 7) / 4 + 1
    "pool1": (28, 28, 96),  # ceil((56 - 3) / 2) + 1
    "lrn1": (28, 28, 96),
    "conv2": (28, 28, 256),
    "pool2": (14, 14, 256),
    "lrn2": (14, 14, 256),
    "conv3": (14, 14, 384),
    "pool3": (7, 7, 384),
    "flatten": (7 * 7 * 384,),
    "fc1": (512,),
    "fc2": (512,),
    "gender": (1,),
    "age": (8,),
}
RESNET_SHAPES = {
    "conv1": (112, 112, 64),
    "pool1": (56, 56, 64),
    "stack1_block3_relu2": (56, 56, 64),
    "stack2_block4_relu2": (28, 28, 128),
    "stack3_block6_relu2": (14, 14, 256),
    "stack4_block3_relu2": (7, 7, 512),
    "se_reduce": (1, 1, 32),
    "se_scale": (7, 7, 512),
    "global_pool": (512,),
    "age": (8,),
}


@pytest.mark.parametrize(
    ("name", "shapes"), [("caffe", CAFFE_SHAPES), ("resnet_se", RESNET_SHAPES)]
)
def test_shapes_layer_by_layer(name, shapes):
    model = build_model(name)
    found = {key: model.get_layer(key).output.shape[1:] for key in shapes}
    assert found == shapes


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("caffe", ["conv1", "lrn1", "conv2", "lrn2", "conv3", "fc1", "fc2"]),
        ("caffe_2conv", ["conv1", "lrn1", "conv2", "lrn2", "fc1", "fc2"]),
        ("caffe_2conv_1fc", ["conv1", "lrn1", "conv2", "fc1"]),
        ("caffe_1conv", ["conv1", "lrn1", "fc1"]),
    ],
)
def test_which_layers_the_report_s_variants_have(name, layers):
    named = [x.name for x in small(name).layers]
    found = [n for n in named if n.startswith(("conv", "lrn", "fc"))]
    assert found == layers


ENCODINGS = [
    ("gender", None),
    ("joint", None),
    ("categorical", None),
    ("ordinal", "older"),
    ("ordinal", "younger"),
    ("attributes", None),
]


@pytest.mark.parametrize(("encoding", "question"), ENCODINGS)
def test_every_encoding_trains_a_step(encoding, question):
    encoding = get_encoding(encoding, question)
    model = small("caffe_1conv", encoding=encoding)
    assert tuple(model.output) == encoding.output_names
    model.compile("sgd", **encoding.compile_arguments())
    columns = {name: np.ones(4) for name in encoding.columns.values()}
    labels = np.array([0, 7, -1, 3]), np.array([0, 1, 1, -1]), columns
    logs = model.train_on_batch(
        images_for(model),
        encoding.encode(*labels),
        encoding.sample_weights(*labels),
        return_dict=True,
    )
    assert all(np.isfinite(value) for value in logs.values())
    assert f"{encoding.output_names[0]}_accuracy" in logs


@pytest.mark.parametrize("name", list_models())
def test_every_trainable_weight_moves(name):
    encoding = get_encoding("categorical")
    model = small(name, encoding=encoding, dropout_rate=0.0)
    model.compile(keras.optimizers.SGD(0.1), **encoding.compile_arguments())
    before = [v.numpy().copy() for v in model.trainable_variables]
    labels = np.array([0, 7, 2, 3]), np.array([0, 1, 1, 0])
    model.train_on_batch(images_for(model), encoding.encode(*labels))
    still = [
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(v.numpy(), old)
    ]
    assert not still


RELOAD = """
import sys
import keras
import numpy as np
assert "keras_agegender" not in sys.modules
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
outputs = model.predict(np.load(sys.argv[2]), verbose=0)
np.savez(sys.argv[3], **outputs)
assert "keras_agegender" not in sys.modules
"""


@pytest.mark.parametrize("name", ["caffe", "resnet_se"])
def test_files_reload_with_keras_alone(name, tmp_path):
    encoding = get_encoding("ordinal")
    model = small(name, encoding=encoding)
    model.compile("adam", **encoding.compile_arguments())
    images = images_for(model)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", RELOAD, *map(str, (tmp_path / "model.keras",
         tmp_path / "images.npy", tmp_path / "outputs.npz"))],
        check=True, capture_output=True, cwd=tmp_path,
    )
    expected = model.predict(images, verbose=0)
    loaded = np.load(tmp_path / "outputs.npz")
    assert set(loaded) == set(expected) and len(expected) == 9
    for key, value in expected.items():
        np.testing.assert_allclose(loaded[key], value, atol=1e-6)


def test_augmentation_acts_in_training_only():
    model = small("resnet34")
    flip, contrast = [x for x in model.layers if isinstance(x, AUGMENTATION_LAYERS)]
    image = images_for(model)
    changed = contrast(flip(image, training=True), training=True)
    assert float(keras.ops.max(changed)) <= 1.0 and float(keras.ops.min(changed)) >= 0.0
    assert not np.allclose(keras.ops.convert_to_numpy(changed), image)
    same = contrast(flip(image, training=False), training=False)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(same), image)


def test_strip_augmentation_keeps_weights_and_outputs():
    model = small("resnet_se", encoding="ordinal")
    stripped = strip_augmentation(model)
    assert not [x for x in stripped.layers if isinstance(x, AUGMENTATION_LAYERS)]
    assert len(stripped.layers) == len(model.layers) - 2
    images = images_for(model)
    expected = model.predict(images, verbose=0)
    found = stripped.predict(images, verbose=0)
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-6)
    assert stripped.get_layer("conv1").kernel is model.get_layer("conv1").kernel


def test_strip_augmentation_leaves_others_alone():
    model = small("caffe")
    assert strip_augmentation(model) is model


def test_mixed_precision_outputs_are_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small("caffe", encoding="ordinal")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("conv1").compute_dtype == "float16"
    outputs = model(images_for(model))
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {
        "float32"
    }


def test_extra_heads_and_a_model_of_only_those():
    heads = [Head("hair", "categorical", 5), Head("years", "regression")]
    model = small("caffe_1conv", encoding="gender", heads=heads)
    assert {k: v.shape[1] for k, v in model.output.items()} == {
        "gender": 1, "hair": 5, "years": 1,
    }
    assert list(small("caffe_1conv", encoding=None, heads=heads).output) == [
        "hair", "years",
    ]


@pytest.mark.parametrize("name", [n for n in list_models() if n.startswith("caffe")])
def test_the_stated_minimum_is_the_minimum(name):
    least = NETWORKS[name].minimum
    build_model(name, image_size=(least, least + 3))
    with pytest.raises(ValueError, match=f"at least {least} pixels"):
        build_model(name, image_size=(least - 1, 100))
    image = keras.Input((least - 1, least - 1, 3))
    with pytest.raises(ValueError):
        NETWORKS[name].features(image, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet35"}, "Did you mean 'resnet34'"),
        ({"encoding": "ordnal"}, "Did you mean 'ordinal'"),
        ({"image_size": (224,)}, "height, width"),
        ({"image_size": (8, 224)}, "at least 32"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0"),
        ({"encoding": None}, "at least one head"),
        ({"heads": [Head("age")]}, "'age' is taken"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)
