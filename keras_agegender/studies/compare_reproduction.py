"""Comparison of every two recipes of a reproduction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from keras_agegender.evaluation.paired_test import holm_levels
from keras_agegender.studies.compare_sets import SetComparison, compare_sets
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
) -> ReproductionComparison:
    """Compares every two recipes of a reproduction, as `compare_sets` does.

    Args:
        folder: What `reproduce` made.
        predictions: File of every run to read.
        cluster: What is independent, as in `compare_sets`.

    Returns:
        The comparisons, and why the others are none.

    Raises:
        ValueError: If the folder holds no two recipes that can be compared.

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
                compare_sets(first, second, predictions=predictions, cluster=cluster)
            )
        except ValueError as error:  # no faces in common: one is a pretraining
            skipped.append(f"{first.name} and {second.name}: {error}")
    if not found:
        raise ValueError(f"No two recipes of {folder} can be compared. {skipped[0]}")
    return ReproductionComparison(tuple(found), tuple(skipped))
