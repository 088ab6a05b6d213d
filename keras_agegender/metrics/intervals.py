"""Confidence intervals and tests of metrics, for faces that come in clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_agegender.metrics.table import METRICS, Metric, Predictions


@dataclass(frozen=True)
class Clusters:
    """Groups of dependent faces, such as all images of a person.

    Attributes:
        ids: Cluster of each face, 0 … `num_clusters` - 1. Shape (num_faces,).
        sizes: Number of faces in each cluster. Shape (num_clusters,).
    """

    ids: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, names: Any) -> Clusters:
        """Groups faces by name; a face with the name `""` is a cluster of its own.

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
        """Number of clusters."""
        return len(self.sizes)

    @property
    def largest_share(self) -> float:
        """Share of the faces that are in the largest cluster, in [0, 1]."""
        return float(self.sizes.max() / self.sizes.sum()) if len(self.sizes) else 0.0

    def select(self, chosen: np.ndarray) -> Clusters:
        """Returns the clusters of some faces, a boolean mask of shape (num_faces,)."""
        _, ids = np.unique(self.ids[chosen], return_inverse=True)
        ids = ids.reshape(-1)
        return Clusters(ids, np.bincount(ids))

    def sums(self, values: Any) -> np.ndarray:
        """Sums a value per face over each cluster. Shape (num_clusters,)."""
        values = np.asarray(values, "float64")
        if values.shape != self.ids.shape:
            raise ValueError(
                f"Invalid values. Expected shape {self.ids.shape}, one per face. "
                f"Received: shape {values.shape}."
            )
        return np.bincount(self.ids, weights=values, minlength=self.num_clusters)


@dataclass(frozen=True)
class Estimate:
    """A metric and its confidence interval.

    Attributes:
        value: The metric; `None` without faces.
        low: Lower end of its interval; `None` for fewer than two clusters.
        high: Upper end of its interval, as `low`.
        num_faces: Number of faces.
        num_clusters: Number of clusters of these faces.
        largest_share: Share of the faces that are in the largest cluster, in [0, 1].
    """

    value: float | None
    low: float | None
    high: float | None
    num_faces: int
    num_clusters: int
    largest_share: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval; `None` if there is none."""
        if self.low is None or self.high is None:
            return None
        return self.low, self.high

    @classmethod
    def of(
        cls,
        clusters: Clusters,
        value: float | None,
        low: float | None = None,
        high: float | None = None,
    ) -> Estimate:
        """Returns the estimate of a value, with an interval if both ends are given."""
        value, low, high = (None if x is None else float(x) for x in (value, low, high))
        counts = len(clusters.ids), clusters.num_clusters, clusters.largest_share
        return cls(value, low, high, *counts)


def mean_interval(
    values: Any, clusters: Clusters, confidence: float = 0.95
) -> Estimate:
    """Returns a mean over faces with its cluster-robust t interval.

    The variance is the mean of two estimates: the sandwich with the CR2 correction
    (Bell & McCaffrey, "Bias Reduction in Standard Errors for Linear Regression with
    Multi-Stage Samples", Survey Methodology 28, 2002), which is valid for any
    dependence within clusters but alone covers 89 to 92 % of skewed scores, and that of
    one intraclass correlation (Kish 1965, by analysis of variance), which is stable.
    Quantiles are those of Student's t with `num_clusters` - 1 degrees of freedom.

    Measured coverage with the cluster sizes of Adience's fold 4: 94 to 97.1 %. It is
    lower if only large clusters are correlated (87 to 89 %) and for lognormal losses of
    ten correlated people (85 %).

    Args:
        values: A value per face, such as a paired difference. Shape (num_faces,).
        clusters: Clusters of the faces.
        confidence: Coverage, in (0, 1). Defaults to 0.95.

    Raises:
        ValueError: If there is not one value for each face.

    Example:
    >>> found = mean_interval([0, 1, 2, 3], Clusters.of([""] * 4))
    >>> round(found.low, 3), round(found.high, 3)
    (-0.554, 3.554)
    """
    sums, total = clusters.sums(values), len(clusters.ids)
    mean: Any = sums.sum() / total if total else None
    if clusters.num_clusters < 2:
        return Estimate.of(clusters, mean)
    quantile = student_quantile(confidence, clusters.num_clusters - 1)
    margin = quantile * np.sqrt(clustered_variance(values, clusters))
    return Estimate.of(clusters, mean, mean - margin, mean + margin)


def difference_interval(
    first: np.ndarray, second: np.ndarray, clusters: Clusters, confidence: float = 0.95
) -> Estimate:
    """Returns the difference in accuracy, second minus first, within [-1, 1]."""
    differences = np.asarray(second, "float64") - np.asarray(first, "float64")
    found = mean_interval(differences, clusters, confidence)
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def student_quantile(confidence: float, degrees: int) -> float:
    """Returns the half width of a t interval, in standard errors."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees))


def clustered_variance(values: Any, clusters: Clusters) -> float:
    """Returns the variance of a mean over two or more clusters; see `mean_interval`."""
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
    correct: Any, clusters: Clusters, confidence: float = 0.95
) -> Estimate:
    """Returns a share of faces with Wilson's interval for clustered samples.

    The sample size is divided by the design effect, as in Dean & Pagano, "Evaluating
    Confidence Interval Methods for Binomial Proportions in Clustered Surveys", Journal
    of Survey Statistics and Methodology 3, 2015; quantiles are those of Student's t
    with `num_clusters` - 1 degrees of freedom, as in Korn & Graubard 1998. The design
    effect is from the variance of `mean_interval`. Measured coverage with the cluster
    sizes of Adience's fold 4: 93 to 97 %; if only large clusters are correlated, 81 %
    for a share of 0.95, and 91 % for one of 0.6.

    Args:
        correct: Whether a face counts, as booleans. Shape (num_faces,).
        clusters: Clusters of the faces.
        confidence: Coverage, in (0, 1). Defaults to 0.95.

    Raises:
        ValueError: If there is not one value for each face.

    Example:
    >>> found = proportion_interval([True] * 9 + [False], Clusters.of([""] * 10))
    >>> round(found.low, 2), round(found.high, 2)
    (0.52, 0.99)
    """
    sums, total = clusters.sums(correct), len(clusters.ids)
    share: Any = sums.sum() / total if total else None
    if clusters.num_clusters < 2:
        return Estimate.of(clusters, share)
    if share in (0, 1):
        # Correlation cannot be estimated: assume that clusters are single faces.
        effect = float((clusters.sizes**2).sum() / total)
    else:
        effect = clustered_variance(correct, clusters) * total / (share * (1 - share))
    quantile = student_quantile(confidence, clusters.num_clusters - 1)
    per_face = quantile**2 * effect / total
    middle = (share + per_face / 2) / (1 + per_face)
    margin = np.sqrt(share * (1 - share) * per_face + per_face**2 / 4) / (1 + per_face)
    low, high = max(middle - margin, 0.0), min(middle + margin, 1.0)
    return Estimate.of(clusters, share, low, high)


