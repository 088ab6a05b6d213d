"""Intervals of what is no mean: a bootstrap over people, as wide as those of means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_agegender.evaluation.clusters import Clusters, Estimate
from keras_agegender.evaluation.resampling import clustered_variance, student_quantile

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
    """Returns several statistics of the same sums, as `bootstrap_interval` does.

    Args:
        values: As in `bootstrap_interval`, and so are the others.
        statistics: Name -> statistic.
        clusters: Which faces belong together.
        limits: Name -> what the statistic lies between.
        confidence: Coverage, in (0, 1). Defaults to 0.95.
        seed: Seed of the draws, the same for all. Defaults to 0.
    """
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
