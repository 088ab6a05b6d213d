"""Compares runs, recipes over folds and seeds, and the recipes of a reproduction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from keras_agegender.errors import counted
from keras_agegender.evaluation.groups import FEW_FACES, FEW_SUBJECTS, as_groupings
from keras_agegender.metrics import intervals
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies import gate, paired_predictions as pairing
from keras_agegender.studies.gate import CellDifference, MeasuredCell
from keras_agegender.studies.paired_predictions import TASKS, Place, RunSet

CLUSTERS = ("subject", "album", "face")
_OVER = {
    "folds": "over folds, corrected for shared training faces",
    "seeds": "over seeds of one fold",
    "": "no interval: all pairs alike, or training faces unknown",
}


@dataclass(frozen=True)
class AccuracyDifference:
    """The accuracies of two runs, or two sets of runs, in one task on the same faces.

    Attributes:
        task: `"gender"` or `"age_group"`.
        num_faces: Number of different labeled faces, of all folds.
        first: Accuracy of the first; for a set, the mean over faces of each face's mean
            over seeds.
        second: Accuracy of the second.
        only_first: Number of faces that the first predicts correctly more often.
        only_second: Number of faces that the second predicts correctly more often.
        interval: 95 % interval of second minus first for these trained models on other
            people; `None` for fewer than two clusters.
        p_value: P-value of the sign-flip test over clusters, which is McNemar's exact
            test if each face is a cluster of its own.
        num_clusters: Number of people (or albums).
        largest_share: Share of the faces in the largest cluster.
        over_runs: Mean of the folds' differences, with the interval over training runs.
        components: Variances of the runs' differences over folds and seeds.
        by_run: Test split and seed -> difference of that pair of runs.
    """

    task: str
    num_faces: int
    first: float
    second: float
    only_first: int
    only_second: int
    interval: tuple[float, float] | None
    p_value: float
    num_clusters: int
    largest_share: float
    over_runs: intervals.RunsInterval
    components: intervals.VarianceComponents
    by_run: dict[Place, float]

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        paths: The two runs, or folders of runs.
        num_pairs: Number of pairs of runs with the same fold and seed.
        differences: Gender and age group, if all runs predict them.
        settings: Recipe setting -> its values in both, if they differ.
        warnings: Reasons why the comparison may be unfair.
        cluster: Unit of independence: `"subject"`, `"album"` or `"face"`.
        cells: The differences on all faces, on every age group of a gender and on the
            requested groups, the worst first; also of extra heads with classes.
        missing: Tasks that the first predicts and the second does not.
        untested: Other predictions, which are not among `cells`.
        published: Lines with the report's scores of the runs, for the same data.
    """

    paths: tuple[str, str]
    num_pairs: int
    differences: tuple[AccuracyDifference, ...]
    settings: dict[str, tuple[Any, Any]]
    warnings: tuple[str, ...] = ()
    cluster: str = "subject"
    cells: tuple[CellDifference, ...] = ()
    missing: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()
    published: tuple[str, ...] = ()

    @property
    def worse(self) -> tuple[CellDifference, ...]:
        """The cells in which the second model is significantly worse."""
        return tuple(cell for cell in self.cells if cell.worse)

    @property
    def failed(self) -> bool:
        """Whether a cell is significantly worse, or a task is no longer predicted."""
        return bool(self.worse or self.missing)

    def gate(self) -> str:
        """Returns the cells and the verdict, as `agegender compare --gate` prints."""
        return gate.gate_text(
            self.cells, self.cluster, missing=self.missing, untested=self.untested
        )

    def __str__(self) -> str:
        lines = [f"A {self.paths[0]}", f"B {self.paths[1]}"]
        lines += [f"  {key}: {a!r} | {b!r}" for key, (a, b) in self.settings.items()]
        lines += [f"  note: {warning}" for warning in self.warnings]
        if self.num_pairs > 1:
            lines.append(f"{self.num_pairs} pairs of runs")
        lines.append(self._table())
        lines += self.published
        for d in self.differences:
            text = (
                f"{d.task}: {counted(d.num_clusters, self.cluster)}, the largest has "
            )
            text += f"{d.largest_share:.1%} of the faces"
            few = d.num_faces < FEW_FACES or d.num_clusters < FEW_SUBJECTS
            lines.append(text + ("; TOO FEW for a reliable comparison" if few else ""))
        if self.num_pairs > 1:
            lines.append(
                f"interval and p: these trained models on other {self.cluster}s, each "
                "face's mean over seeds"
            )
            for d in self.differences:
                lines += ["", *_training_lines(d)]
        return "\n".join(lines)

    def _table(self) -> str:
        headers = (
            "task", "faces", f"{self.cluster}s", "A", "B", "B - A", "95 % interval",
            "only A", "only B", "p",
        )  # fmt: skip
        rows = [
            (
                *(d.task, d.num_faces, d.num_clusters, f"{d.first:.3f}"),
                *(f"{d.second:.3f}", f"{d.difference:+.3f}"),
                *(gate.format_interval(d.interval), d.only_first, d.only_second),
                f"{d.p_value:.3g}",
            )
            for d in self.differences
        ]
        align = ("left", *["right"] * 5, "left", *["right"] * 3) if rows else None
        return tabulate(rows, headers, "plain", disable_numparse=True, colalign=align)


