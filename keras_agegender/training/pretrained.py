"""Pretrained weights: what a training begins with, from a file or a run."""

from __future__ import annotations

from pathlib import Path

import keras

from keras_agegender.files import write_json, write_text
from keras_agegender.models.model_files import load_model
from keras_agegender.models.weights import WeightTransfer, transfer_weights
from keras_agegender.run_directory import RunDirectory


def transfer(model: keras.Model, path: Path, run: RunDirectory) -> WeightTransfer:
    """Copies what fits from a pretrained model and writes down what did.

    The license of a run's weights goes along; their limits were measured on them alone.

    Raises:
        ValueError: If a frozen layer finds no weights.
    """
    report = transfer_weights(load_pretrained(path), model)
    write_text(run.path / "transfer.txt", f"from {path}\n{report}\n")
    license = RunDirectory(path).terms().get("license") if path.is_dir() else None
    if license and not run.terms_file.exists():
        write_json(run.terms_file, {"license": license})
    return report


def load_pretrained(path: str | Path) -> keras.Model:
    """Returns the model of a `.keras` file, or the best one of a run."""
    return load_model(model_file(path), compile=False)


def model_file(path: str | Path) -> Path:
    """Returns the `.keras` file itself, or that of the best model of a run.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(path)
    file = path if path.suffix == ".keras" else RunDirectory.open(path).best_model
    if not file.is_file():
        raise ValueError(f"There is no model file {file}.")
    return file
