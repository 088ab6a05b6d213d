"""Scores: true labels and decoded answers become figures, for people and for files.

In: age-group and gender ids (-1 where unknown) and a `Decoded`. Out: an `Evaluation`.
A face without a label does not count for that figure, and how many there were is part
of the result. A figure without a single face behind it is `None`, not 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.evaluation.class_scores import (
    class_scores,
    confusion_matrix,
    quadratic_kappa,
)
from keras_agegender.evaluation.metrics_table import metrics_table
from keras_agegender.evaluation.scores import AgeScores, Evaluation, GenderScores
from keras_agegender.labels import (
    ADIENCE_AGE_GROUPS,
    GENDERS,
    MISSING,
    AgeGroups,
)

# Years within which an answer counts for CS@5 (Chang et al. 2011, Niu et al. 2016).
CUMULATIVE_SCORE_YEARS = 5

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
    age_groups: AgeGroups = ADIENCE_AGE_GROUPS,
    age_years_true: Any = None,
) -> Evaluation:
    """Scores decoded answers.

    Args:
        age_group_true: Age-group ids, -1 where unknown. Shape (num_faces,).
        gender_true: Gender ids, 0 female, 1 male, -1 where unknown. Shape (num_faces,).
        decoded: NumPy arrays from `Encoding.decode`.
        positive_gender: Positive class of precision, recall and f1: `"male"` (default,
            as the report's Caffe rows) or `"female"` (as its ResNet rows).
        separate_age_heads: Whether several heads answer for age (ordinal encodings), so
            that the share with all of them right is of interest. Defaults to `False`.
        extra: Name of a further head -> `(kind, y_true, y_pred)`, with labels, -1 or
            NaN where unknown, and answers as `Encoding.answer` has them. Shape
            (num_faces,) each.
        age_groups: What age-group ids stand for. Defaults to Adience's eight.
        age_years_true: Ages in years, -1 where unknown, for errors in years; `None`
            (default) where nobody knows them. Shape (num_faces,).

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
    ages = _checked_ids(age_group_true, len(age_groups), "age_group_true")
    genders = _checked_ids(gender_true, len(GENDERS), "gender_true")
    _check_shape(genders, ages, "gender_true")
    gender = age = None
    if decoded.gender is not None:
        answers = _checked_ids(decoded.gender, len(GENDERS), "decoded.gender", lowest=0)
        _check_shape(answers, genders, "decoded.gender")
        gender = _score_gender(genders, answers, positive_gender)
    if decoded.age_group is not None:
        groups = _checked_ids(
            decoded.age_group, len(age_groups), "decoded.age_group", 0
        )
        _check_shape(groups, ages, "decoded.age_group")
        agree = np.asarray(decoded.heads_agree, bool) if separate_age_heads else None
        median = decoded.median_age_group
        counted = groups if median is None else np.asarray(median)
        years = _score_years(age_years_true, decoded.age_years, len(ages))
        age = _score_age(ages, groups, counted, agree, age_groups, years)
    further = {
        name: _score_extra(name, kind, y_true, y_pred, len(ages))
        for name, (kind, y_true, y_pred) in (extra or {}).items()
    }
    return Evaluation(
        num_faces=len(ages),
        gender=gender,
        age=age,
        mean_accuracy=_mean_known([s.accuracy for s in (gender, age) if s]),
        cells=_cells(ages, genders, decoded, age_groups),
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


def _score_gender(
    y_true: np.ndarray, y_pred: np.ndarray, positive: str
) -> GenderScores:
    counts = confusion_matrix(y_true, y_pred, len(GENDERS))
    known = y_true != MISSING
    scores = class_scores(y_true[known], y_pred[known], len(GENDERS))
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


def _score_age(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    counted: np.ndarray,
    heads_agree: np.ndarray | None,
    age_groups: AgeGroups,
    years: Mapping[str, Any],
) -> AgeScores:
    num_groups = len(age_groups)
    known = y_true != MISSING
    counts = confusion_matrix(y_true, y_pred, num_groups)
    errors = np.abs(y_pred - y_true)[known]
    scores = class_scores(y_true[known], y_pred[known], num_groups)
    all_heads = None
    if heads_agree is not None:
        _check_shape(heads_agree, y_true, "decoded.heads_agree")
        # Heads that tell the story of one group all answer right if and only if it is
        # the true one.
        all_heads = _mean(((counted == y_true) & heads_agree)[known])
    groups = []
    for index, name in enumerate(age_groups.names):
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
        quadratic_kappa=quadratic_kappa(y_true[known], y_pred[known], num_groups),
        all_heads_accuracy=all_heads,
        one_off_accuracy=_mean(errors <= 1),
        mean_absolute_error=_mean(errors),
        **years,
        groups=groups,
        confusion=counts.tolist(),
    )


def _score_years(y_true: Any, y_pred: Any, num_faces: int) -> dict[str, Any]:
    """Returns the errors in years, `None` where no face has an age in years."""
    truth = np.full(num_faces, MISSING) if y_true is None else np.asarray(y_true)
    known = truth >= 0
    if y_pred is None or not known.any():
        return {"num_faces_with_years": 0}
    _check_shape(np.asarray(y_pred), truth, "decoded.age_years")
    errors = np.abs(np.asarray(y_pred, "float64") - truth)[known]
    return {
        "num_faces_with_years": int(known.sum()),
        "mean_absolute_error_years": _mean(errors),
        "cumulative_score_5": _mean(errors <= CUMULATIVE_SCORE_YEARS),
    }


def _cells(
    ages: np.ndarray, genders: np.ndarray, decoded: Decoded, age_groups: AgeGroups
) -> list[dict[str, Any]]:
    """Returns accuracies per age group and gender."""
    cells = []
    for group, group_name in enumerate(age_groups.names):
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
    answers = np.asarray(y_pred, "float64").reshape(-1)
    if len(truth) != num_faces or len(answers) != num_faces:
        raise ValueError(
            f"Invalid `extra` output {name!r}. Expected {num_faces} labels and "
            f"answers. Received: {len(truth)} labels, {len(answers)} answers."
        )
    known = ~np.isnan(truth)
    if kind != "regression":
        known &= truth != MISSING
    scores = {
        "kind": kind,
        "num_faces": int(known.sum()),
        "num_unlabelled": int((~known).sum()),
    }
    if KINDS[kind].ordered:
        scores["mean_absolute_error"] = _mean(np.abs(answers - truth)[known])
    if kind not in ("regression", "years"):
        scores["accuracy"] = _mean((answers == truth)[known])
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


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
