"""Fits calibrations and scores them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops
from scipy import optimize

from keras_agegender.encodings.calibration import (
    Calibration,
    answer_probabilities,
    check_options,
    divide_logits,
    set_scores,
)
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head, column_classes
from keras_agegender.labels import GENDERS, MISSING
from keras_agegender.metrics.table import expected_calibration_error

# Where every face is answered right, no temperature is low enough.
TEMPERATURES = (0.1, 10.0)
# A probability counts for no less in the likelihood: one face must not decide.
LEAST_PROBABILITY = 1e-7


def fit_calibration(
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
    *,
    alpha: float = 0.1,
    by: str | None = None,
    fitted_on: Mapping[str, str] | None = None,
) -> Calibration:
    """Returns the calibration that fits a model's outputs about labeled faces best.

    Temperatures minimize the negative log-likelihood of the labels, one head at a time;
    of a years head, that of the age in years. Thresholds are then conformal quantiles:
    over faces drawn like these the set holds the truth with probability 1 - `alpha` at
    least. That is a mean over all faces, not a promise for each group. It takes faces
    one by one: of several pictures of a person, coverage varies more between samples
    than the number of faces suggests. If the model was selected on the same faces, and
    as temperatures are fitted on them too, it is a little lower elsewhere; on faces of
    another kind it may be much lower. `calibration_scores` measures it.

    With `by` it holds for each group of faces that are *answered* alike. Only what is
    known at prediction time can choose a threshold: a true gender or age group cannot.
    A group of fewer faces than 1 / `alpha` - 1 gets sets of everything. Where the most
    probable class alone is right often enough, the threshold is 0: sets of one, which
    hold the truth more often than was asked for.

    Args:
        outputs: Output name -> predictions about faces that the model was not trained
            on. Shape (num_faces, units) each.
        labels: `age_group` and `gender` (-1 where unknown) and the columns of the
            heads, `age_years` for years heads. Shape (num_faces,) each.
        encoding: What the outputs mean.
        alpha: Share of faces whose truth may lie outside the set, in (0, 1). Defaults
            to 0.1.
        by: `"gender"` or `"age_group"`: a threshold for each as answered. `None`
            (default) is one for all.
        fitted_on: Kept as it is, to say where the faces are from.

    Returns:
        The calibration. Heads and answers without a labeled face are left out of it.

    Raises:
        ValueError: If no face has a label, a column or an output is missing, or the
            encoding does not answer `by`.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017;
    Angelopoulos & Bates, "A Gentle Introduction to Conformal Prediction and
    Distribution-Free Uncertainty Quantification", 2021 (arXiv 2107.07511); Romano et
    al., "Classification with Valid and Adaptive Coverage", NeurIPS 2020, without its
    random part; Lu et al. (MICCAI 2022) for classes in an order.
    """
    check_options(alpha, by)
    check_answered(by, encoding)
    temperatures: dict[str, float] = {}
    num_faces: dict[str, int | tuple[int, ...]] = {}
    for head in encoding.heads:
        classes = true_classes(head, labels)
        if classes is None or not (classes != MISSING).any():
            continue
        temperatures[head.name] = fit_temperature(head, outputs, classes)
        num_faces[head.name] = int((classes != MISSING).sum())
    if not temperatures:
        raise ValueError(
            "There is nothing to calibrate on. Expected at least one face with a label "
            f"of a head with classes. Received: {len(labels['age_group'])} faces."
        )
    calibrated = Calibration(temperatures).apply(outputs, encoding)
    thresholds: dict[str, tuple[float, ...]] = {}
    for name, (scores, groups) in _true_scores(
        calibrated, labels, encoding, by
    ).items():
        thresholds[name] = tuple(conformal_quantile(scores[g], alpha) for g in groups)
        num_faces[f"{name}_set"] = tuple(int(g.sum()) for g in groups)
    return Calibration(
        temperatures,
        thresholds,
        alpha,
        by,
        num_faces,
        dict(fitted_on or {}),
        _num_changed(outputs, calibrated, encoding),
    )


def may_change_answers(name: str, encoding: Encoding) -> bool:
    """Returns whether a temperature may make another class the most probable one.

    Of a binary or softmax head it cannot. It may where class probabilities are
    differences, products or sums of what is divided: of ordinal, coral and corn heads,
    and of answers summed over years, or over pairs of age group and gender.

    Args:
        name: `"age_group"`, `"gender"` or the name of a further head.
        encoding: Whose answer it is.

    Example:
    >>> may_change_answers("age_group", get_encoding("ordinal"))
    True
    """
    answering = {"age_group": encoding.age_head, "gender": encoding.gender_head}
    head = answering[name] if name in answering else encoding.head(name)
    if head is None:
        return False
    summed = head.spec.in_years and name == "age_group"
    return head.spec.ranks or summed or len(head.columns) > 1


def _num_changed(
    before: Mapping[str, Any], after: Mapping[str, Any], encoding: Encoding
) -> dict[str, tuple[int, int]]:
    """Returns how many faces, labeled or not, are answered differently, of how many."""
    found = {}
    calibrated = all_probabilities(after, encoding)
    for name, rows in all_probabilities(before, encoding).items():
        if may_change_answers(name, encoding):
            differ = rows.argmax(axis=1) != calibrated[name].argmax(axis=1)
            found[name] = int(differ.sum()), len(differ)
    return found


def all_probabilities(
    outputs: Mapping[str, Any], encoding: Encoding
) -> dict[str, np.ndarray]:
    """Returns class probabilities of everything that is answered, by name."""
    found = answer_probabilities(encoding.decode(outputs))
    for head in encoding.extra_heads:
        if not head.spec.continuous:
            found[head.name] = head.spec.probabilities(head, outputs)
    return {name: ops.convert_to_numpy(values) for name, values in found.items()}


def check_answered(by: str | None, encoding: Encoding) -> None:
    """Raises a `ValueError` if an encoding gives no answer to group by."""
    heads = {"gender": encoding.gender_head, "age_group": encoding.age_head}
    if by is not None and heads[by] is None:
        raise ValueError(
            f"Invalid `by`. The encoding {encoding.name!r} does not answer {by!r}."
        )


def true_classes(head: Head, labels: Mapping[str, Any]) -> np.ndarray | None:
    """Returns the class id of every face, `MISSING` where unknown.

    Ages are years, those beyond the oldest year the oldest. `None` of regression heads.
    """
    if head.spec.continuous:
        return None
    missing = [column for column in head.columns if column not in labels]
    if missing:
        raise ValueError(
            f"Missing column {missing[0]!r} of head {head.name!r} in `labels`. "
            f"Received columns: {sorted(labels)}."
        )
    classes = column_classes(head, [labels[column] for column in head.columns])
    return np.minimum(classes, max(head.num_classes, 2) - 1)


def fit_temperature(
    head: Head, outputs: Mapping[str, Any], classes: np.ndarray
) -> float:
    """Returns the temperature that makes the true classes of a head most likely.

    Args:
        head: A head with classes.
        outputs: Output name -> predictions. Shape (num_faces, units) each.
        classes: Class ids, -1 where unknown; at least one is known. Shape (num_faces,).
    """
    known = np.flatnonzero(classes != MISSING)
    truth = classes[known]
    picked = {name: np.asarray(outputs[name])[known] for name in head.output_names}

    def loss(log_temperature: float) -> float:
        divided = divide_logits(head, picked, math.exp(log_temperature))
        rows = ops.convert_to_numpy(head.spec.probabilities(head, divided))
        return negative_log_likelihood(rows, truth)

    low, high = (math.log(t) for t in TEMPERATURES)
    found = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    # Below some temperature all right answers are equally sure, and so is the bound.
    if loss(low) <= found.fun:
        return TEMPERATURES[0]
    return round(float(math.exp(found.x)), 6)


def negative_log_likelihood(probabilities: np.ndarray, classes: np.ndarray) -> float:
    """Returns the mean of -log(probability of the true class), in nats."""
    true = probabilities[np.arange(len(classes)), classes].astype("float64")
    return float(-np.log(np.maximum(true, LEAST_PROBABILITY)).mean())


def conformal_quantile(scores: np.ndarray, alpha: float) -> float:
    """Returns the threshold that a further score exceeds with probability `alpha`.

    Args:
        scores: Scores in [0, 1] of the true classes. Shape (num_faces,).
        alpha: In (0, 1).

    Returns:
        The ceil((n + 1)(1 - alpha))-th smallest score; 1, which no score exceeds, where
        there are too few for that.
    """
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)  # 0.9 is not 9 / 10
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0


def _true_scores(
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
    by: str | None,
) -> dict[str, tuple[np.ndarray, list[np.ndarray]]]:
    """Returns for each answer the scores of the truth, and the faces of each group."""
    decoded = encoding.decode(outputs)
    sizes = {"age_group": len(encoding.age_groups), "gender": len(GENDERS)}
    found = {}
    for name, probabilities in answer_probabilities(decoded).items():
        truth = np.asarray(labels[name])
        known = np.flatnonzero(truth != MISSING)
        if not len(known):
            continue
        scores = ops.convert_to_numpy(set_scores(probabilities))[known, truth[known]]
        groups = [np.ones(len(known), bool)]
        if by is not None:
            answered = ops.convert_to_numpy(getattr(decoded, by))[known]
            groups = [answered == group for group in range(sizes[by])]
        found[name] = scores, groups
    return found


# A search between bounds ends a little inside them.
NEAR_BOUND = 1.01


def least_faces(alpha: float) -> int:
    """Returns how many faces sets need to leave any answer out.

    Args:
        alpha: Share of faces whose truth may lie outside the set, in (0, 1).

    Example:
    >>> least_faces(0.05)  # doctest: +SKIP
    19
    """
    return max(1, math.ceil(1 / alpha - 1e-9) - 1)  # 1 / 0.1 may exceed 10


def calibration_warnings(calibration: Calibration, encoding: Encoding) -> list[str]:
    """Returns a line for everything about a calibration that is not to be trusted.

    Args:
        calibration: What `fit_calibration` returned.
        encoding: Names its groups.
    """
    return [*_of_temperatures(calibration), *_of_sets(calibration, encoding)]


def _of_temperatures(calibration: Calibration) -> Iterator[str]:
    low, high = TEMPERATURES
    for name, value in calibration.temperatures.items():
        faces = calibration.num_faces.get(name)
        over = "" if faces is None else f" ({faces})"
        if value >= high / NEAR_BOUND:
            why = "the model answers no better than chance"
        elif value <= low * NEAR_BOUND:
            why = "all of them are answered right"
        else:
            continue
        yield (
            f"{name}: temperature {value:.3f} is at its bound: too few faces{over}, or "
            f"{why}"
        )


def _of_sets(calibration: Calibration, encoding: Encoding) -> Iterator[str]:
    needed = least_faces(calibration.alpha)
    share = f"{100 * (1 - calibration.alpha):.4g}%"
    groups = {"gender": GENDERS, "age_group": encoding.age_groups.names}
    for name, values in calibration.thresholds.items():
        counts = calibration.num_faces.get(f"{name}_set", (None,) * len(values))
        counts = (counts,) if isinstance(counts, int) else counts
        names = ("",) if calibration.by is None else groups[calibration.by]
        for group, value, count in zip(names, values, counts, strict=True):
            if value < 1:
                continue
            of = f" of faces answered {group}" if group else ""
            if count is None or count >= needed:
                why = "threshold 1"
                end = ""
            else:
                why = f"too few faces ({count}) for {share}" if count else "no face"
                end = f"; at least {needed} needed"
            yield f"{name} sets{of}: {why}: sets hold every answer{end}"


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
    covered = known & members[np.arange(len(truth)), truth]  # of -1 nothing is known
    sizes = members.sum(axis=1)

    def figures(faces: np.ndarray) -> dict[str, Any]:
        faces = faces & known
        there = bool(faces.any())
        return {
            "num_faces": int(faces.sum()),
            "coverage": float(covered[faces].mean()) if there else None,
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
