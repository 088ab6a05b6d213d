"""Metrics for `model.compile` that no mean over faces is: they follow from counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.evaluation.answer_metric import AnswerMetric, registered
from keras_agegender.evaluation.answers import Answers
from keras_agegender.evaluation.array_metrics import CALIBRATION_BINS
from keras_agegender.labels import GENDERS


class ConfusionMetric(AnswerMetric):
    """Base of figures that follow from the counts of truths and answers."""

    def _add_variables(self) -> None:
        classes = self._num_classes()
        self.confusion = self._zeros("confusion", classes, classes)

    def _num_classes(self) -> int:
        if self.column == "age_group":
            return len(self.encoding.age_groups)
        return len(GENDERS) if self.column == "gender" else self.head.num_values

    def _add(self, answers: Answers) -> None:
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
class ExpectedCalibrationError(AnswerMetric):
    """Mean distance between confidence and accuracy, over 15 bins of equal width.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    logged = "expected_calibration_error"

    def _add_variables(self) -> None:
        self.gaps = self._zeros("gaps", CALIBRATION_BINS)
        self.count = self._zeros("count")

    def _add(self, answers: Answers) -> None:
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
class PositiveClassMetric(AnswerMetric):
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

    def _add(self, answers: Answers) -> None:
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
