"""Long work leaves memory and open files as they were."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
from sample_data import make_prepared, picture

from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.models.builder import build_model
from keras_agegender.serving.export import export
from keras_agegender.serving.predictor import Predictor
from keras_agegender.training.train import train

pytestmark = pytest.mark.slow
ALLOWED = 40  # MB


def state():
    """Returns the memory of this process in MB, and how many files it has open."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))


def check_flat(states, capsys, what):
    """The second half of the way must look like its beginning."""
    middle, last = states[len(states) // 3], states[-1]
    with capsys.disabled():
        print(
            f"\n{what}: {middle[0]:.0f} -> {last[0]:.0f} MB, {middle[1]} -> {last[1]}"
        )
    assert last[0] - middle[0] < ALLOWED
    assert last[1] <= middle[1]


def test_3000_predictions(tmp_path, capsys):
    network = build_model("caffe_1conv", get_encoding("gender"), image_size=(32, 32))
    predictor = Predictor(export(network, tmp_path / "saved", pixels=Preprocessing()))
    rng, states = np.random.default_rng(0), []
    for number in range(3000):
        size = tuple(rng.integers(20, 60, 2))
        assert predictor.predict(picture(90 + number % 60, size)).status
        if number % 100 == 99:
            states.append(state())
    check_flat(states, capsys, "3000 predictions")


def test_100_epochs(tmp_path, capsys):
    states = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: states.append(state())
    )
    train(
        "quickstart",
        make_prepared(tmp_path),
        tmp_path / "run",
        overrides=(
            "model.backbone=sample_data:small_backbone",
            "model.encoding=categorical",
            "model.image_size=[32, 32]",
            "training.epochs=100",
        ),
        callbacks=[watch],
        verbose=0,
    )
    assert len(states) == 100
    check_flat(states, capsys, "100 epochs")
