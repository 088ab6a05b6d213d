"""Callbacks of `train` beside the LossWeightScheduler."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.distribution import LocalPrediction, num_shards, undistributed
from keras_agegender.encodings import Encoding
from keras_agegender.labels import MISSING
from keras_agegender.loss_weights import LOG_SUFFIX
from keras_agegender.progress import progress_bar


class DecodedAccuracy(keras.callbacks.Callback):
    """Adds the accuracy of decoded answers to the logs of every epoch.

    Keras' own metrics see one output at a time. Whether an age group was found is a
    matter of all its heads, so this callback predicts the validation faces once more
    after each epoch, decodes, and logs

    - `val_gender_accuracy` and `val_age_accuracy`, the same for every encoding,
    - `val_age_all_heads_accuracy`, where a face counts as right only if every age head
      is (the report's figure for ordinal encodings),
    - `val_mean_accuracy`, the mean of the first two, which the report's ResNets are
      selected by.

    Put it before callbacks that monitor one of these. Figures whose labels or heads do
    not exist are not logged.

    Args:
        dataset: Batches whose first element is the images, in the order of `labels`.
        labels: `age_group` and `gender` of those faces, -1 where unknown. Shape
            (num_faces,) each.
        encoding: What decodes the model's outputs.

    Example:
    >>> callback = DecodedAccuracy(val_ds, labels, encoding)  # doctest: +SKIP
    """

    def __init__(
        self, dataset: Any, labels: Mapping[str, np.ndarray], encoding: Encoding
    ) -> None:
        super().__init__()
        self.images = dataset.map(lambda image, *rest: image)
        self.labels = labels
        self.encoding = encoding
        self._local: LocalPrediction | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Predicts, decodes and logs."""
        if self._local is None and num_shards() > 1:
            self._local = LocalPrediction(self.model)
        if self._local is None:
            outputs = self.model.predict(self.images, verbose=0)
        else:
            outputs = self._local.predict(self.images)
        accuracies = decoded_accuracies(outputs, self.labels, self.encoding)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in accuracies.items()})


def decoded_accuracies(
    outputs: Mapping[str, Any], labels: Mapping[str, Any], encoding: Encoding
) -> dict[str, float]:
    """Returns the accuracies that `DecodedAccuracy` logs, without the prefix.

    Args:
        outputs: Head name -> predictions. Shape (num_faces, units) each.
        labels: `age_group` and `gender`, -1 where unknown. Shape (num_faces,) each.
        encoding: What decodes them.
    """
    decoded = encoding.decode(outputs)
    accuracies = {}
    found = {}
    for name, answer in (("gender", decoded.gender), ("age_group", decoded.age_group)):
        truth = np.asarray(labels[name])
        if answer is None or not (truth != MISSING).any():
            continue
        known = truth != MISSING
        right = ops.convert_to_numpy(answer) == truth
        found[name] = right, known
        short = name.removesuffix("_group")
        accuracies[f"{short}_accuracy"] = float(right[known].mean())
    if "age_group" in found and encoding.question is not None:
        right, known = found["age_group"]
        agree = ops.convert_to_numpy(decoded.heads_agree)
        accuracies["age_all_heads_accuracy"] = float((right & agree)[known].mean())
    means = [
        accuracies[n] for n in ("gender_accuracy", "age_accuracy") if n in accuracies
    ]
    if means:
        accuracies["mean_accuracy"] = float(np.mean(means))
    return accuracies


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


class BestModel(keras.callbacks.ModelCheckpoint):
    """Keras' ModelCheckpoint, for one of several processes that train together."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the model if it is better than before."""
        with undistributed():
            super().on_epoch_end(epoch, logs)


# What `EpochLines` shows of the logs, where it is there: key -> label.
SHOWN = {
    "loss": "loss",
    "val_loss": "val_loss",
    "val_gender_accuracy": "val gender",
    "val_age_accuracy": "val age",
}


class EpochLines(keras.callbacks.Callback):
    """Says in one line what an epoch brought, and where loss weights changed.

    Keras' own line names two figures for each output, twenty-odd for nine outputs. All
    of them are in history.csv. On a terminal a bar shows the steps of the epoch that
    runs. Put it behind the callbacks whose figures it shows.

    Args:
        report: Takes each line. Defaults to `print`.

    Example:
    >>> model.fit(ds, verbose=0, callbacks=[EpochLines()])  # doctest: +SKIP
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
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the epoch."""
        self._bar.close()
        logs = logs or {}
        seconds = time.monotonic() - self._began
        parts = [f"epoch {epoch + 1:>2}/{self.params['epochs']} {seconds:4.0f} s"]
        shown = {key: label for key, label in SHOWN.items() if key in logs}
        if len(shown) < 3:  # heads of the user's own
            shown |= {k: k for k in logs if k.startswith("val_") and "_loss" not in k}
        parts += [f"{label} {float(logs[key]):.3f}" for key, label in shown.items()]
        self.report("   ".join(parts))
        self._report_weights(logs)

    def _report_weights(self, logs: Mapping[str, Any]) -> None:
        weights = {
            key.removesuffix(LOG_SUFFIX): float(value)
            for key, value in logs.items()
            if key.endswith(LOG_SUFFIX)
        }
        changed = [
            f"{name} {self._weights[name]:g} -> {weight:g}"
            for name, weight in weights.items()
            if self._weights.get(name, weight) != weight
        ]
        if changed:
            self.report(f"  loss weights: {', '.join(changed)}")
        self._weights = weights
