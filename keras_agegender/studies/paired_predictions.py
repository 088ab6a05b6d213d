"""Predictions of two models for the same faces, over folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_agegender.datasets.face_index import FaceIndex
from keras_agegender.errors import counted
from keras_agegender.evaluation import groups
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.files import read_json
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.experiment import differences, flatten

TASKS = ("gender", "age_group")
OTHER_DATA = "the two were trained on different datasets"

Place = tuple[str, int]  # test split (an expression) and seed


@dataclass(frozen=True)
class RunSet:
    """Runs of one recipe by test split and seed; `path` is their folder, or the run."""

    path: Path
    runs: dict[Place, RunDirectory]
    unfinished: tuple[Path, ...] = ()

    @property
    def is_run(self) -> bool:
        """Whether the path is a run itself."""
        return any(run.path == self.path for run in self.runs.values())


def open_run_set(
    folder: str | Path | RunDirectory, predictions: str = "predictions.csv"
) -> RunSet:
    """Returns the finished runs in a folder of runs, or the run that it is."""
    if isinstance(folder, RunDirectory):
        return RunSet(folder.path, {_place(folder): folder})
    folder = Path(folder)
    files = sorted(folder.glob("*/recipe.toml"))
    if (folder / "recipe.toml").is_file() or not files:
        run = RunDirectory.open(folder)
        return RunSet(folder, {_place(run): run})
    runs: dict[Place, RunDirectory] = {}
    unfinished = []
    for file in files:
        run = RunDirectory(file.parent)
        if not run.best_model.is_file() or not (run.path / predictions).is_file():
            unfinished.append(run.path)
            continue
        place = _place(run)
        if place in runs:
            raise ValueError(
                f"{folder} contains two runs with test split {place[0]!r} and seed "
                f"{place[1]}: {runs[place].path.name} and {run.path.name}. Expected "
                "runs of one recipe, one for each fold and seed."
            )
        runs[place] = run
    if not runs:
        raise ValueError(f"No run in {folder} has a checkpoint and {predictions}.")
    first, *others = runs.values()
    for run in others:
        changed = differing_settings(first.recipe().to_dict(), run.recipe().to_dict())
        if changed:
            key, (one, other) = next(iter(changed.items()))
            raise ValueError(
                f"{folder} contains runs of several recipes: {key} is {one!r} in "
                f"{first.path.name} and {other!r} in {run.path.name}. Expected runs of "
                "one recipe; `agegender compare FOLDER` takes the folder of a "
                "reproduction."
            )
    return RunSet(folder, runs, tuple(unfinished))


def _place(run: RunDirectory) -> Place:
    info = run.info()
    return info.get("splits", {}).get("test", ""), int(info.get("seed", 0))


def test_to_train_ratio(runs: Mapping[Place, RunDirectory]) -> float | None:
    """Returns test faces per training face, the mean over folds; `None` if unknown."""
    ratios = []
    for run in {place[0]: run for place, run in runs.items()}.values():
        splits = run.info().get("splits", {})
        if not run.faces_file.is_file() or not {"train", "test"} <= set(splits):
            return None
        index = FaceIndex.read(run.faces_file)
        train, test = (len(index.faces(splits[name])) for name in ("train", "test"))
        ratios.append(test / train)
    return float(np.mean(ratios))


class PairedPredictions(NamedTuple):
    """Predictions of two runs for the same faces.

    `faces` has a row per face: `key`, `cluster` (`""` if unknown), `group_<column>` for
    `age_group`, `gender` and the columns to group by, and for each task `first_<task>`
    and `second_<task>`: 1 if correct, 0 if wrong, NaN without a label. See `Comparison`
    for the other fields.
    """

    faces: pd.DataFrame
    notes: list[str]
    missing: list[str]
    untested: list[str]


def pair_predictions(
    runs: tuple[RunDirectory, RunDirectory],
    predictions: str,
    cluster: str,
    by: Sequence[str] = (),
) -> PairedPredictions:
    """Pairs the predictions of two runs by face."""
    tables = []
    for run in runs:
        file = run.path / predictions
        if not file.is_file():
            raise ValueError(
                f"The run in {run.path} has no {predictions}. Run `agegender evaluate` "
                "first."
            )
        tables.append(read_predictions(file))
    groups.check_columns(by, [*dict.fromkeys(c for table in tables for c in table)])
    shared = tables[0].index.intersection(tables[1].index)
    if shared.empty:
        raise ValueError(
            f"{runs[0].path} and {runs[1].path} have no scored faces in common. "
            "Evaluate both on the same faces: `agegender evaluate --data … --split …`."
        )
    notes = [
        f"only in {run.path}: {counted(len(table) - len(shared), 'face')}"
        for run, table in zip(runs, tables, strict=True)
        if len(table) > len(shared)
    ]
    notes += _unlike_experiments(runs, predictions)
    both = [table.loc[shared] for table in tables]
    columns = {"key": shared, "cluster": _cluster_ids(both, runs[0], cluster)}
    for name in dict.fromkeys(["age_group", "gender", *groups.group_columns(by)]):
        # From the first table that has it: both are of the same faces.
        columns[f"group_{name}"] = next(t[name].to_numpy() for t in both if name in t)
    tasks = [_task_columns(*pair) for pair in zip(tables, runs, strict=True)]
    for task in (t for t in tasks[0] if t in tasks[1]):
        columns |= _correct(task, both, [found[task] for found in tasks])
    missing = [t for t in tasks[0] if t not in tasks[1]]
    notes += [f"A predicts {t}, B does not" for t in missing]
    untested = [f"{t} (A does not predict it)" for t in tasks[1] if t not in tasks[0]]
    untested += _numeric_outputs(both, runs)
    return PairedPredictions(pd.DataFrame(columns), notes, missing, untested)


def _task_columns(table: pd.DataFrame, run: RunDirectory) -> dict[str, tuple[str, str]]:
    """Returns each task with classes -> its columns of true and predicted classes."""
    main = {t: (t, f"predicted_{t}") for t in TASKS if f"predicted_{t}" in table}
    return main | groups.extra_tasks(table, run.encoding())


def _correct(
    task: str, tables: Sequence[pd.DataFrame], columns: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    """Returns which faces each run predicts correctly; NaN where one has no label."""
    # Labels of age group and gender are the first run's, for both.
    labelled = [tables[0], tables[0] if task in TASKS else tables[1]]
    truths = [t[true] for t, (true, _) in zip(labelled, columns, strict=True)]
    known = groups.known_values(truths[0]) & groups.known_values(truths[1])
    found = {}
    for k, side in enumerate(("first", "second")):
        right = (tables[k][columns[k][1]] == truths[k]).to_numpy(float)
        found[f"{side}_{task}"] = np.where(known, right, np.nan)
    return found


def _numeric_outputs(
    tables: Sequence[pd.DataFrame], runs: tuple[RunDirectory, RunDirectory]
) -> list[str]:
    """Returns the outputs that are numbers, which have no accuracy."""
    found = []
    if "age_years" in tables[0] and groups.known_values(tables[0]["age_years"]).any():
        if any("predicted_age_years" in table for table in tables):
            found.append("age in years")
    heads = (head for run in runs for head in run.encoding().extra_heads)
    numbers = {h.name: None for h in heads if h.spec.is_number}
    return found + [
        name for name in numbers if any(f"predicted_{name}" in t for t in tables)
    ]


def _cluster_ids(
    tables: Sequence[pd.DataFrame], run: RunDirectory, cluster: str
) -> np.ndarray:
    """Returns the cluster of each face, from the first table that has the column."""
    if cluster == "face":
        return np.full(len(tables[0]), "", dtype=object)
    for table in tables:
        if cluster in table:
            return table[cluster].to_numpy()
    raise ValueError(
        f"The predictions of {run.path} have no column {cluster!r}, as their dataset "
        "has none. cluster='face' (--cluster face) treats faces as independent; its "
        "intervals are too narrow if people have several faces."
    )


def paired_tasks(faces: pd.DataFrame) -> list[str]:
    """Returns the tasks in `PairedPredictions.faces`."""
    return [c.removeprefix("first_") for c in faces if c.startswith("first_")]


def pool_seeds(faces: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per face, with the means over seeds."""
    grouped = faces.groupby(["fold", "key"], sort=False)
    pooled = grouped.first()
    for task in paired_tasks(faces):
        first, second = f"first_{task}", f"second_{task}"
        sums, counts = grouped[[first, second]].sum(), grouped[first].count()
        pooled[[first, second]] = grouped[[first, second]].mean()
        factor = math.lcm(*counts[counts > 0].unique())
        whole = (sums[second] - sums[first]) * (factor / counts.where(counts > 0))
        pooled[f"whole_{task}"] = whole
    return pooled.reset_index()


