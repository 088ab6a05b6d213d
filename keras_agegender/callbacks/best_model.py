"""The best model so far, in a file that says which epoch it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keras_agegender.distribution import undistributed
from keras_agegender.files import write_json


class BestModel(keras.callbacks.ModelCheckpoint):
    """Keeps the model of the epoch with the best value of a metric.

    Keras' `ModelCheckpoint`, which also works in one of several processes that train
    together, and which writes a record beside the model: `best.json` beside
    `best.keras`, with `epoch` (from 0), `monitor`, `mode` and `value`.

    Args:
        filepath: The model's file, `"best.keras"` for instance.
        monitor: Name of a logged metric.
        mode: `"min"` keeps the lowest value, `"max"` the highest.

    Example:
    >>> best = BestModel("best.keras", "val_gender_accuracy", mode="max")
    """

    def __init__(self, filepath: str | Path, monitor: str, mode: str) -> None:
        if mode not in ("min", "max"):
            raise ValueError(
                f"Invalid `mode`. Expected 'min' or 'max'. Received: {mode!r}."
            )
        super().__init__(str(filepath), monitor=monitor, mode=mode, save_best_only=True)
        self.mode = mode

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the model and its record if it is better than before."""
        before: Any = self.best
        with undistributed():
            super().on_epoch_end(epoch, logs)
        if self.best != before:
            record = {
                "epoch": epoch,
                "monitor": self.monitor,
                "mode": self.mode,
                "value": float(self.best),
            }
            write_json(record_file(self.filepath), record)


def record_file(model_file: str | Path) -> Path:
    """Returns the file of the record that `BestModel` writes beside a model.

    Example:
    >>> record_file("run/best.keras").name
    'best.json'
    """
    return Path(model_file).with_suffix(".json")
