"""The table of metrics, and each as a function of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from sklearn import metrics as sklearn_metrics

from keras_agegender.encodings.decoding import decode, decode_head
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.head_types import Ranks
from keras_agegender.labels import GENDERS, MISSING


class Predictions(NamedTuple):
    """The answers to one question, and the truth.

    Attributes:
        truth: True class ids, or years. Shape (num_faces,).
        answer: Answered class ids, or years. Shape (num_faces,).
        num_classes: Classes there are; 0 of years.
        probabilities: Probability of each class. Shape (num_faces, num_classes).
        positive: Class id that precision, recall, f1 and AUC are about.
        agree: Whether the questions about ranks are answered as of one class. Shape
            (num_faces,).
        median: Class id that counting them gives. Shape (num_faces,).
        weights: What each face counts, 0 without a label; `None` of arrays, which hold
            labelled faces only. Shape (num_faces,).
    """

    truth: Any
    answer: Any
    num_classes: int = 0
    probabilities: Any = None
    positive: int = 1
    agree: Any = None
    median: Any = None
    weights: Any = None


def find_head(encoding: Encoding, column: str) -> Head:
    """Returns the head that answers for a column.

    Args:
        encoding: An encoding.
        column: `"age_group"`, `"gender"`, `"age_years"` of an encoding with a years
            head, or the column of a further head that chooses among classes.

    Raises:
        ValueError: If there is none.
    """
    heads = {h.columns[0]: h for h in encoding.extra_heads if not h.spec.is_number}
    if encoding.gender_head is not None:
        heads["gender"] = encoding.gender_head
    if encoding.age_head is not None:
        heads["age_group"] = encoding.age_head
        if encoding.age_head.spec.in_years:
            heads["age_years"] = encoding.age_head
    if column not in heads:
        raise ValueError(
            f"Invalid `column`. Expected one of {sorted(heads)}, which the heads of "
            f"encoding {encoding.name!r} answer with classes. Received: "
            f"column={column!r}."
        )
    return heads[column]


def read_answers(
    encoding: Encoding,
    column: str,
    targets: Mapping[str, Any],
    outputs: Mapping[str, Any],
    weights: Any = None,
) -> Predictions:
    """Returns a head's targets and outputs as truth and answers, in `keras.ops`.

    Args:
        encoding: What encoded the targets.
        column: As for `find_head`.
        targets: Output name -> target, as `Encoding.encode` gives it.
        outputs: Output name -> predictions. Shape (batch, units) each.
        weights: What each face counts. Shape (batch, …); `None` (default) is 1 for all.
    """
    head = find_head(encoding, column)
    truth = head.spec.true_values(head, targets)
    if weights is None:
        weights = ops.ones_like(truth, dtype="float32")
    else:  # the first question of several is asked of every face with a label
        weights = ops.cast(ops.convert_to_tensor(weights), "float32")
        while len(weights.shape) > 1:
            weights = weights[:, 0]
    groups = encoding.age_groups
    if column == "gender":
        truth = truth // (head.num_classes // 2) if len(head.columns) > 1 else truth
        decoded = decode(outputs, None, head, groups)
        male = decoded.gender_probability
        probabilities = ops.stack([1.0 - male, male], axis=-1)
        answer = decoded.gender
    elif column in ("age_group", "age_years"):
        decoded = decode(outputs, head, None, groups)
        if column == "age_years":
            truth = ops.cast(truth, "float32")
            return Predictions(truth, decoded.age_years, weights=weights)
        if head.spec.in_years:
            years = range(head.num_classes)
            of_year = np.array([groups.from_years(y) for y in years], "int32")
            truth = ops.take(ops.convert_to_tensor(of_year), truth, axis=0)
            # A year between two groups has none: it does not count.
            weights = weights * ops.cast(truth != MISSING, "float32")
            truth = ops.maximum(truth, 0)
        elif len(head.columns) > 1:
            truth = truth % (head.num_classes // len(GENDERS))
        answer, probabilities = decoded.age_group, decoded.age_probabilities
    else:
        answer, probabilities = decode_head(head, outputs)
    median = agree = None
    if isinstance(head.spec, Ranks):
        median, agree = head.spec.count_ranks(head, outputs)
    return Predictions(
        truth,
        answer,
        int(probabilities.shape[-1]),
        probabilities,
        agree=agree,
        median=median,
        weights=weights,
    )


def confusion_matrix(y_true: Any, y_pred: Any, num_classes: int) -> np.ndarray:
    """Counts faces by true (row) and answered (column) class id; -1 does not count.

    Returns:
        Counts. Shape (num_classes, num_classes), int64.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    known = y_true != MISSING
    if not known.any():
        return np.zeros((num_classes, num_classes), "int64")
    return sklearn_metrics.confusion_matrix(
        y_true[known], y_pred[known], labels=np.arange(num_classes)
    )


def class_scores(
    y_true: np.ndarray, y_pred: np.ndarray, num_classes: int
) -> list[dict[str, float | None]]:
    """Returns precision, recall and f1 of every class, `None` where undefined."""
    names = ("precision", "recall", "f1")
    if not len(y_true):
        return [dict.fromkeys(names) for _ in range(num_classes)]
    figures = sklearn_metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=np.arange(num_classes), zero_division=np.nan
    )[:3]
    return [
        {name: _number(values[k]) for name, values in zip(names, figures, strict=True)}
        for k in range(num_classes)
    ]


