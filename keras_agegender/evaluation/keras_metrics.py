"""Means over faces for `model.compile`: the figures of `array_metrics` by batches."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_agegender.evaluation.answer_metric import FaceMean, registered
from keras_agegender.evaluation.answers import Answers
from keras_agegender.evaluation.array_metrics import CUMULATIVE_SCORE_YEARS, EPSILON


@registered
class ExactAccuracy(FaceMean):
    """Share of faces answered right."""

    logged = "exact_accuracy"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns 1 for faces answered right."""
        return ops.equal(answers.answer, answers.truth)


@registered
class OneOffAccuracy(FaceMean):
    """Share of faces answered right or as a neighboring class.

    Not Keras' top-2 accuracy, whose second answer may be any class. See
    `detailed_metrics`.

    Example:
    >>> enc = kag.get_encoding("categorical")
    >>> metric = kag.OneOffAccuracy(enc)
    >>> metric.update_state(np.array([3, 3]), np.eye(8)[[4, 6]])  # one and three off
    >>> float(metric.result())
    0.5
    """

    logged = "one_off_accuracy"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns 1 for faces answered at most one class off."""
        return ops.abs(answers.answer - answers.truth) <= 1


@registered
class MeanAbsoluteGroupError(FaceMean):
    """Mean distance between answer and truth, in groups."""

    logged = "mean_absolute_error"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns distances in groups."""
        return ops.abs(answers.answer - answers.truth)


@registered
class AgeYearsError(FaceMean):
    """Mean distance between answer and truth in years, of a years head."""

    logged = "mean_absolute_error_years"
    column = "age_years"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns distances in years."""
        return ops.abs(answers.answer - answers.truth)


@registered
class CumulativeScore(FaceMean):
    """Share of faces answered within 5 years, of a years head: CS@5.

    Source: Chang et al., "Ordinal hyperplanes ranker with cost sensitivities for age
    estimation", CVPR 2011.
    """

    logged = "cumulative_score_5"
    column = "age_years"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns 1 for faces answered within 5 years."""
        return ops.abs(answers.answer - answers.truth) <= CUMULATIVE_SCORE_YEARS


@registered
class AllHeadsAccuracy(FaceMean):
    """Share of faces whose questions about ranks are all answered right."""

    logged = "all_heads_accuracy"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns 1 for faces whose questions are all answered right."""
        right = ops.equal(answers.median, answers.truth)
        return ops.logical_and(right, answers.agree)


@registered
class RankViolationRate(FaceMean):
    """Share of faces whose questions about ranks contradict each other.

    "Above group 3: no, above group 4: yes" is no group's answer.
    """

    logged = "rank_violation_rate"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns 1 for faces whose answers contradict each other."""
        return ops.logical_not(answers.agree)


@registered
class NegativeLogLikelihood(FaceMean):
    """Mean of -log P(true class), in nats."""

    logged = "negative_log_likelihood"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns -log P(true class)."""
        truth = ops.one_hot(answers.truth, answers.num_classes)
        probability = ops.sum(answers.probabilities * truth, axis=-1)
        return -ops.log(ops.maximum(probability, EPSILON))


@registered
class BrierScore(FaceMean):
    """Mean squared error of the probabilities (Brier 1950).

    Summed over the classes; of two classes the squared error of one probability.
    """

    logged = "brier_score"

    def _of_faces(self, answers: Answers) -> Any:
        """Returns squared errors."""
        truth = ops.one_hot(answers.truth, answers.num_classes)
        errors = ops.sum(ops.square(answers.probabilities - truth), axis=-1)
        return errors / 2 if answers.num_classes == 2 else errors
