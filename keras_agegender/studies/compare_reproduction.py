"""Comparison of every two recipes of a reproduction."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keras_agegender.evaluation.paired_test import holm_levels
from keras_agegender.studies.compare_sets import SetComparison, measure_sets
from keras_agegender.studies.gate import CellDifference, gate_lines, judge_cells
from keras_agegender.studies.pooling import PooledDifference

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
