"""What a calibration is worth on other faces: likelihood, calibration error, coverage.

In: raw outputs, labels and a `Calibration`. Out: plain values for metrics.json, and
lines for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.evaluation.array_metrics import expected_calibration_error
from keras_agegender.evaluation.calibration_warnings import calibration_warnings
from keras_agegender.evaluation.fit_calibration import (
    all_probabilities,
    may_change_answers,
    negative_log_likelihood,
    true_classes,
)
from keras_agegender.labels import GENDERS, MISSING

SHOWN, ACCURACY = ("nll", "ece"), "accuracy"


def calibration_scores(
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
    calibration: Calibration,
) -> dict[str, Any]:
    """Returns how good probabilities and sets are on labeled faces, before and after.

    Args:
        outputs: A model's own outputs. Shape (num_faces, units) each.
        labels: As `fit_calibration` takes them.
        encoding: What the outputs mean.
        calibration: A calibration, fitted on other faces.

    Returns:
        - `alpha`, `by`, `temperatures`: of the calibration.
        - `warnings`: what is not to be trusted about it, a line each, and which figures
          it made worse.
        - `answers`: for `age_group`, `gender` and each further head `num_faces`,
          `accuracy`, negative log-likelihood `nll` in nats and expected calibration
          error `ece`, each with its value `_before` calibration; and
          `may_change`, whether calibration can make it another answer.
        - `sets`: for `age_group` and `gender` `num_faces`, `coverage` (share of the
          sets that hold the truth), `mean_size`, and both again for each true age group
          and gender in `groups`.
    """
    calibrated = calibration.apply(outputs, encoding)
    before = all_probabilities(outputs, encoding)
    answers = {}
    for name, after in all_probabilities(calibrated, encoding).items():
        classes = _classes(name, labels, encoding)
        known = classes != MISSING
        figures: dict[str, Any] = {"num_faces": int(known.sum())}
        figures["may_change"] = may_change_answers(name, encoding)
        for rows, suffix in ((before[name], "_before"), (after, "")):
            for figure, value in _fit(rows[known], classes[known]).items():
                figures[figure + suffix] = value
        answers[name] = figures
    decoded = encoding.decode(calibrated)
    sets = {}
    for name, members in calibration.sets(decoded)._asdict().items():
        if members is not None:
            sets[name] = _coverage(
                ops.convert_to_numpy(members), name, labels, encoding.age_groups.names
            )
    return {
        "alpha": calibration.alpha,
        "by": calibration.by,
        "temperatures": dict(calibration.temperatures),
        "warnings": [
            *calibration_warnings(calibration, encoding),
            *_made_worse(answers),
        ],
        "answers": answers,
        "sets": sets,
    }


def calibration_lines(scores: Mapping[str, Any]) -> list[str]:
    """Returns lines of text for people.

    Args:
        scores: What `calibration_scores` returned.
    """
    answers = scores["answers"]
    changing = [n for n, figures in answers.items() if figures.get("may_change")]
    shown = [*SHOWN, ACCURACY] if changing else SHOWN
    titles = {f"{figure}_before": f"  {figure} before" for figure in shown}
    lines = [" " * 12 + "".join(f"{title}{'after':>7}" for title in titles.values())]
    for name, figures in answers.items():
        line = f"{name:<12}"
        for figure in shown:
            # Of an answer that cannot change both would be the accuracy above.
            told = figure != ACCURACY or name in changing
            for key in (f"{figure}_before", figure):
                width = len(titles.get(key, " " * 7))
                line += f"{_figure(figures[key] if told else None):>{width}}"
        lines.append(line)
    by = f", by {scores['by']} answered" if scores["by"] else ""
    for name, figures in scores["sets"].items():
        lines += [
            "",
            f"{name} sets, to hold the truth for {1 - scores['alpha']:.0%}{by}",
            f"{'faces of':<12}{'faces':>7}{'coverage':>10}{'size':>9}",
            *map(_set_line, [{**figures, "name": "all"}, *figures["groups"]]),
        ]
    # Runs scored long ago have none.
    warnings = [f"WARNING: {line}" for line in scores.get("warnings", ())]
    return [*lines, "", *warnings] if warnings else lines


def _made_worse(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a line for each figure that is worse after calibration, as shown."""
    lines = []
    for figure in (*SHOWN, ACCURACY):
        worse = []
        for name, figures in answers.items():
            if not figures["num_faces"]:
                continue
            before, after = (round(figures[k], 3) for k in (f"{figure}_before", figure))
            if (after < before) if figure == ACCURACY else (after > before):
                worse.append(f"{name} {before:.3f} -> {after:.3f}")
        if worse:
            lines.append(f"calibration made {figure} worse: {', '.join(worse)}")
    return lines


def _classes(name: str, labels: Mapping[str, Any], encoding: Encoding) -> np.ndarray:
    if name in ("age_group", "gender"):
        return np.asarray(labels[name])
    classes = true_classes(encoding.head(name), labels)
    if classes is None:
        raise ValueError(f"Invalid head. {name!r} has no classes.")
    return classes


def _fit(probabilities: np.ndarray, classes: np.ndarray) -> dict[str, float | None]:
    if not len(classes):
        return dict.fromkeys(("accuracy", "nll", "ece"))
    return {
        "accuracy": float((probabilities.argmax(axis=1) == classes).mean()),
        "nll": negative_log_likelihood(probabilities, classes),
        "ece": expected_calibration_error(probabilities, classes),
    }


def _coverage(
    members: np.ndarray, name: str, labels: Mapping[str, Any], age_groups: Sequence[str]
) -> dict[str, Any]:
    """Returns coverage and size of sets: of all faces, by true age group and gender."""
    truth = np.asarray(labels[name])
    known = truth != MISSING
    holds = known & members[np.arange(len(truth)), truth]  # of -1 nothing is known
    sizes = members.sum(axis=1)

    def figures(faces: np.ndarray) -> dict[str, Any]:
        faces = faces & known
        there = bool(faces.any())
        return {
            "num_faces": int(faces.sum()),
            "coverage": float(holds[faces].mean()) if there else None,
            "mean_size": float(sizes[faces].mean()) if there else None,
        }

    groups = []
    for column, names in (("age_group", age_groups), ("gender", GENDERS)):
        for index, group in enumerate(names):
            chosen = np.asarray(labels[column]) == index
            groups.append({"of": column, "name": group, **figures(chosen)})
    return {**figures(known), "groups": groups}


def _set_line(group: Mapping[str, Any]) -> str:
    coverage, size = _figure(group["coverage"]), _figure(group["mean_size"], 2)
    return f"{group['name']:<12}{group['num_faces']:>7}{coverage:>10}{size:>9}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
