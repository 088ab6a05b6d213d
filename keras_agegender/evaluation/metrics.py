"""Scores: true labels and decoded answers become figures, for people and for files.

In: age-group and gender ids (-1 where unknown) and a `Decoded`. Out: an `Evaluation`.
A face without a label does not count for that figure, and how many there were is part
of the result. A figure without a single face behind it is `None`, not 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.evaluation.answers import Answers
from keras_agegender.evaluation.class_scores import class_scores, confusion_matrix
from keras_agegender.evaluation.detailed_metrics import score_answers
from keras_agegender.evaluation.metrics_table import metrics_table
from keras_agegender.evaluation.scores import AgeScores, Evaluation, GenderScores
from keras_agegender.labels import (
    ADIENCE_AGE_GROUPS,
    GENDERS,
    MISSING,
    AgeGroups,
)

# Fields of the scores that are rows of `METRICS`.
PROBABILITY_METRICS = (
    "negative_log_likelihood",
    "brier_score",
    "expected_calibration_error",
)
GENDER_METRICS = ("accuracy", "balanced_accuracy", "auc", *PROBABILITY_METRICS)
AGE_CLASS_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "one_off_accuracy",
    "mean_absolute_error",
)
AGE_METRICS = (
    *AGE_CLASS_METRICS,
    "quadratic_kappa",
    "all_heads_accuracy",
    "rank_violation_rate",
    *PROBABILITY_METRICS,
)
YEARS_METRICS = ("mean_absolute_error_years", "cumulative_score_5")

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
        gender = _score_gender(genders, decoded, answers, positive_gender)
    if decoded.age_group is not None:
        groups = _checked_ids(
            decoded.age_group, len(age_groups), "decoded.age_group", 0
        )
        _check_shape(groups, ages, "decoded.age_group")
        age = _score_age(
            ages, decoded, groups, separate_age_heads, age_groups, age_years_true
        )
    further = {
        name: _score_extra(name, kind, y_true, y_pred, len(ages))
        for name, (kind, y_true, y_pred) in (extra or {}).items()
    }
    return Evaluation(
        num_faces=len(ages),
        gender=gender,
        age=age,
        mean_accuracy=_mean_known([s.accuracy for s in (gender, age) if s]),
        majority_mean_accuracy=_mean_known(
            [s.majority.get("accuracy") for s in (gender, age) if s]
        ),
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
    y_true: np.ndarray, decoded: Decoded, y_pred: np.ndarray, positive: str
) -> GenderScores:
    known = y_true != MISSING
    male = _values(decoded.gender_probability, y_true, "decoded.gender_probability")
    answers = Answers(
        y_true[known],
        y_pred[known],
        len(GENDERS),
        None if male is None else np.stack([1.0 - male, male], axis=-1)[known],
        GENDERS.index(positive),
    )
    scores = class_scores(answers.truth, answers.answer, len(GENDERS))
    by_positive = dict(zip(GENDERS, scores, strict=True))
    figures: dict[str, Any] = score_answers(answers, GENDER_METRICS)
    return GenderScores(
        num_faces=int(known.sum()),
        num_unlabelled=int((~known).sum()),
        positive=positive,
        **by_positive[positive],
        **figures,
        by_positive=by_positive,
        confusion=confusion_matrix(y_true, y_pred, len(GENDERS)).tolist(),
        majority=_majority(answers, GENDERS, ("accuracy", "balanced_accuracy")),
    )


def _score_age(
    y_true: np.ndarray,
    decoded: Decoded,
    y_pred: np.ndarray,
    separate_heads: bool,
    age_groups: AgeGroups,
    years_true: Any,
) -> AgeScores:
    num_groups = len(age_groups)
    known = y_true != MISSING
    counts = confusion_matrix(y_true, y_pred, num_groups)
    agree = _values(decoded.heads_agree, y_true, "decoded.heads_agree")
    median = _values(decoded.median_age_group, y_true, "decoded.median_age_group")
    chances = _values(decoded.age_probabilities, y_true, "decoded.age_probabilities")
    answers = Answers(
        y_true[known],
        y_pred[known],
        num_groups,
        None if chances is None else chances[known],
        agree=agree.astype(bool)[known] if separate_heads else None,
        median=(y_pred if median is None else median)[known],
    )
    majority = _majority(answers, age_groups.names, AGE_CLASS_METRICS)
    years = _score_years(years_true, decoded.age_years, len(y_true))
    if years["num_faces_with_years"] and majority:
        center = age_groups.centers[age_groups.names.index(majority["answer"])]
        constant = np.full(len(y_true), center)
        majority |= _score_years(years_true, constant, len(y_true))
        del majority["num_faces_with_years"]
    figures: dict[str, Any] = score_answers(answers, AGE_METRICS)
    return AgeScores(
        num_faces=int(known.sum()),
        num_unlabelled=int((~known).sum()),
        **figures,
        **years,
        groups=_groups(answers, counts, age_groups),
        confusion=counts.tolist(),
        majority=majority,
    )


def _groups(
    answers: Answers, counts: np.ndarray, age_groups: AgeGroups
) -> list[dict[str, Any]]:
    """Returns the scores of each age group."""
    errors = np.abs(answers.answer - answers.truth)
    scores = class_scores(answers.truth, answers.answer, len(age_groups))
    return [
        {
            "name": name,
            "num_faces": int(counts[index].sum()),
            "num_answered": int(counts[:, index].sum()),
            "recall": scores[index]["recall"],
            "mean_absolute_error": _mean(errors[answers.truth == index]),
        }
        for index, name in enumerate(age_groups.names)
    ]


def _majority(
    answers: Answers, names: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    """Returns what always answering the commonest class scores; nothing of no face."""
    if not len(answers.truth):
        return {}
    commonest = int(np.bincount(answers.truth).argmax())
    constant = answers._replace(answer=np.full_like(answers.truth, commonest))
    return {"answer": names[commonest], **score_answers(constant, metrics)}


def _score_years(y_true: Any, y_pred: Any, num_faces: int) -> dict[str, Any]:
    """Returns the errors in years, `None` where no face has an age in years."""
    truth = np.full(num_faces, MISSING) if y_true is None else np.asarray(y_true)
    known = truth >= 0
    if y_pred is None or not known.any():
        return {"num_faces_with_years": 0}
    _check_shape(np.asarray(y_pred), truth, "decoded.age_years")
    answers = Answers(truth[known], np.asarray(y_pred, "float64")[known])
    figures = score_answers(answers, YEARS_METRICS)
    return {"num_faces_with_years": int(known.sum()), **figures}


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
        counts = np.unique(truth[known], return_counts=True)[1]
        commonest = float(counts.max() / counts.sum()) if len(counts) else None
        scores["majority_accuracy"] = commonest
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


def _values(values: Any, expected: np.ndarray, name: str) -> Any:
    """Returns an array with an entry for each face; `None` stays."""
    if values is None:
        return None
    values = np.asarray(values)
    _check_shape(values[..., 0] if values.ndim > 1 else values, expected, name)
    return values


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
