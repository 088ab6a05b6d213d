"""Which interval a figure of several runs has: over folds, seeds, or a run's faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_agegender.evaluation.clusters import Estimate
from keras_agegender.evaluation.resampling import interval_over_runs


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
