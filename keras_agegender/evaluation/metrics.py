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
from keras_agegender.evaluation.array_metrics import mean
from keras_agegender.evaluation.class_scores import confusion_matrix
from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.metrics_table import metrics_table
from keras_agegender.evaluation.question_scores import (
    check_shape,
    score_age,
    score_gender,
)
from keras_agegender.evaluation.scores import Evaluation
from keras_agegender.labels import (
    ADIENCE_AGE_GROUPS,
    GENDERS,
    MISSING,
    AgeGroups,
)

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
    subjects: Any = None,
) -> Evaluation:
    """Scores decoded answers.

    Args:
        age_group_true: Age-group ids, -1 where unknown. Shape (num_faces,).
        gender_true: Gender ids, 0 female, 1 male, -1 where unknown. Shape (num_faces,).
        decoded: NumPy arrays from `Encoding.decode`.
        positive_gender: Positive class of precision, recall and f1: `"male"` (default,
            as the report's Caffe rows) or `"female"` (as its ResNet rows).
        separate_age_heads: Whether age is answered by questions about ranks (ordinal,
            coral, corn), so that the share with all of them right is of interest.
            Defaults to `False`.
        extra: Name of a further head -> `(kind, y_true, y_pred)`, with labels, -1 or
            NaN where unknown, and answers as `Encoding.answer` has them. Shape
            (num_faces,) each.
        age_groups: What age-group ids stand for. Defaults to Adience's eight.
        age_years_true: Ages in years, -1 where unknown, for errors in years; `None`
            (default) where nobody knows them. Shape (num_faces,).
        subjects: Who is on each face, `""` where unknown (a person of its own), for
            95 % intervals over people; `None` (default) gives none. Shape (num_faces,).

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
    check_shape(genders, ages, "gender_true")
    clusters = None
    if subjects is not None:
        check_shape(np.asarray(subjects), ages, "subjects")
        clusters = Clusters.of(subjects)
    gender = age = None
    if decoded.gender is not None:
        answers = _checked_ids(decoded.gender, len(GENDERS), "decoded.gender", lowest=0)
        check_shape(answers, genders, "decoded.gender")
        gender = score_gender(genders, decoded, answers, positive_gender, clusters)
    if decoded.age_group is not None:
        groups = _checked_ids(
            decoded.age_group, len(age_groups), "decoded.age_group", 0
        )
        check_shape(groups, ages, "decoded.age_group")
        age = score_age(
            ages,
            decoded,
            groups,
            separate_age_heads,
            age_groups,
            age_years_true,
            clusters,
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
                cell["age_accuracy"] = mean(right)
            if decoded.gender is not None:
                right = np.asarray(decoded.gender)[there] == gender
                cell["gender_accuracy"] = mean(right)
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
        scores["mean_absolute_error"] = mean(np.abs(answers - truth)[known])
    if kind not in ("regression", "years"):
        scores["accuracy"] = mean((answers == truth)[known])
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


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
