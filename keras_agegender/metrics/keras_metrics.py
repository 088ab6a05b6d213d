"""Keras metrics of decoded predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.labels import GENDERS
from keras_agegender.metrics.table import (
    CALIBRATION_BINS,
    CUMULATIVE_SCORE_YEARS,
    EPSILON,
    Predictions,
    accuracy_of,
    all_heads_accuracy_of,
    auc_of,
    balanced_accuracy_of,
    brier_score_of,
    cumulative_score_5_of,
    expected_calibration_error_of,
    f1_of,
    find_head,
    mean_absolute_error_of,
    negative_log_likelihood_of,
    one_off_accuracy_of,
    precision_of,
    quadratic_kappa_of,
    rank_violation_rate_of,
    read_answers,
    recall_of,
)

ARGUMENTS = """
    Args:
        encoding: The model's encoding.
        column: What is answered. Defaults to `"{column}"`; others are the columns of
            the encoding's heads that fit. See `detailed_metrics`.
        name: Name in the logs. Defaults to `"{name}"`.
        dtype: Defaults to Keras' float type.
"""


def registered(metric: type[PredictionMetric]) -> type[PredictionMetric]:
    """Registers a metric with Keras and documents the arguments that all have."""
    doc = metric.__doc__ or ""
    if "Args:" not in doc:
        given = ARGUMENTS.format(column=metric.column, name=metric.logged)
        metric.__doc__ = doc.rstrip() + "\n" + given
    register = keras.saving.register_keras_serializable(package="keras_agegender")
    return register(metric)


class PredictionMetric(keras.metrics.Metric):
    """Base of metrics of decoded answers; subclasses have `_add` and `result`.

    Args:
        encoding: The model's encoding.
        column: What is answered: `"age_group"`, `"gender"`, or the column of a further
            head. Defaults to the class' own.
        name: Name in the logs. Defaults to the class' own.
        dtype: Defaults to Keras' float type.

    Raises:
        ValueError: If no head answers the column with classes.
    """

    logged = "answers"
    column = "age_group"

    def __init__(
        self,
        encoding: Encoding | Mapping[str, Any],
        column: str | None = None,
        *,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or self.logged, dtype=dtype)
        if not isinstance(encoding, Encoding):
            encoding = Encoding.from_dict(encoding)
        self.encoding = encoding
        self.column = column or self.column
        self.head = find_head(encoding, self.column)
        self._add_variables()

    def _add_variables(self) -> None:
        """Makes the variables that batches add to."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: The head's target, as `Encoding.encode` gives it, or a dict of
                targets by output name; a dict where several outputs answer.
            y_pred: The head's output, or a dict of outputs.
            sample_weight: As `Encoding.sample_weights` gives it, or a dict of them: 0
                leaves a face out. `None` (default) counts every face.
        """
        if isinstance(sample_weight, Mapping):
            sample_weight = sample_weight[self.head.output_names[0]]
        targets, outputs = self._by_output(y_true), self._by_output(y_pred)
        self._add(
            read_answers(self.encoding, self.column, targets, outputs, sample_weight)
        )

    def _by_output(self, values: Any) -> Mapping[str, Any]:
        names = self.head.output_names
        if not isinstance(values, Mapping):
            if len(names) > 1:
                raise ValueError(
                    f"Invalid `y_true` or `y_pred` of metric {self.name!r}. Several "
                    f"outputs answer {self.column!r}: expected a dict with the keys "
                    f"{list(names)}. Received: {type(values).__name__}. `compile` "
                    "gives a metric one output; `DecodedMetrics` sees all."
                )
            return {names[0]: values}
        if missing := [name for name in names if name not in values]:
            raise ValueError(
                f"Invalid `y_true` or `y_pred` of metric {self.name!r}. Expected the "
                f"keys {list(names)}. Missing: {missing}."
            )
        return values

    def _add(self, answers: Predictions) -> None:
        """Adds the answers about a batch of faces."""
        raise NotImplementedError

    def _zeros(self, name: str, *shape: int) -> Any:
        return self.add_variable(shape, initializer="zeros", name=name)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as plain values."""
        given = {"encoding": self.encoding.to_dict(), "column": self.column}
        return {**super().get_config(), **given}


