"""Prints one line per epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_agegender.console import progress_bar
from keras_agegender.encodings.encoding import LOSS_WEIGHT_SUFFIX

# Logged metric -> label.
SHOWN = {
    "loss": "loss",
    "val_loss": "val_loss",
    "val_gender_accuracy": "val gender",
    "val_age_accuracy": "val age",
}

SMALL_CHANGE = 0.049  # share by which a loss weight changes before it is shown again
MOST_WEIGHTS = 3  # maximum number of changed loss weights that are listed


class EpochLogger(keras.callbacks.Callback):
    """Prints one line per epoch, after one about changed loss weights.

    Keras' own line has two metrics for each output; all of them are in history.csv. On
    a terminal, a bar shows the steps of the running epoch. A loss weight is shown when
    it has changed by 5 % or more since it was last shown; of more than three changed
    ones, the lowest and the highest are shown. Place it after the callbacks whose
    metrics it shows.

    Args:
        report: Function that takes each line. Defaults to `print`.

    Example:
    >>> model.fit(ds, verbose=0, callbacks=[EpochLogger()])  # doctest: +SKIP
    epoch  1/12    8 s   loss 3.912   val_loss 2.604   val gender 0.871   val age 0.412
    """

    def __init__(self, report: Callable[[str], None] = print) -> None:
        super().__init__()
        self.report = report
        self._weights: dict[str, float] = {}
        self._bar: Any = None
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock and the bar."""
        self._began = time.monotonic()
        self._bar = progress_bar(
            self.params.get("steps"),
            f"epoch {epoch + 1:>2}/{self.params['epochs']}",
            "step",
            shown=sys.stderr.isatty(),
            keep=False,
        )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Updates the progress bar."""
        if self._bar is not None:
            self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the epoch."""
        self._bar.close()
        logs = logs or {}
        seconds = time.monotonic() - self._began
        parts = [f"epoch {epoch + 1:>2}/{self.params['epochs']} {seconds:4.0f} s"]
        shown = {key: label for key, label in SHOWN.items() if key in logs}
        if len(shown) < 3:  # custom heads
            shown |= {k: k for k in logs if k.startswith("val_") and "_loss" not in k}
        parts += [f"{label} {float(logs[key]):.3f}" for key, label in shown.items()]
        self._report_weights(logs)  # first: this epoch used them
        self.report("   ".join(parts))

    def _report_weights(self, logs: Mapping[str, Any]) -> None:
        weights = {
            key.removesuffix(LOSS_WEIGHT_SUFFIX): float(value)
            for key, value in logs.items()
            if key.endswith(LOSS_WEIGHT_SUFFIX)
        }
        before = {name: self._weights.get(name, w) for name, w in weights.items()}
        changed = [
            name
            for name, old in before.items()
            if abs(weights[name] - old) > SMALL_CHANGE * abs(old)
        ]
        if len(changed) > MOST_WEIGHTS:
            ordered = sorted(changed, key=lambda name: weights[name])
            low, high = (f"{n} {weights[n]:.3g}" for n in (ordered[0], ordered[-1]))
            self.report(f"  loss weights: {len(changed)} changed, from {low} to {high}")
        elif changed:
            texts = (f"{n} {before[n]:.3g} -> {weights[n]:.3g}" for n in changed)
            self.report(f"  loss weights: {', '.join(texts)}")
        # Others are compared with the weight that was reported last.
        self._weights = before | {name: weights[name] for name in changed}
