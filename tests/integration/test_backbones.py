"""A recipe with a backbone of keras.applications: trained, begun from, exported."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sample_data import make_prepared

from keras_agegender.models.builder import build_model
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.export import export
from keras_agegender.training.train import train

SETTINGS = (
    "model.backbone=keras.applications:MobileNetV3Small",
    "model.image_size=[32, 32]",
    "model.trainable_layers=4",
    "data.batch_size=16",
    "training.epochs=1",
    "training.weight_decay=1e-3",
    "loss_weight_changes=[]",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    initialized_from = build_model(SETTINGS[0].partition("=")[2], image_size=(32, 32))
    initialized_from.save(folder / "initialized_from.keras")
    weights = f"model.backbone_weights='{folder / 'initialized_from.keras'}'"
    train(
        "quickstart", make_prepared(folder), folder / "run",
        overrides=(*SETTINGS, weights), verbose=0,
    )  # fmt: skip
    return RunDirectory.open(folder / "run")


def test_converted_weights_initialize_training(run):
    """All but four layers are frozen: their kernels are the file's."""
    assert run.recipe().model.backbone == "keras.applications:MobileNetV3Small"
    given = keras.saving.load_model(run.path.parent / "initialized_from.keras")
    trained = run.load_model()
    assert trained.get_layer("input_scaling").scale == 255.0
    for name, same in (("conv", True), ("expanded_conv_10_project", True),
                       ("conv_1", False)):  # fmt: skip
        kernels = [m.get_layer(name).get_weights()[0] for m in (given, trained)]
        assert np.array_equal(*kernels) == same, name


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a SavedModel is TensorFlow's"
)
def test_it_is_exported(run, tmp_path):
    import tensorflow as tf

    signatures = tf.saved_model.load(str(export(run, tmp_path / "model"))).signatures
    faces = np.random.default_rng(0).random((2, 32, 32, 3)).astype("float32")
    answers = signatures["inputs"](tf.constant(faces))
    for name, value in run.load_model().predict(faces, verbose=0).items():
        np.testing.assert_allclose(answers[name], value, atol=1e-5)
