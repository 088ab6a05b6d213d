"""Pooling: the paired answers of many pairs of runs become one difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.groups import known_values, right_answers
from keras_agegender.evaluation.paired_test import paired_test
from keras_agegender.evaluation.resampling import mean_interval
from keras_agegender.evaluation.run_intervals import RunsInterval, runs_interval
from keras_agegender.evaluation.variance_components import (
    VarianceComponents,
    variance_components,
)
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.compare import read_answers, seen_faces, why_unlike
from keras_agegender.studies.run_sets import Place, fold_name


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


def paired_answers(
    runs: tuple[RunDirectory, RunDirectory], place: Place, name: str, cluster: str
) -> tuple[pd.DataFrame, list[str]]:
    """Returns whether both runs of a pair are right on each face, and who is on it."""
    tables = [read_answers(run, name) for run in runs]
    shared = tables[0].index.intersection(tables[1].index)
    if shared.empty:
        raise ValueError(
            f"{runs[0].path} and {runs[1].path} were scored on no face in common."
        )
    notes = why_unlike(*(run.info() for run in runs))
    for run, table in zip(runs, tables, strict=True):
        notes += seen_faces(run, name)
        if len(table) > len(shared):
            missing = len(table) - len(shared)
            notes.append(f"{missing} faces of {run.path} are not in its pair")
    both = [table.loc[shared] for table in tables]
    who = next((table[cluster] for table in both if cluster in table), None)
    if who is None and cluster != "face":
        raise ValueError(
            f"The predictions of {runs[0].path} have no column {cluster!r}. `agegender "
            "evaluate` writes them anew; cluster='face' (--cluster face) takes faces "
            "for independent: too narrow where people have several."
        )
    columns: dict[str, Any] = {
        "fold": place[0],
        "seed": place[1],
        "key": shared,
        "who": "" if who is None else who.to_numpy(),
    }
    for question in ("gender", "age_group"):
        if all(f"predicted_{question}" in table for table in both):
            known = known_values(both[0][question])
            for side, table in zip(("first", "second"), both, strict=True):
                right = right_answers(table, question).astype(float)
                columns[f"{side}_{question}"] = np.where(known, right, np.nan)
    return pd.DataFrame(columns), notes


def pooled_difference(
    question: str, answers: pd.DataFrame, ratio: float | None
) -> PooledDifference:
    """Pools the faces of all pairs, and looks at the pairs apart."""
    first, second = f"first_{question}", f"second_{question}"
    known = answers[answers[first].notna() & answers[second].notna()]
    known = known.assign(difference=known[second] - known[first])
    # A face has an answer for each seed: its mean, so that seeds are no more faces.
    faces = known.groupby(["fold", "key"], sort=False).agg(
        first=(first, "mean"),
        second=(second, "mean"),
        sum=("difference", "sum"),
        count=("difference", "size"),
        who=("who", "first"),
    )
    clusters = Clusters.of(faces["who"])
    # Whole numbers in the proportion of the means, which the exact test wants.
    whole = faces["sum"] * (math.lcm(*faces["count"].unique()) // faces["count"])
    by_run = {
        (str(fold), int(seed)): float(value)
        for (fold, seed), value in known.groupby(["fold", "seed"])["difference"]
        .mean()
        .items()
    }
    folds, seeds = zip(*by_run, strict=True)
    values = list(by_run.values())
    means = (faces["second"] - faces["first"]).to_numpy()
    ends = mean_interval(means, clusters).interval
    return PooledDifference(
        question,
        len(faces),
        float(faces["first"].mean()),
        float(faces["second"].mean()),
        None if ends is None else (max(ends[0], -1.0), min(ends[1], 1.0)),
        paired_test(whole.to_numpy(), clusters),
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
