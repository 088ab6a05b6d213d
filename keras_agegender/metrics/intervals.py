"""Confidence intervals and tests with clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_agegender.metrics.table import METRICS, Metric, Predictions


@dataclass(frozen=True)
class Clusters:
    """Which faces belong together.

    Attributes:
        ids: Cluster of each face, 0 … `num_clusters` - 1. Shape (num_faces,).
        sizes: Faces of each cluster. Shape (num_clusters,).
    """

    ids: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, names: Any) -> Clusters:
        """Returns the clusters of faces of that name; one without is its own.

        Args:
            names: Subject or album of each face, `""` where unknown. Shape
                (num_faces,).

        Example:
        >>> Clusters.of(["ann", "", "ann", ""]).sizes.tolist()
        [1, 1, 2]
        """
        names = np.asarray(names, dtype="U")
        unknown = names == ""
        found, ids = np.unique(names[~unknown], return_inverse=True)
        alone = int(unknown.sum())
        all_ids = np.empty(len(names), "int64")
        all_ids[unknown] = np.arange(alone)
        all_ids[~unknown] = alone + ids.reshape(-1)
        return cls(all_ids, np.bincount(all_ids, minlength=alone + len(found)))

    @property
    def num_clusters(self) -> int:
        """How many there are."""
        return len(self.sizes)

    @property
    def largest_share(self) -> float:
        """Share of the faces that the largest cluster holds, in [0, 1]."""
        return float(self.sizes.max() / self.sizes.sum()) if len(self.sizes) else 0.0

    def select(self, chosen: np.ndarray) -> Clusters:
        """Returns the clusters of some of the faces.

        Args:
            chosen: Which faces. Boolean of shape (num_faces,).
        """
        _, ids = np.unique(self.ids[chosen], return_inverse=True)
        ids = ids.reshape(-1)
        return Clusters(ids, np.bincount(ids))

    def sums(self, values: Any) -> np.ndarray:
        """Returns each cluster's sum of a value per face. Shape (num_clusters,)."""
        values = np.asarray(values, "float64")
        if values.shape != self.ids.shape:
            raise ValueError(
                f"Invalid values. Expected shape {self.ids.shape}, one for each face. "
                f"Received: shape {values.shape}."
            )
        return np.bincount(self.ids, weights=values, minlength=self.num_clusters)


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: The figure; `None` of no face.
        low: Lower end of its interval; `None` of fewer than two clusters.
        high: Upper end.
        num_faces: Faces behind it.
        num_clusters: Clusters that they come in.
        largest_share: Share of the faces in the largest cluster.
    """

    value: float | None
    low: float | None
    high: float | None
    num_faces: int
    num_clusters: int
    largest_share: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; `None` of fewer than two clusters."""
        if self.low is None or self.high is None:
            return None
        return self.low, self.high

    @classmethod
    def of(cls, value: float, low: float, high: float, clusters: Clusters) -> Estimate:
        """Returns a figure with its interval."""
        return cls(float(value), float(low), float(high), *_counts(clusters))

    @classmethod
    def bare(cls, value: float | None, clusters: Clusters) -> Estimate:
        """Returns a figure of too few clusters for an interval."""
        return cls(value, None, None, *_counts(clusters))


def _counts(clusters: Clusters) -> tuple[int, int, float]:
    return len(clusters.ids), clusters.num_clusters, clusters.largest_share


