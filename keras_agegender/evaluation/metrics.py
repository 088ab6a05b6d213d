"""Scores: true labels and decoded answers become figures, for people and for files.

In: age-group and gender ids (-1 where unknown) and a `Decoded`. Out: an `Evaluation`.
A face without a label does not count for that figure, and how many there were is part
of the result. A figure without a single face behind it is `None`, not 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from keras_agegender.encodings.encoding import Decoded
from keras_agegender.evaluation.metrics_table import metrics_table
from keras_agegender.evaluation.scores import AgeScores, Evaluation, GenderScores
from keras_agegender.labels import AGE_GROUP_NAMES, GENDERS, MISSING

NUM_GROUPS = len(AGE_GROUP_NAMES)

__all__ = [
    "Evaluation",
    "confusion_matrix",
    "evaluate_predictions",
    "format_metrics",
]


def evaluate_predictions(
    age_group_true: Any,
    gender_true: Any,
    decoded: Decoded,
    *,
    positive_gender: str = "male",
    separate_age_heads: bool = False,
    extra: Mapping[str, tuple[str, Any, Any]] | None = None,
) -> Evaluation:
    """Scores decoded answers.

    Args:
        age_group_true: Age-group ids in [0, 8), -1 where unknown. Shape (num_faces,).
        gender_true: Gender ids, 0 female, 1 male, -1 where unknown. Shape (num_faces,).
        decoded: NumPy arrays from `Encoding.decode`.
        positive_gender: Positive class of precision, recall and f1: `"male"` (default,
            as the report's Caffe rows) or `"female"` (as its ResNet rows).
        separate_age_heads: Whether several heads answer for age (ordinal encodings), so
            that the share with all of them right is reported. Defaults to `False`.
        extra: Name of a further output -> `(kind, y_true, y_pred)`, with labels of
            shape (num_faces,), -1 or NaN where unknown, and predictions of shape
            (num_faces, units).

    Returns:
        The scores.

    Raises:
        ValueError: If shapes disagree or an id is out of range.

    Example:
    >>> decoded = Decoded(None, None, np.array([1, 0, 1]), None, None)
    >>> scores = evaluate_predictions([-1] * 3, [1, 0, 0], decoded)
    >>> scores.gender.precision, scores.gender.recall
    (0.5, 1.0)
    """
    if positive_gender not in GENDERS:
        raise ValueError(
            f"Invalid `positive_gender`. Expected one of {GENDERS}. "
            f"Received: positive_gender={positive_gender!r}."
        )
    ages = _checked_ids(age_group_true, NUM_GROUPS, "age_group_true")
    genders = _checked_ids(gender_true, len(GENDERS), "gender_true")
    _check_shape(genders, ages, "gender_true")
    gender = age = None
    if decoded.gender is not None:
        answers = _checked_ids(decoded.gender, len(GENDERS), "decoded.gender", lowest=0)
        _check_shape(answers, genders, "decoded.gender")
        gender = _score_gender(genders, answers, positive_gender)
    if decoded.age_group is not None:
        groups = _checked_ids(decoded.age_group, NUM_GROUPS, "decoded.age_group", 0)
        _check_shape(groups, ages, "decoded.age_group")
        agree = np.asarray(decoded.heads_agree, bool) if separate_age_heads else None
        age = _score_age(ages, groups, agree)
    further = {
        name: _score_extra(name, kind, y_true, y_pred, len(ages))
        for name, (kind, y_true, y_pred) in (extra or {}).items()
    }
    return Evaluation(
        num_faces=len(ages),
        gender=gender,
        age=age,
        mean_accuracy=_mean_known([s.accuracy for s in (gender, age) if s]),
        cells=_cells(ages, genders, decoded),
        extra=further,
        extra_mean_accuracy=_mean_known([s.get("accuracy") for s in further.values()]),
    )


def format_metrics(metrics: Evaluation | Mapping[str, Any]) -> str:
    """Returns scores as a table for people.

    Args:
        metrics: An `Evaluation`, or what `metrics.json` holds.
    """
    return metrics_table(
        metrics.to_dict() if isinstance(metrics, Evaluation) else metrics
    )


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


def _score_gender(
    y_true: np.ndarray, y_pred: np.ndarray, positive: str
) -> GenderScores:
    counts = confusion_matrix(y_true, y_pred, len(GENDERS))
    known = y_true != MISSING
    scores = _class_scores(y_true[known], y_pred[known], len(GENDERS))
    by_positive = dict(zip(GENDERS, scores, strict=True))
    total = int(known.sum())
    return GenderScores(
        num_faces=total,
        num_unlabelled=len(y_true) - total,
        accuracy=_mean((y_true == y_pred)[known]),
        balanced_accuracy=_mean_known([s["recall"] for s in scores]),
        positive=positive,
        **by_positive[positive],
        by_positive=by_positive,
        confusion=counts.tolist(),
    )


def _class_scores(
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


def _quadratic_kappa(y_true: np.ndarray, y_pred: np.ndarray) -> float | None:
    """Returns Cohen's kappa, disagreement weighted by its square; `None` of one class.

    Where truth and answers are one and the same class, chance cannot disagree either.
    """
    if len(np.union1d(y_true, y_pred)) < 2:
        return None
    kappa = sklearn_metrics.cohen_kappa_score(
        y_true, y_pred, labels=np.arange(NUM_GROUPS), weights="quadratic"
    )
    return _number(kappa)


def _score_age(
    y_true: np.ndarray, y_pred: np.ndarray, heads_agree: np.ndarray | None
) -> AgeScores:
    known = y_true != MISSING
    counts = confusion_matrix(y_true, y_pred, NUM_GROUPS)
    errors = np.abs(y_pred - y_true)[known]
    scores = _class_scores(y_true[known], y_pred[known], NUM_GROUPS)
    all_heads = None
    if heads_agree is not None:
        _check_shape(heads_agree, y_true, "decoded.heads_agree")
        # Heads that agree all describe the decoded group: all of them are right if and
        # only if that group is.
        all_heads = _mean(((y_pred == y_true) & heads_agree)[known])
    groups = []
    for index, name in enumerate(AGE_GROUP_NAMES):
        there = int(counts[index].sum())
        groups.append(
            {
                "name": name,
                "num_faces": there,
                "num_answered": int(counts[:, index].sum()),
                "recall": scores[index]["recall"],
                "mean_absolute_error": _mean(errors[y_true[known] == index]),
            }
        )
    return AgeScores(
        num_faces=int(known.sum()),
        num_unlabelled=int((~known).sum()),
        accuracy=_mean(errors == 0),
        balanced_accuracy=_mean_known([s["recall"] for s in scores]),
        quadratic_kappa=_quadratic_kappa(y_true[known], y_pred[known]),
        all_heads_accuracy=all_heads,
        one_off_accuracy=_mean(errors <= 1),
        mean_absolute_error=_mean(errors),
        groups=groups,
        confusion=counts.tolist(),
    )


def _cells(
    ages: np.ndarray, genders: np.ndarray, decoded: Decoded
) -> list[dict[str, Any]]:
    """Returns accuracies per age group and gender."""
    cells = []
    for group, group_name in enumerate(AGE_GROUP_NAMES):
        for gender, gender_name in enumerate(GENDERS):
            there = (ages == group) & (genders == gender)
            cell: dict[str, Any] = {
                "age_group": group_name,
                "gender": gender_name,
                "num_faces": int(there.sum()),
                "age_accuracy": None,
                "gender_accuracy": None,
            }
            if decoded.age_group is not None:
                right = np.asarray(decoded.age_group)[there] == group
                cell["age_accuracy"] = _mean(right)
            if decoded.gender is not None:
                right = np.asarray(decoded.gender)[there] == gender
                cell["gender_accuracy"] = _mean(right)
            cells.append(cell)
    return cells


def _score_extra(
    name: str, kind: str, y_true: Any, y_pred: Any, num_faces: int
) -> dict[str, Any]:
    truth = np.asarray(y_true, "float64").reshape(-1)
    outputs = np.asarray(y_pred, "float64")
    outputs = outputs[:, np.newaxis] if outputs.ndim == 1 else outputs
    if len(truth) != num_faces or len(outputs) != num_faces:
        raise ValueError(
            f"Invalid `extra` output {name!r}. Expected {num_faces} labels and "
            f"predictions. Received: {len(truth)} labels, {len(outputs)} predictions."
        )
    known = ~np.isnan(truth)
    if kind != "regression":
        known &= truth != MISSING
    scores = {
        "kind": kind,
        "num_faces": int(known.sum()),
        "num_unlabelled": int((~known).sum()),
    }
    if kind == "regression":
        scores["mean_absolute_error"] = _mean(np.abs(outputs[:, 0] - truth)[known])
    elif kind == "categorical":
        scores["accuracy"] = _mean((outputs.argmax(axis=1) == truth)[known])
    else:
        scores["accuracy"] = _mean(((outputs[:, 0] > 0.5) == truth)[known])
    return scores


def _checked_ids(ids: Any, num_classes: int, name: str, lowest: int = MISSING) -> Any:
    ids = np.asarray(ids)
    wrong = ~np.isin(ids, np.arange(lowest, num_classes))
    if ids.ndim != 1 or wrong.any():
        received = f"shape {ids.shape}" if ids.ndim != 1 else f"{ids[wrong][0]}"
        raise ValueError(
            f"Invalid `{name}`. Expected ids in [{lowest}, {num_classes}) of shape "
            f"(num_faces,). Received: {received}."
        )
    return ids.astype("int64")


def _check_shape(values: np.ndarray, expected: np.ndarray, name: str) -> None:
    if values.shape != expected.shape:
        raise ValueError(
            f"Invalid `{name}`. Expected shape {expected.shape}, one entry for each "
            f"face. Received: shape {values.shape}."
        )


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