def _training_lines(d: AccuracyDifference) -> list[str]:
    """Returns lines about the variance over training runs and each pair of runs."""
    found = d.over_runs
    ends = None if found.low is None or found.high is None else (found.low, found.high)
    return [
        f"{d.task}, other training runs: mean of folds {found.mean:+.3f}  "
        f"{gate.format_interval(ends)} ({_OVER[found.over]})",
        f"  {d.components}",
        *(
            f"  {fold_name(fold) or 'test'}, seed {seed}: {value:+.3f}"
            for (fold, seed), value in d.by_run.items()
        ),
    ]


def fold_name(test_split: str) -> str:
    """Returns a short name of a test split; `quick` has long expressions."""
    names = dict.fromkeys(part.partition("[")[0] for part in test_split.split("+"))
    return "+".join(names) + (" (a part)" if "[" in test_split else "")


def compare(
    first: str | Path | RunDirectory,
    second: str | Path | RunDirectory,
    *,
    predictions: str = "predictions.csv",
    cluster: str = "subject",
    by: str | Sequence[str] = (),
) -> Comparison:
    """Compares two runs, or two recipes over folds and seeds, face by face.

    Folders of runs are compared by pairs of runs with the same fold and seed. The
    difference is the mean over all faces of each face's mean over seeds. Its interval
    and test describe these trained models on other people from the same population:
    they are clustered by person, since errors on faces of one person are correlated.
    `over_runs` describes other training runs; `components` splits its variance into
    folds and seeds.

    Args:
        first: A run, its directory, or a folder of runs of one recipe.
        second: Another one, scored on the same faces.
        predictions: Name of the predictions file of each run. Defaults to that of the
            test split.
        cluster: Unit of independence: `"subject"` (default), `"album"` (the uploader
            of the photos, in Adience) or `"face"`. A face without a subject is a
            subject of its own.
        by: Columns of the predictions for additional `cells`: `"race"`, or
            `"race,gender"` for both crossed. Defaults to none.

    Raises:
        ValueError: If predictions or a column are missing, a folder has no runs or runs
            of several recipes, or there are no common folds and seeds, or faces.

    Example:
    >>> print(compare("runs/categorical", "runs/ordinal"))  # doctest: +SKIP
    >>> print(compare("reproduced/runs/13_resnet_ordinal",
    ...               "reproduced/runs/14_resnet_se_ordinal"))  # doctest: +SKIP
    """
    found, cells = _measure(first, second, predictions, cluster, by)
    return replace(found, cells=gate.apply_levels([cells])[0])