def mean_interval(
    values: Any, clusters: Clusters, confidence: float = 0.95
) -> Estimate:
    """Returns a mean over faces with its cluster-robust t interval.

    The variance is the mean of two estimates. The sandwich with the CR2 correction
    (Bell & McCaffrey, "Bias Reduction in Standard Errors for Linear Regression with
    Multi-Stage Samples", Survey Methodology 28, 2002) is right whoever agrees with
    whom, but too small where a few people happen to have no large value: alone it
    covers 89 to 92 % of skewed scores at fold 4's sizes. That of one intraclass
    correlation (Kish 1965, by analysis of variance) is stable, but takes agreement for
    the same in everybody. Quantiles are Student's of `num_clusters` - 1 degrees of
    freedom. Faces that are all clusters of their own get the ordinary t interval.

    Coverage measured at fold 4's sizes, at agreements of 0, 0.3 and 0.8: 94 to 96 % of
    absolute errors and of lognormal losses, 96 to 97.1 % of differences of ±1. It is
    lower where large clusters agree and small ones do not (89 % of absolute errors,
    87 % of lognormal losses), and for lognormal losses of few people who agree (85 % of
    ten people).

    Args:
        values: A value of each face, paired differences for instance. Shape
            (num_faces,).
        clusters: Which faces belong together.
        confidence: Coverage, in (0, 1). Defaults to 0.95.

    Returns:
        The mean and its interval.

    Raises:
        ValueError: If there is not one value for each face.

    Example:
    >>> found = mean_interval([0, 1, 2, 3], Clusters.of([""] * 4))
    >>> round(found.low, 3), round(found.high, 3)
    (-0.554, 3.554)
    """
    sums, total = clusters.sums(values), len(clusters.ids)
    if clusters.num_clusters < 2:
        return Estimate.bare(float(sums.sum() / total) if total else None, clusters)
    mean = sums.sum() / total
    margin = student_quantile(clusters, confidence) * np.sqrt(
        clustered_variance(values, clusters)
    )
    return Estimate.of(mean, mean - margin, mean + margin, clusters)


def difference_interval(
    first: np.ndarray, second: np.ndarray, clusters: Clusters, confidence: float = 0.95
) -> Estimate:
    """Returns how much more faces are right in the second of two models."""
    differences = np.asarray(second, "float64") - np.asarray(first, "float64")
    found = mean_interval(differences, clusters, confidence)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def student_quantile(clusters: Clusters, confidence: float) -> float:
    """Returns how many standard errors an interval reaches to either side."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, clusters.num_clusters - 1))


def clustered_variance(values: Any, clusters: Clusters) -> float:
    """Returns the variance of a mean over faces: see `mean_interval`."""
    values = np.asarray(values, "float64")
    sizes, total, number = clusters.sizes, len(values), clusters.num_clusters
    residuals = values - values.mean()
    sums = clusters.sums(residuals)
    sandwich = (sums**2 / (1 - sizes / total)).sum()
    between = (sums**2 / sizes).sum()
    within = max((residuals**2).sum() - between, 0.0)
    within = within / (total - number) if total > number else 0.0
    pairs = (sizes**2).sum()
    typical = (total - pairs / total) / (number - 1)
    agreeing = max((between / (number - 1) - within) / typical, 0.0)
    modeled = agreeing * pairs + within * total
    return float((sandwich + modeled) / 2 / total**2)


def proportion_interval(
    right: Any, clusters: Clusters, confidence: float = 0.95
) -> Estimate:
    """Returns a share of faces with Wilson's interval, widened by the design effect.

    Wilson's interval with an effective sample size follows Dean & Pagano, "Evaluating
    Confidence Interval Methods for Binomial Proportions in Clustered Surveys", Journal
    of Survey Statistics and Methodology 3, 2015; quantiles are Student's of
    `num_clusters` - 1 degrees of freedom, as in Korn & Graubard 1998. The design effect
    is that of `mean_interval`: the mean of the sandwich, which alone covers 84 to 92 %
    at fold 4's sizes, and of a model of one intraclass correlation. Together they cover
    93 to 97 %. Where large clusters agree and small ones do not, coverage is lower:
    81 % was measured for a share of 0.95, and 91 % for one of 0.6.

    Args:
        right: Whether a face counts. Boolean of shape (num_faces,).
        clusters: Which faces belong together.
        confidence: Coverage, in (0, 1). Defaults to 0.95.

    Returns:
        The share and its interval, within [0, 1].

    Raises:
        ValueError: If there is not one value for each face.

    Example:
    >>> found = proportion_interval([True] * 9 + [False], Clusters.of([""] * 10))
    >>> round(found.low, 2), round(found.high, 2)
    (0.52, 0.99)
    """
    sums, total = clusters.sums(right), len(clusters.ids)
    if clusters.num_clusters < 2:
        return Estimate.bare(float(sums.sum() / total) if total else None, clusters)
    share = sums.sum() / total
    quantile = student_quantile(clusters, confidence)
    per_face = quantile**2 * _design_effect(right, share, clusters) / total
    middle = (share + per_face / 2) / (1 + per_face)
    margin = np.sqrt(share * (1 - share) * per_face + per_face**2 / 4) / (1 + per_face)
    low, high = max(middle - margin, 0.0), min(middle + margin, 1.0)
    return Estimate.of(share, low, high, clusters)


def _design_effect(right: Any, share: float, clusters: Clusters) -> float:
    """Returns how often larger the variance is than that of independent faces."""
    total = len(clusters.ids)
    if share in (0, 1):
        # Nothing shows how faces agree: as if all of a cluster were one.
        return float((clusters.sizes**2).sum() / total)
    return clustered_variance(right, clusters) * total / (share * (1 - share))


RESAMPLES = 2_000
BOOTSTRAP_BLOCK = 4_000_000  # weights drawn at a time, 32 MB
GRADIENT_STEP = 1e-4  # of a sum
ROUNDING = 1e-9


def bootstrap_interval(
    values: Any,
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: Clusters,
    *,
    limits: tuple[float, float] = (-np.inf, np.inf),
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Returns a statistic of sums with its interval by a bootstrap over clusters.

    Whole clusters are drawn with replacement: a sample is a weight per cluster, from a
    multinomial distribution (Davison & Hinkley, "Bootstrap Methods and their
    Application", 1997, section 3.8). Percentiles alone are too narrow with few large
    clusters, as the sandwich is: both ends are moved away from the statistic by what
    `mean_interval` is wider than the sandwich with normal quantiles, for the mean that
    the statistic is to first order. For means and shares there are `mean_interval` and
    `proportion_interval`.

    Args:
        values: What the statistic is made of, of each face. Shape (num_faces,
            num_sums).
        statistic: Sums over the faces, of shape (num_samples, num_sums), to the
            statistic, of shape (num_samples,); NaN where it is undefined. It does not
            change if all sums are doubled.
        clusters: Which faces belong together.
        limits: What the statistic lies between. Defaults to all numbers.
        confidence: Coverage, in (0, 1). Defaults to 0.95.
        seed: Seed of the draws. Defaults to 0.

    Returns:
        The statistic and its interval, over the samples that define it. There is no
        interval if all samples give the same: that says nothing about other faces.

    Raises:
        ValueError: If there is not one row of values for each face.

    Example:
    >>> right, seen = [1, 1, 1, 0] * 25, [1] * 100
    >>> found = bootstrap_interval(
    ...     np.stack([right, seen], axis=1), lambda s: s[:, 0] / s[:, 1],
    ...     Clusters.of([""] * 100), limits=(0, 1))
    >>> found.value, 0.65 < found.low < 0.68, 0.82 < found.high < 0.85
    (0.75, True, True)
    """
    found = bootstrap_intervals(
        values,
        {"": statistic},
        clusters,
        limits={"": limits},
        confidence=confidence,
        seed=seed,
    )
    return found[""]


