"""The table of metrics: one row per metric, from which everything else is derived.

From a row come the value of NumPy arrays (`Metric.value`), the Keras metric
(`keras_metrics`), the confidence interval (`intervals`), the scores of an evaluation,
their printed line (`evaluation.scores`) and their row in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_agegender.labels import MISSING

# Years within which a prediction counts for CS@5 (Chang et al. 2011, Niu et al. 2016).
CUMULATIVE_SCORE_YEARS = 5
CALIBRATION_BINS = 15  # of Guo et al. 2017
EPSILON = 1e-7  # the smallest probability whose logarithm is taken, as in Keras' losses


class Predictions(NamedTuple):
    """Predictions of one target and its labels, as NumPy arrays or tensors.

    Attributes:
        truth: True class ids, or years. Shape (num_faces,).
        predicted: Predicted class ids, or years. Shape (num_faces,).
        num_classes: Number of classes; 0 for years.
        probabilities: Probability of each class. Shape (num_faces, num_classes).
        positive: Id of the positive class of precision, recall, f1 and AUC.
        agree: Whether the rank outputs are consistent with one class. Shape
            (num_faces,).
        median: Class id obtained by counting the rank outputs. Shape (num_faces,).
        weights: Weight of each face, 0 without a label; `None` for arrays, which
            contain labeled faces only. Shape (num_faces,).
    """

    truth: Any
    predicted: Any
    num_classes: int = 0
    probabilities: Any = None
    positive: int = 1
    agree: Any = None
    median: Any = None
    weights: Any = None


@dataclass(frozen=True)
class Metric:
    """A row of `METRICS`.

    Attributes:
        name: Key in metrics.json.
        needs: What the target must have: `"classes"`, `"two classes"`, `"ordered"`
            classes, `"ranks"` (heads with rank outputs) or `"years"`.
        aggregation: How faces become one number: `"share"` and `"mean"` of a value per
            face; `"confusion"`, a statistic of the confusion matrix; `"bins"`, the mean
            gap over bins of confidence; `"rank"`, a statistic of the order of faces.
        function: For shares and means, `(predictions, xp) -> value per face`; for
            confusion, `(counts, xp, positive) -> value`, NaN where undefined, with
            counts of shape (…, num_classes, num_classes); `xp` is `numpy` or
            `keras.ops`. For bins and ranks, `predictions -> value` of arrays.
        title: Name in the report, with `{positive}` for the positive class; `""` omits
            the metric there.
        text: Name in printed scores, with `{}` for the value; the title by default.
        line: Metrics with the same number share a printed line; by default they have
            one of their own, below all others.
        digits: Printed decimal places.
        lower_is_better: Whether a smaller value is better.
        reads: Field of `Predictions` without which the metric is `None`.
        over: `(predictions, xp) -> mask` of the faces that count; all by default.
        baseline: Whether to report it for the majority-class baseline too.
        optional: Whether an undefined value is not printed at all, rather than as `-`.
        limits: Smallest and largest value of a statistic of the confusion matrix.
        exact: `predictions -> value` of arrays, if it differs from `function`.
        parts: `predictions -> masks`: groups of faces whose shares of correct
            predictions determine a statistic of the confusion matrix.
        of_parts: The statistic as a function of these shares, increasing in each.
    """

    name: str
    needs: str
    aggregation: str
    function: Callable[..., Any]
    title: str = ""
    text: str = ""
    line: int = 0
    digits: int = 3
    lower_is_better: bool = False
    reads: str = "predicted"
    over: Callable[[Predictions, Any], Any] | None = None
    baseline: bool = False
    optional: bool = False
    limits: tuple[float, float] = (0, 1)
    exact: Callable[[Predictions], float | None] | None = None
    parts: Callable[[Predictions], list[np.ndarray]] | None = None
    of_parts: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def printed(self) -> str:
        """The template of the printed text."""
        return self.text or f"{self.title} {{}}"

    def value(self, predictions: Predictions) -> float | None:
        """Returns the metric of labeled faces, NumPy arrays; `None` if undefined."""
        if getattr(predictions, self.reads) is None:
            return None
        if self.exact is not None:
            return self.exact(predictions)
        if self.aggregation in ("bins", "rank"):
            return self.function(predictions)
        if self.aggregation == "confusion":
            counts = confusion_matrix(*predictions[:3])
            with np.errstate(invalid="ignore"):
                found = float(self.function(counts, np, predictions.positive))
            return None if np.isnan(found) else found
        values = self.function(predictions, np)
        return mean(values if self.over is None else values[self.over(predictions, np)])


def _correct(p: Predictions, xp: Any) -> Any:
    return xp.equal(p.predicted, p.truth)


def _distance(p: Predictions, xp: Any) -> Any:
    return xp.abs(p.predicted - p.truth)


def _within(limit: int) -> Callable[[Predictions, Any], Any]:
    return lambda p, xp: _distance(p, xp) <= limit


def _all_heads_correct(p: Predictions, xp: Any) -> Any:
    """Consistent rank outputs are all correct if and only if their class is."""
    return xp.logical_and(xp.equal(p.median, p.truth), p.agree)


def _log_loss(p: Predictions, xp: Any) -> Any:
    true = xp.take_along_axis(p.probabilities, p.truth[:, None], axis=1)[:, 0]
    return -xp.log(xp.maximum(true, EPSILON))


def _squared_error(p: Predictions, xp: Any) -> Any:
    """Sum over classes (Brier 1950); for two classes half of it, as in scikit-learn."""
    number = p.num_classes
    truth = np.eye(number)[p.truth] if xp is np else xp.one_hot(p.truth, number)
    errors = xp.sum(xp.square(p.probabilities - truth), axis=-1)
    return errors / 2 if number == 2 else errors


def _is_positive(p: Predictions, xp: Any) -> Any:
    return xp.equal(p.truth, p.positive)


def _is_predicted_positive(p: Predictions, xp: Any) -> Any:
    return xp.equal(p.predicted, p.positive)


def _balanced_accuracy(counts: Any, xp: Any, positive: int) -> Any:
    """Returns the mean recall of the classes that have a face."""
    recalls = xp.diagonal(counts, axis1=-2, axis2=-1) / xp.sum(counts, axis=-1)
    known = xp.logical_not(xp.isnan(recalls))
    number = xp.sum(xp.where(known, 1.0, 0.0), axis=-1)
    return xp.sum(xp.where(known, recalls, 0.0), axis=-1) / number


def _f1(counts: Any, xp: Any, positive: int) -> Any:
    of_truth = xp.sum(counts[..., positive, :], axis=-1)
    of_predictions = xp.sum(counts[..., :, positive], axis=-1)
    return 2 * counts[..., positive, positive] / (of_truth + of_predictions)


def _quadratic_kappa(counts: Any, xp: Any, positive: int) -> Any:
    """Returns Cohen's kappa, weighted by the squared distance (Cohen 1968)."""
    classes = np.arange(counts.shape[-1], dtype="float32")
    squares = (classes[:, None] - classes) ** 2
    rows, columns = xp.sum(counts, axis=-1), xp.sum(counts, axis=-2)
    by_chance = xp.expand_dims(rows, -1) * xp.expand_dims(columns, -2)
    total = xp.sum(counts, axis=(-2, -1))
    expected = xp.sum(xp.multiply(squares, by_chance), axis=(-2, -1)) / total
    return 1 - xp.sum(xp.multiply(squares, counts), axis=(-2, -1)) / expected