def _measure(
    first: str | Path | RunDirectory,
    second: str | Path | RunDirectory,
    predictions: str,
    cluster: str,
    by: str | Sequence[str],
) -> tuple[Comparison, list[MeasuredCell]]:
    """Returns a comparison without cells, and its cells before they have levels."""
    if cluster not in CLUSTERS:
        raise ValueError(
            f"Invalid `cluster`. Expected one of {CLUSTERS}. Received: {cluster!r}."
        )
    by = as_groupings(by)
    sets = [pairing.open_run_set(folder, predictions) for folder in (first, second)]
    pairs, warnings = _pair_runs(sets)
    tables = []
    missing: dict[str, None] = {}
    untested: dict[str, None] = {}
    for (fold, seed), runs in pairs.items():
        paired = pairing.pair_predictions(runs, predictions, cluster, by)
        tables.append(paired.faces.assign(fold=fold, seed=seed))
        warnings += [note for note in paired.notes if note not in warnings]
        missing |= dict.fromkeys(paired.missing)
        untested |= dict.fromkeys(paired.untested)
    faces = pd.concat(tables, ignore_index=True)
    pooled = pairing.pool_seeds(faces)
    clusters = intervals.Clusters.of(pooled["cluster"])
    if cluster != "face" and clusters.num_clusters == len(pooled) > 1:
        warnings.append(f"every face counts as a {cluster} of its own")
    ratio = None
    if len(pairs) > 1:
        firsts = {place: runs[0] for place, runs in pairs.items()}
        ratio = pairing.test_to_train_ratio(firsts)
    recipes = [next(iter(s.runs.values())).recipe().to_dict() for s in sets]
    comparison = Comparison(
        (str(sets[0].path), str(sets[1].path)),
        len(pairs),
        tuple(_difference(t, faces, ratio) for t in TASKS if _is_known(t, faces)),
        pairing.differing_settings(*recipes),
        tuple(warnings),
        cluster,
        missing=tuple(missing),
        untested=tuple(untested),
        published=_published(pairs, predictions),
    )
    return comparison, gate.measure_cells(pooled, by)


def _published(
    pairs: Mapping[Place, tuple[RunDirectory, RunDirectory]], predictions: str
) -> tuple[str, ...]:
    """Returns the report's scores of both runs of a single pair."""
    lines = []
    if len(pairs) == 1:
        for name, run in zip("AB", next(iter(pairs.values())), strict=True):
            metrics = pairing.read_metrics(run, predictions) or {}
            scores = [
                f"{score['title']} {score['published']:.3f} (here "
                f"{score['measured']:.3f})"
                for score in metrics.get("published") or ()
            ]
            if scores:
                lines.append(f"published for {name}: {', '.join(scores)}")
    return tuple(lines)


def _pair_runs(
    sets: Sequence[RunSet],
) -> tuple[dict[Place, tuple[RunDirectory, RunDirectory]], list[str]]:
    """Returns pairs of runs by fold and seed, and notes on those without a partner."""
    first, second = sets
    if first.is_run and second.is_run:  # of whatever folds and seeds
        (place, run), (other,) = *first.runs.items(), second.runs.values()
        return {place: (run, other)}, []
    pairs = {
        place: (run, second.runs[place])
        for place, run in sorted(first.runs.items())
        if place in second.runs
    }
    if not pairs:
        raise ValueError(
            f"{first.path} and {second.path} have no test split and seed in common. "
            "Expected runs of the same folds and seeds. Received: "
            f"{sorted(first.runs)} and {sorted(second.runs)}."
        )
    notes = []
    for found in sets:
        notes += [f"{path} is unfinished" for path in found.unfinished]
        notes += [
            f"the fold and seed of {run.path} have no other run"
            for place, run in found.runs.items()
            if place not in pairs
        ]
    return pairs, notes


def _is_known(task: str, faces: pd.DataFrame) -> bool:
    return f"second_{task}" in faces and bool(faces[f"second_{task}"].notna().any())


def _difference(
    task: str, faces: pd.DataFrame, ratio: float | None
) -> AccuracyDifference:
    known = faces[faces[f"first_{task}"].notna()]
    known = known.assign(difference=known[f"second_{task}"] - known[f"first_{task}"])
    pooled = pairing.pool_seeds(known)
    first, second, whole = (
        pooled[f"{side}_{task}"] for side in ("first", "second", "whole")
    )
    clusters = intervals.Clusters.of(pooled["cluster"])
    means = known.groupby(["fold", "seed"])["difference"].mean()
    by_run = {(str(f), int(s)): float(value) for (f, s), value in means.items()}
    folds, seeds = zip(*by_run, strict=True)
    values = list(by_run.values())
    over_runs = intervals.runs_interval(values, folds, test_to_train=ratio)
    return AccuracyDifference(
        task,
        len(pooled),
        float(first.mean()),
        float(second.mean()),
        int((whole < 0).sum()),
        int((whole > 0).sum()),
        intervals.difference_interval(first, second, clusters).interval,
        intervals.paired_test(whole, clusters),
        clusters.num_clusters,
        clusters.largest_share,
        over_runs.within(-1.0, 1.0),
        intervals.variance_components(values, folds, seeds),
        by_run,
    )


