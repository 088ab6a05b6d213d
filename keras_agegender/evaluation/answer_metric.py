"""Bases of the metrics for `model.compile`: decoded answers, batch by batch.

In: what a loss gets, the targets, outputs and sample weights of a head. Out: the figure
of the decoded answers, over all faces since the last reset. All is `keras.ops`, so that
it runs eagerly, in graphs and on every backend. Where a figure is undefined it is 0, as
of Keras' own metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.evaluation.answers import Answers, find_head, read_answers

ARGUMENTS = """
    Args:
        encoding: The model's encoding.
        column: What is answered. Defaults to `"{column}"`; others are the columns of
            the encoding's heads that fit. See `detailed_metrics`.
        name: Name in the logs. Defaults to `"{name}"`.
        dtype: Defaults to Keras' float type.
"""


def registered(metric: type[AnswerMetric]) -> type[AnswerMetric]:
    """Registers a metric with Keras and documents the arguments that all have."""
    doc = metric.__doc__ or ""
    if "Args:" not in doc:
        given = ARGUMENTS.format(column=metric.column, name=metric.logged)
        metric.__doc__ = doc.rstrip() + "\n" + given
    register = keras.saving.register_keras_serializable(package="keras_agegender")
    return register(metric)


class AnswerMetric(keras.metrics.Metric):
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

    def _add(self, answers: Answers) -> None:
        """Adds the answers about a batch of faces."""
        raise NotImplementedError

    def _zeros(self, name: str, *shape: int) -> Any:
        return self.add_variable(shape, initializer="zeros", name=name)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as plain values."""
        given = {"encoding": self.encoding.to_dict(), "column": self.column}
        return {**super().get_config(), **given}


class FaceMean(AnswerMetric):
    """Base of means over faces; subclasses have `_of_faces`."""

    def _add_variables(self) -> None:
        self.total, self.count = self._zeros("total"), self._zeros("count")

    def _of_faces(self, answers: Answers) -> Any:
        """Returns the figure of each face. Shape (batch,)."""
        raise NotImplementedError

    def _add(self, answers: Answers) -> None:
        """Adds the answers about a batch of faces."""
        weights = ops.cast(answers.weights, self.dtype)
        values = ops.cast(self._of_faces(answers), self.dtype)
        self.total.assign_add(ops.sum(values * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Any:
        """Returns the mean over the faces that count; 0 of none."""
        return ops.divide_no_nan(self.total, self.count)