RESAMPLES = 2_000
BOOTSTRAP_BLOCK = 4_000_000  # weights drawn at a time, 32 MB
GRADIENT_STEP = 1e-4  # relative to a sum
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
    Application", 1997, section 3.8). Like the sandwich estimate, percentiles alone are
    too narrow with few large clusters. Both distances to the statistic are therefore
    multiplied by the ratio of `mean_interval` to an interval of the sandwich with
    normal quantiles, for the linear approximation of the statistic. For means and
    shares use `mean_interval` and `proportion_interval`.

    Args:
        values: Terms of the sums, for each face. Shape (num_faces, num_sums).
        statistic: Function of sums, shape (num_samples, num_sums), that returns the
            statistic, shape (num_samples,); NaN where it is undefined. It must not
            change if all sums are doubled.
        clusters: Clusters of the faces.
        limits: Smallest and largest value of the statistic. Defaults to all numbers.
        confidence: Coverage, in (0, 1). Defaults to 0.95.
        seed: Seed of the samples. Defaults to 0.

    Returns:
        The statistic and its interval, over the samples for which it is defined; no
        interval if all samples give the same value.

    Raises:
        ValueError: If there is not one row of values per face.

    Example:
    >>> correct, all_faces = [1, 1, 1, 0] * 25, [1] * 100
    >>> found = bootstrap_interval(
    ...     np.stack([correct, all_faces], axis=1), lambda s: s[:, 0] / s[:, 1],
    ...     Clusters.of([""] * 100), limits=(0, 1))
    >>> found.value, 0.65 < found.low < 0.68, 0.82 < found.high < 0.85
    (0.75, True, True)
    """
    options: Any = {"limits": {"": limits}, "confidence": confidence, "seed": seed}
    return bootstrap_intervals(values, {"": statistic}, clusters, **options)[""]


def bootstrap_intervals(
    values: Any,
    statistics: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    clusters: Clusters,
    *,
    limits: Mapping[str, tuple[float, float]],
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Returns several statistics by name; see `bootstrap_interval`."""
    values = np.asarray(values, "float64")
    number, total = clusters.num_clusters, len(clusters.ids)
    if values.ndim != 2 or len(values) != total:
        raise ValueError(
            f"Invalid `values`. Expected shape ({total}, num_sums), one row per face. "
            f"Received: shape {values.shape}."
        )
    sums = np.stack([clusters.sums(column) for column in values.T], axis=1)
    whole = sums.sum(axis=0)
    wholes = {name: float(of(whole[None])[0]) for name, of in statistics.items()}
    found = {
        name: Estimate.of(clusters, None if np.isnan(value) else value)
        for name, value in wholes.items()
    }
    defined = [name for name, value in wholes.items() if not np.isnan(value)]
    if number < 2 or not defined:
        return found
    generator = np.random.default_rng(seed)
    even, block = np.full(number, 1 / number), max(BOOTSTRAP_BLOCK // number, 1)
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    parts = [generator.multinomial(number, even, size) @ sums for size in sizes]
    drawn = np.concatenate(parts)
    tail = 50 * (1 - confidence)
    for name in defined:
        of, value = statistics[name], wholes[name]
        ends = np.nanpercentile(of(drawn), [tail, 100 - tail])
        if ends[1] - ends[0] < ROUNDING:
            continue
        factor = _widening(values @ _gradient(of, whole), clusters, confidence)
        low, high = np.clip(value + factor * (ends - value), *limits[name])
        found[name] = Estimate.of(clusters, value, low, high)
    return found


def _gradient(
    statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray
) -> np.ndarray:
    """Returns the derivative of a statistic by each of its sums; 0 for sums of 0."""
    steps = np.diag(sums * GRADIENT_STEP)
    rise = statistic(sums + steps) - statistic(sums - steps)
    step = 2 * sums * GRADIENT_STEP
    return np.divide(rise, step, np.zeros(len(sums)), where=sums != 0)


def _widening(values: np.ndarray, clusters: Clusters, confidence: float) -> float:
    """Returns the width of `mean_interval` divided by that of a bootstrap interval."""
    from scipy.stats import norm

    normal = float(norm.ppf((1 + confidence) / 2))
    factor = student_quantile(confidence, clusters.num_clusters - 1) / normal
    drawn = (clusters.sums(values - values.mean()) ** 2).sum() / len(values) ** 2
    if not drawn:
        return factor
    return factor * float(np.sqrt(clustered_variance(values, clusters) / drawn))


def paired_test(differences: Any, clusters: Clusters) -> float:
    """Returns the p-value of a paired test that two models are equally accurate.

    The sign-flip test over clusters: if neither model is better, the sum of a cluster's
    differences is as likely as its opposite, and all signs are equally likely (Fisher
    1935; Canay, Romano & Shaikh, "Randomization Tests under an Approximate Symmetry
    Assumption", Econometrica 85, 2017). It is two-sided and exact: it uses the
    distribution over all sign patterns, not a sample of them. If each face is a cluster
    of its own, this is McNemar's exact test.

    Args:
        differences: 1 for faces that only the second model predicts correctly, -1 for
            faces that only the first does, else 0. Shape (num_faces,).
        clusters: Clusters of the faces.

    Raises:
        ValueError: If a cluster's sum of differences is not an integer.

    Example:
    >>> p_value = paired_test([1, 1, 1, 1, -1], Clusters.of([""] * 5))
    >>> round(p_value, 6)  # 2 * (1 + 5) / 32
    0.375
    """
    from scipy.stats import binom

    sums = clusters.sums(differences)
    if (sums != np.round(sums)).any():
        raise ValueError(
            "Invalid `differences`. Expected integers, such as 1, 0 and -1. "
            f"Received: a cluster's sum of {sums[sums != np.round(sums)][0]}."
        )
    sizes, counts = np.unique(np.abs(sums[sums != 0]).astype(int), return_counts=True)
    # Probability of each sum of the differences with a positive sign.
    chances = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        kernel = np.zeros(size * count + 1)
        kernel[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, kernel)
    total = len(chances) - 1
    outcomes = np.abs(2 * np.arange(total + 1) - total)
    return float(min(chances[outcomes >= abs(sums.sum())].sum(), 1.0))


def holm_levels(p_values: Sequence[float], alpha: float = 0.05) -> list[float]:
    """Returns the significance level of each test in Holm's procedure.

    In ascending order, p-values are compared with alpha / m, alpha / (m - 1), …; all
    tests after the first larger one have its level. A test is significant if its
    p-value is at most its level.

    Args:
        p_values: P-value of each test, in [0, 1].
        alpha: Family-wise error rate. Defaults to 0.05.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
    Scandinavian Journal of Statistics 6, 1979.

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
    """Variances of a metric over folds and seeds.

    Attributes:
        num_folds: Number of different folds.
        num_seeds: Number of different seeds.
        fold: Variance over folds; `None` for a single fold.
        seed: Variance over seeds; `None` if each fold has a single seed.
        rest: Variance of the interaction of fold and seed; `None` unless each fold has
            each seed.
        note: Method and limits of the estimates, as text.
    """

    num_folds: int
    num_seeds: int
    fold: float | None
    seed: float | None
    rest: float | None
    note: str

    def __str__(self) -> str:
        named = {"folds": self.fold, "seeds": self.seed, "fold x seed": self.rest}
        parts = [f"{k} {np.sqrt(v):.4f}" for k, v in named.items() if v is not None]
        known = f"standard deviation over {', '.join(parts)}; " if parts else ""
        return known + self.note


def variance_components(
    values: Sequence[float], folds: Sequence[Any], seeds: Sequence[Any]
) -> VarianceComponents:
    """Returns the variances of a metric over folds and over seeds.

    If every fold has every seed, by a two-way analysis of variance (both random), else
    by a one-way analysis of seeds within folds. A negative estimate, which can occur by
    chance, is set to 0 and noted.

    Example:
    >>> found = variance_components([1, 2, 4, 3], [0, 0, 1, 1], [0, 1, 0, 1])
    >>> found.fold, found.seed, found.rest
    (1.5, 0.0, 1.0)
    """
    cells = list(zip(folds, seeds, strict=False))
    if not len(values) or not len(values) == len(folds) == len(seeds):
        raise ValueError(
            "Invalid `values`, `folds` or `seeds`. Expected at least one value, and a "
            f"fold and a seed for each. Received: {len(values)} values, {len(folds)} "
            f"folds, {len(seeds)} seeds."
        )
    of_fold: dict[Any, dict[Any, float]] = {}
    for (fold, seed), value in zip(cells, values, strict=True):
        if seed in of_fold.setdefault(fold, {}):
            raise ValueError(
                "Invalid `folds` and `seeds`. Expected one value for each fold and "
                f"seed. Received: fold {fold!r} with seed {seed!r} twice."
            )
        of_fold[fold][seed] = float(value)
    names = list(dict.fromkeys(seeds))
    counts = len(of_fold), len(names)
    if len(values) == 1:
        note = "one fold and one seed: no variance is known"
        return VarianceComponents(*counts, None, None, None, note)
    if counts[0] == 1:
        note = "one fold: the variance over folds is not known"
        return VarianceComponents(*counts, None, _variance(values), None, note)
    if len(values) == counts[0]:
        note = "one seed in each fold: the variance over folds includes that over seeds"
        return VarianceComponents(*counts, _variance(values), None, None, note)
    if len(values) == counts[0] * counts[1]:
        rows = [[of_seed[name] for name in names] for of_seed in of_fold.values()]
        return _two_way(np.array(rows))
    return _one_way([[*of_seed.values()] for of_seed in of_fold.values()], len(names))


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
    """Returns the components of folds with different seeds or numbers of seeds."""
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
    """The mean of a metric over runs, and its interval.

    Attributes:
        mean: Mean of the folds' means.
        low: Lower end; `None` if there is no interval.
        high: Upper end.
        over: What the interval is over: `"folds"`, `"seeds"` (of a single fold),
            `"faces"` (people, for a single run) or `""`.
    """

    mean: float
    low: float | None
    high: float | None
    over: str

    def within(self, low: float, high: float) -> RunsInterval:
        """Returns it with both ends clipped to the range of the metric."""
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
    """Returns the mean of a metric over runs, with an interval if there is one.

    With several folds, the interval is over folds, corrected by `test_to_train` (see
    `interval_over_runs`); there is none if that is unknown, `None`. With a single fold,
    it is over seeds and ignores the variance over faces; with a single run, it is that
    of `faces` and ignores the variance over seeds. Equal values have no interval.
    """
    if len(values) == 1 and faces is not None and faces.interval is not None:
        return RunsInterval(float(values[0]), *faces.interval, "faces")
    if len(set(values)) == 1:
        return RunsInterval(float(values[0]), None, None, "")
    if len(set(folds)) == 1:
        return RunsInterval(*interval_over_runs(values), "seeds")
    found = interval_over_runs(values, folds, test_to_train=test_to_train or 0.0)
    if test_to_train is None:
        return RunsInterval(found[0], None, None, "")
    return RunsInterval(*found, "folds")


def interval_over_runs(
    values: Sequence[float],
    folds: Sequence[Any] | None = None,
    *,
    test_to_train: float = 0.0,
    confidence: float = 0.95,
) -> tuple[float, float | None, float | None]:
    """Returns the mean of a metric over runs and both ends of its t interval.

    Seeds of the same fold are averaged first, as they are tested on the same faces.
    Folds share training faces, so that the plain t interval is too narrow;
    `test_to_train` is Nadeau and Bengio's correction.

    Args:
        values: Value of the metric for each run.
        folds: Test fold of each run; `None` (default) makes each run its own fold.
        test_to_train: Number of test faces divided by training faces, 0.25 for five
            folds. Defaults to 0, which is correct for seeds but not for folds.
        confidence: Coverage, in (0, 1). Defaults to 0.95.

    Raises:
        ValueError: If there is no value, or not one fold per value.

    Source: Nadeau & Bengio, "Inference for the Generalization Error", Machine Learning
    52, 2003.

    Example:
    >>> interval_over_runs([0.5, 0.7], [0, 0])
    (0.6, None, None)
    """
    names = list(range(len(values)) if folds is None else folds)
    if not len(values) or len(names) != len(values):
        raise ValueError(
            "Invalid `values` or `folds`. Expected at least one value, and a fold for "
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
    margin = float(student_quantile(confidence, count - 1) * error)
    return mean, mean - margin, mean + margin


def metric_intervals(
    predictions: Predictions, names: Iterable[str], clusters: Clusters
) -> dict[str, Estimate]:
    """Returns metrics of arrays with their 95 % intervals over clusters, if defined."""
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
            if row.aggregation == "share":
                found[row.name] = proportion_interval(values, own)
                continue
            estimate = mean_interval(values, own)
            # Distances and losses are not negative.
            low = None if estimate.low is None else max(estimate.low, 0.0)
            found[row.name] = replace(estimate, low=low)
    if statistics and len(predictions.truth):
        found |= _bootstrap_statistics(predictions, statistics, clusters)
    return found


def _bootstrap_statistics(
    predictions: Predictions, rows: list[Metric], clusters: Clusters
) -> dict[str, Estimate]:
    """Returns intervals of statistics of the confusion matrix."""
    size = predictions.num_classes
    # One column for each entry of the matrix that contains a face.
    cells = predictions.truth * size + predictions.predicted
    entries, ids = np.unique(cells, return_inverse=True)

    def of_sums(row: Metric) -> Callable[[np.ndarray], np.ndarray]:
        def statistic(drawn: np.ndarray) -> np.ndarray:
            counts = np.zeros((len(drawn), size * size))
            counts[:, entries] = drawn
            matrices = counts.reshape(-1, size, size)
            with np.errstate(invalid="ignore", divide="ignore"):
                return row.function(matrices, np, predictions.positive)

        return statistic

    found = bootstrap_intervals(
        np.eye(len(entries))[ids.reshape(-1)],
        {row.name: of_sums(row) for row in rows},
        clusters,
        limits={row.name: row.limits for row in rows},
    )
    correct = predictions.predicted == predictions.truth
    for row in rows:
        estimate = found[row.name]
        if estimate.value is None or estimate.interval or clusters.num_clusters < 2:
            continue
        if row.parts is None or row.of_parts is None:
            continue
        # All samples are equal: combine the lower, and the upper, ends of all shares.
        # With fewer than two clusters, a share can have any value.
        ends = [
            proportion_interval(correct[part], clusters.select(part)).interval or (0, 1)
            for part in row.parts(predictions)
        ]
        low, high = row.of_parts(np.array(ends, "float64"))
        found[row.name] = replace(estimate, low=float(low), high=float(high))
    return found


def interval_ends(
    predictions: Predictions, names: Iterable[str], clusters: Clusters | None
) -> dict[str, tuple[float, float]]:
    """Returns the ends of all defined intervals; an empty dict without clusters."""
    if clusters is None:
        return {}
    found = metric_intervals(predictions, names, clusters)
    return {n: f.interval for n, f in found.items() if f.interval is not None}
