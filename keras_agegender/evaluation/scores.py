"""Scores of predictions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.evaluation.calibration import calibration_lines
from keras_agegender.evaluation.groups import (
    TASKS,
    few_further,
    group_title,
    known_values,
    right_answers,
    subjects_of,
)
from keras_agegender.labels import ADIENCE_AGE_GROUPS, GENDERS, MISSING, AgeGroups
from keras_agegender.metrics.intervals import (
    Clusters,
    Estimate,
    interval_ends,
    mean_interval,
    proportion_interval,
)
from keras_agegender.metrics.keras_metrics import score_answers
from keras_agegender.metrics.table import (
    Predictions,
    class_scores,
    confusion_matrix,
    mean,
)


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


# Fields of the scores that are rows of `METRICS`.
PROBABILITY_METRICS = (
    "negative_log_likelihood",
    "brier_score",
    "expected_calibration_error",
)
GENDER_METRICS = ("accuracy", "balanced_accuracy", "auc", *PROBABILITY_METRICS)
AGE_CLASS_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "one_off_accuracy",
    "mean_absolute_error",
)
AGE_METRICS = (
    *AGE_CLASS_METRICS,
    "quadratic_kappa",
    "all_heads_accuracy",
    "rank_violation_rate",
    *PROBABILITY_METRICS,
)
YEARS_METRICS = ("mean_absolute_error_years", "cumulative_score_5")


def score_gender(
    y_true: np.ndarray,
    decoded: Decoded,
    y_pred: np.ndarray,
    positive: str,
    clusters: Clusters | None = None,
) -> GenderScores:
    """Returns the scores of gender.

    Args:
        y_true: Gender ids, -1 where unknown. Shape (num_faces,).
        decoded: What the model says.
        y_pred: The gender ids in it, checked. Shape (num_faces,).
        positive: Positive class of precision, recall, f1 and AUC.
        clusters: Whose faces they are; `None` (default) gives no intervals.
    """
    known = y_true != MISSING
    male = _values(decoded.gender_probability, y_true, "decoded.gender_probability")
    answers = Predictions(
        y_true[known],
        y_pred[known],
        len(GENDERS),
        None if male is None else np.stack([1.0 - male, male], axis=-1)[known],
        GENDERS.index(positive),
    )
    scores = class_scores(answers.truth, answers.answer, len(GENDERS))
    by_positive = dict(zip(GENDERS, scores, strict=True))
    figures: dict[str, Any] = score_answers(answers, GENDER_METRICS)
    return GenderScores(
        num_faces=int(known.sum()),
        num_unlabelled=int((~known).sum()),
        positive=positive,
        **by_positive[positive],
        **figures,
        by_positive=by_positive,
        confusion=confusion_matrix(y_true, y_pred, len(GENDERS)).tolist(),
        majority=_majority(answers, GENDERS, ("accuracy", "balanced_accuracy")),
        intervals=interval_ends(
            answers,
            (*GENDER_METRICS, "precision", "recall", "f1"),
            clusters and clusters.select(known),
        ),
    )


def score_age(
    y_true: np.ndarray,
    decoded: Decoded,
    y_pred: np.ndarray,
    separate_heads: bool,
    age_groups: AgeGroups,
    years_true: Any,
    clusters: Clusters | None = None,
) -> AgeScores:
    """Returns the scores of age.

    Args:
        y_true: Age-group ids, -1 where unknown. Shape (num_faces,).
        decoded: What the model says.
        y_pred: The age-group ids in it, checked. Shape (num_faces,).
        separate_heads: Whether questions about ranks answer for age.
        age_groups: What age-group ids stand for.
        years_true: Ages in years, -1 where unknown, or `None`. Shape (num_faces,).
        clusters: Whose faces they are; `None` (default) gives no intervals.
    """
    num_groups = len(age_groups)
    known = y_true != MISSING
    counts = confusion_matrix(y_true, y_pred, num_groups)
    agree = _values(decoded.heads_agree, y_true, "decoded.heads_agree")
    median = _values(decoded.median_age_group, y_true, "decoded.median_age_group")
    chances = _values(decoded.age_probabilities, y_true, "decoded.age_probabilities")
    answers = Predictions(
        y_true[known],
        y_pred[known],
        num_groups,
        None if chances is None else chances[known],
        agree=agree.astype(bool)[known]
        if separate_heads and agree is not None
        else None,
        median=(y_pred if median is None else median)[known],
    )
    majority = _majority(answers, age_groups.names, AGE_CLASS_METRICS)
    years = _score_years(years_true, decoded.age_years, len(y_true))
    intervals = interval_ends(answers, AGE_METRICS, clusters and clusters.select(known))
    intervals |= _year_intervals(years_true, decoded.age_years, clusters)
    if years["num_faces_with_years"] and majority:
        center = age_groups.centers[age_groups.names.index(majority["answer"])]
        constant = np.full(len(y_true), center)
        majority |= _score_years(years_true, constant, len(y_true))
        del majority["num_faces_with_years"]
    figures: dict[str, Any] = score_answers(answers, AGE_METRICS)
    return AgeScores(
        num_faces=int(known.sum()),
        num_unlabelled=int((~known).sum()),
        **figures,
        **years,
        groups=_groups(answers, counts, age_groups),
        confusion=counts.tolist(),
        majority=majority,
        intervals=intervals,
    )


def _groups(
    answers: Predictions, counts: np.ndarray, age_groups: AgeGroups
) -> list[dict[str, Any]]:
    """Returns the scores of each age group."""
    errors = np.abs(answers.answer - answers.truth)
    scores = class_scores(answers.truth, answers.answer, len(age_groups))
    return [
        {
            "name": name,
            "num_faces": int(counts[index].sum()),
            "num_answered": int(counts[:, index].sum()),
            "recall": scores[index]["recall"],
            "mean_absolute_error": mean(errors[answers.truth == index]),
        }
        for index, name in enumerate(age_groups.names)
    ]


def _majority(
    answers: Predictions, names: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    """Returns what always answering the commonest class scores; nothing of no face."""
    if not len(answers.truth):
        return {}
    commonest = int(np.bincount(answers.truth).argmax())
    constant = answers._replace(answer=np.full_like(answers.truth, commonest))
    return {"answer": names[commonest], **score_answers(constant, metrics)}


def _score_years(y_true: Any, y_pred: Any, num_faces: int) -> dict[str, Any]:
    """Returns the errors in years, `None` where no face has an age in years."""
    truth = np.full(num_faces, MISSING) if y_true is None else np.asarray(y_true)
    known = truth >= 0
    if y_pred is None or not known.any():
        return {"num_faces_with_years": 0}
    check_shape(np.asarray(y_pred), truth, "decoded.age_years")
    answers = Predictions(truth[known], np.asarray(y_pred, "float64")[known])
    figures = score_answers(answers, YEARS_METRICS)
    return {"num_faces_with_years": int(known.sum()), **figures}


def _year_intervals(
    y_true: Any, y_pred: Any, clusters: Clusters | None
) -> dict[str, tuple[float, float]]:
    """Returns the intervals of the errors in years, if ages in years are known."""
    if y_true is None or y_pred is None or clusters is None:
        return {}
    truth = np.asarray(y_true)
    known = truth >= 0
    answers = Predictions(truth[known], np.asarray(y_pred, "float64")[known])
    return interval_ends(answers, YEARS_METRICS, clusters.select(known))


def _values(values: Any, expected: np.ndarray, name: str) -> Any:
    """Returns an array with an entry for each face; `None` stays."""
    if values is None:
        return None
    values = np.asarray(values)
    check_shape(values[..., 0] if values.ndim > 1 else values, expected, name)
    return values


def check_shape(values: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Raises ValueError unless there is an entry for each face."""
    if values.shape != expected.shape:
        raise ValueError(
            f"Invalid `{name}`. Expected shape {expected.shape}, one entry for each "
            f"face. Received: shape {values.shape}."
        )


