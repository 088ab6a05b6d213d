"""EpochLogger: the loss weights that are printed."""

from __future__ import annotations

import keras
import numpy as np

import keras_agegender as kag
from keras_agegender.callbacks.epoch_logger import EpochLogger


def lines_of_weights(epochs):
    """Runs the callback over epochs, each output name -> weight."""
    lines = []
    callback = EpochLogger(lines.append)
    callback.set_params({"epochs": len(epochs), "steps": 1})
    for epoch, weights in enumerate(epochs):
        callback.on_epoch_begin(epoch)
        logs = {f"{name}_loss_weight": weight for name, weight in weights.items()}
        callback.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 2.0, **logs})
    return [line for line in lines if "loss weights" in line]


def test_a_scheduled_change_is_one_line():
    weights = [{"gender": 2.0, "age": 1.0}] * 2 + [{"gender": 0.5, "age": 1.0}] * 2
    assert lines_of_weights(weights) == ["  loss weights: gender 2 -> 0.5"]


def test_small_changes_add_up_before_they_are_printed():
    weights = [{"gender": w} for w in (1.0, 1.02, 1.04, 1.06, 1.08, 1.10)]
    assert lines_of_weights(weights) == ["  loss weights: gender 1 -> 1.06"]


def test_a_change_of_five_percent_is_printed():
    assert lines_of_weights([{"a": 1.0}, {"a": 1.05}]) == [
        "  loss weights: a 1 -> 1.05"
    ]


def test_many_changes_are_summed_up():
    names = [f"age{i}" for i in range(1, 9)]
    after = {name: 0.1234567 * (i + 1) for i, name in enumerate(names)}
    after["age8"] = 1.0  # unchanged
    assert lines_of_weights([dict.fromkeys(names, 1.0), after]) == [
        "  loss weights: 7 changed, from age1 0.123 to age7 0.864"
    ]


def test_a_change_from_zero_is_printed():
    assert lines_of_weights([{"a": 0.0}, {"a": 0.01}]) == [
        "  loss weights: a 0 -> 0.01"
    ]


def test_epochs_and_weight_changes_are_one_line_each():
    images = np.zeros((4, 3), "float32")
    lines = []
    x = keras.Input((3,))
    outputs = {"gender": keras.layers.Dense(1, "sigmoid", name="gender")(x)}
    model = keras.Model(x, outputs)
    model.compile("sgd", **kag.get_encoding("gender").compile_arguments())
    model.fit(
        images, {"gender": np.ones((4, 1), "float32")}, epochs=3, verbose=0,
        validation_data=(images, {"gender": np.ones((4, 1), "float32")}),
        callbacks=[
            kag.LossWeightScheduler({0: {"gender": 2.0}, 2: {"gender": 0.5}}),
            EpochLogger(lines.append),
        ],
    )  # fmt: skip
    # The weights of an epoch are printed before its line.
    assert [line.split()[0] for line in lines] == ["epoch", "epoch", "loss", "epoch"]
    assert lines[0].startswith("epoch  1/3")
    assert "val_loss" in lines[0] and "val gender" in lines[0]
    assert lines[2].strip() == "loss weights: gender 2 -> 0.5"