class FaceMean(PredictionMetric):
    """Base of means over faces; subclasses have `_of_faces`."""

    def _add_variables(self) -> None:
        self.total, self.count = self._zeros("total"), self._zeros("count")

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns the figure of each face. Shape (batch,)."""
        raise NotImplementedError

    def _add(self, answers: Predictions) -> None:
        """Adds the answers about a batch of faces."""
        weights = ops.cast(answers.weights, self.dtype)
        values = ops.cast(self._of_faces(answers), self.dtype)
        self.total.assign_add(ops.sum(values * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Any:
        """Returns the mean over the faces that count; 0 of none."""
        return ops.divide_no_nan(self.total, self.count)


@registered
class ExactAccuracy(FaceMean):
    """Share of faces answered right."""

    logged = "exact_accuracy"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns 1 for faces answered right."""
        return ops.equal(answers.answer, answers.truth)


@registered
class OneOffAccuracy(FaceMean):
    """Share of faces answered right or as a neighboring class.

    Not Keras' top-2 accuracy, whose second answer may be any class. See
    `detailed_metrics`.

    Example:
    >>> enc = kag.get_encoding("categorical")
    >>> metric = kag.metrics.OneOffAccuracy(enc)
    >>> metric.update_state(np.array([3, 3]), np.eye(8)[[4, 6]])  # one and three off
    >>> float(metric.result())
    0.5
    """

    logged = "one_off_accuracy"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns 1 for faces answered at most one class off."""
        return ops.abs(answers.answer - answers.truth) <= 1


@registered
class MeanAbsoluteGroupError(FaceMean):
    """Mean distance between answer and truth, in groups."""

    logged = "mean_absolute_error"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns distances in groups."""
        return ops.abs(answers.answer - answers.truth)


@registered
class AgeYearsError(FaceMean):
    """Mean distance between answer and truth in years, of a years head."""

    logged = "mean_absolute_error_years"
    column = "age_years"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns distances in years."""
        return ops.abs(answers.answer - answers.truth)


@registered
class CumulativeScore(FaceMean):
    """Share of faces answered within 5 years, of a years head: CS@5.

    Source: Chang et al., "Ordinal hyperplanes ranker with cost sensitivities for age
    estimation", CVPR 2011.
    """

    logged = "cumulative_score_5"
    column = "age_years"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns 1 for faces answered within 5 years."""
        return ops.abs(answers.answer - answers.truth) <= CUMULATIVE_SCORE_YEARS


@registered
class AllHeadsAccuracy(FaceMean):
    """Share of faces whose questions about ranks are all answered right."""

    logged = "all_heads_accuracy"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns 1 for faces whose questions are all answered right."""
        right = ops.equal(answers.median, answers.truth)
        return ops.logical_and(right, answers.agree)


@registered
class RankViolationRate(FaceMean):
    """Share of faces whose questions about ranks contradict each other.

    "Above group 3: no, above group 4: yes" is no group's answer.
    """

    logged = "rank_violation_rate"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns 1 for faces whose answers contradict each other."""
        return ops.logical_not(answers.agree)


