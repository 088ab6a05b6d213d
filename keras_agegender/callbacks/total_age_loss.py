"""Callbacks of `train` beside the LossWeightScheduler."""

from __future__ import annotations

from collections.abc import Mapping

import keras


class TotalAgeLoss(keras.callbacks.Callback):
    """Adds `val_age_loss` to the logs where several heads share the age group.

    It is the sum of the age heads' losses with their weights, divided by the sum of the
    weights: what models kept "for age" are chosen by.

    Args:
        loss_weights: Age head -> weight.
    """

    def __init__(self, loss_weights: Mapping[str, float]) -> None:
        super().__init__()
        self.loss_weights = dict(loss_weights)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs the sum."""
        if logs is not None:
            total = sum(w * logs[f"val_{n}_loss"] for n, w in self.loss_weights.items())
            logs["val_age_loss"] = total / sum(self.loss_weights.values())
