"""Paired tests over clusters, and their correction where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_agegender.evaluation.clusters import Clusters


def paired_test(differences: Any, clusters: Clusters) -> float:
    """Returns how likely a difference as large is if neither of two models is better.

    The sign-flip test over clusters: if neither is better, the sum of a cluster's
    differences is as likely as its opposite, and all signs are equally likely (Fisher
    1935; Canay, Romano & Shaikh, "Randomization Tests under an Approximate Symmetry
    Assumption", Econometrica 85, 2017). Two-sided and exact, by the distribution of all
    sign patterns, not by a sample of them. Where each face is a cluster of its own it
    is McNemar's exact test.

    Args:
        differences: Right in the second model minus right in the first, whole numbers.
            Shape (num_faces,).
        clusters: Which faces belong together.

    Returns:
        The p-value, in (0, 1].

    Raises:
        ValueError: If a difference is no whole number.

    Example:
    >>> p_value = paired_test([1, 1, 1, 1, -1], Clusters.of([""] * 5))
    >>> round(p_value, 6)  # 2 * (1 + 5) / 32
    0.375
    """
    from scipy.stats import binom

    sums = clusters.sums(differences)
    if (sums != np.round(sums)).any():
        raise ValueError(
            "Invalid `differences`. Expected whole numbers, such as right minus right. "
            f"Received: a cluster's sum of {sums[sums != np.round(sums)][0]}."
        )
    sizes, counts = np.unique(np.abs(sums[sums != 0]).astype(int), return_counts=True)
    # Probability of every sum of the differences whose sign is positive.
    chances = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        kernel = np.zeros(size * count + 1)
        kernel[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, kernel)
    total = len(chances) - 1
    outcomes = np.abs(2 * np.arange(total + 1) - total)
    return float(min(chances[outcomes >= abs(sums.sum())].sum(), 1.0))


def holm_levels(p_values: Sequence[float], alpha: float = 0.05) -> list[float]:
    """Returns the level that Holm's procedure holds each p-value against.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
    Journal of Statistics 6, 1979. From the smallest up, p-values are held against
    alpha / m, alpha / (m - 1), …; the first that is larger ends it, and those behind it
    have its level.

    Args:
        p_values: Of each test, in [0, 1].
        alpha: The chance of one false finding or more. Defaults to 0.05.

    Returns:
        A level for each; what is at most its level is a finding.

    Example:
    >>> holm_levels([0.04, 0.001, 0.03], alpha=0.06)
    [0.06, 0.02, 0.03]
    """
    levels = [alpha] * len(p_values)
    stopped = None
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        level = alpha / (len(p_values) - rank) if stopped is None else stopped
        levels[index] = level
        if stopped is None and p_values[index] > level:
            stopped = level
    return levels