@registered
class NegativeLogLikelihood(FaceMean):
    """Mean of -log P(true class), in nats."""

    logged = "negative_log_likelihood"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns -log P(true class)."""
        truth = ops.one_hot(answers.truth, answers.num_classes)
        probability = ops.sum(answers.probabilities * truth, axis=-1)
        return -ops.log(ops.maximum(probability, EPSILON))


@registered
class BrierScore(FaceMean):
    """Mean squared error of the probabilities (Brier 1950).

    Summed over the classes; of two classes the squared error of one probability.
    """

    logged = "brier_score"

    def _of_faces(self, answers: Predictions) -> Any:
        """Returns squared errors."""
        truth = ops.one_hot(answers.truth, answers.num_classes)
        errors = ops.sum(ops.square(answers.probabilities - truth), axis=-1)
        return errors / 2 if answers.num_classes == 2 else errors


class ConfusionMetric(PredictionMetric):
    """Base of figures that follow from the counts of truths and answers."""

    def _add_variables(self) -> None:
        classes = self._num_classes()
        self.confusion = self._zeros("confusion", classes, classes)

    def _num_classes(self) -> int:
        if self.column == "age_group":
            return len(self.encoding.age_groups)
        return len(GENDERS) if self.column == "gender" else self.head.num_values

    def _add(self, answers: Predictions) -> None:
        """Adds the answers about a batch of faces."""
        truth = ops.one_hot(answers.truth, answers.num_classes, dtype=self.dtype)
        answer = ops.one_hot(answers.answer, answers.num_classes, dtype=self.dtype)
        weights = ops.cast(answers.weights, self.dtype)[:, None]
        self.confusion.assign_add(ops.matmul(ops.transpose(truth * weights), answer))


@registered
class BalancedAccuracy(ConfusionMetric):
    """Mean of the recalls of the classes that have a face: macro recall.

    Frequent classes count no more than rare ones.
    """

    logged = "balanced_accuracy"

    def result(self) -> Any:
        """Returns the mean of the recalls."""
        there = ops.sum(self.confusion, axis=1)
        recalls = ops.divide_no_nan(ops.diagonal(self.confusion), there)
        classes = ops.sum(ops.cast(there > 0, self.dtype))
        return ops.divide_no_nan(ops.sum(recalls), classes)


@registered
class QuadraticKappa(ConfusionMetric):
    """Cohen's kappa, disagreement weighted by the square of the distance in classes.

    1 is perfect, 0 what chance would reach (Cohen 1968).
    """

    logged = "quadratic_kappa"

    def result(self) -> Any:
        """Returns the kappa; 0 where truth and answers are a single class."""
        classes = np.arange(self.confusion.shape[0])
        squares = ops.convert_to_tensor(
            (classes[:, None] - classes[None, :]) ** 2, dtype=self.dtype
        )
        there = ops.sum(self.confusion, axis=1)[:, None]
        answered = ops.sum(self.confusion, axis=0)[None, :]
        expected = ops.divide_no_nan(there * answered, ops.sum(there))
        chance = ops.sum(squares * expected)
        found = ops.sum(squares * self.confusion)
        return ops.where(chance > 0, 1.0 - ops.divide_no_nan(found, chance), 0.0)


@registered
class ExpectedCalibrationError(PredictionMetric):
    """Mean distance between confidence and accuracy, over 15 bins of equal width.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    logged = "expected_calibration_error"

    def _add_variables(self) -> None:
        self.gaps = self._zeros("gaps", CALIBRATION_BINS)
        self.count = self._zeros("count")

    def _add(self, answers: Predictions) -> None:
        """Adds the answers about a batch of faces."""
        weights = ops.cast(answers.weights, self.dtype)
        confidence = ops.max(answers.probabilities, axis=-1)
        index = ops.cast(ops.ceil(confidence * CALIBRATION_BINS), "int32") - 1
        index = ops.clip(index, 0, CALIBRATION_BINS - 1)
        bins = ops.one_hot(index, CALIBRATION_BINS, dtype=self.dtype)
        right = ops.cast(ops.equal(answers.answer, answers.truth), self.dtype)
        gaps = (right - ops.cast(confidence, self.dtype)) * weights
        self.gaps.assign_add(ops.matmul(gaps[None, :], bins)[0])
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Any:
        """Returns the error."""
        return ops.divide_no_nan(ops.sum(ops.abs(self.gaps)), self.count)


# Figure -> the metric of Keras that has it.
POSITIVE_CLASS_METRICS: dict[str, Any] = {
    "precision": lambda: keras.metrics.Precision(),
    "recall": lambda: keras.metrics.Recall(),
    # Of a single column, "micro" is the f1 of the positive class.
    "f1": lambda: keras.metrics.F1Score(average="micro", threshold=0.5),
    "auc": lambda: keras.metrics.AUC(),
}


