"""Models: outputs, training, files, and freezing."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.models.builder import build_model, freeze_all_but_last
from keras_agegender.models.registry import NETWORKS, list_models

QUICK = {
    ("resnet34", "attributes"),
    ("resnet_se", "categorical"),
}
if keras.backend.backend() == "tensorflow":  # half a minute on JAX
    QUICK.add(("efficientnet_lite0", "gender"))
ENCODINGS = [
    ("gender", None),
    ("joint", None),
    ("categorical", None),
    ("ordinal", "older"),
    ("ordinal", "younger"),
    ("attributes", None),
]
# A ResNet takes seconds where a Caffe network takes tenths: two steps of ResNets by
# default, the others where `-m slow` asks.
COMBINATIONS = [
    pytest.param(name, *encoding, marks=[pytest.mark.slow] if is_slow else [])
    for name in list_models()
    for encoding in ENCODINGS
    for is_slow in [not name.startswith("caffe") and (name, encoding[0]) not in QUICK]
]
OUTPUTS = {
    "gender": {"gender": 1},
    "joint": {"gender_age": 16},
    "categorical": {"gender": 1, "age": 8},
    "ordinal": {"gender": 1, **{f"age{k}": 1 for k in range(1, 9)}},
}


def small(name, encoding="categorical", **kwargs):
    size = max(NETWORKS[name].minimum, 32)
    return build_model(name, encoding, image_size=(size, size), **kwargs)


def images_for(model, count=4):
    shape = (count, *model.input.shape[1:])
    return np.random.default_rng(0).random(shape).astype("float32")


def units(model):
    return {name: output.shape[1] for name, output in model.output.items()}


def test_the_defaults():
    model = build_model()
    assert model.name == "resnet_se"
    assert model.input.shape == (None, 224, 224, 3)
    assert units(model) == {"gender": 1, "age": 8}
    assert build_model("caffe_1conv").input.shape == (None, 227, 227, 3)


def test_list_models():
    assert list_models() == [
        "caffe",
        "caffe_2conv",
        "caffe_2conv_1fc",
        "caffe_1conv",
        "resnet34",
        "resnet_se",
        "efficientnet_lite0",
    ]


@pytest.mark.parametrize(("name", "encoding", "question"), COMBINATIONS)
def test_one_step_moves_every_trainable_weight(name, encoding, question):
    encoding = get_encoding(encoding, question)
    model = small(name, encoding, dropout_rate=0.0)
    assert tuple(model.output) == encoding.output_names
    if encoding.name == "attributes":
        assert list(units(model).values()) == [1] * 40
    else:
        assert units(model) == OUTPUTS[encoding.name]
    # Eager, as the steps of 36 models would take minutes to compile.
    model.compile(
        keras.optimizers.SGD(0.1), run_eagerly=True, **encoding.compile_arguments()
    )
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    columns = {name: np.array([0, 1, 1, 0]) for name in encoding.columns}
    targets = encoding.encode(np.array([0, 7, 2, 3]), np.array([0, 1, 1, 0]), columns)
    logs = model.train_on_batch(images_for(model), targets, return_dict=True)
    assert np.isfinite(logs["loss"])
    for variable, old in zip(model.trainable_variables, before, strict=True):
        new = keras.ops.convert_to_numpy(variable)
        assert np.isfinite(new).all(), variable.path
        assert not np.array_equal(new, old), variable.path


def test_a_compiled_step_with_unknown_labels():
    encoding = get_encoding("ordinal")
    model = small("caffe_1conv", encoding)
    model.compile("adam", **encoding.compile_arguments())
    labels = np.array([0, 7, -1, 3]), np.array([0, 1, 1, -1])
    logs = model.train_on_batch(
        images_for(model),
        encoding.encode(*labels),
        encoding.sample_weights(*labels),
        return_dict=True,
    )
    assert all(np.isfinite(value) for value in logs.values())
    assert {"loss", "gender_accuracy", "age8_accuracy"} <= set(logs)


def test_caffe_learns_from_scratch():
    encoding = get_encoding("gender")
    model = small("caffe", encoding)
    model.compile(keras.optimizers.Adam(1e-3), **encoding.compile_arguments())
    rng = np.random.default_rng(0)
    gender = rng.integers(0, 2, 64)
    images = rng.normal(0.5, 0.1, (64, *model.input.shape[1:])).astype("float32")
    stripes = 0.2 * np.sin(np.arange(images.shape[1]))
    images[gender == 0] += stripes[:, None, None].astype("float32")
    images[gender == 1] += stripes[None, :, None].astype("float32")
    model.fit(
        images, encoding.encode(gender=gender), batch_size=16, epochs=15, verbose=0
    )
    found = model.predict(images, verbose=0)["gender"][:, 0] > 0.5
    assert (found == gender).mean() > 0.9


RELOAD = """
import sys
import keras
import numpy as np
for path in sys.argv[1:]:
    model = keras.saving.load_model(path, safe_mode=True)
    outputs = model(np.load(path + ".npy"), training=False)
    arrays = {k: keras.ops.convert_to_numpy(v) for k, v in outputs.items()}
    np.savez(path + ".npz", **arrays)
