"""The metrics of the table as Keras metrics of decoded predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.encodings.decoding import decode, decode_head
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.head_types import Ranks
from keras_agegender.labels import GENDERS, MISSING
from keras_agegender.metrics import table


def find_head(encoding: Encoding, column: str) -> Head:
    """Returns the head that predicts a column."""
    heads = {h.columns[0]: h for h in encoding.extra_heads if not h.spec.is_number}
    if encoding.gender_head is not None:
        heads["gender"] = encoding.gender_head
    if encoding.age_head is not None:
        heads["age_group"] = encoding.age_head
        if encoding.age_head.spec.in_years:
            heads["age_years"] = encoding.age_head
    if column not in heads:
        raise ValueError(
            f"Invalid `column`. Expected one of {sorted(heads)}, which encoding "
            f"{encoding.name!r} predicts. Received: column={column!r}."
        )
    return heads[column]


def read_predictions(
    encoding: Encoding,
    column: str,
    targets: Mapping[str, Any],
    outputs: Mapping[str, Any],
    weights: Any = None,
) -> table.Predictions:
    """Decodes a head's targets and outputs into tensors of labels and predictions."""
    head = find_head(encoding, column)
    truth = head.spec.true_values(head, targets)
    if weights is None:
        weights = ops.ones_like(truth, dtype="float32")
    else:  # the first rank output is trained on every labeled face
        weights = ops.cast(ops.convert_to_tensor(weights), "float32")
        while len(weights.shape) > 1:
            weights = weights[:, 0]
    groups = encoding.age_groups
    if column == "gender":
        truth = truth // (head.num_classes // 2) if len(head.columns) > 1 else truth
        decoded = decode(outputs, None, head, groups)
        male = decoded.gender_probability
        probabilities = ops.stack([1.0 - male, male], axis=-1)
        predicted = decoded.gender
    elif column in ("age_group", "age_years"):
        decoded = decode(outputs, head, None, groups)
        if column == "age_years":
            truth = ops.cast(truth, "float32")
            return table.Predictions(truth, decoded.age_years, weights=weights)
        if head.spec.in_years:
            years = range(head.num_classes)
            of_year = np.array([groups.from_years(y) for y in years], "int32")
            truth = ops.take(ops.convert_to_tensor(of_year), truth, axis=0)
            # Skip years in a gap between two groups.
            weights = weights * ops.cast(truth != MISSING, "float32")
            truth = ops.maximum(truth, 0)
        elif len(head.columns) > 1:
            truth = truth % (head.num_classes // len(GENDERS))
        predicted, probabilities = decoded.age_group, decoded.age_probabilities
    else:
        predicted, probabilities = decode_head(head, outputs)
    median = agree = None
    if isinstance(head.spec, Ranks):
        median, agree = head.spec.count_ranks(head, outputs)
    number = int(probabilities.shape[-1])
    found = table.Predictions(truth, predicted, number, probabilities, weights=weights)
    return found._replace(agree=agree, median=median)


class PredictionMetric(keras.metrics.Metric):
    """Base class of Keras metrics of decoded predictions: a row of `METRICS`."""

    metric = ""  # row of the table
    logged = ""  # name in the logs, if it differs
    column = "age_group"

    def __init__(
        self,
        encoding: Encoding | Mapping[str, Any],
        column: str | None = None,
        *,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or self.logged or self.metric, dtype=dtype)
        if not isinstance(encoding, Encoding):
            encoding = Encoding.from_dict(encoding)
        self.encoding = encoding
        self.column = column or self.column
        self.head = find_head(encoding, self.column)
        self._add_variables()

    def _add_variables(self) -> None:
        """Creates the variables that batches add to."""
        aggregation = table.METRICS[self.metric].aggregation
        if aggregation == "confusion":
            self.total = self._zeros("confusion", *2 * (self._num_classes(),))
            return
        self.total = self._zeros(
            "total", *(table.CALIBRATION_BINS,) * (aggregation == "bins")
        )
        self.count = self._zeros("count")

    def _zeros(self, name: str, *shape: int) -> Any:
        return self.add_variable(shape, initializer="zeros", name=name)

    def _num_classes(self) -> int:
        if self.column == "age_group":
            return len(self.encoding.age_groups)
        return len(GENDERS) if self.column == "gender" else self.head.num_values

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch of faces."""
        if isinstance(sample_weight, Mapping):
            sample_weight = sample_weight[self.head.output_names[0]]
        targets, outputs = self._by_output(y_true), self._by_output(y_pred)
        given = self.encoding, self.column, targets, outputs, sample_weight
        self._add(read_predictions(*given))

    def _by_output(self, values: Any) -> Mapping[str, Any]:
        names = self.head.output_names
        if not isinstance(values, Mapping):
            if len(names) > 1:
                raise ValueError(
                    f"Invalid `y_true` or `y_pred` of metric {self.name!r}. The head "
                    f"of {self.column!r} has several outputs. Expected a dict with the "
                    f"keys {list(names)}. Received: {type(values).__name__}. Metrics "
                    "passed to `compile` receive one output; use `DecodedMetrics`."
                )
            return {names[0]: values}
        if missing := [name for name in names if name not in values]:
            raise ValueError(
                f"Invalid `y_true` or `y_pred` of metric {self.name!r}. Expected the "
                f"keys {list(names)}. Missing: {missing}."
            )
        return values

    def _add(self, predictions: table.Predictions) -> None:
        """Adds the predictions of a batch of faces."""
        row = table.METRICS[self.metric]
        weights = ops.cast(predictions.weights, self.dtype)
        if row.aggregation == "confusion":
            number = predictions.num_classes
            truth = ops.one_hot(predictions.truth, number, dtype=self.dtype)
            predicted = ops.one_hot(predictions.predicted, number, dtype=self.dtype)
            truth = ops.transpose(truth * weights[:, None])
            self.total.assign_add(ops.matmul(truth, predicted))
            return
        if row.aggregation == "bins":
            gaps, bins = self._binned_gaps(predictions)
            self.total.assign_add(ops.matmul((gaps * weights)[None, :], bins)[0])
        else:
            values = ops.cast(row.function(predictions, ops), self.dtype)
            if row.over is not None:
                weights = weights * ops.cast(row.over(predictions, ops), self.dtype)
            self.total.assign_add(ops.sum(values * weights))
        self.count.assign_add(ops.sum(weights))

    def _binned_gaps(self, predictions: table.Predictions) -> tuple[Any, Any]:
        """Returns correctness minus confidence, and the bin of each face, one-hot."""
        confidence = ops.max(predictions.probabilities, axis=-1)
        index = ops.cast(ops.ceil(confidence * table.CALIBRATION_BINS), "int32") - 1
        index = ops.clip(index, 0, table.CALIBRATION_BINS - 1)
        correct = ops.equal(predictions.predicted, predictions.truth)
        gaps = ops.cast(correct, self.dtype) - ops.cast(confidence, self.dtype)
        return gaps, ops.one_hot(index, table.CALIBRATION_BINS, dtype=self.dtype)

    def result(self) -> Any:
        """Returns the metric; 0 where it is undefined."""
        row = table.METRICS[self.metric]
        if row.aggregation == "confusion":
            found = row.function(ops.convert_to_tensor(self.total), ops, 1)
            return ops.where(ops.isnan(found), 0.0, found)
        total = ops.convert_to_tensor(self.total)
        if row.aggregation == "bins":
            total = ops.sum(ops.abs(total))
        return ops.divide_no_nan(total, self.count)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as plain values."""
        given = {"encoding": self.encoding.to_dict(), "column": self.column}
        return {**super().get_config(), **given}


ARGUMENTS = """
    Args:
        encoding: The model's encoding.
        column: The target: a column of one of the encoding's heads. Defaults to
            `"{column}"`.
        name: Name in the logs. Defaults to `"{name}"`.
        dtype: Defaults to Keras' float type.
"""
CLASSES: dict[str, type[PredictionMetric]] = {}  # row of the table -> its own class
_register = keras.saving.register_keras_serializable(package="keras_agegender")


def registered(metric: type[PredictionMetric]) -> type[PredictionMetric]:
    """Registers the class of a row with Keras and documents the shared arguments."""
    name = metric.logged or metric.metric
    arguments = ARGUMENTS.format(column=metric.column, name=name)
    metric.__doc__ = f"{(metric.__doc__ or '').rstrip()}\n{arguments}"
    CLASSES[metric.metric] = metric
    return _register(metric)


@registered
class ExactAccuracy(PredictionMetric):
    """Share of faces predicted correctly."""

    metric, logged = "accuracy", "exact_accuracy"


@registered
class OneOffAccuracy(PredictionMetric):
    """Share of faces predicted correctly or as a neighboring class.

    This is not top-2 accuracy, where the second class may be any. See
    `detailed_metrics`.

    Example:
    >>> enc = kag.get_encoding("categorical")
    >>> metric = kag.metrics.OneOffAccuracy(enc)
    >>> metric.update_state(np.array([3, 3]), np.eye(8)[[4, 6]])  # one and three off
    >>> float(metric.result())
    0.5
    """

    metric = "one_off_accuracy"


@registered
class MeanAbsoluteGroupError(PredictionMetric):
    """Mean distance between predicted and true class, in groups."""

    metric = "mean_absolute_error"


@registered
class AgeYearsError(PredictionMetric):
    """Mean distance between predicted and true age of a years head, in years."""

    metric, column = "mean_absolute_error_years", "age_years"


@registered
class CumulativeScore(PredictionMetric):
    """Share of faces predicted within 5 years by a years head: CS@5.

    Source: Chang et al., "Ordinal hyperplanes ranker with cost sensitivities for age
    estimation", CVPR 2011.
    """

    metric, column = "cumulative_score_5", "age_years"


@registered
class AllHeadsAccuracy(PredictionMetric):
    """Share of faces with every rank output correct."""

    metric = "all_heads_accuracy"


@registered
class RankViolationRate(PredictionMetric):
    """Share of faces whose rank outputs contradict each other.

    "Above group 3: no, above group 4: yes" matches no group.
    """

    metric = "rank_violation_rate"


@registered
class NegativeLogLikelihood(PredictionMetric):
    """Mean of -log P(true class), in nats."""

    metric = "negative_log_likelihood"


@registered
class BrierScore(PredictionMetric):
    """Mean squared error of the probabilities (Brier 1950).

    Summed over the classes; for two classes, the squared error of one probability.
    """

    metric = "brier_score"


@registered
class BalancedAccuracy(PredictionMetric):
    """Mean recall over the classes present in the data (macro recall).

    Rare and frequent classes have the same weight.
    """

    metric = "balanced_accuracy"


@registered
class QuadraticKappa(PredictionMetric):
    """Cohen's kappa, with disagreement weighted by the squared distance of classes.

    1 is perfect, 0 is chance level (Cohen 1968).
    """

    metric = "quadratic_kappa"


@registered
class ExpectedCalibrationError(PredictionMetric):
    """Mean distance between confidence and accuracy, over 15 bins of equal width.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    metric = "expected_calibration_error"


@_register
class TableMetric(PredictionMetric):
    """The Keras metric of a row of the table without a class of its own."""

    def __init__(
        self,
        metric: str,
        encoding: Encoding | Mapping[str, Any],
        column: str | None = None,
        *,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.metric = metric
        super().__init__(encoding, column, name=name, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as plain values."""
        return {**super().get_config(), "metric": self.metric}


# Metric of the positive class -> Keras' metric.
POSITIVE_CLASS_METRICS: dict[str, Any] = {
    "precision": lambda: keras.metrics.Precision(),
    "recall": lambda: keras.metrics.Recall(),
    # Of a single column, "micro" is the f1 of the positive class.
    "f1": lambda: keras.metrics.F1Score(average="micro", threshold=0.5),
    "auc": lambda: keras.metrics.AUC(),
}


@_register
class PositiveClassMetric(PredictionMetric):
    """Precision, recall, F1 or area under the ROC curve of one class.

    Computed by Keras' metrics: its AUC approximates the curve at 200 thresholds, where
    `evaluate` computes it exactly.

    Args:
        metric: `"precision"`, `"recall"`, `"f1"` or `"auc"`.
        encoding: The model's encoding.
        column: The target. Defaults to `"gender"`.
        positive: Class id of the positive class. Defaults to 1, male.
        name: Name in the logs. Defaults to `metric`.
        dtype: Defaults to Keras' float type.

    Raises:
        ValueError: If `metric` is unknown, or no head predicts the column.
    """

    column = "gender"

    def __init__(
        self,
        metric: str,
        encoding: Encoding | Mapping[str, Any],
        column: str | None = None,
        *,
        positive: int = 1,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        if metric not in POSITIVE_CLASS_METRICS:
            raise ValueError(
                f"Invalid `metric`. Expected one of {sorted(POSITIVE_CLASS_METRICS)}. "
                f"Received: metric={metric!r}."
            )
        self.metric = metric
        super().__init__(encoding, column, name=name, dtype=dtype)
        self.positive = positive

    def _add_variables(self) -> None:
        """Creates the variables of Keras' metric."""
        self.inner = POSITIVE_CLASS_METRICS[self.metric]()
        # F1Score creates its variables on first use, which a graph forbids.
        self.inner.update_state(np.zeros((1, 1)), np.zeros((1, 1)))
        self.inner.reset_state()

    def _add(self, predictions: table.Predictions) -> None:
        """Adds the predictions of a batch of faces."""
        truth = ops.equal(predictions.truth, self.positive)[:, None]
        if self.metric == "auc":
            predicted = predictions.probabilities[:, self.positive][:, None]
        else:
            predicted = ops.equal(predictions.predicted, self.positive)[:, None]
        arguments = ops.cast(truth, "float32"), ops.cast(predicted, "float32")
        self.inner.update_state(*arguments, predictions.weights)

    def result(self) -> Any:
        """Returns the metric."""
        return self.inner.result()

    def reset_state(self) -> None:
        """Resets all counts."""
        self.inner.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as plain values."""
        own = {"metric": self.metric, "positive": self.positive}
        return {**super().get_config(), **own}


def keras_metric(name: str, encoding: Encoding, column: str) -> PredictionMetric:
    """Returns a new Keras metric of a row of the table."""
    if name in POSITIVE_CLASS_METRICS:
        return PositiveClassMetric(name, encoding, column)
    if name in CLASSES:
        return CLASSES[name](encoding, column)
    return TableMetric(name, encoding, column)


def metric_names(encoding: Encoding, column: str) -> list[str]:
    """Returns the metrics of a column's predictions; see `find_head`."""
    head = find_head(encoding, column)
    if column == "age_years":
        return table.metrics_for("years")
    needs = ["classes"]
    if column == "gender" or head.num_values == 2:
        needs.append("two classes")
    if column == "age_group" or head.spec.ordered:
        needs.append("ordered")
    if head.spec.ranks:
        needs.append("ranks")
    return table.metrics_for(*needs)


def head_metrics(encoding: Encoding, head: Head) -> Iterator[PredictionMetric]:
    """Yields new metrics of a head's decoded predictions."""
    columns = head.columns
    if head is encoding.age_head and head.spec.in_years:
        columns = ("age_group", "age_years")
    elif head.spec.is_number:
        columns = ()
    for column in columns:
        for name in metric_names(encoding, column):
            metric = keras_metric(name, encoding, column)
            if head.columns == ("gender", "age_group"):
                metric.name = f"{column}_{metric.name}"
            yield metric


def detailed_metrics(encoding: Encoding) -> dict[str, list[Any]]:
    """Returns all metrics of each output, for `compile(weighted_metrics=…)`.

    They are the metrics that `evaluate` reports (`METRICS`), computed from decoded
    predictions, and the encoding's own, as `Encoding.metrics` returns them.

    With the joint encoding, only faces with both labels count, as in its loss. Heads
    with several outputs (ordinal encodings) only have the encoding's own metrics, since
    Keras passes a metric one output at a time: log the others with `DecodedMetrics`, or
    pass dicts of outputs to `update_state`.

    To load a model that was saved with these metrics, import `keras_agegender` first or
    pass `compile=False`.

    Args:
        encoding: The model's encoding.

    Example:
    >>> enc = kag.get_encoding("coral")
    >>> [m.name for m in kag.metrics.detailed_metrics(enc)["age"]][:3]
    ['accuracy', 'exact_accuracy', 'balanced_accuracy']
    >>> arguments = enc.compile_arguments()
    >>> arguments["weighted_metrics"] = kag.metrics.detailed_metrics(enc)
    >>> model.compile("adam", **arguments)  # doctest: +SKIP
    """
    found = dict(encoding.metrics())
    for head in encoding.heads:
        if len(head.output_names) > 1:
            continue
        for metric in head_metrics(encoding, head):
            if len(encoding.output_names) == 1:  # Keras adds no prefix then
                metric.name = f"{head.name}_{metric.name}"
            found[head.name] = [*found[head.name], metric]
    return found