@registered
class PositiveClassMetric(PredictionMetric):
    """Precision, recall, f1 or area under the ROC curve of one class, by Keras' own.

    Keras' AUC adds up 200 thresholds; that of arrays is exact.

    Args:
        figure: `"precision"`, `"recall"`, `"f1"` or `"auc"`.
        encoding: The model's encoding.
        column: What is answered. Defaults to `"gender"`.
        positive: Class id of the positive class. Defaults to 1, male.
        name: Name in the logs. Defaults to the figure.
        dtype: Defaults to Keras' float type.

    Raises:
        ValueError: If there is no such figure, or no head answers the column.
    """

    column = "gender"

    def __init__(
        self,
        figure: str,
        encoding: Encoding | Mapping[str, Any],
        column: str | None = None,
        *,
        positive: int = 1,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        if figure not in POSITIVE_CLASS_METRICS:
            raise ValueError(
                f"Invalid `figure`. Expected one of {sorted(POSITIVE_CLASS_METRICS)}. "
                f"Received: figure={figure!r}."
            )
        super().__init__(encoding, column, name=name or figure, dtype=dtype)
        self.figure, self.positive = figure, positive
        self.inner = POSITIVE_CLASS_METRICS[figure]()
        # F1Score makes its variables when it is first used, which a graph forbids.
        self.inner.update_state(np.zeros((1, 1)), np.zeros((1, 1)))
        self.inner.reset_state()

    def _add(self, answers: Predictions) -> None:
        """Adds the answers about a batch of faces."""
        truth = ops.equal(answers.truth, self.positive)[:, None]
        if self.figure == "auc":
            answer = answers.probabilities[:, self.positive][:, None]
        else:
            answer = ops.equal(answers.answer, self.positive)[:, None]
        self.inner.update_state(
            ops.cast(truth, "float32"), ops.cast(answer, "float32"), answers.weights
        )

    def result(self) -> Any:
        """Returns the figure."""
        return self.inner.result()

    def reset_state(self) -> None:
        """Forgets all faces."""
        self.inner.reset_state()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as plain values."""
        own = {"figure": self.figure, "positive": self.positive}
        return {**super().get_config(), **own}


@dataclass(frozen=True)
class Metric:
    """A row of `METRICS`.

    Attributes:
        of_arrays: Answers about labelled faces -> the figure, `None` if undefined.
        of_keras: Makes the Keras metric from an encoding and a column.
        needs: What a question must have: `"classes"`, `"two classes"`, classes that are
            `"ordered"`, `"ranks"` (heads that ask about them) or `"years"`.
    """

    of_arrays: Callable[[Predictions], float | None]
    of_keras: Callable[..., Any]
    needs: str


def _positive(figure: str) -> Callable[..., Any]:
    return partial(PositiveClassMetric, figure)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy_of, ExactAccuracy, "classes"),
    "balanced_accuracy": Metric(
        balanced_accuracy_of,
        BalancedAccuracy,
        "classes",
    ),
    "negative_log_likelihood": Metric(
        negative_log_likelihood_of,
        NegativeLogLikelihood,
        "classes",
    ),
    "brier_score": Metric(brier_score_of, BrierScore, "classes"),
    "expected_calibration_error": Metric(
        expected_calibration_error_of,
        ExpectedCalibrationError,
        "classes",
    ),
    "precision": Metric(precision_of, _positive("precision"), "two classes"),
    "recall": Metric(recall_of, _positive("recall"), "two classes"),
    "f1": Metric(f1_of, _positive("f1"), "two classes"),
    "auc": Metric(auc_of, _positive("auc"), "two classes"),
    "one_off_accuracy": Metric(one_off_accuracy_of, OneOffAccuracy, "ordered"),
    "mean_absolute_error": Metric(
        mean_absolute_error_of,
        MeanAbsoluteGroupError,
        "ordered",
    ),
    "quadratic_kappa": Metric(quadratic_kappa_of, QuadraticKappa, "ordered"),
    "all_heads_accuracy": Metric(all_heads_accuracy_of, AllHeadsAccuracy, "ranks"),
    "rank_violation_rate": Metric(rank_violation_rate_of, RankViolationRate, "ranks"),
    "mean_absolute_error_years": Metric(mean_absolute_error_of, AgeYearsError, "years"),
    "cumulative_score_5": Metric(cumulative_score_5_of, CumulativeScore, "years"),
}


def score_answers(
    answers: Predictions, names: Iterable[str]
) -> dict[str, float | None]:
    """Returns figures by name, `None` where one is undefined.

    Args:
        answers: Answers about labelled faces, NumPy arrays.
        names: Keys of `METRICS`.
    """
    return {name: METRICS[name].of_arrays(answers) for name in names}


def metric_names(encoding: Encoding, column: str) -> list[str]:
    """Returns the metrics that the answers for a column have.

    Args:
        encoding: An encoding.
        column: As for `find_head`.
    """
    head_type = find_head(encoding, column).spec
    if column == "age_years":
        has = {"years"}
    else:
        head = find_head(encoding, column)
        has = {"classes"}
        if column == "gender" or head.num_values == 2:
            has.add("two classes")
        if column == "age_group" or head_type.ordered:
            has.add("ordered")
        if head_type.ranks:
            has.add("ranks")
    return [name for name, metric in METRICS.items() if metric.needs in has]


def detailed_metrics(encoding: Encoding) -> dict[str, list[Any]]:
    """Returns every metric of every output, for `compile(weighted_metrics=…)`.

    They are what `evaluate` reports, of the decoded answers: for classes exact and
    balanced accuracy, negative log-likelihood, Brier score and expected calibration
    error; of two classes precision, recall, f1 and AUC of class 1 (male); of ordered
    ones one-off accuracy, mean error and quadratic kappa; of questions about ranks
    whether all are right, and how often they contradict each other; of years the mean
    error and CS@5. `Encoding.metrics` are among them, by their names there.

    A face of the joint encoding counts if both its labels are known, as in its loss.
    Several outputs that answer one question (ordinal encodings) only have the latter:
    Keras shows a metric one output at a time. The callback `DecodedMetrics` logs the
    same figures of those, and every class takes dicts of outputs in `update_state`.

    A model saved with its compilation loads where `keras_agegender` is imported, or
    with `compile=False`.

    Args:
        encoding: The model's encoding.

    Example:
    >>> enc = kag.get_encoding("coral")
    >>> [m.name for m in kag.metrics.detailed_metrics(enc)["age"]][-2:]
    ['all_heads_accuracy', 'rank_violation_rate']
    >>> arguments = enc.compile_arguments()
    >>> arguments["weighted_metrics"] = kag.metrics.detailed_metrics(enc)
    >>> model.compile("adam", **arguments)  # doctest: +SKIP
    """
    found = dict(encoding.metrics())
    for head in encoding.heads:
        if len(head.output_names) > 1:
            continue
        for metric in head_metrics(encoding, head):
            if len(encoding.output_names) == 1:  # Keras puts no output's name in front
                metric.name = f"{head.name}_{metric.name}"
            found[head.name] = [*found[head.name], metric]
    return found


def head_metrics(encoding: Encoding, head: Head) -> list[Any]:
    """Returns the metrics of one head's decoded answers, new ones.

    Args:
        encoding: The model's encoding.
        head: One of its heads, of any number of outputs.
    """
    found = []
    for column in _columns(encoding, head):
        for name in metric_names(encoding, column):
            metric = METRICS[name].of_keras(encoding, column)
            if head.columns == ("gender", "age_group"):
                metric.name = f"{column}_{metric.name}"
            found.append(metric)
    return found


def _columns(encoding: Encoding, head: Head) -> tuple[str, ...]:
    """Returns the columns that a head answers with classes or years of age."""
    if head is encoding.age_head and head.spec.in_years:
        return ("age_group", "age_years")
    if head.spec.is_number:
        return ()
    return head.columns