assert "keras_agegender" not in sys.modules
"""


def test_files_reload_with_keras_alone(tmp_path):
    encoding = get_encoding("ordinal").with_heads(
        [Head("years", "regression", column="age_years")]
    )
    expected = {}
    for name in ("caffe", "resnet_se"):
        model = small(name, encoding)
        model.compile("adam", **encoding.compile_arguments())
        path = str(tmp_path / f"{name}.keras")
        model.save(path)
        images = images_for(model)
        np.save(path + ".npy", images)
        expected[path] = {
            k: keras.ops.convert_to_numpy(v)
            for k, v in model(images, training=False).items()
        }
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *expected],
        capture_output=True,
        cwd=tmp_path,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for path, outputs in expected.items():
        loaded = np.load(path + ".npz")
        assert set(loaded) == set(outputs) == set(encoding.output_names)
        for key, value in outputs.items():
            np.testing.assert_allclose(loaded[key], value, atol=1e-6)


def test_a_reloaded_model_continues_training(tmp_path):
    encoding = get_encoding("categorical")
    model = small("caffe_1conv", encoding)
    model.compile("adam", run_eagerly=True, **encoding.compile_arguments())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert tuple(loaded.output) == tuple(model.output)
    targets = encoding.encode(np.array([0, 7]), np.array([0, 1]))
    loaded.compile("adam", run_eagerly=True, **encoding.compile_arguments())
    assert np.isfinite(loaded.train_on_batch(images_for(model, 2), targets)[0])


@pytest.mark.parametrize("name", ["caffe", "resnet_se"])
def test_mixed_precision_outputs_are_float32(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small(name, "ordinal")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("conv1").compute_dtype == "float16"
    outputs = model(images_for(model))
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {
        "float32"
    }
    assert all(
        np.isfinite(keras.ops.convert_to_numpy(x)).all() for x in outputs.values()
    )


def test_extra_heads_and_a_model_of_only_those():
    heads = [Head("hair", "categorical", 5), Head("years", "regression")]
    model = small("caffe_1conv", "gender", heads=heads)
    assert units(model) == {"gender": 1, "hair": 5, "years": 1}
    only = small("caffe_1conv", None, heads=heads)
    assert units(only) == {"hair": 5, "years": 1}
    activations = [only.get_layer(x).activation.__name__ for x in ("hair", "years")]
    assert activations == ["softmax", "linear"]


def test_model_name():
    assert small("caffe_1conv").name == "caffe_1conv"
    assert small("caffe_1conv", model_name="mine").name == "mine"


def test_images_need_not_be_square():
    model = build_model("caffe_1conv", "gender", image_size=(40, 64))
    assert model.input.shape == (None, 40, 64, 3)
    assert model.predict(images_for(model), verbose=0)["gender"].shape == (4, 1)


@pytest.mark.parametrize("name", [n for n in list_models() if n.startswith("caffe")])
def test_the_stated_minimum_is_the_minimum(name):
    least = NETWORKS[name].minimum
    build_model(name, image_size=(least, least + 3))
    with pytest.raises(ValueError, match=f"at least {least} pixels"):
        build_model(name, image_size=(least - 1, 100))
    if tuple(map(int, keras.__version__.split(".")[:2])) <= (3, 12):
        return  # which builds a network of no pixels without a word
    image = keras.Input((least - 1, least - 1, 3))
    with pytest.raises(ValueError):
        NETWORKS[name].features(image, dropout_rate=0.5, width=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet35"}, "Did you mean 'resnet34'"),
        ({"backbone": "vgg"}, "Expected one of .*'caffe_1conv'"),
        ({"encoding": "ordnal"}, "Did you mean 'ordinal'"),
        ({"encoding": "ordinal", "question": "taller"}, "question='taller'"),
        ({"encoding": None, "question": "older"}, "question='older'"),
        ({"image_size": (224,)}, "height, width"),
        ({"image_size": 224}, "height, width"),
        ({"image_size": (224.0, 224.0)}, "height, width"),
        ({"image_size": (8, 224)}, "at least 32"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0"),
        ({"encoding": None}, "at least one of `heads`"),
        ({"heads": [Head("age")]}, "Duplicate output name 'age'"),
        ({"heads": [Head("x"), Head("x")]}, "Duplicate output name 'x'"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"backbone": "resnet34", **arguments})


# -- freezing --------------------------------------------------------------------------

FROZEN_SIZE = {"image_size": (32, 32), "augment": False}


@pytest.mark.parametrize("encoding", ["categorical", "ordinal", "coral", "corn"])
def test_the_last_ten_layers_and_the_heads_train(encoding):
    """global_pool, relu2, add, conv2_bn, conv2, relu1, conv1_bn, conv1, relu2, add."""
    encoding = get_encoding(encoding)
    model = build_model("resnet34", encoding, **FROZEN_SIZE)
    trained = freeze_all_but_last(model, 10, encoding.output_names)
    trunk = [n for n in trained if n.startswith(("stack", "conv"))]
    assert trunk == [
        "stack4_block3_conv1",
        "stack4_block3_conv1_bn",
        "stack4_block3_conv2",
        "stack4_block3_conv2_bn",
    ]
    heads = {n for n in trained if n not in trunk}
    assert {n.partition("_rank_")[0] for n in heads} == set(encoding.output_names)


def test_frozen_layers_do_not_change():
    encoding = get_encoding("gender")
    model = build_model("resnet34", encoding, **FROZEN_SIZE)
    freeze_all_but_last(model, 0, encoding.output_names)
    model.compile("adam", **encoding.compile_arguments())
    before = [
        keras.ops.convert_to_numpy(w.value) for w in model.get_layer("conv1_bn").weights
    ]
    x = np.random.default_rng(0).random((4, 32, 32, 3)).astype("float32")
    model.fit(x, encoding.encode(gender=[0, 1, 1, 0]), verbose=0)
    after = model.get_layer("conv1_bn").get_weights()
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="num_layers"):
        freeze_all_but_last(model, -1, ())


def test_pixels_up_to_255_warn_once(recwarn):
    model = build_model("caffe_1conv", "gender", image_size=(16, 16))
    model.compile("sgd", **get_encoding("gender").compile_arguments())
    images = np.zeros((2, 16, 16, 3), "float32")
    model.fit(images, {"gender": np.zeros(2)}, verbose=0)
    model.predict(images + 1.0, verbose=0)
    assert not [w for w in recwarn if "Pixels" in str(w.message)]
    images[1, 0, 0] = 200.0
    with pytest.warns(UserWarning, match=r"\[0, 1\]. Received values up to 200"):
        model.predict(images, verbose=0)
    recwarn.clear()
    model.evaluate(images, {"gender": np.zeros(2)}, verbose=0)
    assert not [w for w in recwarn if "Pixels" in str(w.message)]
