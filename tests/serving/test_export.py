"""Exporting: one row makes a format, and nothing is replaced unasked."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from sample_data import picture

import keras_agegender as kag
from keras_agegender.cli import main as cli
from keras_agegender.files import exclusive_lock, lock_beside
from keras_agegender.serving import formats
from keras_agegender.serving.model_format import (
    InferenceModel,
    ModelFormat,
    Tolerance,
)

PIXELS = kag.faces.Preprocessing(stored_size=(8, 8), jpeg_quality=None)


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A `.keras` file of a linear model of the pixels, which says the gender."""
    file = tmp_path_factory.mktemp("linear") / "linear.keras"
    kag.build_model(keras.layers.Flatten(), "gender", image_size=(8, 8)).save(file)
    return file


def write_npz(bundle, file, metadata):
    kernel, bias = (weight.numpy() for weight in bundle.network.weights)
    with file.open("wb") as stream:
        np.savez(stream, kernel=kernel, bias=bias, metadata=json.dumps(metadata))


def open_npz(file, num_threads=None):
    with np.load(file) as arrays:
        kernel, bias = arrays["kernel"], arrays["bias"]
        metadata = json.loads(str(arrays["metadata"]))

    def predict(crops):
        logits = crops.reshape(len(crops), -1) / np.float32(255) @ kernel + bias
        male = 1 / (1 + np.exp(-logits[:, 0]))
        return {
            "gender": male[:, np.newaxis],
            "male_probability": male,
            "gender_id": (male > 0.5).astype("int64"),
        }

    return InferenceModel(metadata, predict, takes_crops=True, crop_size=(8, 8))


NPZ = ModelFormat(
    "npz",
    "NumPy file",
    open_npz,
    suffix=".npz",
    write=write_npz,
    tolerance=Tolerance(largest=1e-3, mean=1e-4, agreement=0.99),
)


@pytest.fixture
def npz(monkeypatch):
    """Adds a row to the table of formats."""
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, NPZ))


def test_a_format_is_one_row(npz, linear, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    assert "npz (NumPy file)" in " ".join(capsys.readouterr().out.split())
    file = tmp_path / "linear.npz"
    # On the command line the file's preprocessing would be that of whole images.
    kag.export(linear, file, format="npz", pixels=PIXELS, report=print)
    said = capsys.readouterr().out
    assert "48 drawn faces" in said and "same prediction: gender_id 100.0%" in said
    assert kag.verify(file).differences == ()
    assert formats.find_format(file) is NPZ
    photo = picture(size=(40, 40))
    expected = kag.Predictor(linear).predict(photo)  # 256 x 256, JPEG
    found = kag.Predictor(file).predict(photo)
    assert found.faces[0].gender == expected.faces[0].gender
    assert kag.Predictor(file).metadata["file"]["format"] == "npz"
    arguments = ["predict", str(file), str(tmp_path / "missing.jpg")]
    assert cli.main(arguments) == 1
    assert "Photo not found" in capsys.readouterr().err


def test_a_wrong_file_of_a_new_format_is_not_put_in_place(
    npz, linear, tmp_path, monkeypatch
):
    def write_other(bundle, file, metadata):
        write_npz(bundle, file, metadata)
        arrays = dict(np.load(file))
        with file.open("wb") as stream:
            np.savez(stream, **{**arrays, "bias": arrays["bias"] + 1})

    wrong = replace(NPZ, write=write_other)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS[:-1], wrong))
    with pytest.raises(ValueError, match="differ from the Keras model's.*gender"):
        kag.export(linear, tmp_path / "m.npz", format="npz", pixels=PIXELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format, name", [("npz", "m.npz"), ("savedmodel", "m")])
def test_what_appears_during_an_export_is_not_replaced(
    npz, linear, tmp_path, monkeypatch, format, name
):
    target = tmp_path / name

    def write_late(bundle, path, metadata):
        if format == "npz":
            write_npz(bundle, path, metadata)
            target.write_text("mine")
        else:
            path.mkdir()
            target.mkdir()
            (target / "agegender.json").write_text("mine")

    rows = [
        replace(row, write=write_late) if row.name == format else row
        for row in formats.FORMATS
    ]
    monkeypatch.setattr(formats, "FORMATS", rows)
    with pytest.raises(ValueError, match="already"):
        kag.export(linear, target, format=format, pixels=PIXELS)
    mine = target if format == "npz" else target / "agegender.json"
    assert mine.read_text() == "mine"


def test_two_exports_of_one_name_do_not_meet(npz, linear, tmp_path):
    target = tmp_path / "m.npz"
    with (
        exclusive_lock(lock_beside(target), "locked"),
        pytest.raises(ValueError, match="Another process exports to"),
    ):
        kag.export(linear, target, format="npz", pixels=PIXELS)
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_an_export_reach_the_command_line(
    linear, tmp_path, monkeypatch, capsys
):
    """For instance that a SavedModel has no signature `photo`."""
    import warnings

    def export(*_, **__):
        warnings.warn("The export has no signature `photo`", stacklevel=2)
        return tmp_path

    monkeypatch.setattr("keras_agegender.serving.export.export", export)
    assert cli.main(["export", str(linear), "--out", str(tmp_path / "m")]) == 0
    assert "no signature `photo`" in capsys.readouterr().err


def test_heads_given_as_a_list_are_exported_like_a_dict(tmp_path):
    image = keras.Input((16, 16, 3))
    heads = kag.models.attach_heads(keras.layers.Conv2D(4, 3)(image), "categorical")
    models = [keras.Model(image, heads), keras.Model(image, [*heads.values()][::-1])]
    options = {"crop_options": kag.faces.CropOptions(), "crop_size": (16, 16)}
    crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), "uint8")
    found = []
    for number, model in enumerate(models):
        file = kag.export(
            model, tmp_path / f"{number}.tflite", format="litert", crops=None, **options
        )
        found.append(formats.load_model(file).predict(crops))
    assert found[0].keys() == found[1].keys()
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, atol=1e-5, err_msg=name)
