"""One model in every format: `Predictor` loads them all, and they say the same."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tensorflow as tf
from sample_data import MiddleDetector, picture, small_backbone

from keras_agegender.cli import main as cli
from keras_agegender.cli.serve import choose_model
from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.models.builder import build_model
from keras_agegender.serving.export import export
from keras_agegender.serving.formats import (
    find_format,
    load_model,
    model_identity,
)
from keras_agegender.serving.predictor import Predictor

CROP = CropOptions(margin=0.4)
NAMES = {"savedmodel": "saved", "onnx": "m.onnx", "litert": "m.tflite"}
PHOTOS = [picture(value, (90, 80 + value)) for value in (60, 100, 140)]


def noisy(photo):
    noise = np.random.default_rng(0).integers(-40, 40, photo.shape)
    return np.clip(photo + noise, 0, 255).astype("uint8")


def network():
    encoding = get_encoding("categorical", heads=[Head("glasses")])
    return build_model(small_backbone, encoding, image_size=(32, 32))


def exported(folder, pixels):
    """One model in every format, calibrated."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("ai_edge_litert")
    model, calibration = network(), Calibration({"age": 0.1}, {"age_group": (0.3,)})
    options = {"pixels": pixels, "calibration": calibration}
    return {
        format: export(model, folder / name, format=format, **options)
        for format, name in NAMES.items()
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = Preprocessing(
        crop=CROP, detector=MiddleDetector().settings(), stored_size=(48, 40)
    )
    with pytest.warns(UserWarning, match="no signature `photo`"):
        return exported(tmp_path_factory.mktemp("models"), path)


def numbers(prediction):
    (face,) = prediction.faces
    return np.array([face.male_probability, *face.age_probabilities.values()])


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_a_file_answers_about_photos_as_the_saved_model_does(models, format):
    photos = [noisy(photo) for photo in PHOTOS]
    expected = Predictor(models["savedmodel"], MiddleDetector()).predict_many(photos)
    predictor = Predictor(models[format], MiddleDetector())
    for batch_size in (1, 2):
        found = predictor.predict_many(photos, batch_size=batch_size)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(numbers(one), numbers(other), atol=1e-3)
            face, same = one.faces[0], other.faces[0]
            assert (face.crop_box, face.age_set) == (
                same.crop_box,
                same.age_set,
            )
            assert face.extra.keys() == same.extra.keys() == {"glasses"}
    assert np.ptp([numbers(one) for one in found], axis=0).max() > 0.01  # not constant
    assert predictor.crop_options == CROP
    assert predictor.metadata["calibration"]["temperatures"]["age"] == 0.1
    with pytest.raises(ValueError, match="Pass a `detector`"):
        Predictor(models[format])


@pytest.mark.slow
def test_whole_pictures_of_any_size(tmp_path):
    """Stored as they are: files take them at the size the input is cut out of."""
    files = exported(tmp_path, Preprocessing(stored_size=None, jpeg_quality=None))
    expected, *others = (Predictor(file) for file in files.values())
    for photo in map(noisy, PHOTOS):
        right = numbers(expected.predict(photo))
        for other in others:
            np.testing.assert_allclose(numbers(other.predict(photo)), right, atol=2e-3)


def test_faces_takes_crops_of_any_size(models):
    """As uint8, resized on the one way that the Predictor's own go."""
    signatures = tf.saved_model.load(str(models["savedmodel"])).signatures
    spec = signatures["faces"].structured_input_signature[1]["faces"]
    assert (spec.dtype, spec.shape.as_list()) == (tf.uint8, [None, None, None, 3])
    onnx = load_model(models["onnx"]).predict
    for size in ((48, 40), (20, 70)):
        crops = np.random.default_rng(1).integers(0, 256, (3, *size, 3), "uint8")
        answers = signatures["faces"](faces=tf.constant(crops))
        assert answers["age"].shape == (3, 8)
        expected = onnx(crops)
        for name in ("age", "gender", "glasses", "age_group_probabilities"):
            np.testing.assert_allclose(answers[name], expected[name], atol=1e-4)


@pytest.mark.parametrize(
    "name, runtime", [("m.onnx", "onnxruntime"), ("m.tflite", "ai_edge_litert")]
)
def test_what_is_missing_is_said_before_anything_loads(
    name, runtime, tmp_path, monkeypatch, capsys
):
    with pytest.raises(ValueError, match=f"file not found: .*{name}"):
        choose_model(None, [str(tmp_path / name), "photo.jpg"])
    (tmp_path / name).touch()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encode_jpeg(PHOTOS[0]))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == runtime else found(n)
    )
    assert cli.main(["predict", str(tmp_path / name), str(photo)]) == 1
    error = capsys.readouterr().err
    assert f"{runtime} is not installed: pip install" in error
    assert "keras-agegender[export]" in error


def test_every_file_has_an_identity(models):
    kinds = {format: find_format(file).name for format, file in models.items()}
    assert kinds == {
        "savedmodel": "savedmodel",
        "onnx": "onnx",
        "litert": "litert",
    }
    assert len({model_identity(file) for file in models.values()}) == 3
