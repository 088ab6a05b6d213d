"""Which interval a figure of several runs has: over folds, seeds, or a run's faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_agegender.evaluation.clusters import Estimate


@dataclass(frozen=True)
class RunsInterval:
    """A figure over runs, and its interval.

    Attributes:
        mean: Mean of the folds' means.
        low: Lower end; `None` where there is no interval.
        high: Upper end.
        over: What it is an interval over: `"folds"`, `"seeds"` (of a single fold),
            `"faces"` (people, of a single run) or `""`.
    """

    mean: float
    low: float | None
    high: float | None
    over: str

    def within(self, low: float, high: float) -> RunsInterval:
        """Returns it with its ends inside the values that the figure can have."""
        if self.low is None or self.high is None:
            return self
        return replace(self, low=max(self.low, low), high=min(self.high, high))


def runs_interval(
    values: Sequence[float],
    folds: Sequence[Any],
    *,
    test_to_train: float | None = 0.0,
    faces: Estimate | None = None,
) -> RunsInterval:
    """Returns the mean of a figure over runs with the interval that they allow.

    Of several folds it is that of `interval_over_runs` over folds, with Nadeau and
    Bengio's correction; of one fold the same over its seeds, which says nothing of
    other faces; of one run the clustered one over its faces, which says nothing of
    other seeds.

    Args:
        values: The figure of each run.
        folds: Test fold of each run.
        test_to_train: Test faces by training faces; `None` where nobody knows, so that
            there is no interval over folds.
        faces: A single run's figure with an interval over its faces; `None` where
            nobody knows it.

    Returns:
        The mean and its interval. Runs that all score the same have none: it would
        have no width, as if nothing else could be.
    """
    if len(values) == 1:
        if faces is None or faces.low is None or faces.high is None:
            return RunsInterval(float(values[0]), None, None, "")
        return RunsInterval(float(values[0]), faces.low, faces.high, "faces")
    if len(set(values)) == 1:
        return RunsInterval(float(values[0]), None, None, "")
    if len(set(folds)) == 1:
        return RunsInterval(*interval_over_runs(values), "seeds")
    if test_to_train is None:
        return RunsInterval(interval_over_runs(values, folds)[0], None, None, "")
    found_ends = interval_over_runs(values, folds, test_to_train=test_to_train)
    return RunsInterval(*found_ends, "folds")


def interval_over_runs(
    values: Sequence[float],
    folds: Sequence[Any] | None = None,
    *,
    test_to_train: float = 0.0,
    confidence: float = 0.95,
) -> tuple[float, float | None, float | None]:
    """Returns the mean of a figure over folds and seeds, with its t interval.

    Seeds of a fold are averaged first: they are not runs on other faces. Folds share
    training faces, which makes the plain t interval too narrow; `test_to_train` widens
    it as Nadeau & Bengio do, "Inference for the Generalization Error", Machine Learning
    52, 2003.

    Args:
        values: The figure of each run.
        folds: Test fold of each run; `None` (default) takes every run for its own.
        test_to_train: Test faces by training faces, 0.25 for five folds. Defaults to 0,
            which is right for seeds and not for folds.
        confidence: Coverage, in (0, 1). Defaults to 0.95.

    Returns:
        `(mean, low, high)`; the ends are `None` of a single fold.

    Raises:
        ValueError: If there is no value, or not one fold for each.

    Example:
    >>> interval_over_runs([0.5, 0.7], [0, 0])
    (0.6, None, None)
    """
    from scipy.stats import t

    names = list(range(len(values)) if folds is None else folds)
    if not len(values) or len(names) != len(values):
        raise ValueError(
            "Invalid `values` or `folds`. Expected a value or more and a fold for "
            f"each. Received: {len(values)} values, {len(names)} folds."
        )
    of_folds = [
        np.mean([v for v, name in zip(values, names, strict=True) if name == fold])
        for fold in dict.fromkeys(names)
    ]
    count, mean = len(of_folds), float(np.mean(of_folds))
    if count < 2:
        return mean, None, None
    error = np.std(of_folds, ddof=1) * np.sqrt(1 / count + test_to_train)
    margin = float(t.ppf((1 + confidence) / 2, count - 1) * error)
    return mean, mean - margin, mean + margin
