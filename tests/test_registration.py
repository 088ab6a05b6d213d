"""Files of models compiled with this package's metrics load in a new process."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_agegender as kag
from keras_agegender import registration
from keras_agegender.cli import main as cli
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.metrics import keras_metrics


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    encoding = kag.get_encoding("categorical")
    model = kag.build_model("caffe_1conv", encoding, image_size=(16, 16))
    arguments = encoding.compile_arguments()
    arguments["weighted_metrics"] = kag.metrics.detailed_metrics(encoding)
    model.compile("adam", **arguments)
    images = np.zeros((4, 16, 16, 3), "float32")
    model.fit(images, encoding.encode([0, 1, 2, 3], [0, 1, 0, 1]), verbose=0)
    file = tmp_path_factory.mktemp("saved") / "detailed.keras"
    model.save(file)
    return file


def test_all_registered_classes_are_listed():
    prefix = "keras_agegender>"
    names = [n for n in keras.saving.get_custom_objects() if n.startswith(prefix)]
    assert sorted(registration.CLASSES) == sorted(n.removeprefix(prefix) for n in names)
    for name in registration.CLASSES:
        assert keras.saving.get_custom_objects()[prefix + name] is getattr(
            keras_metrics, name
        )


def test_keras_may_be_imported_first(monkeypatch):
    """Then the classes are registered at once; here, where Keras is imported."""
    known = keras.saving.get_custom_objects()
    monkeypatch.delitem(known, "keras_agegender>ExactAccuracy")
    registration.register_classes()
    config = keras_metrics.ExactAccuracy(kag.get_encoding("categorical")).get_config()
    made = known["keras_agegender>ExactAccuracy"].from_config(config)
    assert type(made) is keras_metrics.ExactAccuracy


def test_plain_keras_loads_the_file_after_the_import(saved):
    code = f"""import keras_agegender, keras
model = keras.saving.load_model({str(saved)!r})
assert model.compiled
import numpy as np
scores = model.evaluate(
    np.zeros((2, 16, 16, 3)),
    {{"gender": np.zeros((2, 1)), "age": np.zeros(2, "int32")}},
    return_dict=True, verbose=0,
)
assert "age_exact_accuracy" in scores, scores
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_command_line_takes_the_file(saved, tmp_path, capsys):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encode_jpeg(np.full((40, 40, 3), 128, "uint8")))
    assert cli.main(["predict", str(saved), str(photo)]) == 0
    assert "photo.jpg" in capsys.readouterr().out
