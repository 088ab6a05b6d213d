"""Compares runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.evaluation.groups import as_groupings
from keras_agegender.metrics.intervals import (
    Clusters,
    difference_interval,
    holm_levels,
    paired_test,
)
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.gate import (
    CellDifference,
    MeasuredCell,
    gate_lines,
    judge_cells,
    measure_cells,
    worse_cells,
)
from keras_agegender.studies.paired_predictions import (
    TASKS,
    Place,
    PooledDifference,
    RunSet,
    check_cluster,
    differing_settings,
    ends_text,
    open_run_set,
    paired_answers,
    pool_seeds,
    pooled_difference,
    test_to_train_of,
    training_lines,
)


class Judged:
    """The verdict on `cells`, and on what else a comparison answers."""

    cells: tuple[CellDifference, ...]
    cluster: str
    unanswered: tuple[str, ...]
    unjudged: tuple[str, ...]

    @property
    def worse(self) -> tuple[CellDifference, ...]:
        """The cells in which the second is worse beyond noise."""
        return worse_cells(self.cells)

    @property
    def failed(self) -> bool:
        """Whether a cell got worse, or a question is no longer answered."""
        return bool(self.worse or self.unanswered)

    def gate(self) -> str:
        """Returns the verdict over the cells, as `agegender compare --gate` prints."""
        lines = gate_lines(
            self.cells,
            self.cluster,
            unanswered=self.unanswered,
            unjudged=self.unjudged,
        )
        return "\n".join(lines)


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
    found = [_difference(question, answers, clusters) for question in TASKS]
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


@dataclass(frozen=True)
class SetComparison(Judged):
    """What `compare_sets` found.

    Attributes:
        sets: The two folders.
        num_pairs: Pairs of runs of the same fold and seed.
        differences: One for each question that all of them answer.
        settings: Recipe setting -> its values in both, where they differ.
        warnings: Reasons why the comparison may be unfair.
        cluster: What intervals and tests take for independent.
        cells: The pooled differences of all faces, of every age group of a gender and
            of the groups asked for, the worst first; of further outputs too.
        unanswered: Questions that the first answers and the second does not: the gate
            is failed.
        unjudged: What else is answered and is not among `cells`.
    """

    sets: tuple[str, str]
    num_pairs: int
    differences: tuple[PooledDifference, ...]
    settings: dict[str, tuple[Any, Any]]
    warnings: tuple[str, ...] = ()
    cluster: str = "subject"
    cells: tuple[CellDifference, ...] = ()
    unanswered: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"A {self.sets[0]}", f"B {self.sets[1]}"]
        lines += [f"  {key}: {a!r} | {b!r}" for key, (a, b) in self.settings.items()]
        lines += [f"  note: {warning}" for warning in self.warnings]
        lines.append(
            f"{self.num_pairs} pairs of runs\n"
            f"{'':<11}{'faces':>7}{self.cluster + 's':>10}{'A':>8}{'B':>8}"
            f"{'B - A':>9}  {'95 % interval':<18}{'p':>9}"
        )
        for d in self.differences:
            lines.append(
                f"{d.question:<11}{d.num_faces:>7}{d.num_clusters:>10}{d.first:>8.3f}"
                f"{d.second:>8.3f}{d.difference:>+9.3f}  {ends_text(d.interval):<18}"
                f"{d.p_value:>9.3g}"
            )
        lines.append(
            f"interval and p: these trained models on other {self.cluster}s, each "
            "face's mean over seeds"
        )
        for d in self.differences:
            lines += ["", *training_lines(d)]
        return "\n".join(lines)


def compare_sets(
    first: str | Path,
    second: str | Path,
    *,
    predictions: str = "predictions.csv",
    cluster: str = "subject",
    by: str | Sequence[str] = (),
) -> SetComparison:
    """Compares two recipes over folds and seeds, by runs of the same fold and seed.

    The pooled difference takes each face's mean over seeds, then all faces of all
    folds, clustered: its interval and test are of these trained models on other
    people. `over_runs` is what other trainings would give; `components` says how much
    of its spread is of folds and how much of seeds.

    Args:
        first: A folder of runs of one recipe, or a single run.
        second: Another one, over the same folds and seeds.
        predictions: File of every run to read. Defaults to that of the test split.
        cluster: What is independent: `"subject"` (default), `"album"` or `"face"`. A
            face whose subject nobody knows counts as a subject of its own.
        by: Columns of the predictions that give further `cells`: `"race"`, or
            `"race,gender"` for both crossed. Defaults to none.

    Returns:
        Pooled differences, those of cells, variances over folds and seeds, settings
        that differ.

    Raises:
        ValueError: If a folder holds no runs or several recipes, the two have no fold
            and seed or no face in common, nobody says who is on the faces, or
            predictions have no such column.

    Example:
    >>> print(compare_sets("reproduced/runs/13_resnet_ordinal",
    ...                    "reproduced/runs/14_resnet_se_ordinal"))  # doctest: +SKIP
    """
    found, measured = measure_sets(
        first, second, predictions=predictions, cluster=cluster, by=by
    )
    return replace(found, cells=judge_cells([measured])[0])


def measure_sets(
    first: str | Path,
    second: str | Path,
    *,
    predictions: str,
    cluster: str,
    by: str | Sequence[str],
) -> tuple[SetComparison, list[MeasuredCell]]:
    """Returns a comparison without cells, and its cells before they are judged.

    Args:
        first: As in `compare_sets`, and so are the others.
        second: Another one.
        predictions: File of every run to read.
        cluster: What is independent.
        by: Columns that give further cells.
    """
    check_cluster(cluster)
    by = as_groupings(by)
    sets = [open_run_set(folder, predictions) for folder in (first, second)]
    pairs = {
        place: (run, sets[1].runs[place])
        for place, run in sorted(sets[0].runs.items())
        if place in sets[1].runs
    }
    if not pairs:
        theirs = [sorted(found.runs) for found in sets]
        raise ValueError(
            f"{first} and {second} have no test split and seed in common. Expected "
            f"runs of the same folds and seeds. Received: {theirs[0]} and {theirs[1]}."
        )
    warnings = [*_unpaired(sets, pairs)]
    tables = []
    unanswered: dict[str, None] = {}
    unjudged: dict[str, None] = {}
    for place, runs in pairs.items():
        paired = paired_answers(runs, predictions, cluster, by)
        tables.append(paired.faces.assign(fold=place[0], seed=place[1]))
        warnings += [note for note in paired.notes if note not in warnings]
        unanswered |= dict.fromkeys(paired.unanswered)
        unjudged |= dict.fromkeys(paired.unjudged)
    answers = pd.concat(tables, ignore_index=True)
    ratio = test_to_train_of({place: runs[0] for place, runs in pairs.items()})
    settings = [next(iter(found.runs.values())).recipe().to_dict() for found in sets]
    found = SetComparison(
        (str(first), str(second)),
        len(pairs),
        tuple(
            pooled_difference(question, answers, ratio)
            for question in TASKS
            if f"second_{question}" in answers
            and answers[f"second_{question}"].notna().any()
        ),
        differing_settings(*settings),
        tuple(warnings),
        cluster,
        unanswered=tuple(unanswered),
        unjudged=tuple(unjudged),
    )
    return found, measure_cells(pool_seeds(answers), by)


def _unpaired(sets: Sequence[RunSet], pairs: dict[Place, Any]) -> list[str]:
    """Says which runs are left out."""
    notes = []
    for found in sets:
        notes += [f"{path} is not finished" for path in found.unfinished]
        alone = [place for place in found.runs if place not in pairs]
        notes += [
            f"{found.runs[place].path} has no run of its fold and seed in the other"
            for place in alone
        ]
    return notes


ALPHA = 0.05


@dataclass(frozen=True)
class ReproductionComparison:
    """What `compare_reproduction` found.

    Attributes:
        comparisons: Of every two recipes.
        skipped: Why two recipes were not compared.
    """

    comparisons: tuple[SetComparison, ...]
    skipped: tuple[str, ...] = ()

    def findings(self) -> list[tuple[SetComparison, PooledDifference, float]]:
        """Returns the differences beyond noise, with the level that Holm's leaves."""
        tests = [(c, d) for c in self.comparisons for d in c.differences]
        levels = holm_levels([d.p_value for _, d in tests], ALPHA)
        return [
            (c, d, level)
            for (c, d), level in zip(tests, levels, strict=True)
            if d.p_value <= level
        ]

    @property
    def worse(self) -> tuple[CellDifference, ...]:
        """The cells in which a second recipe is worse than a first beyond noise."""
        return tuple(cell for found in self.comparisons for cell in found.worse)

    @property
    def failed(self) -> bool:
        """Whether a cell got worse; recipes may answer other questions."""
        return bool(self.worse)

    def gate(self) -> str:
        """Returns a verdict for every comparison, as `--gate` prints."""
        blocks = []
        for found in self.comparisons:
            first, second = (Path(folder).name for folder in found.sets)
            unjudged = [f"{q} ({second} does not answer it)" for q in found.unanswered]
            lines = gate_lines(
                found.cells,
                found.cluster,
                second,
                unjudged=[*unjudged, *found.unjudged],
            )
            blocks.append("\n".join([f"A {first}, B {second}", *lines]))
        return "\n\n".join(blocks)

    def __str__(self) -> str:
        blocks = [str(found) for found in self.comparisons]
        if self.skipped:
            blocks.append("\n".join(f"not compared: {why}" for why in self.skipped))
        number = sum(len(c.differences) for c in self.comparisons)
        lines = [
            f"{d.question}: {Path(c.sets[0]).name} -> {Path(c.sets[1]).name} "
            f"{d.difference:+.3f}, p = {d.p_value:.3g} <= {level:.3g}"
            for c, d, level in self.findings()
        ]
        title = f"Differences beyond noise by Holm's correction over {number} tests:"
        blocks.append("\n".join([title, *(lines or ["none"])]))
        return "\n\n".join(blocks)


