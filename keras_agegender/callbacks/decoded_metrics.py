"""Metrics of decoded predictions, logged at the end of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.callbacks.loss_weights import loss_weights_in_force
from keras_agegender.distribution import LocalPrediction, num_shards
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.labels import MISSING
from keras_agegender.metrics.keras_metrics import head_metrics

REDUCTION = "mean_with_sample_weight"


def labelled_losses(
    model: keras.Model,
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
) -> dict[str, float]:
    """Returns a compiled model's losses, each the mean over the faces with a label.

    Keras has the mean of a batch count as often as the batch has faces, labelled or
    not. Where few faces have a label, its epoch's figure is another one than the mean
    over labelled faces: a batch without any label counts as a loss of 0.
    """
    losses = model.loss if isinstance(model.loss, Mapping) else {}
    if not set(encoding.columns) <= set(labels):
        return {}
    if any(
        getattr(losses.get(name), "reduction", None) != REDUCTION
        for name in encoding.output_names
    ):
        return {}
    given = (labels.get("age_group", -1), labels.get("gender", -1), labels)
    targets, weights = encoding.encode(*given), encoding.sample_weights(*given)
    found = {
        name: _mean_loss(losses[name], targets[name], outputs[name], weights[name])
        for name in encoding.output_names
    }
    logs = {f"{name}_loss": value for name, value in found.items()}
    if set(losses) == set(found) and not model.losses:
        factors = loss_weights_in_force(model)
        logs["loss"] = sum(factors[name] * value for name, value in found.items())
    return logs


def _mean_loss(loss: Any, target: Any, output: Any, weight: np.ndarray) -> float:
    # `call` and not the loss itself, which divides by the replicas of a strategy.
    values = loss.call(
        ops.convert_to_tensor(target, dtype="float32"),
        ops.convert_to_tensor(output, dtype="float32"),
    )
    values = np.asarray(ops.convert_to_numpy(values), "float64")
    total = weight.sum(dtype="float64")
    return float((values * weight).sum() / total) if total else 0.0


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
    """Returns the accuracies that `DecodedAccuracy` logs, without the prefix."""
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


class AgeLossLogger(keras.callbacks.Callback):
    """Adds `val_age_loss` to the logs where several heads share the age group.

    It is the mean of the age heads' losses, weighted by their loss weights: the models
    that a recipe keeps for age are chosen by it. Put it before callbacks that monitor
    it.

    Args:
        loss_weights: Age head -> weight, not all of them 0.

    Example:
    >>> total = AgeLossLogger({"age1": 1.0, "age2": 3.0})
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


class DecodedMetrics(DecodedAccuracy):
    """Adds every figure of the decoded answers to the logs of every epoch.

    For encodings whose answers come from several outputs (`age1` … `age8`): a metric
    in `compile` sees one of them, so that `detailed_metrics` has none about age there.
    This callback takes the place of `DecodedAccuracy`: it predicts the validation faces
    once more after each epoch and logs, beside what `DecodedAccuracy` does,
    `val_<head>_<metric>` for the metrics of `detailed_metrics`, of every head:
    `val_age_one_off_accuracy`, `val_age_quadratic_kappa`, `val_gender_f1` and so on.
    Figures without a labelled face are not logged. Where both have a name
    (`val_age_mean_absolute_error` of a years head) it is what `DecodedAccuracy` logs.

    Args:
        dataset: As for `DecodedAccuracy`.
        labels: As there: `age_group`, `gender` and the columns of the encoding's heads.
        encoding: What decodes the model's outputs.

    Example:
    >>> callback = DecodedMetrics(val_ds, labels, encoding)  # doctest: +SKIP
    """

    def figures(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """Returns what is logged of the decoded answers, without the prefix.

        Args:
            outputs: Output name -> predictions. Shape (num_faces, units) each.
        """
        found = decoded_metrics(outputs, self.labels, self.encoding)
        return found | super().figures(outputs)


def decoded_metrics(
    outputs: Mapping[str, Any], labels: Mapping[str, Any], encoding: Encoding
) -> dict[str, float]:
    """Returns the figures that `DecodedMetrics` adds, without the prefix."""
    given = (labels["age_group"], labels["gender"], labels)
    targets, weights = encoding.encode(*given), encoding.sample_weights(*given)
    found = {}
    for head in encoding.heads:
        if not np.any(weights[head.output_names[0]]):
            continue
        for metric in head_metrics(encoding, head):
            metric.update_state(targets, outputs, weights)
            found[f"{head.name}_{metric.name}"] = float(metric.result())
    return found
