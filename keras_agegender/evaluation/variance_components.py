"""Variance components: how much a figure differs over folds, and how much over seeds.

The estimators are those of the analysis of variance, mean squares set equal to their
expectations: Searle, Casella & McCulloch, "Variance Components", Wiley 1992, section
4.2 (two-way, balanced, one value in each cell) and section 3.6 (one-way, unbalanced).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of a figure over folds and seeds.

    Attributes:
        num_folds: Different folds.
        num_seeds: Different seeds.
        fold: Variance over folds, other faces to train on and to test on; `None` of
            one fold.
        seed: Variance over seeds; `None` where every fold has one.
        rest: Variance of fold and seed together, beyond both; `None` unless every fold
            has every seed.
        note: How they were found and what they leave out, in words.
    """

    num_folds: int
    num_seeds: int
    fold: float | None
    seed: float | None
    rest: float | None
    note: str

    def __str__(self) -> str:
        parts = [
            f"{name} {np.sqrt(value):.4f}"
            for name, value in (
                ("folds", self.fold),
                ("seeds", self.seed),
                ("fold x seed", self.rest),
            )
            if value is not None
        ]
        known = f"standard deviation over {', '.join(parts)}; " if parts else ""
        return known + self.note


def variance_components(
    values: Sequence[float], folds: Sequence[Any], seeds: Sequence[Any]
) -> VarianceComponents:
    """Returns the variances of a figure over folds and over seeds.

    A table of every fold with every seed is analyzed two-way (both random, a value in
    each cell), one with gaps one-way: seeds within folds. An estimate below 0, which
    chance makes of a small variance, is 0 and said to be.

    Args:
        values: The figure of each run.
        folds: Test fold of each run.
        seeds: Seed of each run.

    Raises:
        ValueError: If there is no value, not a fold and a seed for each, or a fold and
            seed twice.

    Example:
    >>> found = variance_components([1, 2, 4, 3], [0, 0, 1, 1], [0, 1, 0, 1])
    >>> found.fold, found.seed, found.rest
    (1.5, 0.0, 1.0)
    """
    cells = list(zip(folds, seeds, strict=False))
    if not len(values) or not len(values) == len(folds) == len(seeds):
        raise ValueError(
            "Invalid `values`, `folds` or `seeds`. Expected a value or more, a fold "
            f"and a seed for each. Received: {len(values)} values, {len(folds)} folds, "
            f"{len(seeds)} seeds."
        )
    if len(set(cells)) < len(cells):
        twice = next(cell for cell in cells if cells.count(cell) > 1)
        raise ValueError(
            "Invalid `folds` and `seeds`. Expected one value for each fold and seed. "
            f"Received: fold {twice[0]!r} with seed {twice[1]!r} twice."
        )
    by_cell = dict(zip(cells, map(float, values), strict=True))
    names = list(dict.fromkeys(folds)), list(dict.fromkeys(seeds))
    counts = len(names[0]), len(names[1])
    if len(values) == 1:
        note = "one fold and one seed: no variance is known"
        return VarianceComponents(*counts, None, None, None, note)
    if counts[0] == 1:
        note = "one fold: the variance over folds is not known"
        return VarianceComponents(*counts, None, _variance(values), None, note)
    if len(values) == counts[0]:
        note = "one seed in each fold: the variance over folds holds that over seeds"
        return VarianceComponents(*counts, _variance(values), None, None, note)
    if len(values) == counts[0] * counts[1]:
        table = np.array([[by_cell[f, s] for s in names[1]] for f in names[0]])
        return _two_way(table)
    return _one_way([[v for (f, _), v in by_cell.items() if f == n] for n in names[0]],
                    counts[1])  # fmt: skip


def _variance(values: Sequence[float]) -> float:
    return float(np.var(values, ddof=1))


def _two_way(table: np.ndarray) -> VarianceComponents:
    """Returns the components of a table of folds (rows) and seeds (columns)."""
    num_folds, num_seeds = table.shape
    of_folds, of_seeds = table.mean(axis=1), table.mean(axis=0)
    rest = table - of_folds[:, None] - of_seeds + table.mean()
    squares = float((rest**2).sum() / ((num_folds - 1) * (num_seeds - 1)))
    fold = _variance(of_folds) - squares / num_seeds
    seed = _variance(of_seeds) - squares / num_folds
    note = _note("two-way analysis of variance", fold=fold, seed=seed)
    return VarianceComponents(
        num_folds, num_seeds, max(fold, 0.0), max(seed, 0.0), squares, note
    )


def _one_way(groups: Sequence[Sequence[float]], num_seeds: int) -> VarianceComponents:
    """Returns the components of folds of different seeds, or numbers of them."""
    sizes = np.array([len(group) for group in groups])
    means = np.array([np.mean(group) for group in groups])
    total, count = sizes.sum(), len(groups)
    inside = sum(((np.array(g) - np.mean(g)) ** 2).sum() for g in groups)
    within = float(inside / (total - count))
    middle = (sizes * means).sum() / total
    between = (sizes * (means - middle) ** 2).sum() / (count - 1)
    typical = (total - (sizes**2).sum() / total) / (count - 1)
    fold = float((between - within) / typical)
    note = _note(
        "one-way analysis of variance, since not every fold has every seed", fold=fold
    )
    return VarianceComponents(count, num_seeds, max(fold, 0.0), within, None, note)


def _note(how: str, **components: float) -> str:
    below = [f"{name}s" for name, value in components.items() if value < 0]
    return how + (f" (below 0, set to 0: {' and '.join(below)})" if below else "")
