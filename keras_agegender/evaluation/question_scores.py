"""Scores of one question: ids and answers become `GenderScores` and `AgeScores`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.evaluation.answers import Answers
from keras_agegender.evaluation.array_metrics import mean
from keras_agegender.evaluation.class_scores import class_scores, confusion_matrix
from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.detailed_metrics import score_answers
from keras_agegender.evaluation.metric_intervals import interval_ends
from keras_agegender.evaluation.scores import AgeScores, GenderScores
from keras_agegender.labels import GENDERS, MISSING, AgeGroups

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


def score_gender(
    y_true: np.ndarray,
    decoded: Decoded,
    y_pred: np.ndarray,
    positive: str,
    clusters: Clusters | None = None,
) -> GenderScores:
    """Returns the scores of gender.

    Args:
        y_true: Gender ids, -1 where unknown. Shape (num_faces,).
        decoded: What the model says.
        y_pred: The gender ids in it, checked. Shape (num_faces,).
        positive: Positive class of precision, recall, f1 and AUC.
        clusters: Whose faces they are; `None` (default) gives no intervals.
    """
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
        intervals=interval_ends(
            answers,
            (*GENDER_METRICS, "precision", "recall", "f1"),
            clusters and clusters.select(known),
        ),
    )


def score_age(
    y_true: np.ndarray,
    decoded: Decoded,
    y_pred: np.ndarray,
    separate_heads: bool,
    age_groups: AgeGroups,
    years_true: Any,
    clusters: Clusters | None = None,
) -> AgeScores:
    """Returns the scores of age.

    Args:
        y_true: Age-group ids, -1 where unknown. Shape (num_faces,).
        decoded: What the model says.
        y_pred: The age-group ids in it, checked. Shape (num_faces,).
        separate_heads: Whether questions about ranks answer for age.
        age_groups: What age-group ids stand for.
        years_true: Ages in years, -1 where unknown, or `None`. Shape (num_faces,).
        clusters: Whose faces they are; `None` (default) gives no intervals.
    """
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
        agree=agree.astype(bool)[known]
        if separate_heads and agree is not None
        else None,
        median=(y_pred if median is None else median)[known],
    )
    majority = _majority(answers, age_groups.names, AGE_CLASS_METRICS)
    years = _score_years(years_true, decoded.age_years, len(y_true))
    intervals = interval_ends(answers, AGE_METRICS, clusters and clusters.select(known))
    intervals |= _year_intervals(years_true, decoded.age_years, clusters)
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
        intervals=intervals,
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
            "mean_absolute_error": mean(errors[answers.truth == index]),
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
    check_shape(np.asarray(y_pred), truth, "decoded.age_years")
    answers = Answers(truth[known], np.asarray(y_pred, "float64")[known])
    figures = score_answers(answers, YEARS_METRICS)
    return {"num_faces_with_years": int(known.sum()), **figures}


def _year_intervals(
    y_true: Any, y_pred: Any, clusters: Clusters | None
) -> dict[str, tuple[float, float]]:
    """Returns the intervals of the errors in years, if ages in years are known."""
    if y_true is None or y_pred is None or clusters is None:
        return {}
    truth = np.asarray(y_true)
    known = truth >= 0
    answers = Answers(truth[known], np.asarray(y_pred, "float64")[known])
    return interval_ends(answers, YEARS_METRICS, clusters.select(known))


def _values(values: Any, expected: np.ndarray, name: str) -> Any:
    """Returns an array with an entry for each face; `None` stays."""
    if values is None:
        return None
    values = np.asarray(values)
    check_shape(values[..., 0] if values.ndim > 1 else values, expected, name)
    return values


def check_shape(values: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Raises ValueError unless there is an entry for each face."""
    if values.shape != expected.shape:
        raise ValueError(
            f"Invalid `{name}`. Expected shape {expected.shape}, one entry for each "
            f"face. Received: shape {values.shape}."
        )
