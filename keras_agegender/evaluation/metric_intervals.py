"""The metrics of a run with intervals over its people.

Which interval belongs to which figure is as in `resampling`: shares and means have
formulas (recall and precision are shares of the faces of, and answered as, the positive
class), what else is made of a confusion matrix is bootstrapped. AUC and calibration
error have none: they are no statistic of sums over faces.

Coverage measured at fold 4's sizes (600 rounds at agreements of 0, 0.3 and 0.8): recall
93 to 95 %, precision 99 % (right answers of one subject are alike because its gender is
one, which widens it), balanced accuracy of two classes 93 to 97 %, of eight 97 to 98 %,
f1 93 to 96 %, kappa 94 to 95 %.

Where all samples of the bootstrap give the same (all right, or one class answered
always), f1 and balanced accuracy have the bounds that those of precision and recall,
or of the recalls, give if all of them are met at once: wider than 95 %. Kappa has none
there: how far away the errors would be that nothing was seen of, nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from keras_agegender.evaluation.answers import Answers
from keras_agegender.evaluation.array_metrics import (
    CUMULATIVE_SCORE_YEARS,
    log_losses,
    squared_errors,
)
from keras_agegender.evaluation.bootstrap import bootstrap_intervals
from keras_agegender.evaluation.clusters import Clusters, Estimate
from keras_agegender.evaluation.resampling import (
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
LIMITS = {"balanced_accuracy": (0, 1), "f1": (0, 1), "quadratic_kappa": (-1, 1)}


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
        elif name == "recall":
            found[name] = _recall(answers, answers.positive, clusters)
        elif name == "precision":
            found[name] = _precision(answers, clusters)
        elif name == "f1":
            of_counts[name] = lambda counts: _f1(counts, answers.positive)
        elif name in OF_COUNTS:
            of_counts[name] = OF_COUNTS[name]
    found |= _bootstrapped(answers, of_counts, clusters)
    for name in {"f1", "balanced_accuracy"} & set(of_counts) & set(found):
        if found[name].interval is None and found[name].value is not None:
            found[name] = _from_parts(name, found[name], answers, clusters)
    return found


def _recall(answers: Answers, of: int, clusters: Clusters) -> Estimate:
    return _right(answers, answers.truth == of, clusters)


def _precision(answers: Answers, clusters: Clusters) -> Estimate:
    return _right(answers, answers.answer == answers.positive, clusters)


def _right(answers: Answers, chosen: np.ndarray, clusters: Clusters) -> Estimate:
    right = answers.answer == answers.truth
    return proportion_interval(right[chosen], clusters.select(chosen))


def _from_parts(
    name: str, found: Estimate, answers: Answers, clusters: Clusters
) -> Estimate:
    """Returns the bounds of a figure where those of its parts are met at once."""
    if clusters.num_clusters < 2:
        return found
    if name == "f1":
        parts = [
            _precision(answers, clusters),
            _recall(answers, answers.positive, clusters),
        ]
    else:
        parts = [_recall(answers, k, clusters) for k in np.unique(answers.truth)]
    # Of a part of fewer than two people nothing is known.
    ends = np.array([part.interval or (0.0, 1.0) for part in parts])
    if name == "f1":
        both = ends.sum(axis=0)
        low, high = np.divide(2 * ends.prod(axis=0), both, np.zeros(2), where=both > 0)
    else:
        low, high = ends.mean(axis=0)
    return replace(found, low=float(low), high=float(high))


def _bootstrapped(
    answers: Answers,
    statistics: dict[str, Callable[[Counts], np.ndarray]],
    clusters: Clusters,
) -> dict[str, Estimate]:
    """Returns statistics of the confusion matrix."""
    if not statistics or not len(answers.truth):
        return {}
    size = answers.num_classes
    # A column for each entry of the matrix that there is a face in.
    entries, ids = np.unique(answers.truth * size + answers.answer, return_inverse=True)
    values = np.eye(len(entries))[ids.reshape(-1)]

    def of_sums(statistic: Callable[[Counts], np.ndarray]) -> Callable:
        def figure(drawn: np.ndarray) -> np.ndarray:
            counts = np.zeros((len(drawn), size * size))
            counts[:, entries] = drawn
            with np.errstate(invalid="ignore", divide="ignore"):
                return statistic(counts.reshape(-1, size, size))

        return figure

    named = {name: of_sums(statistic) for name, statistic in statistics.items()}
    return bootstrap_intervals(values, named, clusters, limits=LIMITS)


def interval_ends(
    answers: Answers, names: Iterable[str], clusters: Clusters | None
) -> dict[str, tuple[float, float]]:
    """Returns the ends of the intervals that there are; none without clusters."""
    if clusters is None:
        return {}
    found = metric_intervals(answers, names, clusters)
    return {n: f.interval for n, f in found.items() if f.interval is not None}
