"""Metrics of arrays: a figure of all faces at once, `None` where it is undefined.

Each takes the `Answers` of the labelled faces. `detailed_metrics` sets the Keras metric
beside each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from keras_agegender.evaluation.class_scores import class_scores, quadratic_kappa
from keras_agegender.evaluation.answers import Answers

# Years within which an answer counts for CS@5 (Chang et al. 2011, Niu et al. 2016).
CUMULATIVE_SCORE_YEARS = 5

CALIBRATION_BINS = 15  # of Guo et al. 2017

# The smallest probability whose logarithm is taken, as Keras' losses have it.
EPSILON = 1e-7


def accuracy_of(answers: Answers) -> float | None:
    """Returns the share answered right."""
    return mean(answers.answer == answers.truth)


def balanced_accuracy_of(answers: Answers) -> float | None:
    """Returns the mean of the recalls of the classes that have a face: macro recall."""
    recalls = [scores["recall"] for scores in _class_scores(answers)]
    known = [recall for recall in recalls if recall is not None]
    return float(np.mean(known)) if known else None


def one_off_accuracy_of(answers: Answers) -> float | None:
    """Returns the share answered right or as a neighboring class."""
    return mean(np.abs(answers.answer - answers.truth) <= 1)


def mean_absolute_error_of(answers: Answers) -> float | None:
    """Returns the mean distance between answer and truth, in classes or years."""
    return mean(np.abs(answers.answer - answers.truth))


def cumulative_score_5_of(answers: Answers) -> float | None:
    """Returns the share answered within 5 years."""
    distances = np.abs(answers.answer - answers.truth)
    return mean(distances <= CUMULATIVE_SCORE_YEARS)


def quadratic_kappa_of(answers: Answers) -> float | None:
    """Returns Cohen's kappa, disagreement weighted by its square."""
    return quadratic_kappa(answers.truth, answers.answer, answers.num_classes)


def precision_of(answers: Answers) -> float | None:
    """Returns the share of the faces answered positive that are."""
    return _class_scores(answers)[answers.positive]["precision"]


def recall_of(answers: Answers) -> float | None:
    """Returns the share of the positive faces answered so."""
    return _class_scores(answers)[answers.positive]["recall"]


def f1_of(answers: Answers) -> float | None:
    """Returns the harmonic mean of precision and recall."""
    return _class_scores(answers)[answers.positive]["f1"]


def auc_of(answers: Answers) -> float | None:
    """Returns the area under the ROC curve; `None` of one class."""
    positive = answers.truth == answers.positive
    if answers.probabilities is None or len(np.unique(positive)) < 2:
        return None
    scores = answers.probabilities[:, answers.positive]
    return float(sklearn_metrics.roc_auc_score(positive, scores))


def all_heads_accuracy_of(answers: Answers) -> float | None:
    """Returns the share for which every question about ranks is answered right.

    Answers that are those of one class are all right if and only if it is the true one.
    """
    if answers.agree is None:
        return None
    return mean((answers.median == answers.truth) & answers.agree)


def rank_violation_rate_of(answers: Answers) -> float | None:
    """Returns the share whose questions about ranks contradict each other."""
    return None if answers.agree is None else mean(~answers.agree)


def negative_log_likelihood_of(answers: Answers) -> float | None:
    """Returns the mean of -log P(true class), in nats."""
    if answers.probabilities is None:
        return None
    return mean(log_losses(answers))


def brier_score_of(answers: Answers) -> float | None:
    """Returns the mean squared error of the probabilities (Brier 1950).

    Summed over the classes, which is at most 2; of two classes half of that, the
    squared error of one probability, as scikit-learn has it.
    """
    if answers.probabilities is None:
        return None
    return mean(squared_errors(answers))


def expected_calibration_error_of(answers: Answers) -> float | None:
    """Returns the mean distance between confidence and accuracy, over 15 bins."""
    if answers.probabilities is None or not len(answers.truth):
        return None
    return expected_calibration_error(answers.probabilities, answers.truth)


def expected_calibration_error(
    probabilities: Any,
    classes: Any,
    bins: int = CALIBRATION_BINS,
    equal_mass: bool = False,
) -> float:
    """Returns the mean distance between confidence and accuracy, over bins.

    The confidence is the probability of the most probable class. Bins are of equal
    width and open below, or hold equally many faces if `equal_mass`.

    Args:
        probabilities: Of each class. Shape (num_faces, num_classes).
        classes: True class ids. Shape (num_faces,), at least one.
        bins: Number of bins. Defaults to 15.
        equal_mass: Whether bins hold equally many faces. Defaults to `False`.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015; Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017; equal mass: Nguyen & O'Connor, "Posterior calibration and exploratory analysis
    for natural language processing models", EMNLP 2015.
    """
    confidence = np.max(probabilities, axis=-1).astype("float32")
    right = np.argmax(probabilities, axis=-1) == classes
    if equal_mass:
        order = np.argsort(confidence, kind="stable")
        index = np.empty(len(order), "int64")
        index[order] = np.arange(len(order)) * bins // len(order)
    else:
        index = confidence_bins(confidence, bins)
    gaps = np.bincount(
        index,
        weights=right - confidence.astype("float64"),
        minlength=bins,
    )
    return float(np.abs(gaps).sum() / len(right))


def confidence_bins(confidence: Any, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Returns the bin of equal width that each confidence lies in, open below.

    Args:
        confidence: In [0, 1]. Shape (num_faces,).
        bins: Number of bins. Defaults to 15.
    """
    # In float32, so that edges are where the Keras metric has them.
    scaled = np.asarray(confidence, "float32") * np.float32(bins)
    return np.clip(np.ceil(scaled).astype("int64") - 1, 0, bins - 1)


def log_losses(answers: Answers) -> np.ndarray:
    """Returns -log P(true class) of each face."""
    truth = answers.truth[:, None]
    probability = np.take_along_axis(answers.probabilities, truth, axis=1)[:, 0]
    return -np.log(np.maximum(probability, EPSILON))


def squared_errors(answers: Answers) -> np.ndarray:
    """Returns the squared error of each face's probabilities; see `brier_score_of`."""
    one_hot = np.eye(answers.num_classes)[answers.truth]
    errors = np.sum((answers.probabilities - one_hot) ** 2, axis=-1)
    return errors / 2 if answers.num_classes == 2 else errors


def _class_scores(answers: Answers) -> list[dict[str, float | None]]:
    return class_scores(answers.truth, answers.answer, answers.num_classes)


def mean(values: Any) -> float | None:
    """Returns the mean of values; `None` of none."""
    return float(np.mean(values, dtype="float64")) if len(values) else None
