"""Backups: damage is noticed before training begins, and the line says what to do."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_agegender.callbacks.checkpoints import RunBackup


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backup")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    model.fit(
        np.ones((2, 2)), np.ones((2, 1)), verbose=0, callbacks=[RunBackup(folder)]
    )
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def folder(tmp_path, saved):
    for name, content in saved.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_whole_one(folder):
    assert RunBackup(folder).first_epoch == 1
    assert sorted(file.name for file in folder.iterdir()) == [
        "epoch-0000.weights.h5", "state.json",
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"epoch": 0', b"\xff"])
def test_a_damaged_state(folder, content):
    (folder / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match="state.json is damaged.*Remove .* to train"):
        RunBackup(folder)


def test_damaged_weights(folder):
    file = folder / "epoch-0000.weights.h5"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (b"", bytes(content)):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="h5 is damaged: its checksum.*Remove"):
            RunBackup(folder)
    file.unlink()
    with pytest.raises(ValueError, match="which does not exist. Remove"):
        RunBackup(folder)


def test_weights_outside_are_not_read(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "w.weights.h5"
    other.write_bytes(b"")
    state = json.loads((folder / "state.json").read_text("utf-8"))
    for name in (str(other), f"../{other.parent.name}/{other.name}"):
        text = json.dumps({**state, "weights": name})
        (folder / "state.json").write_text(text, "utf-8")
        with pytest.raises(ValueError, match="which does not exist"):
            RunBackup(folder)