def bootstrap_intervals(
    values: Any,
    statistics: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    clusters: Clusters,
    *,
    limits: Mapping[str, tuple[float, float]],
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Returns several statistics of the same sums, as `bootstrap_interval` does."""
    values = np.asarray(values, "float64")
    number, total = clusters.num_clusters, len(clusters.ids)
    if values.ndim != 2 or len(values) != total:
        raise ValueError(
            f"Invalid `values`. Expected shape ({total}, num_sums), a row for each "
            f"face. Received: shape {values.shape}."
        )
    sums = np.stack([clusters.sums(column) for column in values.T], axis=1)
    whole = sums.sum(axis=0)
    figures = {name: float(of(whole[None])[0]) for name, of in statistics.items()}
    found = {
        name: Estimate.bare(None if np.isnan(figure) else figure, clusters)
        for name, figure in figures.items()
    }
    defined = [name for name, figure in figures.items() if not np.isnan(figure)]
    if number < 2 or not defined:
        return found
    drawn = np.concatenate([*_drawn_sums(sums, number, seed)])
    tail = 50 * (1 - confidence)
    for name in defined:
        of, figure = statistics[name], figures[name]
        ends = np.nanpercentile(of(drawn), [tail, 100 - tail])
        if ends[1] - ends[0] < ROUNDING:
            continue
        factor = _widening(values @ _gradient(of, whole), clusters, confidence)
        low, high = np.clip(figure + factor * (ends - figure), *limits[name])
        found[name] = Estimate.of(figure, low, high, clusters)
    return found


def _gradient(
    statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray
) -> np.ndarray:
    """Returns the change of a statistic by each of its sums, 0 for those that are 0."""
    steps = np.diag(sums * GRADIENT_STEP)
    rise = statistic(sums + steps) - statistic(sums - steps)
    there = sums != 0
    return np.divide(rise, 2 * sums * GRADIENT_STEP, np.zeros(len(sums)), where=there)


def _widening(values: np.ndarray, clusters: Clusters, confidence: float) -> float:
    """Returns how often wider a mean's interval is than that of a bootstrap."""
    from scipy.stats import norm

    normal = float(norm.ppf((1 + confidence) / 2))
    factor = student_quantile(clusters, confidence) / normal
    drawn = (clusters.sums(values - values.mean()) ** 2).sum() / len(values) ** 2
    if not drawn:
        return factor
    return factor * float(np.sqrt(clustered_variance(values, clusters) / drawn))


def _drawn_sums(sums: np.ndarray, number: int, seed: int) -> Iterator[np.ndarray]:
    """Yields the sums of samples of whole clusters, some at a time."""
    generator = np.random.default_rng(seed)
    even = np.full(number, 1 / number)
    block = max(BOOTSTRAP_BLOCK // number, 1)
    for start in range(0, RESAMPLES, block):
        weights = generator.multinomial(number, even, min(block, RESAMPLES - start))
        yield weights @ sums


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


def metric_intervals(
    predictions: Predictions, names: Iterable[str], clusters: Clusters
) -> dict[str, Estimate]:
    """Returns metrics with their 95 % intervals over clusters, where defined."""
    found: dict[str, Estimate] = {}
    statistics: list[Metric] = []
    for row in (METRICS[name] for name in names):
        if getattr(predictions, row.reads) is None:
            continue
        if row.aggregation == "confusion":
            statistics.append(row)
        elif row.aggregation in ("share", "mean"):
            values, own = row.function(predictions, np), clusters
            if row.over is not None:
                chosen = row.over(predictions, np)
                values, own = values[chosen], clusters.select(chosen)
            over = proportion_interval if row.aggregation == "share" else mean_interval
            found[row.name] = over(values, own)
    for row, estimate in _bootstrap_statistics(predictions, statistics, clusters):
        if estimate.interval is None and estimate.value is not None and row.parts:
            estimate = _interval_of_parts(row, estimate, predictions, clusters)
        found[row.name] = estimate
    return found


def _bootstrap_statistics(
    predictions: Predictions, rows: list[Metric], clusters: Clusters
) -> list[tuple[Metric, Estimate]]:
    """Returns intervals of statistics of the confusion matrix."""
    if not rows or not len(predictions.truth):
        return []
    size = predictions.num_classes
    # One column for each entry of the matrix that contains a face.
    cells = predictions.truth * size + predictions.predicted
    entries, ids = np.unique(cells, return_inverse=True)
    values = np.eye(len(entries))[ids.reshape(-1)]

    def of_sums(row: Metric) -> Callable[[np.ndarray], np.ndarray]:
        def statistic(drawn: np.ndarray) -> np.ndarray:
            counts = np.zeros((len(drawn), size * size))
            counts[:, entries] = drawn
            matrices = counts.reshape(-1, size, size)
            with np.errstate(invalid="ignore", divide="ignore"):
                return row.function(matrices, np, predictions.positive)

        return statistic

    found = bootstrap_intervals(
        values,
        {row.name: of_sums(row) for row in rows},
        clusters,
        limits={row.name: row.limits for row in rows},
    )
    return [(row, found[row.name]) for row in rows]


def _interval_of_parts(
    row: Metric, estimate: Estimate, predictions: Predictions, clusters: Clusters
) -> Estimate:
    """Returns the interval if all shares are at their lower, or upper, ends at once."""
    if clusters.num_clusters < 2 or row.parts is None or row.of_parts is None:
        return estimate
    correct = predictions.predicted == predictions.truth
    ends = [
        # A share of fewer than two clusters can be anything.
        proportion_interval(correct[faces], clusters.select(faces)).interval or (0, 1)
        for faces in row.parts(predictions)
    ]
    low, high = row.of_parts(np.array(ends, "float64"))
    return replace(estimate, low=float(low), high=float(high))


def interval_ends(
    predictions: Predictions, names: Iterable[str], clusters: Clusters | None
) -> dict[str, tuple[float, float]]:
    """Returns the ends of the intervals that exist; none without clusters."""
    if clusters is None:
        return {}
    found = metric_intervals(predictions, names, clusters)
    return {n: f.interval for n, f in found.items() if f.interval is not None}
