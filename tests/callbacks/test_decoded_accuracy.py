"""Callbacks: decoded accuracies worked out by hand, and one calm line an epoch."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.callbacks.decoded_metrics import (
    DecodedAccuracy,
    decoded_accuracies,
)
from keras_agegender.callbacks.epoch_logger import EpochLogger
from keras_agegender.callbacks.loss_weights import LossWeightScheduler
from keras_agegender.encodings.registry import get_encoding


def outputs_of(ages, genders, encoding):
    """Outputs of a model that is sure of these answers."""
    targets = encoding.encode(ages, genders)
    return {
        name: np.eye(8)[value] if value.ndim == 1 else value
        for name, value in targets.items()
    }


@pytest.mark.parametrize("name", ["categorical", "ordinal"])
def test_accuracies_by_hand(name):
    encoding = get_encoding(name)
    answers = outputs_of([0, 3, 5, 7], [0, 1, 1, 0], encoding)
    labels = {"age_group": np.array([0, 3, 4, -1]), "gender": np.array([0, 0, -1, -1])}
    accuracies = decoded_accuracies(answers, labels, encoding)
    assert accuracies["gender_accuracy"] == 1 / 2  # of the two with a label
    assert accuracies["age_accuracy"] == pytest.approx(2 / 3)
    assert accuracies["mean_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert ("age_all_heads_accuracy" in accuracies) == (name == "ordinal")


def test_all_heads_must_be_right():
    """Heads 1 0 1 0 … count to group 2, but are no group's answer."""
    encoding = get_encoding("ordinal", question="older")
    answers = outputs_of([2], [1], encoding)
    for k, value in enumerate((1, 0, 1, 0, 0, 0, 0, 0), start=1):
        answers[f"age{k}"] = np.array([[value]], "float32")
    labels = {"age_group": np.array([2]), "gender": np.array([1])}
    accuracies = decoded_accuracies(answers, labels, encoding)
    assert accuracies["age_accuracy"] == 1.0
    assert accuracies["age_all_heads_accuracy"] == 0.0


def test_no_labels_no_figures():
    encoding = get_encoding("gender")
    answers = {"gender": np.array([[0.9], [0.1]])}
    labels = {"age_group": np.array([-1, -1]), "gender": np.array([-1, -1])}
    assert decoded_accuracies(answers, labels, encoding) == {}


class Batches(list):
    """A list of batches with a dataset's `map`."""

    def map(self, function):
        return np.concatenate([function(*batch) for batch in self])


def small_model():
    x = keras.Input((3,))
    model = keras.Model(
        x, {"gender": keras.layers.Dense(1, "sigmoid", name="gender")(x)}
    )
    model.compile("sgd", **get_encoding("gender").compile_arguments())
    return model


def test_figures_are_logged_and_monitored(tmp_path):
    images = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    genders = (images[:, 0] > 0).astype(int)
    labels = {"age_group": np.full(8, -1), "gender": genders}
    model = small_model()
    callback = DecodedAccuracy(Batches([(images,)]), labels, get_encoding("gender"))
    stop = keras.callbacks.EarlyStopping(monitor="val_mean_accuracy", mode="max")
    history = model.fit(
        images, {"gender": genders[:, None].astype("float32")}, epochs=2, verbose=0,
        callbacks=[callback, stop],
    ).history  # fmt: skip
    answers = model.predict(images, verbose=0)["gender"][:, 0] >= 0.5
    assert history["val_gender_accuracy"][-1] == np.mean(answers == genders)
    assert history["val_mean_accuracy"] == history["val_gender_accuracy"]


def test_an_epoch_is_one_line_and_a_change_another():
    images = np.zeros((4, 3), "float32")
    lines = []
    small_model().fit(
        images, {"gender": np.ones((4, 1), "float32")}, epochs=3, verbose=0,
        validation_data=(images, {"gender": np.ones((4, 1), "float32")}),
        callbacks=[
            LossWeightScheduler({0: {"gender": 2.0}, 2: {"gender": 0.5}}),
            EpochLogger(lines.append),
        ],
    )  # fmt: skip
    # The weights of an epoch stand before its line.
    assert [line.split()[0] for line in lines] == ["epoch", "epoch", "loss", "epoch"]
    assert lines[0].startswith("epoch  1/3")
    assert "val_loss" in lines[0] and "val gender" in lines[0]
    assert lines[2].strip() == "loss weights: gender 2 -> 0.5"
