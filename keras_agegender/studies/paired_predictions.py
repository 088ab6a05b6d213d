"""Predictions of two runs for the same faces, paired and pooled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_agegender.datasets.face_index import FaceIndex
from keras_agegender.evaluation.groups import (
    check_columns,
    further_questions,
    group_columns,
    known_values,
)
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.files import read_json
from keras_agegender.metrics.intervals import (
    Clusters,
    RunsInterval,
    VarianceComponents,
    difference_interval,
    paired_test,
    runs_interval,
    variance_components,
)
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.experiment import differences, flatten

CLUSTERS = ("subject", "album", "face")
TASKS = ("gender", "age_group")
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
    main = {q: (q, f"predicted_{q}") for q in TASKS if f"predicted_{q}" in table}
    return main | further_questions(table, run.encoding())


def _right_answers(
    question: str,
    tables: Sequence[pd.DataFrame],
    asked: Sequence[Mapping[str, tuple[str, str]]],
) -> dict[str, np.ndarray]:
    """Returns which faces each gets right; NaN where one has no label."""
    truths = [
        # Of age and gender the first says what is true, for both.
        tables[0][question] if question in TASKS else table[columns[question][0]]
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
    for key in ("data.splits.", "data.pixels.", "initialized_from", "seed"):
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


Place = tuple[str, int]  # test fold (a split expression) and seed


@dataclass(frozen=True)
class RunSet:
    """Runs of one recipe over folds and seeds.

    Attributes:
        path: Folder that holds them, or the only one.
        runs: Test fold and seed -> run.
        unfinished: Folders of runs that have no model or no predictions yet.
    """

    path: Path
    runs: dict[Place, RunDirectory]
    unfinished: tuple[Path, ...] = ()


def holds_runs(folder: str | Path) -> bool:
    """Whether a folder is one of runs, and no run itself."""
    folder = Path(folder)
    return not (folder / "recipe.toml").is_file() and any(folder.glob("*/recipe.toml"))


def open_run_set(folder: str | Path, predictions: str = "predictions.csv") -> RunSet:
    """Returns the runs in a folder, or the one that the folder is.

    Args:
        folder: A run, or a folder of runs of one recipe.
        predictions: File that a finished run has.

    Raises:
        ValueError: If it holds no finished run, runs of several recipes, or a fold and
            seed twice.
    """
    folder = Path(folder)
    if not holds_runs(folder):
        run = RunDirectory.open(folder)
        return RunSet(folder, {place_of(run): run})
    runs: dict[Place, RunDirectory] = {}
    unfinished = []
    for file in sorted(folder.glob("*/recipe.toml")):
        run = RunDirectory(file.parent)
        if not run.best_model.is_file() or not (run.path / predictions).is_file():
            unfinished.append(run.path)
            continue
        place = place_of(run)
        if place in runs:
            raise ValueError(
                f"{folder} holds two runs of test split {place[0]!r} and seed "
                f"{place[1]}: {runs[place].path.name} and {run.path.name}. Expected a "
                "folder of runs of one recipe, each fold and seed once."
            )
        runs[place] = run
    if not runs:
        raise ValueError(f"None of the runs in {folder} has a model and {predictions}.")
    first, *others = runs.values()
    for run in others:
        changed = differing_settings(first.recipe().to_dict(), run.recipe().to_dict())
        if changed:
            key, (one, other) = next(iter(changed.items()))
            raise ValueError(
                f"{folder} holds runs of several recipes: {key} is {one!r} in "
                f"{first.path.name} and {other!r} in {run.path.name}. Expected a "
                "folder of runs of one recipe; `agegender compare FOLDER` takes the "
                "folder of a reproduction."
            )
    return RunSet(folder, runs, tuple(unfinished))


def place_of(run: RunDirectory) -> Place:
    """Returns the test split and the seed of a run; `("", 0)` if it says neither."""
    info = run.info()
    return info.get("splits", {}).get("test", ""), int(info.get("seed", 0))


def fold_name(test_split: str) -> str:
    """Returns a test split as people say it; that of `quick` is a long expression.

    Example:
    >>> fold_name("fold_0[0:30]+fold_0[60:90]")
    'fold_0 (a part)'
    """
    names = dict.fromkeys(part.partition("[")[0] for part in test_split.split("+"))
    return "+".join(names) + (" (a part)" if "[" in test_split else "")


def test_to_train_of(runs: dict[Place, RunDirectory]) -> float | None:
    """Returns how many test faces there are for a training face, the mean over folds.

    `None` where a run does not know its faces: one of an older version.
    """
    ratios = []
    for run in {place[0]: run for place, run in runs.items()}.values():
        splits = run.info().get("splits", {})
        if not run.faces_file.is_file() or not {"train", "test"} <= set(splits):
            return None
        index = FaceIndex.read(run.faces_file)
        train, test = (len(index.faces(splits[name])) for name in ("train", "test"))
        ratios.append(test / train)
    return float(np.mean(ratios))


@dataclass(frozen=True)
class PooledDifference:
    """How two sets of runs answer one question about the same faces.

    Attributes:
        question: `"gender"` or `"age_group"`.
        num_faces: Different faces with that label, of all folds.
        first: Accuracy of the first set: each face's mean over seeds, then over faces.
        second: Accuracy of the second.
        interval: 95 % interval of second minus first on other people, for these trained
            models, clustered; `None` of fewer than two clusters.
        p_value: Of the sign-flip test over clusters.
        num_clusters: People (or albums) that the faces are of.
        over_runs: Mean of the folds' differences, with the interval over trainings.
        components: Variances of the runs' differences over folds and seeds.
        by_run: Test split and seed -> difference of that pair of runs.
    """

    question: str
    num_faces: int
    first: float
    second: float
    interval: tuple[float, float] | None
    p_value: float
    num_clusters: int
    over_runs: RunsInterval
    components: VarianceComponents
    by_run: dict[Place, float]

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


def pooled_difference(
    question: str, answers: pd.DataFrame, ratio: float | None
) -> PooledDifference:
    """Pools the faces of all pairs, and looks at the pairs apart."""
    known = answers[answers[f"first_{question}"].notna()]
    known = known.assign(
        difference=known[f"second_{question}"] - known[f"first_{question}"]
    )
    faces = pool_seeds(known)
    first, second = (faces[f"{side}_{question}"] for side in ("first", "second"))
    clusters = Clusters.of(faces["who"])
    by_run = {
        (str(fold), int(seed)): float(value)
        for (fold, seed), value in known.groupby(["fold", "seed"])["difference"]
        .mean()
        .items()
    }
    folds, seeds = zip(*by_run, strict=True)
    values = list(by_run.values())
    return PooledDifference(
        question,
        len(faces),
        float(first.mean()),
        float(second.mean()),
        difference_interval(first, second, clusters).interval,
        paired_test(faces[f"whole_{question}"], clusters),
        clusters.num_clusters,
        runs_interval(values, folds, test_to_train=ratio).within(-1.0, 1.0),
        variance_components(values, folds, seeds),
        by_run,
    )


def training_lines(d: PooledDifference) -> list[str]:
    """Returns what other trainings would give, and each pair of runs."""
    found = d.over_runs
    interval = (
        None if found.low is None or found.high is None else (found.low, found.high)
    )
    over = {
        "folds": "over folds, corrected for shared training faces",
        "seeds": "over seeds of one fold",
    }.get(
        found.over,
        "no interval: one pair, all pairs alike, or training faces not known",
    )
    return [
        f"{d.question}, other trainings: mean of folds {found.mean:+.3f}  "
        f"{ends_text(interval)} ({over})",
        f"  {d.components}",
        *(
            f"  {fold_name(fold) or 'test'}, seed {seed}: {value:+.3f}"
            for (fold, seed), value in d.by_run.items()
        ),
    ]


def ends_text(interval: tuple[float, float] | None) -> str:
    """Returns an interval of a difference as text."""
    return f"[{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "-"
