"""Scores as a table for people: what `agegender evaluate` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from keras_agegender.evaluation.calibration_scores import calibration_lines
from keras_agegender.evaluation.group_lines import group_lines
from keras_agegender.evaluation.one_class import one_class_warnings

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
        what = "mean error" if scores["kind"] == "regression" else "accuracy"
        line = f"{name:<{width}}{what} {_figure(value)}, "
        if scores.get("majority_accuracy") is not None:
            line += f"commonest {_figure(scores['majority_accuracy'])}, "
        lines.append(line + _counted(scores))
    if sum(scores["kind"] != "regression" for scores in extra.values()) > 1:
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
