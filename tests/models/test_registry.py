"""Backbones by name and of your own; input scaling."""

from __future__ import annotations

import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_agegender.encodings.registry import get_encoding
from keras_agegender.models import registry as applications
from keras_agegender.models.builder import (
    attach_heads,
    build_model,
    freeze_all_but_last,
)
from keras_agegender.models.registry import (
    APPLICATIONS,
    INPUT_SCALINGS,
    application_scaling,
    get_input_scaling,
    scale_input,
)
from keras_agegender.models.weights import transfer_weights

MOBILENET = "keras.applications:MobileNetV3Small"
SIZE = {"image_size": (32, 32)}


def trunk_model(name="trunk", size=(None, None)):
    """A branch, an operation that is no layer, a state that is no plain weight."""
    image = keras.Input((*size, 3), name="given")
    norm = layers.Normalization(name="norm")
    norm.build((None, *size, 3))
    norm.set_weights([np.full(3, 0.25), np.full(3, 4.0), np.array(1)])
    norm.finalize_state()
    x = norm(image)
    a = layers.Conv2D(4, 3, padding="same", name="a")(x)
    b = layers.Conv2D(4, 1, name="b", trainable=False)(keras.ops.flip(x, axis=-1))
    x = layers.BatchNormalization(name="bn")(layers.Add(name="add")([a, b]))
    return keras.Model(image, x, name=name)


def images(size=(8, 8), count=3):
    return np.random.default_rng(0).random((count, *size, 3)).astype("float32")


def features(model):
    return keras.Model(model.input, model.get_layer("global_pool").output)


def predict(model, x):
    return np.asarray(model.predict(x, verbose=0))


def test_a_keras_model_is_inlined_with_its_weights():
    trunk = trunk_model()
    trunk.get_layer("bn").set_weights([np.arange(4.0) + k for k in range(1, 5)])
    model = build_model(trunk, "ordinal", image_size=(8, 8), augment=False)
    assert model.name == "trunk"
    names = [layer.name for layer in model.layers]
    assert set(names[:7]) == {"image", "norm", "a", "b", "add", "bn", "global_pool"}
    expected = predict(trunk, images()).mean(axis=(1, 2))
    np.testing.assert_allclose(predict(features(model), images()), expected, atol=1e-5)
    assert not model.get_layer("b").trainable


def test_the_passed_model_does_not_change():
    trunk = trunk_model()
    before = predict(trunk, images())
    model = build_model(trunk, "gender", image_size=(8, 8))
    encoding = get_encoding("gender")
    model.compile(keras.optimizers.SGD(1.0), **encoding.compile_arguments())
    model.fit(images(), encoding.encode(gender=[0, 1, 1]), verbose=0)
    np.testing.assert_array_equal(predict(trunk, images()), before)
    assert [layer.name for layer in trunk.layers][0] == "given"


def test_transfer_takes_a_normalization_s_state_along():
    models = [
        build_model(trunk_model(), "gender", image_size=(8, 8), augment=False)
        for _ in range(2)
    ]
    norm = models[0].get_layer("norm")
    norm.set_weights([np.full(3, 0.5), np.full(3, 1.0), np.array(1)])
    norm.finalize_state()
    assert transfer_weights(*models).skipped == {}
    a, b = (predict(features(model), images()) for model in models)
    np.testing.assert_array_equal(a, b)


