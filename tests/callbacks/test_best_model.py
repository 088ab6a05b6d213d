"""BestModelCheckpoint: the saved epoch and the record next to it."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_agegender.callbacks.checkpoints import BestModelCheckpoint
from keras_agegender.run_directory import RunDirectory


def kept(tmp_path, monitor, mode, values, callback=None):
    """Runs a callback over epochs whose model is known by its weight, the epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    callback = callback or BestModelCheckpoint(tmp_path / "best.keras", monitor, mode)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        model.set_weights([np.full((1, 1), float(epoch))])
        callback.on_epoch_end(epoch, {monitor: value})
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    return int(loaded.get_weights()[0][0, 0])


@pytest.mark.parametrize(
    ("monitor", "mode", "values", "epoch"),
    [
        ("val_loss", "min", [3.0, 1.0, 2.0], 1),
        ("val_gender_accuracy", "max", [0.5, 0.7, 0.9, 0.9], 2),
        ("val_gender_accuracy", "max", [0.5, float("nan"), 0.2], 0),
    ],
)
def test_the_best_epoch_is_saved_and_recorded(tmp_path, monitor, mode, values, epoch):
    assert kept(tmp_path, monitor, mode, values) == epoch
    record = json.loads((tmp_path / "best.json").read_text("utf-8"))
    assert record == {
        "epoch": epoch,
        "monitor": monitor,
        "mode": mode,
        "value": values[epoch],
    }
    assert RunDirectory(tmp_path).checkpoint_info() == record


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    assert kept(tmp_path, "val_loss", "min", [0.5]) == 0
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    callback = BestModelCheckpoint(tmp_path / "best.keras", "val_loss", "min")
    callback.set_model(model)

    def save(filepath, **_):
        Path(filepath).write_bytes(b"half a mod")
        raise RuntimeError("killed")

    monkeypatch.setattr(model, "save", save)
    with pytest.raises(RuntimeError, match="killed"):
        callback.on_epoch_end(1, {"val_loss": 0.1})
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "best.json", "best.keras",
    ]  # fmt: skip
    keras.saving.load_model(tmp_path / "best.keras")
    assert callback.filepath == str(tmp_path / "best.keras")


def test_a_resumed_callback_does_not_replace_a_better_model(tmp_path):
    kept(tmp_path, "val_loss", "min", [0.5])
    resumed = BestModelCheckpoint(tmp_path / "best.keras", "val_loss", "min")
    resumed.best = 0.5  # as RunBackup gives it back
    assert kept(tmp_path, "val_loss", "min", [0.9, 0.8], resumed) == 0
    assert RunDirectory(tmp_path).checkpoint_info()["value"] == 0.5


def test_named_checkpoints_have_their_own_record(tmp_path):
    run = RunDirectory(tmp_path)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    callback = BestModelCheckpoint(run.model_file("age"), "val_age_loss", "min")
    callback.set_model(model)
    callback.on_epoch_end(4, {"val_age_loss": 0.25})
    assert run.checkpoint_info("age")["epoch"] == 4
    for missing in ("best", "last"):
        with pytest.raises(
            ValueError, match=f"no record of a checkpoint named '{missing}'"
        ):
            run.checkpoint_info(missing)


def test_an_unknown_mode():
    with pytest.raises(ValueError, match="'min' or 'max'.*'lowest'"):
        BestModelCheckpoint("best.keras", "val_loss", "lowest")
