"""The metrics of a run with intervals over its people.

Which interval belongs to which figure is as in `resampling`: shares and means have
formulas, what is made of a confusion matrix is bootstrapped. AUC and calibration error
have none: they are no statistic of sums over faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from keras_agegender.evaluation.answers import Answers
from keras_agegender.evaluation.array_metrics import (
    CUMULATIVE_SCORE_YEARS,
    log_losses,
    squared_errors,
)
from keras_agegender.evaluation.clusters import Clusters, Estimate
from keras_agegender.evaluation.resampling import (
    bootstrap_intervals,
    mean_interval,
    proportion_interval,
)

Counts = np.ndarray  # of samples: true (row) by answered class (column)


def _distances(answers: Answers) -> np.ndarray:
    return np.abs(answers.answer - answers.truth)


def _all_heads_right(answers: Answers) -> np.ndarray:
    return (answers.median == answers.truth) & answers.agree


# Metric -> whether a face counts, or its value.
SHARES: dict[str, Callable[[Answers], np.ndarray]] = {
    "accuracy": lambda a: a.answer == a.truth,
    "one_off_accuracy": lambda a: _distances(a) <= 1,
    "all_heads_accuracy": _all_heads_right,
    "rank_violation_rate": lambda a: ~a.agree,
    "cumulative_score_5": lambda a: _distances(a) <= CUMULATIVE_SCORE_YEARS,
}
MEANS: dict[str, Callable[[Answers], np.ndarray]] = {
    "mean_absolute_error": _distances,
    "mean_absolute_error_years": _distances,
    "negative_log_likelihood": log_losses,
    "brier_score": squared_errors,
}
_OF_RANKS = ("all_heads_accuracy", "rank_violation_rate")
_OF_PROBABILITIES = ("negative_log_likelihood", "brier_score")


def _recalls(counts: Counts) -> np.ndarray:
    return np.diagonal(counts, axis1=1, axis2=2) / counts.sum(axis=2)


def _balanced(counts: Counts) -> np.ndarray:
    recalls = _recalls(counts)
    known = ~np.isnan(recalls)
    return np.where(known, recalls, 0).sum(axis=1) / known.sum(axis=1)


def _precision(counts: Counts, positive: int) -> np.ndarray:
    return counts[:, positive, positive] / counts[:, :, positive].sum(axis=1)


def _recall(counts: Counts, positive: int) -> np.ndarray:
    return counts[:, positive, positive] / counts[:, positive].sum(axis=1)


def _f1(counts: Counts, positive: int) -> np.ndarray:
    either = counts[:, positive].sum(axis=1) + counts[:, :, positive].sum(axis=1)
    return 2 * counts[:, positive, positive] / either


def _kappa(counts: Counts) -> np.ndarray:
    classes = np.arange(counts.shape[1])
    squares = (classes[:, None] - classes) ** 2
    total = counts.sum(axis=(1, 2))
    by_chance = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :]
    expected = (squares * by_chance).sum(axis=(1, 2)) / total
    return 1 - (squares * counts).sum(axis=(1, 2)) / expected


OF_COUNTS: dict[str, Callable[[Counts], np.ndarray]] = {
    "balanced_accuracy": _balanced,
    "quadratic_kappa": _kappa,
}
OF_POSITIVE: dict[str, Callable[[Counts, int], np.ndarray]] = {
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
}


def metric_intervals(
    answers: Answers, names: Iterable[str], clusters: Clusters
) -> dict[str, Estimate]:
    """Returns figures with 95 % intervals over clusters, those that are defined.

    Args:
        answers: Answers about labelled faces, NumPy arrays.
        names: Keys of `METRICS`. AUC and calibration error have no interval.
        clusters: Which of these faces belong together.

    Returns:
        Name -> figure and interval; without those that nothing is known about.
    """
    found: dict[str, Estimate] = {}
    of_counts: dict[str, Callable[[Counts], np.ndarray]] = {}
    for name in names:
        if (name in _OF_RANKS and answers.agree is None) or (
            name in _OF_PROBABILITIES and answers.probabilities is None
        ):
            continue
        if name in SHARES:
            found[name] = proportion_interval(SHARES[name](answers), clusters)
        elif name in MEANS:
            found[name] = mean_interval(MEANS[name](answers), clusters)
        elif name in OF_POSITIVE:
            of_counts[name] = _of_class(OF_POSITIVE[name], answers.positive)
        elif name in OF_COUNTS:
            of_counts[name] = OF_COUNTS[name]
    return found | _bootstrapped(answers, of_counts, clusters)


def _of_class(
    statistic: Callable[[Counts, int], np.ndarray], positive: int
) -> Callable[[Counts], np.ndarray]:
    return lambda counts: statistic(counts, positive)


def _bootstrapped(
    answers: Answers,
    statistics: dict[str, Callable[[Counts], np.ndarray]],
    clusters: Clusters,
) -> dict[str, Estimate]:
    """Returns statistics of the confusion matrix."""
    if not statistics or not len(answers.truth):
        return {}
    size = answers.num_classes
    sums = np.zeros((clusters.num_clusters, size * size))
    np.add.at(sums, (clusters.ids, answers.truth * size + answers.answer), 1)

    def of_sums(statistic: Callable[[Counts], np.ndarray]) -> Callable:
        def figure(drawn: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                return statistic(drawn.reshape(-1, size, size))

        return figure

    named = {name: of_sums(statistic) for name, statistic in statistics.items()}
    return bootstrap_intervals(sums, named, clusters)


def interval_ends(
    answers: Answers, names: Iterable[str], clusters: Clusters | None
) -> dict[str, tuple[float, float]]:
    """Returns the ends of the intervals that there are; none without clusters."""
    if clusters is None:
        return {}
    found = metric_intervals(answers, names, clusters)
    return {n: f.interval for n, f in found.items() if f.interval is not None}
