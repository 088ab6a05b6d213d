"""Pooling: the paired answers of many pairs of runs become one difference."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.paired_test import paired_test
from keras_agegender.evaluation.resampling import difference_interval
from keras_agegender.evaluation.run_intervals import RunsInterval, runs_interval
from keras_agegender.evaluation.variance_components import (
    VarianceComponents,
    variance_components,
)
from keras_agegender.studies.paired_answers import pool_seeds
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