def test_sequential_and_subclassed_models():
    trunk = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="c")])
    assert build_model(trunk).input.shape == (None, 8, 8, 3)
    assert build_model(trunk).get_layer("c")

    class Mine(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.conv = layers.Conv2D(4, 3)

        def call(self, x):
            return self.conv(x)

    model = build_model(Mine(), image_size=(8, 8), augment=False)
    names = [layer.name for layer in model.layers]
    assert names[:3] == ["image", "mine", "global_pool"]


class FunctionalSubclass(keras.Model):
    """As KerasHub's backbones are made."""

    def __init__(self, filters):
        image = keras.Input((None, None, 3))
        x = layers.Conv2D(filters, 3, name="hub_conv")(image)
        super().__init__(inputs=image, outputs=x, name="hub_backbone")
        self.filters = filters

    def get_config(self):
        return {"filters": self.filters}


def test_functional_subclasses_are_inlined():
    trunk = FunctionalSubclass(4)
    model = build_model(trunk, "gender", image_size=(8, 8), augment=False)
    names = [layer.name for layer in model.layers]
    assert names == ["image", "hub_conv", "global_pool", "encoding", "gender"]
    expected = predict(trunk, images()).mean(axis=(1, 2))
    np.testing.assert_allclose(predict(features(model), images()), expected, atol=1e-5)


def test_a_callable_and_features_that_are_vectors():
    def flat(image):
        return layers.Dense(5, name="five")(layers.Flatten()(image))

    model = build_model(flat, "gender", image_size=(4, 6), augment=False)
    assert model.name == "flat"
    assert model.input.shape == (None, 4, 6, 3)
    assert model.get_layer("gender").kernel.shape == (5, 1)
    model = build_model(lambda image: flat(image), "gender", image_size=(4, 6))
    assert model.name == "custom"
    assert {"random_flip", "random_contrast"} <= {x.name for x in model.layers}


def test_module_and_function(tmp_path, monkeypatch):
    (tmp_path / "my_trunks.py").write_text(
        "from keras import layers\n"
        "def tiny(image):\n    return layers.Conv2D(2, 3, name='tiny_conv')(image)\n"
        "number = 3\n"
        "def words(text, *, more):\n    return text\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = build_model("my_trunks:tiny", "gender", image_size=(8, 8))
    assert model.name == "tiny" and model.get_layer("tiny_conv")
    for wrong, words in (
        ("my_trunks:tinny", "tinny"),
        ("no_trunks:tiny", "No module named 'no_trunks'"),
        ("my_trunks:number", "a callable"),
        ("my_trunks:words", "from an image tensor to features.*words: words"),
    ):
        with pytest.raises(ValueError, match=words):
            build_model(wrong, image_size=(8, 8))


def test_sizes_and_ranges_of_keras_models():
    assert build_model(trunk_model(size=(16, 8))).input.shape == (None, 16, 8, 3)
    assert build_model(trunk_model()).input.shape == (None, 224, 224, 3)
    with pytest.raises(ValueError, match=r"requires \(16, 8\)"):
        build_model(trunk_model(size=(16, 8)), image_size=(8, 8))
    trunk = keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    with pytest.raises(ValueError, match="Missing `input_scaling`.*'rescaling"):
        build_model(trunk)
    model = build_model(trunk, input_scaling="0..255", augment=False)
    pixels = images((32, 32))
    expected = predict(trunk, 255 * pixels).mean(axis=(1, 2))
    np.testing.assert_allclose(predict(features(model), pixels), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda x: keras.ops.mean(x, axis=1), "Invalid features"),
        (lambda x: None, "Invalid features"),
        (keras.Sequential([layers.Conv2D(2, 3)]), "put keras.Input first"),
        (3, "Expected a name"),
        ("keras.applications:MobileNetV3Smal", "Did you mean 'keras.*V3Small'"),
    ],
)
def test_mistakes_are_named(backbone, message):
    with pytest.raises(ValueError, match=message):
        build_model(backbone, "gender", image_size=(8, 8))


def test_two_inputs_and_two_outputs():
    x, y = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="with 2 and 1"):
        build_model(keras.Model([x, y], layers.Add()([x, y]), name="two"))
    with pytest.raises(ValueError, match="with 1 and 2"):
        build_model(keras.Model(x, [layers.ReLU()(x), layers.ReLU()(x)], name="two"))


@pytest.fixture(scope="module")
def mobilenet():
    return build_model(MOBILENET, "categorical", **SIZE)


def test_keras_applications_by_name(mobilenet):
    assert mobilenet.get_layer("input_scaling").scale == 255.0
    assert mobilenet.get_layer("global_pool").output.shape == (None, 576)
    assert len([x for x in mobilenet.layers if isinstance(x, keras.Model)]) == 0


def test_freezing_counts_its_layers(mobilenet):
    """global_pool, conv_1's activation, bn, conv; then the last block: Add, bn and
    convolution of its projection, Multiply and two of squeeze-and-excitation."""
    model = build_model(MOBILENET, "categorical", **SIZE)
    trained = freeze_all_but_last(model, 7, ("gender", "age"))
    assert set(trained) == {
        "gender", "age", "conv_1", "conv_1_bn",
        "expanded_conv_10_project", "expanded_conv_10_project_bn",
    }  # fmt: skip
    encoding = get_encoding("categorical")
    model.compile(
        keras.optimizers.SGD(1.0), run_eagerly=True, **encoding.compile_arguments()
    )
    before = {x.name: [w.copy() for w in x.get_weights()] for x in model.layers}
    model.train_on_batch(
        images((32, 32), 2), encoding.encode(np.array([0, 7]), np.array([0, 1]))
    )
    moved = {
        layer.name
        for layer in model.layers
        if any(
            not np.array_equal(a, b)
            for a, b in zip(before[layer.name], layer.get_weights(), strict=True)
        )
    }
    assert moved == set(trained)


