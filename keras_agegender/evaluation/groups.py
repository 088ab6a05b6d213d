"""Scores by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.errors import did_you_mean
from keras_agegender.metrics.intervals import (
    Clusters,
    bootstrap_interval,
    proportion_interval,
)

MAX_GROUPS = 100


def as_groupings(by: str | Sequence[str]) -> list[str]:
    """Returns what to group by as a list; a single name may stand alone."""
    return [by] if isinstance(by, str) else list(by)


def group_columns(by: str | Sequence[str]) -> list[str]:
    """Returns every column that groupings are made of.

    Example:
    >>> group_columns(["race,gender", "race"])
    ['race', 'gender']
    """
    return list(dict.fromkeys(",".join(as_groupings(by)).split(","))) if by else []


def check_columns(by: str | Sequence[str], available: Sequence[str]) -> None:
    """Raises a `ValueError` if a grouping names a column that is not there.

    Args:
        by: Columns to group by, those to cross with a comma between them.
        available: Columns there are. Outputs, answers and keys among them are accepted
            and not proposed.
    """
    others = ("output_", "predicted_", "key")
    proposed = [name for name in available if not name.startswith(others)]
    for name in as_groupings(by):
        for column in name.split(","):
            if column not in available:
                within = "" if column == name else f" in {name!r}"
                raise ValueError(
                    f"Invalid `by`. Expected columns of {proposed}. Received: "
                    f"{column!r}{within}.{did_you_mean(column, proposed)}"
                )


def find_groups(table: pd.DataFrame, columns: list[str]) -> dict[tuple, np.ndarray]:
    """Returns the rows of every combination of values of some columns.

    Raises:
        ValueError: If there are more than 100.
    """
    members = table.groupby(columns, sort=True, observed=True).indices
    if len(members) > MAX_GROUPS:
        raise ValueError(
            f"Invalid `by`. Expected at most {MAX_GROUPS} groups. Received: "
            f"{len(members)} different values of {','.join(columns)!r}."
        )
    return {v if isinstance(v, tuple) else (v,): rows for v, rows in members.items()}


# Below these an accuracy says little: 30 faces give ±0.18 at best, and of fewer than 10
# people it is one of those people.
FEW_FACES = 30
FEW_SUBJECTS = 10
TASKS = ("gender", "age_group")
# A printed table has no room for more; gaps of forty attributes take two minutes.
MOST_FURTHER = 2
CELLS = "age_group,gender"


def score_groups(
    table: pd.DataFrame,
    by: str | Sequence[str] = (),
    further: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Returns the scores of groups of faces.

    A group of fewer than 30 faces or 10 subjects is marked `few`; such ones come last
    and are no part of the gap. The gap is between groups that were chosen for being
    best and worst, so that a part of it is chance: compare its interval with 0.

    Args:
        table: A row per face, as predictions.csv has it: `subject`, the columns to
            group by, `gender`, `age_group` and the answers `predicted_…`, by name.
        by: Further columns to group by, `"race"` for instance; names with a comma
            between them are crossed: `"race,gender"`. Defaults to age group and gender
            alone.
        further: Further question -> its columns of true and of answered classes. They
            do not change the order of groups where gender or age group is answered.
            There are no gaps of more than two. Defaults to none.

    Returns:
        For `"age_group,gender"` (where faces have both) and each of `by`:
        `num_faces` and `num_unlabelled` (faces without the column), `few_faces` and
        `few_subjects` (the minimum counts), `questions`, `gaps` (question -> `best`,
        `worst`, `value`, `interval`) and `groups`, the worst first: its columns'
        values, `num_faces`, `num_subjects`, `largest_share` (of the subject with most
        faces), `few`, and for each question `<question>_accuracy` and
        `<question>_interval`.

    Raises:
        ValueError: If the table has no such column, or it has more than 100 values.

    Example:
    >>> table = pd.DataFrame({"gender": ["male", "female"], "race": ["a", "b"],
    ...                       "predicted_gender": ["male", "male"]})
    >>> [g["gender_accuracy"] for g in score_groups(table, "race")["race"]["groups"]]
    [0.0, 1.0]
    """
    asked = as_groupings(by)
    check_columns(asked, list(table))
    questions = {q: (q, f"predicted_{q}") for q in TASKS if f"predicted_{q}" in table}
    questions |= further or {}
    found = {}
    for name in (CELLS, *asked):
        columns = name.split(",")
        if not set(columns) <= set(table):  # only `CELLS` can be absent by now
            continue
        known = np.all([known_values(table[c]) for c in columns], axis=0)
        if name != CELLS or known.any():
            found[name] = _score(table[known], columns, questions, int((~known).sum()))
    return found


def further_questions(
    table: pd.DataFrame, encoding: Encoding
) -> dict[str, tuple[str, str]]:
    """Returns the further heads with classes, and their columns of ids in a table.

    Args:
        table: A row per face, as predictions.csv has it.
        encoding: Its `extra_heads`; ages in years and other numbers are none of these.

    Returns:
        Head name -> its columns of true and of answered classes, where both are there.
    """
    found = {}
    for head in encoding.extra_heads:
        if head.spec.is_number or len(head.columns) > 1:
            continue
        pair = tuple(
            f"{name}_id" if f"{name}_id" in table else name
            for name in (head.columns[0], f"predicted_{head.name}")
        )
        if set(pair) <= set(table):
            found[head.name] = (pair[0], pair[1])
    return found


