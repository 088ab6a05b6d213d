"""Scores of classes, as scikit-learn computes them, `None` where they are undefined."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from keras_agegender.labels import MISSING


def confusion_matrix(y_true: Any, y_pred: Any, num_classes: int) -> np.ndarray:
    """Counts faces by true (row) and answered (column) class id; -1 does not count.

    Returns:
        Counts. Shape (num_classes, num_classes), int64.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    known = y_true != MISSING
    if not known.any():
        return np.zeros((num_classes, num_classes), "int64")
    return sklearn_metrics.confusion_matrix(
        y_true[known], y_pred[known], labels=np.arange(num_classes)
    )


def class_scores(
    y_true: np.ndarray, y_pred: np.ndarray, num_classes: int
) -> list[dict[str, float | None]]:
    """Returns precision, recall and f1 of every class, `None` where undefined."""
    names = ("precision", "recall", "f1")
    if not len(y_true):
        return [dict.fromkeys(names) for _ in range(num_classes)]
    figures = sklearn_metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=np.arange(num_classes), zero_division=np.nan
    )[:3]
    return [
        {name: _number(values[k]) for name, values in zip(names, figures, strict=True)}
        for k in range(num_classes)
    ]


def quadratic_kappa(
    y_true: np.ndarray, y_pred: np.ndarray, num_classes: int
) -> float | None:
    """Returns Cohen's kappa, disagreement weighted by its square; `None` of one class.

    Where truth and answers are one and the same class, chance cannot disagree either.
    """
    if len(np.union1d(y_true, y_pred)) < 2:
        return None
    kappa = sklearn_metrics.cohen_kappa_score(
        y_true, y_pred, labels=np.arange(num_classes), weights="quadratic"
    )
    return _number(kappa)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
