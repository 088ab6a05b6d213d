"""Scores predictions of a test set, and prints the scores."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.errors import counted
from keras_agegender.evaluation.calibration import calibration_lines
from keras_agegender.evaluation.groups import (
    FEW_FACES,
    group_lines,
    known_values,
    subjects_of,
)
from keras_agegender.evaluation.of_age import of_age_lines
from keras_agegender.evaluation.published import published_lines
from keras_agegender.labels import ADIENCE_AGE_GROUPS, GENDERS, MISSING, AgeGroups
from keras_agegender.metrics.intervals import (
    Clusters,
    Estimate,
    interval_ends,
    metric_intervals,
)
from keras_agegender.metrics.table import (
    METRICS,
    Predictions,
    confusion_matrix,
    format_value,
    mean,
    metrics_for,
    score,
)

if TYPE_CHECKING:
    from keras_agegender.encodings.decoding import Decoded


@dataclass(frozen=True, kw_only=True)
class _TargetScores:
    num_faces: int
    num_unlabelled: int
    metrics: dict[str, float | None]
    confusion: list[list[int]]
    majority: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        metrics = self.__dict__.get("metrics", {})
        if name not in metrics:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        return metrics[name]


@dataclass(frozen=True, kw_only=True)
class GenderScores(_TargetScores):
    """Scores of gender predictions.

    Every metric is also an attribute: `scores.accuracy`.

    Attributes:
        num_faces: Number of faces with a gender label, over which metrics are computed.
        num_unlabelled: Number of faces without a gender label.
        metrics: Metric -> value, `None` if undefined: `accuracy`, `balanced_accuracy`;
            `precision`, `recall`, `f1` and `auc` of the positive class;
            `negative_log_likelihood` in nats, `brier_score` and
            `expected_calibration_error` (15 bins of equal width, Guo et al. 2017).
        positive: The positive class, `"male"` or `"female"`.
        by_positive: Precision, recall and f1 with either class as the positive one.
        confusion: Faces by true (row) and predicted (column) gender id. Shape (2, 2).
        majority: The majority-class baseline: `answer`, the most frequent gender of
            these faces, and its `accuracy` and `balanced_accuracy`.
        intervals: Metric -> ends of its 95 % interval over people; empty without
            subject IDs. AUC and calibration error have no interval.
    """

    positive: str
    by_positive: dict[str, dict[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class AgeScores(_TargetScores):
    """Scores of age-group predictions, and of ages in years if they are known.

    Every metric is also an attribute: `scores.accuracy`.

    Attributes:
        num_faces: Number of faces with an age-group label, over which metrics of groups
            are computed.
        num_unlabelled: Number of faces without an age-group label.
        metrics: Metric -> value, `None` if undefined: `accuracy`, `balanced_accuracy`
            (mean recall of the groups with faces), `one_off_accuracy`,
            `mean_absolute_error` in groups, `quadratic_kappa`; for rank outputs
            `all_heads_accuracy` (share of faces with every output correct, as the
            report scores its ordinal models) and `rank_violation_rate`; those of
            probabilities as for gender; in years `mean_absolute_error_years` and
            `cumulative_score_5` (CS@5, the share of faces within 5 years).
        num_faces_with_years: Number of faces with a known age in years.
        groups: `name`, `num_faces`, `num_answered` (faces predicted as this group),
            `recall` and `mean_absolute_error` of each age group.
        confusion: Faces by true (row) and predicted (column) group. Shape
            (num_groups, num_groups).
        majority: The majority-class baseline: `answer`, the most frequent group of
            these faces, and its metrics; in years, those of the center of the group.
        intervals: Metric -> ends of its 95 % interval over people, as for gender.
    """

    groups: list[dict[str, Any]]
    num_faces_with_years: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on a set of faces.

    Attributes:
        num_faces: Number of faces, with or without labels.
        num_subjects: Number of people, where unknown of faces; `None` without subject
            IDs.
        gender: Scores of gender; `None` if the model does not predict it.
        age: Scores of the age group; `None` if the model does not predict it.
        mean_accuracy: Mean of gender and age accuracy, or the only one of them.
        majority_mean_accuracy: Mean accuracy of the majority-class baseline.
        cells: `age_group`, `gender`, `num_faces`, `age_accuracy` and `gender_accuracy`
            of each pair of age group and gender, over faces with both labels.
        extra: `kind` (the head type), `num_faces` and `num_unlabelled` of each extra
            head; for classes `accuracy` and `majority_accuracy`, that of the
            majority-class baseline, else `mean_absolute_error`.
        extra_mean_accuracy: Mean accuracy of the extra heads with classes.
        num_seen_in_training: Number of faces whose image or person the model was
            trained on; `None` if unknown.
        num_seen_in_validation: Number of faces whose image or person was used to select
            the model; `None` if unknown.
        possibly_seen_in: If these numbers are unknown, uses of a split with the same
            name of a dataset with the same name: `"training"`, `"validation"`.
        groups: Scores of groups of people, as `score_groups` returns them.
        calibration: Scores of the probabilities and prediction sets of a calibrated
            run, as `calibration_scores` returns them; else `None`.
        model: The scored model, as `RunDirectory.describe_model` returns it; `None` if
            unknown.
        of_age: Minors who pass and adults who are refused by a check of the estimated
            age, as `score_of_age` returns them; `None` without minors of known age.
        published: Scores of the report for the same data and split: `title`,
            `published` and `measured`; empty for any other data.
        notes: Remarks on the data: classes that could not be matched, images without
            faces.
        folder: Folder of the results, if `evaluate` wrote them.
    """

    num_faces: int
    num_subjects: int | None = None
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
    of_age: dict[str, Any] | None = None
    published: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the scores as plain values for JSON."""
        found = asdict(self)
        del found["folder"]
        for scores in (found["gender"], found["age"]):
            if scores is not None:
                scores |= scores.pop("metrics")
        return found


# -- scoring -------------------------------------------------------------------


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
    """Scores decoded predictions.

    Args:
        age_group_true: Age-group ids, -1 if unknown. Shape (num_faces,).
        gender_true: Gender ids, 0 female, 1 male, -1 if unknown. Shape (num_faces,).
        decoded: NumPy arrays from `Encoding.decode`.
        positive_gender: Positive class of precision, recall and f1: `"male"` (default,
            as in the report's Caffe rows) or `"female"` (as in its ResNet rows).
        separate_age_heads: Whether the age head has rank outputs (ordinal, coral,
            corn) to compute `all_heads_accuracy` from. Defaults to `False`.
        extra: Name of an extra head -> `(head_type, y_true, y_pred)`: labels, -1 or NaN
            if unknown, and predictions as `Encoding.decode_head` returns them. Shape
            (num_faces,) each.
        age_groups: The age groups of the ids. Defaults to Adience's eight.
        age_years_true: Ages in years, -1 if unknown, for errors in years; `None`
            (default) if all are unknown. Shape (num_faces,).
        subjects: Subject ID of each face, for 95 % intervals over people; faces with
            `""` are one person each. `None` (default) computes no intervals. Shape
            (num_faces,).

    Raises:
        ValueError: If shapes do not match or an id is out of range.

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
    _check_shape(genders, ages, "gender_true")
    clusters = None
    if subjects is not None:
        _check_shape(np.asarray(subjects), ages, "subjects")
        clusters = Clusters.of(subjects)
    gender = age = None
    if decoded.gender is not None:
        gender = _score_gender(genders, decoded, positive_gender, clusters)
    if decoded.age_group is not None:
        age = _score_age(
            ages, decoded, separate_age_heads, age_groups, age_years_true, clusters
        )
    extra_scores = {
        name: _score_extra(name, head_type, y_true, y_pred, len(ages))
        for name, (head_type, y_true, y_pred) in (extra or {}).items()
    }
    both = [scores for scores in (gender, age) if scores]
    return Evaluation(
        num_faces=len(ages),
        num_subjects=clusters.num_clusters if clusters else None,
        gender=gender,
        age=age,
        mean_accuracy=_mean_known(s.accuracy for s in both),
        majority_mean_accuracy=_mean_known(s.majority.get("accuracy") for s in both),
        cells=_score_cells(ages, genders, decoded, age_groups),
        extra=extra_scores,
        extra_mean_accuracy=_mean_known(
            s.get("accuracy") for s in extra_scores.values()
        ),
    )


def _score_gender(
    truth: np.ndarray, decoded: Decoded, positive: str, clusters: Clusters | None
) -> GenderScores:
    predicted = _checked_ids(decoded.gender, len(GENDERS), "decoded.gender", lowest=0)
    _check_shape(predicted, truth, "decoded.gender")
    male = _per_face(decoded.gender_probability, truth, "decoded.gender_probability")
    known = truth != MISSING
    predictions = Predictions(
        truth[known],
        predicted[known],
        len(GENDERS),
        None if male is None else np.stack([1.0 - male, male], axis=-1)[known],
        GENDERS.index(positive),
    )
    names = metrics_for("classes", "two classes")
    return GenderScores(
        num_faces=int(known.sum()),
        num_unlabelled=int((~known).sum()),
        positive=positive,
        metrics=score(predictions, names),
        by_positive={
            name: score(predictions._replace(positive=k), ("precision", "recall", "f1"))
            for k, name in enumerate(GENDERS)
        },
        confusion=confusion_matrix(truth, predicted, len(GENDERS)).tolist(),
        majority=_score_majority(predictions, GENDERS, names),
        intervals=interval_ends(
            predictions, names, clusters and clusters.select(known)
        ),
    )


def _score_age(
    truth: np.ndarray,
    decoded: Decoded,
    separate_heads: bool,
    age_groups: AgeGroups,
    years_true: Any,
    clusters: Clusters | None,
) -> AgeScores:
    number = len(age_groups)
    predicted = _checked_ids(decoded.age_group, number, "decoded.age_group", lowest=0)
    _check_shape(predicted, truth, "decoded.age_group")
    agree = _per_face(decoded.heads_agree, truth, "decoded.heads_agree")
    median = _per_face(decoded.median_age_group, truth, "decoded.median_age_group")
    chances = _per_face(decoded.age_probabilities, truth, "decoded.age_probabilities")
    known = truth != MISSING
    agree = agree.astype(bool)[known] if separate_heads and agree is not None else None
    predictions = Predictions(
        truth[known],
        predicted[known],
        number,
        None if chances is None else chances[known],
        agree=agree,
        median=(predicted if median is None else median)[known],
    )
    names = metrics_for("classes", "ordered", "ranks")
    names_of_years = metrics_for("years")
    metrics = {**score(predictions, names), **dict.fromkeys(names_of_years)}
    majority = _score_majority(predictions, age_groups.names, names)
    intervals = interval_ends(predictions, names, clusters and clusters.select(known))
    num_faces_with_years = 0
    if years_true is not None and decoded.age_years is not None:
        age, expected = np.asarray(years_true), np.asarray(decoded.age_years, "float64")
        with_years = age >= 0
        num_faces_with_years = int(with_years.sum())
    if num_faces_with_years:
        _check_shape(expected, age, "decoded.age_years")
        years = Predictions(age[with_years], expected[with_years])
        metrics |= score(years, names_of_years)
        own = clusters and clusters.select(with_years)
        intervals |= interval_ends(years, names_of_years, own)
        if majority:
            center = age_groups.centers[age_groups.names.index(majority["answer"])]
            majority |= _score_constant(years, center, names_of_years)
    correct = predictions.predicted == predictions.truth
    errors = np.abs(predictions.predicted - predictions.truth)
    counts = confusion_matrix(truth, predicted, number)
    return AgeScores(
        num_faces=int(known.sum()),
        num_unlabelled=int((~known).sum()),
        metrics=metrics,
        num_faces_with_years=num_faces_with_years,
        groups=[
            {
                "name": name,
                "num_faces": int(counts[index].sum()),
                "num_answered": int(counts[:, index].sum()),
                "recall": mean(correct[predictions.truth == index]),
                "mean_absolute_error": mean(errors[predictions.truth == index]),
            }
            for index, name in enumerate(age_groups.names)
        ],
        confusion=counts.tolist(),
        majority=majority,
        intervals=intervals,
    )


def _score_majority(
    predictions: Predictions, classes: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """Returns the metrics of the majority-class baseline; empty without faces."""
    if not len(predictions.truth):
        return {}
    majority = int(np.bincount(predictions.truth).argmax())
    scores = _score_constant(predictions, majority, names)
    return {"answer": classes[majority], **scores}


def _score_constant(
    predictions: Predictions, value: float, names: Sequence[str]
) -> dict[str, float | None]:
    constant = predictions._replace(predicted=np.full(len(predictions.truth), value))
    return score(constant, [name for name in names if METRICS[name].baseline])


def _score_cells(
    ages: np.ndarray, genders: np.ndarray, decoded: Decoded, age_groups: AgeGroups
) -> list[dict[str, Any]]:
    """Returns accuracies per age group and gender."""

    def accuracy(predicted: Any, faces: np.ndarray, label: int) -> float | None:
        return (
            None if predicted is None else mean(np.asarray(predicted)[faces] == label)
        )

    return [
        {
            "age_group": group_name,
            "gender": gender_name,
            "num_faces": int(faces.sum()),
            "age_accuracy": accuracy(decoded.age_group, faces, group),
            "gender_accuracy": accuracy(decoded.gender, faces, gender),
        }
        for group, group_name in enumerate(age_groups.names)
        for gender, gender_name in enumerate(GENDERS)
        for faces in [(ages == group) & (genders == gender)]
    ]


def _score_extra(
    name: str, head_type: str, y_true: Any, y_pred: Any, num_faces: int
) -> dict[str, Any]:
    truth = np.asarray(y_true, "float64").reshape(-1)
    predicted = np.asarray(y_pred, "float64").reshape(-1)
    if len(truth) != num_faces or len(predicted) != num_faces:
        raise ValueError(
            f"Invalid extra head {name!r}. Expected {num_faces} labels and "
            f"predictions. Received: {len(truth)} and {len(predicted)}."
        )
    spec = HEAD_TYPES[head_type]
    known = ~np.isnan(truth)
    if not spec.continuous:
        known &= truth != MISSING
    scores = {
        "kind": head_type,
        "num_faces": int(known.sum()),
        "num_unlabelled": int((~known).sum()),
    }
    predictions = Predictions(truth[known], predicted[known])
    if spec.ordered:
        scores |= score(predictions, ["mean_absolute_error"])
    if not spec.is_number:
        scores |= score(predictions, ["accuracy"])
        counts = np.unique(truth[known], return_counts=True)[1]
        majority = float(counts.max() / counts.sum()) if len(counts) else None
        scores["majority_accuracy"] = majority
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


def _per_face(values: Any, expected: np.ndarray, name: str) -> Any:
    """Returns an array with an entry for each face; `None` stays `None`."""
    if values is None:
        return None
    values = np.asarray(values)
    _check_shape(values[..., 0] if values.ndim > 1 else values, expected, name)
    return values


def _check_shape(values: np.ndarray, expected: np.ndarray, name: str) -> None:
    if values.shape != expected.shape:
        raise ValueError(
            f"Invalid `{name}`. Expected shape {expected.shape}, one entry per face. "
            f"Received: shape {values.shape}."
        )


def _mean_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def prediction_estimates(table: pd.DataFrame) -> dict[str, Estimate]:
    """Returns the metrics of a run's predictions, with intervals over people."""
    found: dict[str, Estimate] = {}
    for target, short in (("gender", "gender"), ("age_group", "age")):
        if f"predicted_{target}" not in table:
            continue
        labeled = table[known_values(table[target])]
        columns = labeled[target].to_numpy(), labeled[f"predicted_{target}"].to_numpy()
        agree = None  # then `all_heads_accuracy` is skipped
        if target == "age_group" and "heads_agree" in table:
            agree = labeled["heads_agree"].to_numpy(bool)
        clusters = subjects_of(labeled)
        given = Predictions(*columns, agree=agree, median=columns[1])
        estimates = metric_intervals(
            given, ["accuracy", "all_heads_accuracy"], clusters
        )
        id_columns = ["age_group_id", "predicted_age_group_id"]
        if target == "age_group" and set(id_columns) <= set(table):
            ids = labeled[id_columns].to_numpy("int64").T
            names = ["one_off_accuracy", "mean_absolute_error"]
            estimates |= metric_intervals(Predictions(*ids), names, clusters)
        found |= {f"{short}_{name}": value for name, value in estimates.items()}
    return found


# -- constant predictions ------------------------------------------------------

ALMOST_ALWAYS = 0.95


def constant_prediction(confusion: Any, names: Sequence[str]) -> str | None:
    """Returns the class that a model (almost) always predicts, or `None`.

    It is predicted for at least 95 % of all faces and 95 % of the faces of the other
    classes: if nearly all faces belong to one class, a good model predicts it often.
    """
    counts = np.asarray(confusion, "float64")
    if not counts.sum():
        return None
    predicted = int(counts.sum(axis=0).argmax())
    others = np.delete(counts, predicted, axis=0)
    if not others.sum():
        return None
    shares = [faces[:, predicted].sum() / faces.sum() for faces in (counts, others)]
    return names[predicted] if min(shares) >= ALMOST_ALWAYS else None


def constant_predictions(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns `"gender"`, `"age"` -> the class that is (almost) always predicted."""
    found = {}
    for section in ("gender", "age"):
        scores = metrics.get(section) or {}
        names: Sequence[str] = GENDERS
        if section == "age":
            names = [group["name"] for group in scores.get("groups", ())]
        constant = constant_prediction(scores.get("confusion", [[0]]), names)
        if constant is not None:
            found[section] = constant
    return found


def constant_prediction_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a warning for each target with (almost) constant predictions."""
    titles = {"gender": "gender", "age": "age group"}
    return [
        f"{titles[section]}: (almost) every face is predicted as {constant}, "
        "regardless of its label"
        for section, constant in constant_predictions(metrics).items()
    ]


# -- printing ------------------------------------------------------------------

LINE_WIDTH = 88
INDENT = " " * 12
BAR = 20  # characters of a recall of 1
MANY_OUTPUTS = 12
WIDE_INTERVAL = 0.4  # of an accuracy
UNKNOWN_FACES = (
    "Cannot check whether the model was trained on some of these faces: the run has no "
    "faces.csv.gz."
)
ALL_HEADS_NOTE = (
    "* all age heads, thresholded at 0.5, are correct; accuracy is that of the most",
    "  probable group. A face can be correct by only one of the two.",
)


def format_metrics(metrics: Evaluation | Mapping[str, Any]) -> str:
    """Formats scores as text.

    Args:
        metrics: An `Evaluation`, or the content of metrics.json.
    """
    if isinstance(metrics, Evaluation):
        metrics = metrics.to_dict()
    blocks = [[_title(metrics), *_model_lines(metrics), *_warning_lines(metrics)]]
    blocks += [*group_lines(metrics.get("groups") or {}), _summary_lines(metrics)]
    blocks.append(published_lines(metrics.get("published") or ()))
    age = metrics.get("age")
    if age:
        blocks.append(_age_group_lines(age["groups"], metrics.get("cells") or []))
    if metrics.get("extra"):
        mean_accuracy = metrics.get("extra_mean_accuracy")
        blocks.append(_extra_lines(metrics["extra"], mean_accuracy))
    if metrics.get("of_age"):
        blocks.append(of_age_lines(metrics["of_age"]))
    if metrics.get("calibration"):
        blocks.append(calibration_lines(metrics["calibration"]))
    if age and age["all_heads_accuracy"] is not None:
        blocks.append([*ALL_HEADS_NOTE])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _title(metrics: Mapping[str, Any]) -> str:
    title = " on ".join(str(metrics[k]) for k in ("recipe", "split") if metrics.get(k))
    faces = counted(metrics["num_faces"], "face")
    return f"{title}: {faces}" if title else faces


def _model_lines(metrics: Mapping[str, Any]) -> list[str]:
    model = metrics.get("model")
    if not model:
        return []
    checkpoint = f"the {model['checkpoint']} checkpoint"
    if model["epoch"] is not None:
        checkpoint = (
            f"epoch {model['epoch']}, the best {model['monitor']} on "
            f"{model['selected_on']} ({model['value']:.3f})"
        )
    text = f"model: {model['recipe']}, seed {model['seed']}, trained on "
    return textwrap.wrap(f"{text}{model['trained_on']}, {checkpoint}", LINE_WIDTH)


def _warning_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Warns about faces seen in training and about constant predictions."""
    warnings = []
    for key, what in (("training", "trained"), ("validation", "selected")):
        count = metrics.get(f"num_seen_in_{key}")
        if count:
            warnings.append(
                f"the model was {what} on {count} of these faces (same image or person)"
            )
        if key in (metrics.get("possibly_seen_in") or ()):
            warnings.append(
                f"the model was {what} on a split of this name of a dataset of this "
                "name: if these are the same faces, the scores are too high"
            )
    lines = []
    for text in (*warnings, *constant_prediction_warnings(metrics)):
        lines += textwrap.wrap(f"WARNING: {text}", LINE_WIDTH)
    for text in metrics.get("notes") or ():
        lines += textwrap.wrap(f"note: {text}", LINE_WIDTH)
    if metrics.get("model") and metrics.get("num_seen_in_training") is None:
        lines += textwrap.wrap(UNKNOWN_FACES, LINE_WIDTH)
    return lines


def _summary_lines(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    gender, age = metrics.get("gender"), metrics.get("age")
    for title, scores, names in (
        ("gender", gender, metrics_for("classes", "two classes")),
        ("age group", age, metrics_for("classes", "ordered", "ranks")),
    ):
        if scores:
            lines += _metric_lines(title, scores, names)
            lines += _majority_lines(scores, names, "{}")
            lines.append(f"{INDENT}{_counted(scores)}")
    if age and age.get("mean_absolute_error_years") is not None:
        names = metrics_for("years")
        lines += _metric_lines("age", age, names)
        lines.append(f"{INDENT}over {counted(age['num_faces_with_years'], 'face')}")
        lines += _majority_lines(age, names, "center of {}")
    if gender and age:
        lines.append(f"mean        accuracy {format_value(metrics['mean_accuracy'])}")
        if metrics.get("majority_mean_accuracy") is not None:
            value = format_value(metrics["majority_mean_accuracy"])
            lines[-1] += f", majority baseline {value}"
    if any((scores or {}).get("intervals") for scores in (gender, age)):
        lines.append("brackets: 95 % intervals over people")
    few = [
        f"{name} {counted(scores['num_faces'], 'face')}"
        for name, scores in (("gender", gender), ("age group", age))
        if scores and is_unreliable(scores)
    ]
    if few:
        lines += textwrap.wrap(
            f"TOO FEW faces or people for reliable scores ({', '.join(few)}): "
            "intervals this wide say little",
            LINE_WIDTH,
        )
    return lines


def _metric_lines(
    target: str, scores: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """Returns the printed lines of a target's metrics; see `Metric.line`."""
    intervals = scores.get("intervals") or {}
    lines: dict[tuple[int, str], list[str]] = {}
    for name in names:
        row, value = METRICS[name], scores.get(name)
        if value is None and (row.optional or name not in scores):
            continue
        shown = format_value(value, row.digits)
        # The intervals of all four metrics of probabilities do not fit on the line.
        if name in intervals and row.reads != "probabilities":
            low, high = intervals[name]
            shown += f" [{low:.{row.digits}f}, {high:.{row.digits}f}]"
        text = row.printed.format(shown, positive=scores.get("positive"))
        place = (row.line, "") if row.line else (LINE_WIDTH, name)
        lines.setdefault(place, []).append(text)
    texts = [", ".join(lines[place]) for place in sorted(lines)]
    return [f"{target:<12}{texts[0]}", *(INDENT + text for text in texts[1:])]


def _majority_lines(
    scores: Mapping[str, Any], names: Sequence[str], title: str
) -> list[str]:
    """Returns the metrics of the majority-class baseline."""
    majority = scores.get("majority") or {}
    shown = [
        METRICS[name].printed.format(format_value(majority[name], METRICS[name].digits))
        for name in names
        if name in majority and not METRICS[name].optional
    ]
    if not shown:
        return []
    text = f"majority baseline ({title.format(majority['answer'])}): {', '.join(shown)}"
    return textwrap.wrap(
        text, LINE_WIDTH, initial_indent=INDENT, subsequent_indent=INDENT + "  "
    )


def _counted(scores: Mapping[str, Any]) -> str:
    text = f"over {counted(scores['num_faces'], 'labeled face')}"
    if scores["num_unlabelled"]:
        text += f"; {scores['num_unlabelled']:,} without a label ignored"
    return text


def is_unreliable(scores: Mapping[str, Any]) -> bool:
    """Whether a target has too few faces or people for reliable scores."""
    low, high = (scores.get("intervals") or {}).get("accuracy") or (0, 0)
    few = 0 < scores["num_faces"] < FEW_FACES
    return few or high - low > WIDE_INTERVAL


def _age_group_lines(
    groups: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]
) -> list[str]:
    by_cell = {(c["age_group"], c["gender"]): c["age_accuracy"] for c in cells}
    recalls = [g["recall"] for g in groups if g["recall"] is not None]
    # Mark no group if all recalls are equal.
    lowest = min(recalls) if len(set(recalls)) > 1 else None
    title = f"{'age group':<10}{'faces':>7}{'recall':>8}  {'':<{BAR}}"
    lines = [f"{title}{'female':>8}{'male':>7}"]
    for group in groups:
        name, recall = group["name"], group["recall"]
        bar = "" if recall is None else "#" * round(BAR * recall)
        female, male = (format_value(by_cell.get((name, g))) for g in GENDERS)
        line = f"{name:<10}{group['num_faces']:>7}{format_value(recall):>8}  "
        line += f"{bar:<{BAR}}{female:>8}{male:>7}"
        # Not just "lowest", which would refer to the number before it.
        mark = "  lowest recall" if lowest is not None and recall == lowest else ""
        lines.append(line + mark)
    return lines


def _extra_lines(
    extra: Mapping[str, Mapping[str, Any]], mean_accuracy: float | None
) -> list[str]:
    """Lists all extra heads, or the worst if there are many."""
    rows = list(extra.items())
    lines = []
    if len(rows) > MANY_OUTPUTS:
        known = {name: scores.get("accuracy") for name, scores in rows}
        rows.sort(key=lambda row: (known[row[0]] is None, known[row[0]] or 0.0))
        lines.append(f"the {MANY_OUTPUTS} worst of {len(rows)} extra heads")
        rows = rows[:MANY_OUTPUTS]
    width = max(len(name) for name, _ in rows) + 2
    for name, scores in rows:
        value = scores.get("accuracy", scores.get("mean_absolute_error"))
        what = "accuracy" if "accuracy" in scores else "mean error"
        line = f"{name:<{width}}{what} {format_value(value)}, "
        if scores.get("majority_accuracy") is not None:
            line += f"majority {format_value(scores['majority_accuracy'])}, "
        lines.append(line + _counted(scores))
    if sum("accuracy" in scores for scores in extra.values()) > 1:
        lines.append(f"mean accuracy of the extra heads {format_value(mean_accuracy)}")
    return lines
