"""Tables of a report: what metrics.json says, as rows for people and for CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_agegender.evaluation.group_lines import scored_questions
from keras_agegender.evaluation.groups import few_further, group_title
from keras_agegender.evaluation.question_answers import QuestionAnswers
from keras_agegender.labels import GENDERS, MISSING

MOST_CLASSES = 20  # a larger confusion matrix is no table that anybody reads
# "Blues" from white to its dark end, as `plot_confusion_matrices` has it.
_DARKEST, _WHITE_TEXT = (8, 69, 148), 0.55


class Figure(NamedTuple):
    """A figure of metrics.json: its name there, what it is called, which is better."""

    name: str
    title: str
    lower_is_better: bool = False


_PROBABILITIES = (
    Figure("negative_log_likelihood", "−log likelihood", True),
    Figure("brier_score", "Brier score", True),
    Figure("expected_calibration_error", "calibration error (ECE)", True),
)
FIGURES: dict[str, tuple[Figure, ...]] = {
    "gender": (
        Figure("accuracy", "accuracy"),
        Figure("balanced_accuracy", "mean recall of the classes"),
        Figure("f1", "F1"),
        Figure("auc", "area under the ROC curve"),
        *_PROBABILITIES,
    ),
    "age": (
        Figure("accuracy", "accuracy"),
        Figure("balanced_accuracy", "mean recall of the classes"),
        Figure("one_off_accuracy", "right or a neighboring group"),
        Figure("all_heads_accuracy", "all age heads right"),
        Figure("quadratic_kappa", "quadratic kappa"),
        Figure("mean_absolute_error", "mean error in groups", True),
        Figure("mean_absolute_error_years", "mean error in years", True),
        Figure("cumulative_score_5", "within 5 years"),
        Figure("rank_violation_rate", "age heads contradict each other", True),
        *_PROBABILITIES,
    ),
}


def score_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Returns every score beside what always giving the commonest answer would reach.

    Args:
        metrics: What metrics.json holds.

    Returns:
        `question`, `figure`, `value`, `low` and `high` (95 % over people; NaN where
        there is no interval), `majority` (NaN where that has no such figure),
        `majority_answer`, `beaten` (whether the model is better; `None` where there is
        nothing to compare) and `num_faces`.
    """
    rows = []
    for question, figures in FIGURES.items():
        scores = metrics.get(question)
        if not scores:
            continue
        majority = scores.get("majority") or {}
        for name, title, lower in figures:
            if scores.get(name) is None:
                continue
            faces = "num_faces_with_years" if "years" in title else "num_faces"
            if name == "f1":
                title = f"{title} of {scores['positive']}"
            rows.append(
                _score_row(
                    "age group" if question == "age" else question,
                    title,
                    scores[name],
                    majority.get(name),
                    majority.get("answer", ""),
                    lower,
                    scores[faces],
                    (scores.get("intervals") or {}).get(name),
                )
            )
    for name, scores in (metrics.get("extra") or {}).items():
        for figure, title, lower in (
            ("accuracy", "accuracy", False),
            ("mean_absolute_error", "mean error", True),
        ):
            if scores.get(figure) is None:
                continue
            majority = scores.get("majority_accuracy") if not lower else None
            rows.append(
                _score_row(
                    name,
                    title,
                    scores[figure],
                    majority,
                    "",
                    lower,
                    scores["num_faces"],
                )
            )
    columns = [
        "question", "figure", "value", "low", "high", "majority", "majority_answer",
        "beaten", "num_faces",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _score_row(
    question: str,
    title: str,
    value: float,
    majority: float | None,
    answer: str,
    lower: bool,
    faces: int,
    interval: Sequence[float] | None = None,
) -> tuple[Any, ...]:
    beaten = None
    if majority is not None:
        beaten = value < majority if lower else value > majority
    ends = (None, None) if interval is None else tuple(interval)
    return question, title, value, *ends, majority, answer, beaten, faces


def group_table(columns: str, found: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the groups of one grouping, the worst first.

    Args:
        columns: Its name: `"age_group,gender"`, for instance.
        found: What `score_groups` returned for it.

    Returns:
        `group`, `num_faces`, `num_subjects`, `few`, and for each question
        `<question>_accuracy`, `<question>_low` and `<question>_high`.
    """
    rows = []
    for group in found["groups"]:
        row = {
            "group": group_title(group, columns.split(",")),
            "num_faces": group["num_faces"],
            "num_subjects": group["num_subjects"],
            "few": group["few"],
        }
        for question in scored_questions(found):
            low, high = group[f"{question}_interval"] or (None, None)
            row[f"{question}_accuracy"] = group[f"{question}_accuracy"]
            row |= {f"{question}_low": low, f"{question}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def gap_sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields how far the worst group is behind the best, one sentence a question."""
    for question in few_further(scored_questions(found)):
        if question not in found["gaps"]:
            continue
        gap = found["gaps"][question]
        ends = gap["interval"]
        shown = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        yield (
            f"{question.replace('_', ' ').capitalize()}: {gap['worst']} is "
            f"{gap['value']:.3f}{shown} behind {gap['best']}."
        )


def confusion_tables(
    metrics: Mapping[str, Any], answers: Sequence[QuestionAnswers]
) -> dict[str, pd.DataFrame]:
    """Returns faces by true (row) and answered (column) class, of each question.

    Gender and age group are those of metrics.json; further heads, up to 20 classes,
    are counted from their answers.
    """
    tables = {}
    for name, key in (("gender", "gender"), ("age_group", "age")):
        if metrics.get(key):
            scores = metrics[key]
            names: Sequence[str] = GENDERS
            if key == "age":
                names = [group["name"] for group in scores["groups"]]
            tables[name] = pd.DataFrame(scores["confusion"], names, names)
    for question in answers:
        if question.name in tables or len(question.classes) > MOST_CLASSES:
            continue
        counts = np.zeros((len(question.classes),) * 2, "int64")
        known = question.truth != MISSING
        np.add.at(counts, (question.truth[known], question.answer[known]), 1)
        tables[question.name] = pd.DataFrame(counts, question.classes, question.classes)
    return tables


def confusion_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a confusion matrix with shares of the true class and their colors."""
    rows = []
    counts = table.to_numpy()
    for place, name in enumerate(table.index):
        total = int(counts[place].sum())
        cells = []
        for column, count in enumerate(counts[place]):
            share = float(count / total) if total else 0.0
            cells.append(
                {
                    "count": int(count),
                    "share": share,
                    "color": shade(share),
                    "ink": "#ffffff" if share > _WHITE_TEXT else "#222222",
                    "right": column == place,
                }
            )
        rows.append({"name": name, "total": total, "cells": cells})
    return rows


def shade(share: float) -> str:
    """Returns a blue as CSS has it: white for 0, the darkest for 1."""
    levels = [round(255 + (end - 255) * share) for end in _DARKEST]
    return "#" + "".join(f"{level:02x}" for level in levels)


def coverage_table(calibration: Mapping[str, Any]) -> pd.DataFrame:
    """Returns how often sets of answers hold the truth: of all faces, and of groups.

    Args:
        calibration: What `calibration_scores` returned.

    Returns:
        `question`, `of` (`"all"`, `"age_group"`, `"gender"`), `group`, `num_faces`,
        `coverage` and `mean_size`; groups without a face are left out.
    """
    rows = []
    for question, found in calibration["sets"].items():
        everyone = {**found, "of": "all", "name": "all faces"}
        for group in (everyone, *found["groups"]):
            if group["num_faces"]:
                rows.append(
                    {
                        "question": question.replace("_", " "),
                        "of": group["of"],
                        "group": group["name"],
                        "num_faces": group["num_faces"],
                        "coverage": group["coverage"],
                        "mean_size": group["mean_size"],
                    }
                )
    columns = ["question", "of", "group", "num_faces", "coverage", "mean_size"]
    return pd.DataFrame(rows, columns=columns)
