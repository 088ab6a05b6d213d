"""Comparison: two runs side by side on the same faces, with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.grouping import as_groupings
from keras_agegender.evaluation.paired_test import paired_test
from keras_agegender.evaluation.resampling import difference_interval
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.gate import (
    CellDifference,
    judge_cells,
    measure_cells,
)
from keras_agegender.studies.judged import Judged
from keras_agegender.studies.paired_answers import (
    QUESTIONS,
    check_cluster,
    differing_settings,
    paired_answers,
    pool_seeds,
)


@dataclass(frozen=True)
class PairedDifference:
    """How two runs answer one question about the same faces.

    Attributes:
        question: `"gender"` or `"age_group"`.
        num_faces: Faces with that label that both runs answered.
        first: Accuracy of the first run.
        second: Accuracy of the second.
        only_first: Faces that just the first run got right.
        only_second: Faces that just the second run got right.
        interval: 95 % interval of second minus first, clustered; `None` of fewer than
            two clusters.
        p_value: Of the sign-flip test over clusters, McNemar's exact test where each
            face is its own: how likely this difference, or a larger one, is if neither
            run is better.
        num_clusters: Subjects (or albums) that the faces are of.
        largest_share: Share of the faces that the largest of them holds.
    """

    question: str
    num_faces: int
    first: float
    second: float
    only_first: int
    only_second: int
    interval: tuple[float, float] | None
    p_value: float
    num_clusters: int
    largest_share: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison(Judged):
    """What `compare` found.

    Attributes:
        runs: The two folders.
        differences: One for each of gender and age group that both answer.
        settings: Recipe setting -> its values in both, where they differ.
        warnings: Reasons why the comparison may be unfair.
        cluster: What intervals and tests take for independent: `"subject"`, `"album"`
            or `"face"`.
        cells: The differences of all faces, of every age group of a gender and of the
            groups asked for, the worst first; of further outputs with classes too.
        unanswered: Questions that the first answers and the second does not: the gate
            is failed.
        unjudged: What else is answered and is not among `cells`.
    """

    runs: tuple[str, str]
    differences: tuple[PairedDifference, ...]
    settings: dict[str, tuple[Any, Any]]
    warnings: tuple[str, ...] = ()
    cluster: str = "subject"
    cells: tuple[CellDifference, ...] = ()
    unanswered: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"A {self.runs[0]}", f"B {self.runs[1]}"]
        lines += [f"  {key}: {a!r} | {b!r}" for key, (a, b) in self.settings.items()]
        lines += [f"  note: {warning}" for warning in self.warnings]
        lines.append(
            f"{'':<11}{'faces':>7}{'A':>8}{'B':>8}{'B - A':>9}  {'95 % interval':<18}"
            f"{'only A':>7}{'only B':>7}{'p':>9}"
        )
        for d in self.differences:
            ends = d.interval
            interval = f"[{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else "-"
            lines.append(
                f"{d.question:<11}{d.num_faces:>7}{d.first:>8.3f}{d.second:>8.3f}"
                f"{d.difference:>+9.3f}  {interval:<18}{d.only_first:>7}"
                f"{d.only_second:>7}{d.p_value:>9.3g}"
            )
        lines += [
            f"{d.question}: {d.num_clusters} {self.cluster}s, the largest holds "
            f"{d.largest_share:.1%} of the faces"
            for d in self.differences
        ]
        return "\n".join(lines)


def compare(
    first: str | Path | RunDirectory,
    second: str | Path | RunDirectory,
    *,
    predictions: str = "predictions.csv",
    cluster: str = "subject",
    by: str | Sequence[str] = (),
) -> Comparison:
    """Compares two runs face by face, from the predictions they left behind.

    Interval and test describe these two models on other people of the same kind: the
    errors on two faces of one person agree, so that people are drawn, not faces. They
    do not cover other seeds or folds: `compare_sets` does.

    Args:
        first: A run or its directory.
        second: Another one, scored on the same faces.
        predictions: File of both to read. Defaults to that of the test split.
        cluster: What is independent: `"subject"` (default), `"album"` (whose pictures
            they are, for Adience) or `"face"`. A face whose subject nobody knows counts
            as a subject of its own.
        by: Columns of the predictions that give further `cells`: `"race"`, or
            `"race,gender"` for both crossed. Defaults to none.

    Returns:
        Accuracies, paired differences, those of cells, and the settings that differ.

    Raises:
        ValueError: If a run has no predictions, they do not say who is on the faces or
            have no such column, or the two have no face in common.

    Example:
    >>> print(compare("runs/categorical", "runs/ordinal"))  # doctest: +SKIP
    """
    check_cluster(cluster)
    runs = open_run(first), open_run(second)
    by = as_groupings(by)
    paired = paired_answers(runs, predictions, cluster, by)
    answers, warnings = paired.faces, paired.notes
    clusters = Clusters.of(answers["who"])
    if cluster != "face" and clusters.num_clusters == len(answers) > 1:
        warnings.append(f"every face counts as a {cluster} of its own")
    found = [_difference(question, answers, clusters) for question in QUESTIONS]
    measured = measure_cells(pool_seeds(answers), by)
    return Comparison(
        (str(runs[0].path), str(runs[1].path)),
        tuple(d for d in found if d is not None),
        differing_settings(*(run.recipe().to_dict() for run in runs)),
        tuple(warnings),
        cluster,
        judge_cells([measured])[0],
        tuple(paired.unanswered),
        tuple(paired.unjudged),
    )


def open_run(run: str | Path | RunDirectory) -> RunDirectory:
    """Returns a run of a folder; a run as it is."""
    return run if isinstance(run, RunDirectory) else RunDirectory.open(run)


def _difference(
    question: str, answers: pd.DataFrame, clusters: Clusters
) -> PairedDifference | None:
    if f"first_{question}" not in answers:
        return None
    known = answers[f"first_{question}"].notna().to_numpy()
    if not known.any():
        return None
    first, second = (
        answers[f"{side}_{question}"].to_numpy()[known] for side in ("first", "second")
    )
    own = clusters.select(known)
    differences = second - first
    return PairedDifference(
        question,
        len(first),
        float(first.mean()),
        float(second.mean()),
        int((differences < 0).sum()),
        int((differences > 0).sum()),
        difference_interval(first, second, own).interval,
        paired_test(differences, own),
        own.num_clusters,
        own.largest_share,
    )