def differing_settings(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns the settings of two recipes that differ, by dotted key."""
    flat = [flatten(settings) for settings in (first, second)]
    keys = sorted({*flat[0], *flat[1]} - {"name", "title", "published", "cost"})
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in keys
        if flat[0].get(key) != flat[1].get(key)
    }


def read_metrics(run: RunDirectory, predictions: str) -> dict[str, Any] | None:
    """Returns the metrics that belong to a file of predictions, if they exist."""
    name = predictions.replace("predictions", "metrics").replace(".csv", ".json")
    file = run.path / name
    return read_json(file) if file.is_file() else None


def _unlike_experiments(
    runs: tuple[RunDirectory, RunDirectory], predictions: str
) -> list[str]:
    """Returns notes on differences of two runs other than their recipes' settings."""
    metrics = [read_metrics(run, predictions) for run in runs]
    # `None`: unknown, the metrics are gone.
    temperatures = [
        None if m is None else (m.get("calibration") or {}).get("temperatures") or {}
        for m in metrics
    ]
    notes = []
    if None not in temperatures and bool(temperatures[0]) != bool(temperatures[1]):
        without, calibrated = "BA" if temperatures[0] else "AB"
        notes.append(f"{without} is not calibrated, {calibrated} is")
    first, second = (run.info() for run in runs)
    identities = [info.get("identity") for info in (first, second)]
    if None in identities:
        if first.get("data_sha256") != second.get("data_sha256"):
            notes.append(OTHER_DATA)
    elif identities[0] == identities[1]:
        text = "the two are runs of one experiment"
        if temperatures[0] == temperatures[1] or None in temperatures:
            notes = [f"{text}: differences are chance"]
        elif not notes:
            notes = [f"{text}, calibrated with different temperatures"]
    else:
        places = ("in A", "in B")
        found = differences(first["experiment"], second["experiment"], places)
        if any(line.startswith("data.sha256") for line in found):
            notes.append(OTHER_DATA)
        notes += [
            line
            for key in ("data.splits.", "data.pixels.", "initialized_from", "seed")
            for line in found
            if line.startswith(key)
        ]
    for run, scores in zip(runs, metrics, strict=True):
        notes += _seen_faces(run, scores or {})
    return notes


def _seen_faces(run: RunDirectory, metrics: Mapping[str, Any]) -> list[str]:
    """Returns notes on faces that a run was trained or selected on."""
    notes = []
    for key, what in (("training", "trained"), ("validation", "selected")):
        if count := metrics.get(f"num_seen_in_{key}"):
            notes.append(
                f"{run.path} was {what} on {count} of the faces it is scored on"
            )
        elif key in (metrics.get("possibly_seen_in") or ()):
            notes.append(f"{run.path} may have been {what} on faces it is scored on")
    return notes
