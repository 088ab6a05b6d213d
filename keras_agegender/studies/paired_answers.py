"""Paired answers: which faces both runs of a pair get right, and who is on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.evaluation.grouping import check_columns, group_columns
from keras_agegender.evaluation.groups import known_values
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.files import read_json
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.identity import differences, flatten

CLUSTERS = ("subject", "album", "face")
QUESTIONS = ("gender", "age_group")


def check_cluster(cluster: str) -> None:
    """Raises a `ValueError` if nothing of that name can be independent."""
    if cluster not in CLUSTERS:
        raise ValueError(
            f"Invalid `cluster`. Expected one of {CLUSTERS}. "
            f"Received: cluster={cluster!r}."
        )


def paired_answers(
    runs: tuple[RunDirectory, RunDirectory],
    predictions: str,
    cluster: str,
    by: Sequence[str] = (),
) -> tuple[pd.DataFrame, list[str]]:
    """Returns a row for each face that both runs answered, and what is unfair.

    Args:
        runs: Two runs, scored on the same faces.
        predictions: File of both to read.
        cluster: One of `CLUSTERS`.
        by: Columns to group by, those to cross with a comma between them.

    Returns:
        `key`, `who` (`""` where unknown), `group_<column>` for the true `age_group` and
        `gender` and every column of `by`, and for each question that both answer
        `first_<question>` and `second_<question>`: 1 if right, 0 if wrong, NaN without
        a label.

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
    notes += why_unlike(*(run.info() for run in runs))
    for run in runs:
        notes += seen_faces(run, predictions)
    both = [table.loc[shared] for table in tables]
    columns: dict[str, Any] = {"key": shared, "who": _who(both, runs[0], cluster)}
    for name in dict.fromkeys(["age_group", "gender", *group_columns(by)]):
        # By the first table that knows it: both are of the same faces.
        columns[f"group_{name}"] = next(t[name].to_numpy() for t in both if name in t)
    for question in QUESTIONS:
        if all(f"predicted_{question}" in table for table in both):
            known = known_values(both[0][question])
            truth = both[0][question]
            for side, table in zip(("first", "second"), both, strict=True):
                right = (table[f"predicted_{question}"] == truth).to_numpy(float)
                columns[f"{side}_{question}"] = np.where(known, right, np.nan)
    return pd.DataFrame(columns), notes


def pool_seeds(answers: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each face, its answers the mean over seeds.

    A face that several models answered is one face: seeds are no more of them.

    Args:
        answers: What `paired_answers` returned, of several pairs one under the other
            with `fold` beside `key`.

    Returns:
        The same columns, and `whole_<question>`: second minus first as whole numbers
        in proportion to the means, which the exact test wants; NaN without a label.
    """
    names = ["fold", "key"] if "fold" in answers else ["key"]
    grouped = answers.groupby(names, sort=False)
    faces = grouped.first()
    for question in QUESTIONS:
        first, second = (f"{side}_{question}" for side in ("first", "second"))
        if first not in answers:
            continue
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


def why_unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Returns how two runs' experiments differ beside their recipes' settings."""
    identities = [info.get("identity") for info in (first, second)]
    if None in identities:
        same = first.get("data_sha256") == second.get("data_sha256")
        return [] if same else ["the two were trained on different datasets"]
    if identities[0] == identities[1]:
        return ["the two are runs of one experiment: differences are chance"]
    found = differences(first["experiment"], second["experiment"])
    warnings = []
    if any(line.startswith("data.sha256") for line in found):
        warnings.append("the two were trained on different datasets")
    for key in ("data.splits.", "data.pixels.", "begins_with", "seed"):
        warnings += [
            line.replace(" there and ", " in A and ").replace(" here", " in B")
            for line in found
            if line.startswith(key)
        ]
    return warnings


def seen_faces(run: RunDirectory, predictions: str) -> list[str]:
    """Says that a run was scored on faces that it knows."""
    file = run.path / predictions.replace("predictions", "metrics").replace(
        ".csv", ".json"
    )
    if not file.is_file():
        return []
    metrics, notes = read_json(file), []
    for key, what in (("training", "trained"), ("validation", "selected")):
        if count := metrics.get(f"num_seen_in_{key}"):
            notes.append(
                f"{run.path} was {what} on {count} of the faces it is scored on"
            )
        elif key in (metrics.get("likely_seen_in") or ()):
            notes.append(f"{run.path} was likely {what} on the faces it is scored on")
    return notes
