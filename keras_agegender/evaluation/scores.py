"""What an evaluation found: scores of gender, age group and further outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class GenderScores:
    """How well gender was answered.

    Attributes:
        num_faces: Faces with a gender label; everything else is over these.
        num_unlabelled: Faces without one.
        accuracy: Share answered right.
        balanced_accuracy: Mean of the two genders' recalls, those with a face.
        positive: Positive class of the next three, `"male"` or `"female"`.
        precision: Share of the faces answered positive that are.
        recall: Share of the positive faces answered so.
        f1: Harmonic mean of precision and recall.
        by_positive: Precision, recall and f1 with either class as the positive one.
        confusion: Faces by true (row) and answered (column) gender id. Shape (2, 2).
        auc: Area under the ROC curve of the positive class' probability. This and the
            next three are `None` where nobody says probabilities.
        negative_log_likelihood: Mean of -log P(true class), in nats.
        brier_score: Mean squared error of the probability of male.
        expected_calibration_error: Mean distance between confidence and accuracy, over
            15 bins of equal width (Guo et al. 2017).
        majority: What always answering the commonest gender of these faces would score:
            `answer`, `accuracy`, `balanced_accuracy`.
        intervals: Figure -> ends of its 95 % interval over people; empty where nobody
            says who is on the faces. AUC and calibration error have none.
    """

    num_faces: int
    num_unlabelled: int
    accuracy: float | None
    balanced_accuracy: float | None
    positive: str
    precision: float | None
    recall: float | None
    f1: float | None
    by_positive: dict[str, dict[str, float | None]]
    confusion: list[list[int]]
    auc: float | None = None
    negative_log_likelihood: float | None = None
    brier_score: float | None = None
    expected_calibration_error: float | None = None
    majority: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class AgeScores:
    """How well the age group was answered.

    Attributes:
        num_faces: Faces with an age-group label; everything else is over these.
        num_unlabelled: Faces without one.
        accuracy: Share whose decoded group is right.
        balanced_accuracy: Mean of the groups' recalls, those with a face: frequent
            groups count no more than rare ones.
        quadratic_kappa: Cohen's kappa, disagreement weighted by the square of the
            distance in groups: 1 is perfect, 0 what chance would reach.
        all_heads_accuracy: Share for which every question about ranks is answered
            right, as the report counts its ordinal models; `None` where none are asked.
        one_off_accuracy: Share answered right or as a neighboring group.
        mean_absolute_error: Mean distance between answer and truth, in groups.
        num_faces_with_years: Faces whose age in years is known; the next two are over
            these.
        mean_absolute_error_years: Mean distance between answer and truth, in years.
        cumulative_score_5: Share answered within 5 years, the field's CS@5.
        groups: For each age group its `name`, `num_faces`, `num_answered` (faces that
            were answered so), `recall` and `mean_absolute_error`.
        confusion: Faces by true (row) and answered (column) group. Shape
            (num_groups, num_groups).
        rank_violation_rate: Share whose questions about ranks contradict each other;
            `None` where none are asked.
        negative_log_likelihood: Mean of -log P(true group), in nats. This and the next
            two are `None` where nobody says probabilities.
        brier_score: Mean squared error of the probabilities, summed over the groups.
        expected_calibration_error: Mean distance between confidence and accuracy, over
            15 bins of equal width (Guo et al. 2017).
        majority: What always answering the commonest group of these faces, and in years
            the middle of it, would score: `answer` and figures by their names here.
        intervals: Figure -> ends of its 95 % interval over people, as of gender.
    """

    num_faces: int
    num_unlabelled: int
    accuracy: float | None
    balanced_accuracy: float | None
    quadratic_kappa: float | None
    all_heads_accuracy: float | None
    one_off_accuracy: float | None
    mean_absolute_error: float | None
    groups: list[dict[str, Any]]
    confusion: list[list[int]]
    num_faces_with_years: int = 0
    mean_absolute_error_years: float | None = None
    cumulative_score_5: float | None = None
    rank_violation_rate: float | None = None
    negative_log_likelihood: float | None = None
    brier_score: float | None = None
    expected_calibration_error: float | None = None
    majority: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a set of faces.

    Attributes:
        num_faces: Faces scored, with or without labels.
        gender: Scores of gender; `None` where the model does not answer it.
        age: Scores of the age group; `None` where the model does not answer it.
        mean_accuracy: Mean of gender and age accuracy, or the one there is.
        majority_mean_accuracy: The same of always answering the commonest classes.
        cells: For each age group and gender: `age_group`, `gender`, `num_faces`,
            `age_accuracy`, `gender_accuracy`, over faces with both labels.
        extra: For each further output its `kind`, `num_faces`, `num_unlabelled`, and
            `accuracy` and `majority_accuracy`, that of always answering the commonest
            class, or, for regression, `mean_absolute_error`.
        extra_mean_accuracy: Mean accuracy of the further outputs that have one.
        num_seen_in_training: Faces whose picture or person the model was trained on;
            `None` where nobody knows.
        num_seen_in_validation: Faces whose picture or person the model was selected on.
        possibly_seen_in: Where nobody can count them: `"training"`, `"validation"`,
            what the run used a split of this name of a dataset of this name for.
        groups: Scores of groups of people, as `score_groups` returns them.
        calibration: Of a calibrated run, how good its probabilities and sets are here:
            see `calibration_scores`; else `None`.
        model: Which model was scored: see `RunDirectory.describe_model`; `None` where
            nobody said.
    """

    num_faces: int
    gender: GenderScores | None = None
    age: AgeScores | None = None
    mean_accuracy: float | None = None
    cells: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra_mean_accuracy: float | None = None
    majority_mean_accuracy: float | None = None
    num_seen_in_training: int | None = None
    num_seen_in_validation: int | None = None
    possibly_seen_in: list[str] = field(default_factory=list)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    model: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the scores as plain values, ready for JSON."""
        return asdict(self)
