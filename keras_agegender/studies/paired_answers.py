"""Paired answers: which faces both runs of a pair get right, and who is on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_agegender.evaluation.grouping import check_columns, group_columns
from keras_agegender.evaluation.groups import further_questions, known_values
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.files import read_json
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.identity import differences, flatten

CLUSTERS = ("subject", "album", "face")
QUESTIONS = ("gender", "age_group")
OTHER_DATA = "the two were trained on different datasets"

Temperatures = Mapping[str, float] | None


def check_cluster(cluster: str) -> None:
    """Raises a `ValueError` if nothing of that name can be independent."""
    if cluster not in CLUSTERS:
        raise ValueError(
            f"Invalid `cluster`. Expected one of {CLUSTERS}. "
            f"Received: cluster={cluster!r}."
        )


class PairedAnswers(NamedTuple):
    """What two runs say about the same faces.

    Attributes:
        faces: A row for each face that both answered: `key`, `who` (`""` where
            unknown), `group_<column>` for the true `age_group` and `gender` and every
            column asked for, and for each question that both answer
            `first_<question>` and `second_<question>`: 1 if right, 0 if wrong, NaN
            without a label. Further outputs with classes are questions too.
        notes: What is unfair.
        unanswered: Questions that the first answers and the second does not.
        unjudged: What else one of them answers that no accuracy is of.
    """

    faces: pd.DataFrame
    notes: list[str]
    unanswered: list[str]
    unjudged: list[str]


def paired_answers(
    runs: tuple[RunDirectory, RunDirectory],
    predictions: str,
    cluster: str,
    by: Sequence[str] = (),
) -> PairedAnswers:
    """Returns which faces both runs of a pair get right.

    Args:
        runs: Two runs, scored on the same faces.
        predictions: File of both to read.
        cluster: One of `CLUSTERS`.
        by: Columns to group by, those to cross with a comma between them.

    Raises:
        ValueError: If a run has no predictions, neither has a column, or the two have
            no face in common.
    """
    tables = [read_answers(run, predictions) for run in runs]
    available = dict.fromkeys(c for table in tables for c in table)
    check_columns(by, [*available])
    shared = tables[0].index.intersection(tables[1].index)
    if shared.empty:
        raise ValueError(
            f"{runs[0].path} and {runs[1].path} were scored on no face in common: "
            "other datasets, or other splits of one. `agegender evaluate --data … "
            "--split …` scores both on the same."
        )
    notes = []
    for run, table in zip(runs, tables, strict=True):
        if len(table) > len(shared):
            missing = len(table) - len(shared)
            notes.append(f"{missing} faces of {run.path} are not in the other")
    first, second = runs
    temperatures = _temperatures(first, predictions), _temperatures(second, predictions)
    notes += why_unlike(first.info(), second.info(), temperatures)
    for run in runs:
        notes += seen_faces(run, predictions)
    both = [table.loc[shared] for table in tables]
    columns: dict[str, Any] = {"key": shared, "who": _who(both, runs[0], cluster)}
    for name in dict.fromkeys(["age_group", "gender", *group_columns(by)]):
        # By the first table that knows it: both are of the same faces.
        columns[f"group_{name}"] = next(t[name].to_numpy() for t in both if name in t)
    asked = [_questions(*pair) for pair in zip(tables, runs, strict=True)]
    for question in (q for q in asked[0] if q in asked[1]):
        columns |= _right_answers(question, both, asked)
    unanswered = [q for q in asked[0] if q not in asked[1]]
    notes += [f"A answers {q}, B does not" for q in unanswered]
    unjudged = [f"{q} (A does not answer it)" for q in asked[1] if q not in asked[0]]
    unjudged += _numbers(both, runs)
    return PairedAnswers(pd.DataFrame(columns), notes, unanswered, unjudged)


def _questions(table: pd.DataFrame, run: RunDirectory) -> dict[str, tuple[str, str]]:
    """Returns what a run answers with classes: question -> true and answered column."""
    main = {q: (q, f"predicted_{q}") for q in QUESTIONS if f"predicted_{q}" in table}
    return main | further_questions(table, run.encoding())


def _right_answers(
    question: str,
    tables: Sequence[pd.DataFrame],
    asked: Sequence[Mapping[str, tuple[str, str]]],
) -> dict[str, np.ndarray]:
    """Returns which faces each gets right; NaN where one has no label."""
    truths = [
        # Of age and gender the first says what is true, for both.
        tables[0][question] if question in QUESTIONS else table[columns[question][0]]
        for table, columns in zip(tables, asked, strict=True)
    ]
    known = known_values(truths[0]) & known_values(truths[1])
    return {
        f"{side}_{question}": np.where(
            known, (table[columns[question][1]] == truth).to_numpy(float), np.nan
        )
        for side, table, columns, truth in zip(
            ("first", "second"), tables, asked, truths, strict=True
        )
    }


def _numbers(
    tables: Sequence[pd.DataFrame], runs: tuple[RunDirectory, RunDirectory]
) -> list[str]:
    """Returns the questions that are answered with numbers."""
    found = []
    if "age_years" in tables[0] and known_values(tables[0]["age_years"]).any():
        if any("predicted_age_years" in table for table in tables):
            found.append("age in years")
    heads = (head for run in runs for head in run.encoding().extra_heads)
    numbers = {h.name: None for h in heads if h.kind in ("regression", "years")}
    return found + [
        name for name in numbers if any(f"predicted_{name}" in t for t in tables)
    ]


def paired_questions(answers: pd.DataFrame) -> list[str]:
    """Returns the questions that both sides of `PairedAnswers.faces` answer."""
    return [c.removeprefix("first_") for c in answers if c.startswith("first_")]


def pool_seeds(answers: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each face, its answers the mean over seeds.

    A face that several models answered is one face: seeds are no more of them.

    Args:
        answers: `faces` of `paired_answers`, of several pairs one under the other with
            `fold` beside `key`.

    Returns:
        The same columns, and `whole_<question>`: second minus first as whole numbers
        in proportion to the means, which the exact test wants; NaN without a label.
    """
    names = ["fold", "key"] if "fold" in answers else ["key"]
    grouped = answers.groupby(names, sort=False)
    faces = grouped.first()
    for question in paired_questions(answers):
        first, second = (f"{side}_{question}" for side in ("first", "second"))
        sums, counts = grouped[[first, second]].sum(), grouped[first].count()
        faces[[first, second]] = grouped[[first, second]].mean()
        factor = math.lcm(*counts[counts > 0].unique())
        whole = (sums[second] - sums[first]) * (factor / counts.where(counts > 0))
        faces[f"whole_{question}"] = whole
    return faces.reset_index()