def test_transfer_between_its_models(mobilenet):
    target = build_model(MOBILENET, "ordinal", **SIZE)
    report = transfer_weights(mobilenet, target)
    assert set(report.skipped) == {f"age{k}" for k in range(1, 9)}
    a, b = (predict(features(m), images((32, 32))) for m in (mobilenet, target))
    np.testing.assert_array_equal(a, b)


RELOAD = """
import sys, keras, numpy as np
sys.modules["keras_agegender"] = None
for path in sys.argv[1:]:
    model = keras.saving.load_model(path, safe_mode=True)
    outputs = model.predict(np.load(path + ".npy"), verbose=0)
    np.savez(path + ".npz", **{k: np.asarray(v) for k, v in outputs.items()})
"""


@pytest.mark.slow
def test_files_reload_with_keras_alone(mobilenet, tmp_path):
    """One scaled by a Rescaling; one with its channels reversed; one of a branch."""
    resnet = build_model(
        trunk_model("bgr"), "ordinal", input_scaling="caffe", image_size=(8, 8)
    )
    paths = []
    for model in (mobilenet, resnet):
        path = str(tmp_path / f"{model.name}.keras")
        model.save(path)
        np.save(path + ".npy", images(model.input_shape[1:3]))
        paths.append(path)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *paths],
        capture_output=True, cwd=tmp_path, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for model, path in zip((mobilenet, resnet), paths, strict=True):
        expected = model.predict(np.load(path + ".npy"), verbose=0)
        found = np.load(path + ".npz")
        assert set(found) == set(model.output)
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_weights_of_a_keras_file(mobilenet, tmp_path):
    file = tmp_path / "mobilenet.keras"
    mobilenet.save(file)
    model = build_model(MOBILENET, "ordinal", backbone_weights=file, **SIZE)
    kernels = [m.get_layer("conv_1").get_weights()[0] for m in (mobilenet, model)]
    np.testing.assert_array_equal(*kernels)
    with pytest.raises(ValueError, match="no matching weights"):
        build_model(
            lambda x: layers.Conv2D(2, 1, name="other")(
                layers.Conv2D(16, 3, strides=2, use_bias=False, name="conv")(x)
            ),
            backbone_weights=file,
            **SIZE,
        )
    with pytest.raises(ValueError, match="Weights file not found"):
        build_model(MOBILENET, backbone_weights=tmp_path / "no.keras", **SIZE)


def test_weights_that_keras_applications_reads(tmp_path, monkeypatch):
    name = MOBILENET.removeprefix(applications.PREFIX)
    trunk = applications.build_application(name, (32, 32), None)
    file = tmp_path / "notop.weights.h5"
    trunk.save_weights(file)
    model = build_model(MOBILENET, "gender", backbone_weights=str(file), **SIZE)
    kernels = [m.get_layer("conv_1").get_weights()[0] for m in (trunk, model)]
    np.testing.assert_array_equal(*kernels)
    with pytest.raises(ValueError, match="Weights file not found"):
        build_model(MOBILENET, backbone_weights="no.h5", **SIZE)
    with pytest.raises(ValueError, match="Invalid `backbone_weights`"):
        build_model("resnet34", backbone_weights="imagenet", **SIZE)

    def offline(weights, **kwargs):
        assert weights == "imagenet"
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, name, offline)
    with pytest.raises(ValueError, match="pass the path of a local file.*URL fetch"):
        build_model(MOBILENET, backbone_weights="imagenet", **SIZE)