def few_further(questions: Sequence[str]) -> list[str]:
    """Returns gender, age group and further questions if they are no more than two."""
    further = [q for q in questions if q not in TASKS]
    return [q for q in questions if q in TASKS or len(further) <= MOST_FURTHER]


def known_values(column: pd.Series) -> np.ndarray:
    """Returns where a column says something: neither `""`, nor -1, nor NaN."""
    known = column.notna()
    if pd.api.types.is_numeric_dtype(column):
        return (known & (column != -1)).to_numpy()
    return (known & (column.astype(str) != "")).to_numpy()


def subjects_of(table: pd.DataFrame) -> Clusters:
    """Returns the faces of each subject; faces of nobody known are their own."""
    subjects = table["subject"] if "subject" in table else np.full(len(table), "")
    return Clusters.of(subjects)


def is_few(clusters: Clusters) -> bool:
    """Whether a group has too few faces or people to say much about it."""
    return len(clusters.ids) < FEW_FACES or clusters.num_clusters < FEW_SUBJECTS


def right_answers(table: pd.DataFrame, question: str) -> np.ndarray:
    """Returns which faces are answered right; those without a label are not."""
    return (table[f"predicted_{question}"] == table[question]).to_numpy()


def _score(
    table: pd.DataFrame,
    columns: list[str],
    questions: Mapping[str, tuple[str, str]],
    num_unlabelled: int,
) -> dict[str, Any]:
    groups = []
    for values, rows in find_groups(table, columns).items():
        named = dict(zip(columns, map(_plain, values), strict=True))
        groups.append(named | _score_group(table.iloc[rows], questions))
    ranking = [q for q in questions if q in TASKS] or list(questions)
    groups.sort(key=lambda g: (g["few"], _mean_accuracy(g, ranking)))
    return {
        "num_faces": len(table),
        "num_unlabelled": num_unlabelled,
        "few_faces": FEW_FACES,
        "few_subjects": FEW_SUBJECTS,
        "questions": list(questions),
        "gaps": {
            question: gap
            for question in few_further([*questions])
            if (gap := _gap(table, columns, groups, question, questions[question]))
            is not None
        },
        "groups": groups,
    }


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it."""
    return value.item() if isinstance(value, np.generic) else value


def _known_and_right(
    table: pd.DataFrame, pair: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which faces have a label, and which are answered right."""
    truth, answer = pair
    return known_values(table[truth]), (table[answer] == table[truth]).to_numpy()


def _score_group(
    table: pd.DataFrame, questions: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    clusters = subjects_of(table)
    scores: dict[str, Any] = {
        "num_faces": len(table),
        "num_subjects": clusters.num_clusters,
        "largest_share": clusters.largest_share,
        "few": is_few(clusters),
    }
    for question, pair in questions.items():
        known, right = _known_and_right(table, pair)
        found = proportion_interval(right[known], clusters.select(known))
        scores[f"{question}_accuracy"] = found.value
        scores[f"{question}_interval"] = found.interval
    return scores


def _mean_accuracy(group: Mapping[str, Any], questions: Sequence[str]) -> float:
    known = [a for q in questions if (a := group[f"{q}_accuracy"]) is not None]
    return float(np.mean(known)) if known else 2.0  # behind all that have a score


def _gap(
    table: pd.DataFrame,
    columns: list[str],
    groups: list[dict],
    question: str,
    pair: tuple[str, str],
) -> dict[str, Any] | None:
    """Returns how far the worst group is behind the best; `None` of fewer than two."""
    name = f"{question}_accuracy"
    scored = [g for g in groups if not g["few"] and g[name] is not None]
    if len(scored) < 2:
        return None
    best, worst = (pick(scored, key=lambda g: g[name]) for pick in (max, min))
    known, right = _known_and_right(table, pair)
    values = []
    for group in (best, worst):
        there = known & np.all([table[c] == group[c] for c in columns], axis=0)
        values += [there & right, there]
    either = values[1] | values[3]
    clusters = subjects_of(table).select(either)

    def difference(s: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a sample may have none of a group
            return s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3]

    found = bootstrap_interval(
        np.stack(values, axis=1)[either], difference, clusters, limits=(-1, 1)
    )
    interval = found.interval
    if interval is None and clusters.num_clusters > 1:
        interval = _gap_of_parts(best, worst, question)
    return {
        "best": group_title(best, columns),
        "worst": group_title(worst, columns),
        "value": found.value,
        "interval": interval,
    }


def _gap_of_parts(
    best: Mapping[str, Any], worst: Mapping[str, Any], question: str
) -> tuple[float, float] | None:
    """Returns how far apart two groups can be if both intervals are met at once.

    For groups of which all are right, or none: every sample of them is the same.
    """
    name = f"{question}_interval"
    if best[name] is None or worst[name] is None:
        return None
    return best[name][0] - worst[name][1], best[name][1] - worst[name][0]


def group_title(group: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Returns what a group is called: its columns' values, one after the other."""
    return " ".join(str(group[c]) for c in columns)
