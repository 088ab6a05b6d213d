"""Callbacks that log metrics of decoded predictions at the end of each epoch."""

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
    """Returns a compiled model's losses, averaged over the labeled faces only.

    Keras weights the loss of a batch by its number of faces, labeled or not. Empty if a
    column is missing or the losses are not those of `encoding.losses()`; without `loss`
    for models with regularizers.
    """
    losses = model.loss
    if isinstance(losses, (list, tuple)) and len(losses) == len(encoding.output_names):
        losses = encoding.name_outputs(losses)
    losses = losses if isinstance(losses, Mapping) else {}
    given = [losses.get(name) for name in encoding.output_names]
    reductions = {getattr(loss, "reduction", None) for loss in given}
    if not set(encoding.columns) <= set(labels) or reductions != {REDUCTION}:
        return {}
    columns = (labels.get("age_group", -1), labels.get("gender", -1), labels)
    targets, weights = encoding.encode(*columns), encoding.sample_weights(*columns)
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
    # `call`: the loss itself divides by the number of replicas of a strategy.
    values = loss.call(
        ops.convert_to_tensor(target, dtype="float32"),
        ops.convert_to_tensor(output, dtype="float32"),
    )
    values = np.asarray(ops.convert_to_numpy(values), "float64")
    total = weight.sum(dtype="float64")
    return float((values * weight).sum() / total) if total else 0.0


class DecodedAccuracy(keras.callbacks.Callback):
    """Logs the accuracy of decoded predictions after each epoch.

    Keras' own metrics see one output at a time, but an age group may be decoded from
    several. This callback predicts the validation faces once more, decodes, and logs:

    - `val_gender_accuracy` and `val_age_accuracy`, comparable between encodings;
    - `val_age_all_heads_accuracy`, the share of faces with all age heads correct (the
      report's accuracy of ordinal encodings);
    - `val_age_mean_absolute_error` in years, if the labels have `age_years`;
    - `val_mean_accuracy`, the mean of gender and age accuracy, by which the report's
      ResNets are selected.

    It also replaces Keras' `val_loss` and `val_<output>_loss` by means over labeled
    faces; Keras weights batches by all their faces. This requires a model compiled with
    `encoding.losses()` and labels for all of the encoding's columns; `val_loss` of a
    model with regularizers stays as it is.

    Place it before callbacks that monitor these metrics. Metrics without labels or
    heads are not logged. `DecodedMetrics` also logs all other metrics of `evaluate`.

    Args:
        dataset: Batches of validation data in the order of `labels`; the first element
            of a batch is the images.
        labels: `age_group`, `gender` and the encoding's other columns, as `read_labels`
            returns them, -1 if unknown. Shape (num_faces,) each.
        encoding: The model's encoding.

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
        outputs = self.encoding.name_outputs(outputs)
        found = self.metrics(outputs)
        if logs is None:
            return
        logs.update({f"val_{name}": value for name, value in found.items()})
        losses = labelled_losses(self.model, outputs, self.labels, self.encoding)
        for name, value in losses.items():
            if f"val_{name}" in logs:
                logs[f"val_{name}"] = value

    def metrics(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """Returns the logged metrics of the model's outputs, without the prefix."""
        return decoded_accuracies(outputs, self.labels, self.encoding)


def decoded_accuracies(
    outputs: Mapping[str, Any], labels: Mapping[str, Any], encoding: Encoding
) -> dict[str, float]:
    """Returns the accuracies that `DecodedAccuracy` logs, without the prefix."""
    decoded = encoding.decode(outputs)
    found = {}
    targets = {"gender": decoded.gender, "age_group": decoded.age_group}
    for column, predicted in targets.items():
        truth = np.asarray(labels[column])
        known = truth != MISSING
        if predicted is None or not known.any():
            continue
        correct = ops.convert_to_numpy(predicted) == truth
        found[f"{column.removesuffix('_group')}_accuracy"] = float(
            correct[known].mean()
        )
        if column == "age_group" and encoding.question is not None:
            median = ops.convert_to_numpy(decoded.median_age_group)
            agree = ops.convert_to_numpy(decoded.heads_agree)
            all_correct = (median == truth) & agree
            found["age_all_heads_accuracy"] = float(all_correct[known].mean())
    means = [value for name, value in found.items() if "all_heads" not in name]
    years = np.asarray(labels.get("age_years", np.nan), "float64")
    if decoded.age_years is not None and (known := years >= 0).any():
        errors = np.abs(ops.convert_to_numpy(decoded.age_years) - years)
        found["age_mean_absolute_error"] = float(errors[known].mean())
    if means:
        found["mean_accuracy"] = float(np.mean(means))
    return found


class AgeLossLogger(keras.callbacks.Callback):
    """Logs `val_age_loss`: the mean of the age outputs' losses by their loss weights.

    Place it before callbacks that monitor it.
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
    """Logs all metrics of decoded predictions after each epoch.

    Use it for encodings that decode a prediction from several outputs (`age1` …
    `age8`): a metric in `compile` sees only one of them, so that `detailed_metrics` has
    none for age. In addition to what `DecodedAccuracy` does, this callback logs
    `val_<head>_<metric>` for the metrics of `detailed_metrics` and each head:
    `val_age_one_off_accuracy`, `val_age_quadratic_kappa`, `val_gender_f1` and so on.
    Metrics without labeled faces are not logged. If a name occurs twice
    (`val_age_mean_absolute_error` of a years head), the value is that of
    `DecodedAccuracy`.

    Args:
        dataset: Batches of validation data, as for `DecodedAccuracy`.
        labels: `age_group`, `gender` and the columns of the encoding's heads, as for
            `DecodedAccuracy`.
        encoding: The model's encoding.

    Example:
    >>> callback = DecodedMetrics(val_ds, labels, encoding)  # doctest: +SKIP
    """

    def metrics(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """Returns the logged metrics of the model's outputs, without the prefix."""
        found = decoded_metrics(outputs, self.labels, self.encoding)
        return found | super().metrics(outputs)


def decoded_metrics(
    outputs: Mapping[str, Any], labels: Mapping[str, Any], encoding: Encoding
) -> dict[str, float]:
    """Returns the metrics that `DecodedMetrics` adds, without the prefix."""
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
