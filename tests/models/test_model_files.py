"""Model files: in safe mode only, and one line about those that ask for more."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from keras_agegender.models.weights import load_model, read_state


def model_of(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(inputs))


def test_an_honest_model_is_loaded(tmp_path):
    model = model_of(layers.Dense(2))
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", compile=False)
    assert loaded.count_params() == 10


def test_lambda_layers_are_not_carried_out(tmp_path):
    model_of(layers.Lambda(lambda x: x + 1)).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"m.keras holds Python code \(a Lambda"):
        load_model(tmp_path / "m.keras")


class Own(layers.Layer):
    """A class that is not registered."""

    def call(self, inputs):
        return inputs


def test_classes_that_are_not_imported(tmp_path):
    model_of(Own()).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="m.keras holds a class that is not there"):
        load_model(tmp_path / "m.keras")


def test_damaged_files(tmp_path):
    file = tmp_path / "m.keras"
    with pytest.raises(ValueError, match="There is no model file"):
        load_model(file)
    model_of(layers.Dense(2)).save(file)
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b"Dense")] ^= 1
    for content in (b"", whole[: len(whole) // 2], bytes(changed)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="m.keras is damaged"):
            load_model(file)


class Command:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_torch_files_run_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"w": Command(str(tmp_path / "ran"))}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="no state dict of PyTorch"):
        read_state(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