@dataclass(frozen=True)
class ReproductionComparison:
    """The result of `compare_reproduction`.

    Attributes:
        comparisons: The comparison of each pair of recipes.
        skipped: Reasons why other pairs were not compared.
    """

    comparisons: tuple[Comparison, ...]
    skipped: tuple[str, ...] = ()

    def findings(self) -> list[tuple[Comparison, AccuracyDifference, float]]:
        """Returns the significant differences, with their levels by Holm's method."""
        tests = [(c, d) for c in self.comparisons for d in c.differences]
        levels = intervals.holm_levels([d.p_value for _, d in tests], gate.ALPHA)
        return [
            (c, d, level)
            for (c, d), level in zip(tests, levels, strict=True)
            if d.p_value <= level
        ]

    @property
    def worse(self) -> tuple[CellDifference, ...]:
        """The cells in which a second recipe is significantly worse than a first."""
        return tuple(cell for found in self.comparisons for cell in found.worse)

    @property
    def failed(self) -> bool:
        """Whether a cell is worse; recipes may predict different tasks."""
        return bool(self.worse)

    def gate(self) -> str:
        """Returns the verdict of every comparison, as `--gate` prints."""
        blocks = []
        for found in self.comparisons:
            first, second = (Path(path).name for path in found.paths)
            untested = [f"{t} ({second} does not predict it)" for t in found.missing]
            untested += found.untested
            text = gate.gate_text(found.cells, found.cluster, second, untested=untested)
            blocks.append(f"A {first}, B {second}\n{text}")
        return "\n\n".join(blocks)

    def __str__(self) -> str:
        blocks = [str(found) for found in self.comparisons]
        if self.skipped:
            blocks.append("\n".join(f"not compared: {why}" for why in self.skipped))
        number = sum(len(c.differences) for c in self.comparisons)
        lines = [
            f"{d.task}: {Path(c.paths[0]).name} -> {Path(c.paths[1]).name} "
            f"{d.difference:+.3f}, p = {d.p_value:.3g} <= {level:.3g}"
            for c, d, level in self.findings()
        ]
        title = f"Significant differences by Holm's correction over {number} tests:"
        blocks.append("\n".join([title, *(lines or ["none"])]))
        return "\n\n".join(blocks)


def compare_reproduction(
    folder: str | Path,
    *,
    predictions: str = "predictions.csv",
    cluster: str = "subject",
    by: str | Sequence[str] = (),
) -> ReproductionComparison:
    """Compares every two recipes of a reproduction, as `compare` does.

    Recipes are A and B in the order of their folders' names. Holm's correction is over
    the cells of all comparisons.

    Args:
        folder: A folder written by `reproduce`.
        predictions: As in `compare`.
        cluster: As in `compare`.
        by: As in `compare`.

    Raises:
        ValueError: If the folder does not contain two comparable recipes.

    Example:
    >>> print(compare_reproduction("reproduced"))  # doctest: +SKIP
    """
    recipes = sorted(
        {f.parent.parent for f in Path(folder).glob("runs/*/*/recipe.toml")}
    )
    if len(recipes) < 2:
        raise ValueError(
            "Invalid folder. Expected one written by `agegender reproduce`, with at "
            f"least two recipes. Received: {folder} with {len(recipes)}."
        )
    found, measured, skipped = [], [], []
    for first, second in itertools.combinations(recipes, 2):
        try:
            comparison, cells = _measure(first, second, predictions, cluster, by)
        except ValueError as error:  # no faces in common: one is a pretraining
            skipped.append(f"{first.name} and {second.name}: {error}")
            continue
        found.append(comparison)
        measured.append(cells)
    if not found:
        raise ValueError(f"No recipes of {folder} can be compared. {skipped[0]}")
    comparisons = (
        replace(comparison, cells=cells)
        for comparison, cells in zip(found, gate.apply_levels(measured), strict=True)
    )
    return ReproductionComparison(tuple(comparisons), tuple(skipped))
