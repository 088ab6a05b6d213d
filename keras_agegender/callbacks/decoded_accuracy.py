"""The accuracy of decoded answers and the losses of labelled faces, every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.callbacks.labelled_losses import labelled_losses
from keras_agegender.distribution import LocalPrediction, num_shards
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.labels import MISSING


class DecodedAccuracy(keras.callbacks.Callback):
    """Adds the accuracy of decoded answers to the logs of every epoch.

    Keras' own metrics see one output at a time. Whether an age group is right depends
    on all its heads, so this callback predicts the validation faces once more after
    each epoch, decodes, and logs

    - `val_gender_accuracy` and `val_age_accuracy`, the same for every encoding,
    - `val_age_all_heads_accuracy`, where a face counts as right only if every age head
      is (the report's figure for ordinal encodings),
    - `val_age_mean_absolute_error`, in years, where labels have `age_years`,
    - `val_mean_accuracy`, the mean of the first two, which the report's ResNets are
      selected by.

    It also replaces `val_loss` and `val_<output>_loss` by means over the faces with a
    label, which Keras' own are not: they count batches by their faces, with and without
    one. That takes a model compiled with `encoding.losses()` and labels of all the
    encoding's columns; a model with regularizers keeps Keras' `val_loss`.

    Put it before callbacks that monitor one of these. Figures whose labels or heads do
    not exist are not logged. `DecodedMetrics` logs the other figures of `evaluate` too.

    Args:
        dataset: Batches whose first element is the images, in the order of `labels`.
        labels: `age_group`, `gender` and further columns of those faces, as
            `read_labels` has them, -1 where unknown. Shape (num_faces,) each.
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
        figures = self.figures(outputs)
        if logs is None:
            return
        logs.update({f"val_{name}": value for name, value in figures.items()})
        losses = labelled_losses(self.model, outputs, self.labels, self.encoding)
        for name, value in losses.items():
            if f"val_{name}" in logs:
                logs[f"val_{name}"] = value

    def figures(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """Returns what is logged of the decoded answers, without the prefix.

        Args:
            outputs: Output name -> predictions. Shape (num_faces, units) each.
        """
        return decoded_accuracies(outputs, self.labels, self.encoding)


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
        counted = ops.convert_to_numpy(decoded.median_age_group)
        story = (counted == np.asarray(labels["age_group"])) & agree
        accuracies["age_all_heads_accuracy"] = float(story[known].mean())
    years = np.asarray(labels.get("age_years", np.nan), "float64")
    if decoded.age_years is not None and (known := years >= 0).any():
        errors = np.abs(ops.convert_to_numpy(decoded.age_years) - years)
        accuracies["age_mean_absolute_error"] = float(errors[known].mean())
    means = [
        accuracies[n] for n in ("gender_accuracy", "age_accuracy") if n in accuracies
    ]
    if means:
        accuracies["mean_accuracy"] = float(np.mean(means))
    return accuracies