def _who(tables: Sequence[pd.DataFrame], run: RunDirectory, cluster: str) -> np.ndarray:
    """Returns whose each face is, by the first table that says so."""
    if cluster == "face":
        return np.full(len(tables[0]), "", dtype=object)
    for table in tables:
        if cluster in table:
            return table[cluster].to_numpy()
    raise ValueError(
        f"The predictions of {run.path} have no column {cluster!r}: they are "
        "older, or their dataset does not know it. `agegender evaluate` writes them "
        "anew; cluster='face' (--cluster face) takes faces for independent: too narrow "
        "where people have several."
    )


def read_answers(run: RunDirectory, name: str) -> pd.DataFrame:
    """Reads the predictions that a run left behind."""
    file = run.path / name
    if not file.is_file():
        raise ValueError(
            f"The run in {run.path} has no {name}. Make it with `agegender evaluate`."
        )
    return read_predictions(file)


def differing_settings(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the settings of two recipes that differ, by dotted key."""
    flat = [flatten(settings) for settings in (first, second)]
    keys = sorted({*flat[0], *flat[1]} - {"name", "title", "published"})
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    }


def why_unlike(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    temperatures: tuple[Temperatures, Temperatures] = (None, None),
) -> list[str]:
    """Returns how two runs' experiments differ beside their recipes' settings.

    Args:
        first: What run.json says of a run.
        second: The same of another.
        temperatures: Those that their answers were calibrated with: empty if not,
            `None` (default) if nobody knows.
    """
    identities = [info.get("identity") for info in (first, second)]
    warnings = []
    if None not in temperatures and bool(temperatures[0]) != bool(temperatures[1]):
        without, calibrated = "BA" if temperatures[0] else "AB"
        warnings.append(f"{without} is not calibrated, {calibrated} is")
    if None in identities:
        same = first.get("data_sha256") == second.get("data_sha256")
        return warnings + ([] if same else [OTHER_DATA])
    if identities[0] == identities[1]:
        text = "the two are runs of one experiment"
        if temperatures[0] == temperatures[1] or None in temperatures:
            return [f"{text}: differences are chance"]
        return warnings or [f"{text}, calibrated with different temperatures"]
    found = differences(first["experiment"], second["experiment"])
    if any(line.startswith("data.sha256") for line in found):
        warnings.append(OTHER_DATA)
    for key in ("data.splits.", "data.pixels.", "begins_with", "seed"):
        warnings += [
            line.replace(" there and ", " in A and ").replace(" here", " in B")
            for line in found
            if line.startswith(key)
        ]
    return warnings


def _metrics(run: RunDirectory, predictions: str) -> dict[str, Any] | None:
    """Returns the metrics that were written with predictions, if they are there."""
    name = predictions.replace("predictions", "metrics").replace(".csv", ".json")
    file = run.path / name
    return read_json(file) if file.is_file() else None


def _temperatures(run: RunDirectory, predictions: str) -> Temperatures:
    """Returns what predictions were calibrated with; `None` if nobody knows."""
    metrics = _metrics(run, predictions)
    if metrics is None:
        return None
    return (metrics.get("calibration") or {}).get("temperatures") or {}


def seen_faces(run: RunDirectory, predictions: str) -> list[str]:
    """Says that a run was scored on faces that it knows."""
    metrics, notes = _metrics(run, predictions) or {}, []
    for key, what in (("training", "trained"), ("validation", "selected")):
        if count := metrics.get(f"num_seen_in_{key}"):
            notes.append(
                f"{run.path} was {what} on {count} of the faces it is scored on"
            )
        elif key in (metrics.get("possibly_seen_in") or ()):
            notes.append(f"{run.path} was perhaps {what} on the faces it is scored on")
    return notes