def convolutions(widths):
    """ResNet34's trainable weights at these channels: kernels and 2 per channel."""
    total, before = 7 * 7 * 3 * widths[0] + 2 * widths[0], widths[0]
    for stack, (channels, blocks) in enumerate(zip(widths, (3, 4, 6, 3), strict=True)):
        for block in range(blocks):
            total += 9 * before * channels + 9 * channels**2 + 4 * channels
            if stack > 0 and block == 0:  # the shortcut
                total += before * channels + 2 * channels
            before = channels
    return total


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        (1.0, (64, 128, 256, 512)),
        (0.5, (32, 64, 128, 256)),
        (0.3, (16, 40, 80, 152)),  # 19.2, 38.4, 76.8, 153.6 in eights
        (0.01, (8, 8, 8, 8)),
    ],
)
def test_width(width, widths):
    model = build_model("resnet34", "gender", width=width, **SIZE)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trainable == convolutions(widths) + widths[-1] + 1
    se = build_model("resnet_se", "gender", width=width, **SIZE)
    hidden = max(1, widths[-1] // 16)
    block = 2 * hidden * widths[-1] + hidden + widths[-1]
    assert sum(int(np.prod(v.shape)) for v in se.trainable_variables) == (
        trainable + block
    )


def test_width_of_networks_without_width():
    for backbone in ("caffe", "efficientnet_lite0", trunk_model()):
        with pytest.raises(ValueError, match="Invalid `width`"):
            build_model(backbone, width=0.5)
    with pytest.raises(ValueError, match="above 0"):
        build_model("resnet34", width=0.0)


def test_attach_heads():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(image)
    model = keras.Model(image, attach_heads(x, "ordinal", question="younger"))
    encoding = get_encoding("ordinal", question="younger")
    assert tuple(model.output) == encoding.output_names
    model.compile("adam", run_eagerly=True, **encoding.compile_arguments())
    targets = encoding.encode(np.array([0, 7, 3]), np.array([0, 1, 1]))
    assert np.isfinite(model.train_on_batch(images(), targets)[0])
    # The mean over rows and columns is what the heads see.
    vector = layers.GlobalAveragePooling2D()(x)
    assert model.get_layer("gender").kernel.shape == (4, 1)
    assert list(attach_heads(vector, "categorical")) == ["gender", "age"]
    with pytest.raises(ValueError, match="Invalid features"):
        attach_heads(layers.Reshape((36, 4))(x))


CUT_NETWORK = "keras.applications:MobileNet/conv_pw_2_relu"


def test_an_application_may_end_with_a_layer_within(tmp_path):
    whole = keras.applications.MobileNet((32, 32, 3), include_top=False, weights=None)
    file = str(tmp_path / "mobilenet.weights.h5")
    whole.save_weights(file)
    model = build_model(
        CUT_NETWORK, "gender", backbone_weights=file, augment=False, **SIZE
    )
    end = keras.Model(whole.input, whole.get_layer("conv_pw_2_relu").output)
    x = images((32, 32))
    expected = predict(end, 2 * x - 1).mean(axis=(1, 2))
    np.testing.assert_allclose(predict(features(model), x), expected, atol=1e-5)
    assert "conv_dw_3" not in [layer.name for layer in model.layers]


def test_an_application_has_no_such_layer_to_end_with():
    with pytest.raises(ValueError, match="a layer of MobileNet.*Did you mean 'conv_pw"):
        build_model("keras.applications:MobileNet/conv_pw_2_rel", "gender", **SIZE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:abort", "not part of the standard library"),
        ("builtins:exec", "not part of the standard library"),
        ("os.path:join", "not part of the standard library"),
        ("keras_agegender.files:os.system", "'os' is not defined in"),
        ("keras_agegender.files:shutil.rmtree", "'shutil' is not defined in"),
        ("keras_agegender.cli.console:sys.exit", "'sys' is not defined in"),
        ("keras_agegender.files:Path", "defined in 'pathlib'"),
        ("keras_agegender.files:Path.rmdir", "defined in 'pathlib'"),
        ("keras_agegender.files:write_text.__globals__", "not defined in"),
        ("my_imports:system", "defined in '(posix|nt)'"),
        ("my_imports:rmtree", "defined in 'shutil'"),
        ("my_imports:hidden", "defined in 'shutil'"),
        ("my_imports:text.upper", "defined in 'None'"),
    ],
)
def test_a_recipe_calls_only_what_the_named_package_defines(
    name, message, tmp_path, monkeypatch
):
    (tmp_path / "my_imports.py").write_text(
        "from functools import partial\nfrom os import system\n"
        "from shutil import rmtree\nhidden = partial(rmtree)\ntext = 'a'\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        build_model(name, image_size=(8, 8))


def test_a_module_may_prepare_functions_of_this_library_and_of_keras(
    tmp_path, monkeypatch
):
    (tmp_path / "my_partials.py").write_text(
        "from functools import partial\nimport keras\n"
        "from keras_agegender.models.backbones import resnet34_backbone\n"
        "narrow = partial(resnet34_backbone, width=0.125)\n"
        "trunk = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.ReLU()])\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = build_model("my_partials:narrow", "gender", image_size=(32, 32))
    assert model.get_layer("gender").kernel.shape == (64, 1)
    assert build_model("my_partials:trunk", "gender").get_layer("global_pool")


# -- input scaling ---------------------------------------------------------------------

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


def test_the_backbone_receives_the_requested_range():
    def backbone(image):
        return keras.layers.Activation("linear", name="seen")(image)

    size = {"image_size": (4, 5), "augment": False}
    np.testing.assert_array_equal(first_pixels(build_model(backbone, **size)), PIXELS)
    for scaling in ("-1..1", "caffe", (2, 3)):
        model = build_model(backbone, input_scaling=scaling, **size)
        np.testing.assert_allclose(first_pixels(model), scaled(scaling), atol=1e-5)