def quadratic_kappa(
    y_true: np.ndarray, y_pred: np.ndarray, num_classes: int
) -> float | None:
    """Returns Cohen's kappa, disagreement weighted by its square; `None` of one class.

    Where truth and answers are one and the same class, chance cannot disagree either.
    """
    if len(np.union1d(y_true, y_pred)) < 2:
        return None
    kappa = sklearn_metrics.cohen_kappa_score(
        y_true, y_pred, labels=np.arange(num_classes), weights="quadratic"
    )
    return _number(kappa)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


# Years within which an answer counts for CS@5 (Chang et al. 2011, Niu et al. 2016).
CUMULATIVE_SCORE_YEARS = 5

CALIBRATION_BINS = 15  # of Guo et al. 2017

# The smallest probability whose logarithm is taken, as Keras' losses have it.
EPSILON = 1e-7


def accuracy_of(answers: Predictions) -> float | None:
    """Returns the share answered right."""
    return mean(answers.answer == answers.truth)


def balanced_accuracy_of(answers: Predictions) -> float | None:
    """Returns the mean of the recalls of the classes that have a face: macro recall."""
    recalls = [scores["recall"] for scores in _class_scores(answers)]
    known = [recall for recall in recalls if recall is not None]
    return float(np.mean(known)) if known else None


def one_off_accuracy_of(answers: Predictions) -> float | None:
    """Returns the share answered right or as a neighboring class."""
    return mean(np.abs(answers.answer - answers.truth) <= 1)


def mean_absolute_error_of(answers: Predictions) -> float | None:
    """Returns the mean distance between answer and truth, in classes or years."""
    return mean(np.abs(answers.answer - answers.truth))


def cumulative_score_5_of(answers: Predictions) -> float | None:
    """Returns the share answered within 5 years."""
    distances = np.abs(answers.answer - answers.truth)
    return mean(distances <= CUMULATIVE_SCORE_YEARS)


def quadratic_kappa_of(answers: Predictions) -> float | None:
    """Returns Cohen's kappa, disagreement weighted by its square."""
    return quadratic_kappa(answers.truth, answers.answer, answers.num_classes)


def precision_of(answers: Predictions) -> float | None:
    """Returns the share of the faces answered positive that are."""
    return _class_scores(answers)[answers.positive]["precision"]


def recall_of(answers: Predictions) -> float | None:
    """Returns the share of the positive faces answered so."""
    return _class_scores(answers)[answers.positive]["recall"]


def f1_of(answers: Predictions) -> float | None:
    """Returns the harmonic mean of precision and recall."""
    return _class_scores(answers)[answers.positive]["f1"]


def auc_of(answers: Predictions) -> float | None:
    """Returns the area under the ROC curve; `None` of one class."""
    positive = answers.truth == answers.positive
    if answers.probabilities is None or len(np.unique(positive)) < 2:
        return None
    scores = answers.probabilities[:, answers.positive]
    return float(sklearn_metrics.roc_auc_score(positive, scores))


def all_heads_accuracy_of(answers: Predictions) -> float | None:
    """Returns the share for which every question about ranks is answered right.

    Predictions that are those of one class are all right if and only if it is the true one.
    """
    if answers.agree is None:
        return None
    return mean((answers.median == answers.truth) & answers.agree)


def rank_violation_rate_of(answers: Predictions) -> float | None:
    """Returns the share whose questions about ranks contradict each other."""
    return None if answers.agree is None else mean(~answers.agree)


def negative_log_likelihood_of(answers: Predictions) -> float | None:
    """Returns the mean of -log P(true class), in nats."""
    if answers.probabilities is None:
        return None
    return mean(log_losses(answers))


def brier_score_of(answers: Predictions) -> float | None:
    """Returns the mean squared error of the probabilities (Brier 1950).

    Summed over the classes, which is at most 2; of two classes half of that, the
    squared error of one probability, as scikit-learn has it.
    """
    if answers.probabilities is None:
        return None
    return mean(squared_errors(answers))


def expected_calibration_error_of(answers: Predictions) -> float | None:
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


def log_losses(answers: Predictions) -> np.ndarray:
    """Returns -log P(true class) of each face."""
    truth = answers.truth[:, None]
    probability = np.take_along_axis(answers.probabilities, truth, axis=1)[:, 0]
    return -np.log(np.maximum(probability, EPSILON))


def squared_errors(answers: Predictions) -> np.ndarray:
    """Returns the squared error of each face's probabilities; see `brier_score_of`."""
    one_hot = np.eye(answers.num_classes)[answers.truth]
    errors = np.sum((answers.probabilities - one_hot) ** 2, axis=-1)
    return errors / 2 if answers.num_classes == 2 else errors


def _class_scores(answers: Predictions) -> list[dict[str, float | None]]:
    return class_scores(answers.truth, answers.answer, answers.num_classes)


def mean(values: Any) -> float | None:
    """Returns the mean of values; `None` of none."""
    return float(np.mean(values, dtype="float64")) if len(values) else None