ALMOST_ALWAYS = 0.95


def one_class_answer(confusion: Any, names: Sequence[str]) -> str | None:
    """Returns the class that a model gives (almost) always; `None` if there is none.

    It is given to 95 % or more of all faces, and of the faces of all other classes
    too: where nearly all faces are of one class, a good model answers it nearly always.

    Args:
        confusion: Faces by true (row) and answered (column) class. Shape
            (num_classes, num_classes).
        names: The classes.

    Example:
    >>> one_class_answer([[2, 48], [0, 50]], ["female", "male"])
    'male'
    """
    counts = np.asarray(confusion, "float64")
    if not counts.sum():
        return None
    answer = int(counts.sum(axis=0).argmax())
    others = np.delete(counts, answer, axis=0)
    if not others.sum():
        return None
    shares = (
        counts[:, answer].sum() / counts.sum(),
        others[:, answer].sum() / others.sum(),
    )
    return names[answer] if min(shares) >= ALMOST_ALWAYS else None


def one_class_answers(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a scored model (almost) always answers about gender and age.

    Args:
        metrics: What metrics.json holds.

    Returns:
        `"gender"`, `"age"` -> the class; those that it tells apart are left out.
    """
    found = {}
    for section in ("gender", "age"):
        scores = metrics.get(section) or {}
        names: Sequence[str] = GENDERS
        if section == "age":
            names = [group["name"] for group in scores.get("groups", ())]
        answer = one_class_answer(scores.get("confusion", [[0]]), names)
        if answer is not None:
            found[section] = answer
    return found


def one_class_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each question that a model does not look at faces for.

    Args:
        metrics: What metrics.json holds.
    """
    called = {"gender": "gender", "age": "age group"}
    return [
        f"{called[section]}: (almost) every face is answered {answer}, those of others "
        "too"
        for section, answer in one_class_answers(metrics).items()
    ]


def group_lines(groups: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns what `score_groups` found as blocks of lines, one for each grouping."""
    return [_lines(name.split(","), found) for name, found in groups.items()]


def scored_questions(found: Mapping[str, Any]) -> list[str]:
    """Returns the questions of one grouping that any of its groups was scored on."""
    return [
        question
        for question in found.get("questions", TASKS)  # older files name none
        if any(g.get(f"{question}_accuracy") is not None for g in found["groups"])
    ]


def _lines(columns: list[str], found: Mapping[str, Any]) -> list[str]:
    groups = found["groups"]
    questions = few_further(scored_questions(found))
    titles = [group_title(group, columns) for group in groups]
    heading = " × ".join(c.replace("_", " ") for c in columns)
    width = max(map(len, [heading, *titles])) + 2
    # Further questions are narrow: without their intervals.
    widths = {q: 21 if q in TASKS else max(len(q), 5) for q in questions}
    line = f"{heading:<{width}}{'faces':>7}{'people':>8}"
    line += "".join(f"  {q.replace('_', ' '):<{n}}" for q, n in widths.items())
    lines = [line.rstrip()]
    for title, group in zip(titles, groups, strict=True):
        line = f"{title:<{width}}{group['num_faces']:>7}{group['num_subjects']:>8}"
        for question, size in widths.items():
            line += f"  {_figures(group, question):<{size}}"
        lines.append((line + (" few" if group["few"] else "")).rstrip())
    for question in questions:
        if question not in found["gaps"]:
            continue
        gap = found["gaps"][question]
        interval = gap["interval"]
        ends = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        lines.append(
            f"{question.replace('_', ' ')}: {gap['worst']} is {gap['value']:.3f}{ends} "
            f"behind {gap['best']}"
        )
    lines.append(
        "worst first, 95 % intervals over people; few: under "
        f"{found['few_faces']} faces or {found['few_subjects']} people"
    )
    if found["num_unlabelled"]:
        lines.append(f"{found['num_unlabelled']} faces without these do not count")
    return lines


def _figures(group: Mapping[str, Any], question: str) -> str:
    value, interval = group[f"{question}_accuracy"], group[f"{question}_interval"]
    if value is None:
        return "-"
    if not interval or question not in TASKS:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


LINE_WIDTH = 88
BAR = 20  # characters of a recall of 1
MANY_OUTPUTS = 12
UNKNOWN_FACES = (
    "Nobody knows whether the model was trained on some of these faces: the run has no "
    "record of its faces."
)
# `decode` takes the most probable group; `heads_agree` looks at each head by itself.
ALL_HEADS_NOTE = (
    "* every age head, cut at one half, answers as for the true group; accuracy takes",
    "  the most probable group, by all heads. A face can be right in only one of them.",
)


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Returns scores as lines of text.

    Args:
        metrics: What `Evaluation.to_dict` returned, with `recipe` and `split` if known.
    """
    blocks = [[_title(metrics), *_model(metrics), *_warnings(metrics)]]
    blocks += [*group_lines(metrics.get("groups") or {}), _summary(metrics)]
    if metrics.get("age"):
        blocks.append(_age_groups(metrics["age"]["groups"], metrics.get("cells") or []))
    if metrics.get("extra"):
        blocks.append(_extra(metrics["extra"], metrics.get("extra_mean_accuracy")))
    if metrics.get("calibration"):
        blocks.append(calibration_lines(metrics["calibration"]))
    if _counts_all_heads(metrics.get("age")):
        blocks.append([*ALL_HEADS_NOTE])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _title(metrics: Mapping[str, Any]) -> str:
    title = " on ".join(str(metrics[k]) for k in ("recipe", "split") if metrics.get(k))
    count = metrics["num_faces"]
    faces = f"{count} face" if count == 1 else f"{count} faces"
    return f"{title}: {faces}" if title else faces


def _model(metrics: Mapping[str, Any]) -> list[str]:
    """Says which of a recipe's models it is."""
    model = metrics.get("model")
    if not model:
        return []
    parts = [f"seed {model['seed']}", f"trained on {model['trained_on']}"]
    if model["epoch"] is None:
        parts.append(f"the {model['checkpoint']} model")
    else:
        parts.append(
            f"epoch {model['epoch']}, the best {model['monitor']} on "
            f"{model['selected_on']} ({model['value']:.3f})"
        )
    return textwrap.wrap(f"model: {model['recipe']}, {', '.join(parts)}", LINE_WIDTH)


def _warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Says that a score is of faces that the model knows, or does not look at."""
    lines = []
    for key, what in (("training", "trained"), ("validation", "selected")):
        count = metrics.get(f"num_seen_in_{key}")
        if count:
            lines.append(
                f"WARNING: of {count} of these faces the model was {what} on the same "
                "picture or person"
            )
        if key in (metrics.get("possibly_seen_in") or ()):
            lines += textwrap.wrap(
                f"WARNING: the model was {what} on a split of this name of a dataset "
                "of this name: maybe the same faces, and the scores too good",
                LINE_WIDTH,
            )
    lines += [f"WARNING: {text}" for text in one_class_warnings(metrics)]
    if metrics.get("model") and metrics.get("num_seen_in_training") is None:
        lines += textwrap.wrap(UNKNOWN_FACES, LINE_WIDTH)
    return lines


def _summary(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    gender, age = metrics.get("gender"), metrics.get("age")
    if gender:
        lines += [
            f"gender      accuracy {_score(gender, 'accuracy')}{_balanced(gender)}",
            f"            f1 {_score(gender, 'f1')} "
            f"(positive class: {gender['positive']})",
            f"            precision {_score(gender, 'precision')}, recall "
            f"{_score(gender, 'recall')}",
            *_probabilities(gender),
            *_majority_lines(gender),
            f"            {_counted(gender)}",
        ]
    if age:
        lines.append(f"age group   accuracy {_score(age, 'accuracy')}{_balanced(age)}")
        if age.get("quadratic_kappa") is not None:
            kappa = _score(age, "quadratic_kappa")
            lines.append(f"            quadratic kappa {kappa}")
        if _counts_all_heads(age):
            right = _score(age, "all_heads_accuracy")
            lines.append(f"            all age heads right {right} *")
        if age.get("rank_violation_rate") is not None:
            share = _score(age, "rank_violation_rate")
            lines.append(f"            age heads contradict each other {share}")
        lines += [
            f"            within one group {_score(age, 'one_off_accuracy')}, mean "
            f"error {_score(age, 'mean_absolute_error', 2)} groups",
            *_probabilities(age),
            *_majority_lines(age),
            f"            {_counted(age)}",
        ]
        if age.get("mean_absolute_error_years") is not None:
            lines.append(
                "age         mean error "
                f"{_score(age, 'mean_absolute_error_years', 2)} years, within 5 years "
                f"{_score(age, 'cumulative_score_5')}"
            )
            lines.append(f"            over {age['num_faces_with_years']} faces")
            lines += _majority_years(age.get("majority") or {})
    if gender and age:
        lines.append(f"mean        accuracy {_figure(metrics['mean_accuracy'])}")
        if metrics.get("majority_mean_accuracy") is not None:
            value = _figure(metrics["majority_mean_accuracy"])
            lines[-1] += f", always the commonest {value}"
    if any((scores or {}).get("intervals") for scores in (gender, age)):
        lines.append("brackets: 95 % intervals over people")
    return lines


def _probabilities(scores: Mapping[str, Any]) -> list[str]:
    """Returns the figures of probabilities, those that are known."""
    names = {
        "auc": "auc",
        "negative_log_likelihood": "-log likelihood",
        "brier_score": "Brier",
        "expected_calibration_error": "calibration error",
    }
    known = [
        f"{what} {_figure(scores[name])}"
        for name, what in names.items()
        if scores.get(name) is not None
    ]
    return [f"            {', '.join(known)}"] if known else []


def _majority_lines(scores: Mapping[str, Any]) -> list[str]:
    """Returns what always giving the commonest answer would score."""
    majority = scores.get("majority")
    if not majority:
        return []
    line = f"            always {majority['answer']}: accuracy "
    line += _figure(majority["accuracy"])
    if "one_off_accuracy" in majority:
        line += f", within one group {_figure(majority['one_off_accuracy'])}"
        line += f", mean error {_figure(majority['mean_absolute_error'], 2)}"
    return [line]


def _majority_years(majority: Mapping[str, Any]) -> list[str]:
    if "mean_absolute_error_years" not in majority:
        return []
    return [
        f"            always the middle of {majority['answer']}: "
        f"{_figure(majority['mean_absolute_error_years'], 2)} years, within 5 years "
        f"{_figure(majority['cumulative_score_5'])}"
    ]


def _counts_all_heads(age: Mapping[str, Any] | None) -> bool:
    return age is not None and age["all_heads_accuracy"] is not None


def _balanced(scores: Mapping[str, Any]) -> str:
    """Returns the mean recall of the classes; runs scored long ago have none."""
    if scores.get("balanced_accuracy") is None:
        return ""
    return f", mean of classes {_score(scores, 'balanced_accuracy')}"


def _counted(scores: Mapping[str, Any]) -> str:
    text = f"over {scores['num_faces']} labeled faces"
    if scores["num_unlabelled"]:
        text += f"; {scores['num_unlabelled']} without a label do not count"
    return text


def _age_groups(
    groups: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]
) -> list[str]:
    by_cell = {(c["age_group"], c["gender"]): c["age_accuracy"] for c in cells}
    recalls = [g["recall"] for g in groups if g["recall"] is not None]
    # Where all are the same, none is lower than another.
    lowest = min(recalls) if len(set(recalls)) > 1 else None
    lines = [
        f"{'age group':<10}{'faces':>7}{'recall':>8}  {'':<{BAR}}"
        f"{'female':>8}{'male':>7}"
    ]
    for group in groups:
        name, recall = group["name"], group["recall"]
        bar = "" if recall is None else "#" * round(BAR * recall)
        line = f"{name:<10}{group['num_faces']:>7}{_figure(recall):>8}  {bar:<{BAR}}"
        line += f"{_figure(by_cell.get((name, 'female'))):>8}"
        line += f"{_figure(by_cell.get((name, 'male'))):>7}"
        if lowest is not None and recall == lowest:
            # Not only "lowest": the figure in front of it is one of a gender.
            line += "  lowest recall"
        lines.append(line)
    return lines


def _extra(extra: Mapping[str, Mapping[str, Any]], mean: float | None) -> list[str]:
    """Lists further outputs: all of them, or the worst if there are many."""
    rows = [
        (name, scores.get("accuracy", scores.get("mean_absolute_error")), scores)
        for name, scores in extra.items()
    ]
    lines = []
    if len(rows) > MANY_OUTPUTS:
        rows = sorted(rows, key=lambda row: _last_if_none(row[2].get("accuracy")))
        lines.append(f"the {MANY_OUTPUTS} worst of {len(rows)} further outputs")
        rows = rows[:MANY_OUTPUTS]
    width = max(len(name) for name, _, _ in rows) + 2
    for name, value, scores in rows:
        what = "accuracy" if "accuracy" in scores else "mean error"
        line = f"{name:<{width}}{what} {_figure(value)}, "
        if scores.get("majority_accuracy") is not None:
            line += f"commonest {_figure(scores['majority_accuracy'])}, "
        lines.append(line + _counted(scores))
    if sum("accuracy" in scores for scores in extra.values()) > 1:
        lines.append(f"mean accuracy of the further outputs {_figure(mean)}")
    return lines


def _last_if_none(accuracy: float | None) -> float:
    return 2.0 if accuracy is None else accuracy


def _score(scores: Mapping[str, Any], name: str, digits: int = 3) -> str:
    """Returns a figure with its interval, where there is one."""
    interval = (scores.get("intervals") or {}).get(name)
    text = _figure(scores[name], digits)
    if interval is None:
        return text
    return f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


__all__ = [
    "Evaluation",
    "confusion_matrix",
    "evaluate_predictions",
    "format_metrics",
]


def evaluate_predictions(
    age_group_true: Any,
    gender_true: Any,
    decoded: Decoded,
    *,
    positive_gender: str = "male",
    separate_age_heads: bool = False,
    extra: Mapping[str, tuple[str, Any, Any]] | None = None,
    age_groups: AgeGroups = ADIENCE_AGE_GROUPS,
    age_years_true: Any = None,
    subjects: Any = None,
) -> Evaluation:
    """Scores decoded answers.

    Args:
        age_group_true: Age-group ids, -1 where unknown. Shape (num_faces,).
        gender_true: Gender ids, 0 female, 1 male, -1 where unknown. Shape (num_faces,).
        decoded: NumPy arrays from `Encoding.decode`.
        positive_gender: Positive class of precision, recall and f1: `"male"` (default,
            as the report's Caffe rows) or `"female"` (as its ResNet rows).
        separate_age_heads: Whether age is answered by questions about ranks (ordinal,
            coral, corn), so that the share with all of them right is of interest.
            Defaults to `False`.
        extra: Name of a further head -> `(kind, y_true, y_pred)`, with labels, -1 or
            NaN where unknown, and answers as `Encoding.answer` has them. Shape
            (num_faces,) each.
        age_groups: What age-group ids stand for. Defaults to Adience's eight.
        age_years_true: Ages in years, -1 where unknown, for errors in years; `None`
            (default) where nobody knows them. Shape (num_faces,).
        subjects: Who is on each face, `""` where unknown (a person of its own), for
            95 % intervals over people; `None` (default) gives none. Shape (num_faces,).

    Returns:
        The scores.

    Raises:
        ValueError: If shapes disagree or an id is out of range.

    Example:
    >>> decoded = Decoded(None, None, np.array([1, 0, 1]), None, None)
    >>> scores = evaluate_predictions([-1] * 3, [1, 0, 0], decoded)
    >>> scores.gender.precision, scores.gender.recall
    (0.5, 1.0)
    """
    if positive_gender not in GENDERS:
        raise ValueError(
            f"Invalid `positive_gender`. Expected one of {GENDERS}. "
            f"Received: positive_gender={positive_gender!r}."
        )
    ages = _checked_ids(age_group_true, len(age_groups), "age_group_true")
    genders = _checked_ids(gender_true, len(GENDERS), "gender_true")
    check_shape(genders, ages, "gender_true")
    clusters = None
    if subjects is not None:
        check_shape(np.asarray(subjects), ages, "subjects")
        clusters = Clusters.of(subjects)
    gender = age = None
    if decoded.gender is not None:
        answers = _checked_ids(decoded.gender, len(GENDERS), "decoded.gender", lowest=0)
        check_shape(answers, genders, "decoded.gender")
        gender = score_gender(genders, decoded, answers, positive_gender, clusters)
    if decoded.age_group is not None:
        groups = _checked_ids(
            decoded.age_group, len(age_groups), "decoded.age_group", 0
        )
        check_shape(groups, ages, "decoded.age_group")
        age = score_age(
            ages,
            decoded,
            groups,
            separate_age_heads,
            age_groups,
            age_years_true,
            clusters,
        )
    further = {
        name: _score_extra(name, kind, y_true, y_pred, len(ages))
        for name, (kind, y_true, y_pred) in (extra or {}).items()
    }
    return Evaluation(
        num_faces=len(ages),
        gender=gender,
        age=age,
        mean_accuracy=_mean_known([s.accuracy for s in (gender, age) if s]),
        majority_mean_accuracy=_mean_known(
            [s.majority.get("accuracy") for s in (gender, age) if s]
        ),
        cells=_cells(ages, genders, decoded, age_groups),
        extra=further,
        extra_mean_accuracy=_mean_known([s.get("accuracy") for s in further.values()]),
    )


def format_metrics(metrics: Evaluation | Mapping[str, Any]) -> str:
    """Returns scores as a table for people.

    Args:
        metrics: An `Evaluation`, or what `metrics.json` holds.
    """
    return metrics_table(
        metrics.to_dict() if isinstance(metrics, Evaluation) else metrics
    )


def _cells(
    ages: np.ndarray, genders: np.ndarray, decoded: Decoded, age_groups: AgeGroups
) -> list[dict[str, Any]]:
    """Returns accuracies per age group and gender."""
    cells = []
    for group, group_name in enumerate(age_groups.names):
        for gender, gender_name in enumerate(GENDERS):
            there = (ages == group) & (genders == gender)
            cell: dict[str, Any] = {
                "age_group": group_name,
                "gender": gender_name,
                "num_faces": int(there.sum()),
                "age_accuracy": None,
                "gender_accuracy": None,
            }
            if decoded.age_group is not None:
                right = np.asarray(decoded.age_group)[there] == group
                cell["age_accuracy"] = mean(right)
            if decoded.gender is not None:
                right = np.asarray(decoded.gender)[there] == gender
                cell["gender_accuracy"] = mean(right)
            cells.append(cell)
    return cells


def _score_extra(
    name: str, kind: str, y_true: Any, y_pred: Any, num_faces: int
) -> dict[str, Any]:
    truth = np.asarray(y_true, "float64").reshape(-1)
    answers = np.asarray(y_pred, "float64").reshape(-1)
    if len(truth) != num_faces or len(answers) != num_faces:
        raise ValueError(
            f"Invalid `extra` output {name!r}. Expected {num_faces} labels and "
            f"answers. Received: {len(truth)} labels, {len(answers)} answers."
        )
    known = ~np.isnan(truth)
    if not HEAD_TYPES[kind].continuous:
        known &= truth != MISSING
    scores = {
        "kind": kind,
        "num_faces": int(known.sum()),
        "num_unlabelled": int((~known).sum()),
    }
    if HEAD_TYPES[kind].ordered:
        scores["mean_absolute_error"] = mean(np.abs(answers - truth)[known])
    if not HEAD_TYPES[kind].is_number:
        scores["accuracy"] = mean((answers == truth)[known])
        counts = np.unique(truth[known], return_counts=True)[1]
        commonest = float(counts.max() / counts.sum()) if len(counts) else None
        scores["majority_accuracy"] = commonest
    return scores


def _checked_ids(ids: Any, num_classes: int, name: str, lowest: int = MISSING) -> Any:
    ids = np.asarray(ids)
    wrong = ~np.isin(ids, np.arange(lowest, num_classes))
    if ids.ndim != 1 or wrong.any():
        received = f"shape {ids.shape}" if ids.ndim != 1 else f"{ids[wrong][0]}"
        raise ValueError(
            f"Invalid `{name}`. Expected ids in [{lowest}, {num_classes}) of shape "
            f"(num_faces,). Received: {received}."
        )
    return ids.astype("int64")


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def answer_estimates(table: pd.DataFrame) -> dict[str, Estimate]:
    """Returns what a run's answers score, clustered by people.

    Args:
        table: Predictions, as `read_predictions` returns them.

    Returns:
        `gender_accuracy`, `age_accuracy`, `age_all_heads_accuracy`,
        `age_one_off_accuracy` and `age_mean_absolute_error` (in groups), those that the
        table knows.
    """
    found = {}
    for question, short in (("gender", "gender"), ("age_group", "age")):
        if f"predicted_{question}" not in table:
            continue
        labeled = table[known_values(table[question])]
        clusters = subjects_of(labeled)
        right = right_answers(labeled, question)
        found[f"{short}_accuracy"] = proportion_interval(right, clusters)
        if question == "gender":
            continue
        if "heads_agree" in table:
            agree = labeled["heads_agree"].to_numpy(bool)
            found["age_all_heads_accuracy"] = proportion_interval(
                right & agree, clusters
            )
        if {"age_group_id", "predicted_age_group_id"} <= set(table):
            ids = labeled[["age_group_id", "predicted_age_group_id"]].to_numpy("int64")
            errors = np.abs(ids[:, 0] - ids[:, 1])
            found["age_one_off_accuracy"] = proportion_interval(errors <= 1, clusters)
            found["age_mean_absolute_error"] = mean_interval(errors, clusters)
    return found