def compare_reproduction(
    folder: str | Path,
    *,
    predictions: str = "predictions.csv",
    cluster: str = "subject",
    by: str | Sequence[str] = (),
) -> ReproductionComparison:
    """Compares every two recipes of a reproduction, as `compare_sets` does.

    Recipes are A and B in the order of their folders' names. Levels of cells are by
    Holm's correction over those of all comparisons.

    Args:
        folder: What `reproduce` made.
        predictions: File of every run to read.
        cluster: What is independent, as in `compare_sets`.
        by: Columns that give further cells, as in `compare_sets`.

    Returns:
        The comparisons, and why the others are none.

    Raises:
        ValueError: If the folder holds no two recipes that can be compared, or no
            predictions have a column of `by`.

    Example:
    >>> print(compare_reproduction("reproduced"))  # doctest: +SKIP
    """
    recipes = sorted(
        {f.parent.parent for f in Path(folder).glob("runs/*/*/recipe.toml")}
    )
    if len(recipes) < 2:
        raise ValueError(
            f"Invalid folder. Expected one that `agegender reproduce` made, with runs "
            f"of two recipes or more. Received: {folder} with {len(recipes)}."
        )
    found, skipped = [], []
    for first, second in itertools.combinations(recipes, 2):
        try:
            found.append(
                measure_sets(
                    first, second, predictions=predictions, cluster=cluster, by=by
                )
            )
        except ValueError as error:  # no faces in common: one is a pretraining
            skipped.append(f"{first.name} and {second.name}: {error}")
    if not found:
        raise ValueError(f"No two recipes of {folder} can be compared. {skipped[0]}")
    judged = judge_cells([measured for _, measured in found])
    comparisons = (
        replace(comparison, cells=cells)
        for (comparison, _), cells in zip(found, judged, strict=True)
    )
    return ReproductionComparison(tuple(comparisons), tuple(skipped))