def _mean_recall(p: Predictions) -> float | None:
    correct = _correct(p, np)
    recalls = [mean(correct[p.truth == k]) for k in np.unique(p.truth)]
    return float(np.mean(recalls)) if recalls else None  # type: ignore[arg-type]


def _exact_kappa(p: Predictions) -> float | None:
    """`None` where labels and predictions are all of one class: no chance agreement."""
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(p.truth, p.predicted)) < 2:
        return None
    labels = np.arange(p.num_classes)
    kappa = cohen_kappa_score(p.truth, p.predicted, labels=labels, weights="quadratic")
    return None if np.isnan(kappa) else float(kappa)


def _auc(p: Predictions) -> float | None:
    from sklearn.metrics import roc_auc_score

    positive = _is_positive(p, np)
    if len(np.unique(positive)) < 2:
        return None
    return float(roc_auc_score(positive, p.probabilities[:, p.positive]))


def _calibration_error(p: Predictions) -> float | None:
    """Returns the mean distance between confidence and accuracy, over bins.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015; Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017.
    """
    if not len(p.truth):
        return None
    confidence = np.max(p.probabilities, axis=-1).astype("float32")
    correct = np.argmax(p.probabilities, axis=-1) == p.truth
    gaps = correct - confidence.astype("float64")
    sums = np.bincount(confidence_bins(confidence), gaps, CALIBRATION_BINS)
    return float(np.abs(sums).sum() / len(correct))


def _harmonic_mean(shares: np.ndarray) -> np.ndarray:
    both = shares.sum(axis=0)
    return np.divide(2 * shares.prod(axis=0), both, np.zeros(2), where=both > 0)


METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric(
            "accuracy", "classes", "share", _correct, title="accuracy", line=1,
            baseline=True,
        ),
        Metric(
            "balanced_accuracy", "classes", "confusion", _balanced_accuracy,
            title="mean recall of the classes", text="mean of classes {}", line=1,
            baseline=True, optional=True, exact=_mean_recall,
            parts=lambda p: [p.truth == k for k in np.unique(p.truth)],
            of_parts=lambda shares: shares.mean(axis=0),
        ),
        Metric(
            "f1", "two classes", "confusion", _f1,
            title="F1 of {positive}", text="f1 {} (positive class: {positive})", line=2,
            parts=lambda p: [_is_predicted_positive(p, np), _is_positive(p, np)],
            of_parts=_harmonic_mean,
        ),
        Metric(
            "precision", "two classes", "share", _correct, text="precision {}", line=3,
            over=_is_predicted_positive,
        ),
        Metric(
            "recall", "two classes", "share", _correct, text="recall {}", line=3,
            over=_is_positive,
        ),
        Metric(
            "auc", "two classes", "rank", _auc,
            title="area under the ROC curve", text="auc {}", line=8, optional=True,
            reads="probabilities",
        ),
        Metric(
            "one_off_accuracy", "ordered", "share", _within(1),
            title="correct or a neighboring group", text="within one group {}", line=7,
            baseline=True,
        ),
        Metric(
            "all_heads_accuracy", "ranks", "share", _all_heads_correct,
            title="all age heads correct", text="all age heads correct {} *", line=5,
            optional=True, reads="agree",
        ),
        Metric(
            "quadratic_kappa", "ordered", "confusion", _quadratic_kappa,
            title="quadratic kappa", line=4, optional=True, limits=(-1, 1),
            exact=_exact_kappa,
        ),
        Metric(
            "mean_absolute_error", "ordered", "mean", _distance,
            title="mean error in groups", text="mean error {} groups", line=7, digits=2,
            lower_is_better=True, baseline=True,
        ),
        Metric(
            "mean_absolute_error_years", "years", "mean", _distance,
            title="mean error in years", text="mean error {} years", line=1, digits=2,
            lower_is_better=True, baseline=True,
        ),
        Metric(
            "cumulative_score_5", "years", "share", _within(CUMULATIVE_SCORE_YEARS),
            title="within 5 years", line=1, baseline=True,
        ),
        Metric(
            "rank_violation_rate", "ranks", "share",
            lambda p, xp: xp.logical_not(p.agree),
            title="age heads contradict each other", line=6, optional=True,
            lower_is_better=True, reads="agree",
        ),
        Metric(
            "negative_log_likelihood", "classes", "mean", _log_loss,
            title="−log likelihood", text="-log likelihood {}", line=8, optional=True,
            lower_is_better=True, reads="probabilities",
        ),
        Metric(
            "brier_score", "classes", "mean", _squared_error,
            title="Brier score", text="Brier {}", line=8, optional=True,
            lower_is_better=True, reads="probabilities",
        ),
        Metric(
            "expected_calibration_error", "classes", "bins", _calibration_error,
            title="calibration error (ECE)", text="calibration error {}", line=8,
            optional=True, lower_is_better=True, reads="probabilities",
        ),
    )
}  # fmt: skip


def metrics_for(*needs: str) -> list[str]:
    """Returns the names of the metrics that need one of these; see `Metric.needs`."""
    return [name for name, row in METRICS.items() if row.needs in needs]


def score(predictions: Predictions, names: Iterable[str]) -> dict[str, float | None]:
    """Returns the values of metrics for labeled faces, `None` where undefined."""
    return {name: METRICS[name].value(predictions) for name in names}


def mean(values: Any) -> float | None:
    """Returns the mean of values; `None` if there are none."""
    return float(np.mean(values, dtype="float64")) if len(values) else None


def confusion_matrix(y_true: Any, y_pred: Any, num_classes: int) -> np.ndarray:
    """Counts faces by true (row) and predicted (column) class id; -1 is skipped."""
    y_true, y_pred = np.asarray(y_true, "int64"), np.asarray(y_pred, "int64")
    known = y_true != MISSING
    ids = y_true[known] * num_classes + y_pred[known]
    return np.bincount(ids, minlength=num_classes**2).reshape(num_classes, num_classes)


def confidence_bins(confidence: Any, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Returns the bin of equal width, open below, of each confidence in [0, 1]."""
    # In float32, so that edges are where the Keras metric has them.
    scaled = np.asarray(confidence, "float32") * np.float32(bins)
    return np.clip(np.ceil(scaled).astype("int64") - 1, 0, bins - 1)


def format_value(value: float | None, digits: int = 3) -> str:
    """Returns a rounded number as text, `-` for `None`."""
    return "-" if value is None else f"{value:.{digits}f}"
