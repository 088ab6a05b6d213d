"""The loss of the age group, where several outputs answer it together."""

from __future__ import annotations

from collections.abc import Mapping

import keras


class TotalAgeLoss(keras.callbacks.Callback):
    """Adds `val_age_loss` to the logs where several heads share the age group.

    It is the mean of the age heads' losses, weighted by their loss weights: the models
    that a recipe keeps for age are chosen by it. Put it before callbacks that monitor
    it.

    Args:
        loss_weights: Age head -> weight, not all of them 0.

    Example:
    >>> total = TotalAgeLoss({"age1": 1.0, "age2": 3.0})
    >>> logs = {"val_age1_loss": 0.5, "val_age2_loss": 0.1}
    >>> total.on_epoch_end(0, logs)
    >>> round(logs["val_age_loss"], 6)
    0.2
    """

    def __init__(self, loss_weights: Mapping[str, float]) -> None:
        super().__init__()
        if not sum(loss_weights.values()) > 0:
            raise ValueError(
                "Invalid `loss_weights`. Expected weights with a sum above 0. "
                f"Received: {dict(loss_weights)}."
            )
        self.loss_weights = dict(loss_weights)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs the weighted mean."""
        if logs is not None:
            total = sum(w * logs[f"val_{n}_loss"] for n, w in self.loss_weights.items())
            logs["val_age_loss"] = total / sum(self.loss_weights.values())
