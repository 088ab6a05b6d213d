"""Weights of a TensorFlow.js graph become those of keras.applications.MobileNet."""

import json
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

PIPELINES = Path(__file__).parents[2] / "pipelines"
SIZE = 32


@pytest.fixture(scope="module")
def pipeline():
    return runpy.run_path(str(PIPELINES / "convert_mobilenet_vggface2.py"))


@pytest.fixture(scope="module")
def published():
    """A MobileNet as published: its own pixels, its normalization at work."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(
        (SIZE, SIZE, 3), include_top=False, weights=None
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [
                    rng.uniform(0.5, 2.0, shape),
                    rng.normal(0.0, 0.5, shape),
                    rng.normal(0.0, 0.1, shape),
                    rng.uniform(0.05, 0.5, shape),
                ]
            )
    return model


def folded(model):
    """Returns its weights as the converter of TensorFlow.js folds them."""
    weights = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        gamma, beta, mean, variance = layer.get_weights()
        factor = gamma / np.sqrt(variance + layer.epsilon)
        name = layer.name.removesuffix("_bn")
        (kernel,) = model.get_layer(name).get_weights()
        weights[f"{layer.name}/batchnorm_1/sub"] = beta - mean * factor
        if "_dw_" in name:
            weights[f"{name}/depthwise_kernel"] = kernel
            weights[f"{layer.name}/batchnorm_1/mul"] = factor
        else:
            weights[f"{name}/convolution/merged_input"] = kernel * factor
    return weights


def write_graph(folder, weights, dtype="float32"):
    manifest, content = [], b""
    for name, value in weights.items():
        entry = {"name": name, "shape": list(value.shape), "dtype": "float32"}
        if dtype != "float32":
            entry["quantization"] = {"dtype": dtype}
        manifest.append(entry)
        content += value.astype(dtype).tobytes()
    (folder / "model.bin").write_bytes(content)
    group = {"paths": ["model.bin"], "weights": manifest}
    file = folder / "model.json"
    file.write_text(json.dumps({"weightsManifest": [group]}))
    return file


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-4), ("float16", 2e-2)])
def test_the_converted_network_has_the_same_outputs(
    tmp_path, pipeline, published, dtype, atol
):
    file = write_graph(tmp_path, folded(published), dtype)
    model = keras.applications.MobileNet(
        (SIZE, SIZE, 3), include_top=False, weights=None
    )
    weights = pipeline["read_graph_weights"](file)
    pipeline["fill"](model, weights)
    # What the borders see is another color there: compare where zeros are MEAN.
    pixels = np.random.default_rng(1).uniform(0, 255, (6, SIZE, SIZE, 3))
    theirs = pixels[..., ::-1] - pipeline["MEAN"]
    first = keras.Model(published.input, published.get_layer("conv_pw_1").output)
    ours = keras.Model(model.input, model.get_layer("conv_pw_1").output)
    a = first.predict(theirs.astype("float32"), verbose=0)[:, 1:-2, 1:-2]
    b = ours.predict((pixels / 127.5 - 1).astype("float32"), verbose=0)
    factor = folded(published)["conv_pw_1/convolution/merged_input"]
    kernel = published.get_layer("conv_pw_1").get_weights()[0]
    ratio = (factor / kernel)[0, 0, 0]
    np.testing.assert_allclose(b[:, 1:-2, 1:-2], a * ratio, atol=atol * 10)


def test_measured_normalization_preserves_outputs(pipeline, published):
    model = keras.applications.MobileNet(
        (SIZE, SIZE, 3), include_top=False, weights=None
    )
    pipeline["fill"](model, folded(published))
    x = np.random.default_rng(2).uniform(-1, 1, (8, SIZE, SIZE, 3)).astype("float32")
    before = model.predict(x, verbose=0)
    pipeline["measure_normalization"](model, x)
    np.testing.assert_allclose(model.predict(x, verbose=0), before, atol=1e-4)
    assert before.std() > 1e-3
    norm = model.get_layer("conv_pw_2_bn")
    inside = keras.Model(model.input, norm.input).predict(x, verbose=0)
    np.testing.assert_allclose(norm.get_weights()[2], inside.mean((0, 1, 2)), atol=1e-5)


def test_a_cut_file_and_unknown_storage_are_errors(tmp_path, pipeline):
    weights = {"a": np.zeros((2, 3), "float32")}
    file = write_graph(tmp_path, weights)
    (tmp_path / "model.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match="ends too early"):
        pipeline["read_graph_weights"](file)
    (tmp_path / "model.bin").write_bytes(bytes(25))
    with pytest.raises(ValueError, match="expected 24 bytes.*Received: 25"):
        pipeline["read_graph_weights"](file)
    file = write_graph(tmp_path, weights, "uint8")
    with pytest.raises(ValueError, match="Received: uint8 for 'a'"):
        pipeline["read_graph_weights"](file)
