"""Fits calibrations, and scores calibrated probabilities and prediction sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_agegender.encodings.head import Head, column_classes
from keras_agegender.labels import GENDERS, MISSING
from keras_agegender.metrics import table

if TYPE_CHECKING:
    from keras_agegender.encodings.calibration import Calibration
    from keras_agegender.encodings.encoding import Encoding

# If every face is predicted correctly, no temperature is low enough.
TEMPERATURES = (0.1, 10.0)
NEAR_BOUND = 1.01  # a search between bounds ends a little inside them
# Key of a score -> metric of the table.
SCORES = {
    "accuracy": "accuracy",
    "nll": "negative_log_likelihood",
    "ece": "expected_calibration_error",
}
SHOWN, ACCURACY = ("nll", "ece"), "accuracy"


def fit_calibration(
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
    *,
    alpha: float = 0.1,
    by: str | None = None,
    fitted_on: Mapping[str, str] | None = None,
) -> Calibration:
    """Fits temperatures and prediction-set thresholds to outputs for labeled faces.

    Temperatures minimize the negative log-likelihood of the labels, one head at a time;
    for a years head, that of the age in years. Thresholds are conformal quantiles: for
    faces of the same distribution, the prediction set contains the true class with a
    probability of at least 1 - `alpha`, on average over all faces, not for each group.
    Faces are treated as independent; with several images per person, coverage varies
    more. It is slightly lower elsewhere, since temperatures are fitted on the same
    faces, and may be much lower on other kinds of faces: see `calibration_scores`.

    With `by`, coverage holds for each group of faces with the same *prediction*. A
    group of fewer than 1 / `alpha` - 1 faces gets sets of all classes. If the most
    probable class alone is correct often enough, the threshold is 0: the sets contain
    one class, and coverage is higher than requested.

    Args:
        outputs: Output name -> predictions for faces that the model was not trained on.
            Shape (num_faces, units) each.
        labels: `age_group` and `gender` (-1 where unknown) and the columns of the
            heads, `age_years` for years heads. Shape (num_faces,) each.
        encoding: The model's encoding.
        alpha: Share of faces whose true class may lie outside the set, in (0, 1).
            Defaults to 0.1.
        by: `"gender"` or `"age_group"`: a threshold for each predicted class. `None`
            (default) is one for all.
        fitted_on: Description of these faces, stored in the calibration.

    Raises:
        ValueError: If no face has a label, a column or an output is missing, or the
            encoding does not predict `by`.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017;
    Angelopoulos & Bates, "A Gentle Introduction to Conformal Prediction and
    Distribution-Free Uncertainty Quantification", 2021 (arXiv 2107.07511); Romano et
    al., "Classification with Valid and Adaptive Coverage", NeurIPS 2020, without its
    random part; Lu et al. (MICCAI 2022) for ordered classes.
    """
    from keras_agegender.encodings.calibration import Calibration, check_options

    check_options(alpha, by)
    check_predicted(by, encoding)
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
            "No labels to calibrate on. Expected at least one labeled face of a head "
            f"with classes. Received: {len(labels['age_group'])} faces without labels."
        )
    calibrated = Calibration(temperatures).apply(outputs, encoding)
    thresholds: dict[str, tuple[float, ...]] = {}
    true_scores = _true_scores(calibrated, labels, encoding, by)
    for name, (scores, groups) in true_scores.items():
        thresholds[name] = tuple(conformal_quantile(scores[g], alpha) for g in groups)
        num_faces[f"{name}_set"] = tuple(int(g.sum()) for g in groups)
    changed = {}  # faces, labeled or not, with another prediction, of how many
    after = all_probabilities(calibrated, encoding)
    for name, before in all_probabilities(outputs, encoding).items():
        if may_change_predictions(name, encoding):
            differ = before.argmax(axis=1) != after[name].argmax(axis=1)
            changed[name] = int(differ.sum()), len(differ)
    return Calibration(
        temperatures, thresholds, alpha, by, num_faces, dict(fitted_on or {}), changed
    )


def may_change_predictions(name: str, encoding: Encoding) -> bool:
    """Returns whether a temperature may change the most probable class.

    It may if class probabilities are differences, products or sums of scaled outputs:
    for ordinal, coral and corn heads, and for sums over years or pairs of columns.
    """
    main = {"age_group": encoding.age_head, "gender": encoding.gender_head}
    head = main[name] if name in main else encoding.head(name)
    if head is None:
        return False
    summed = head.spec.in_years and name == "age_group"
    return head.spec.ranks or summed or len(head.columns) > 1


def all_probabilities(
    outputs: Mapping[str, Any], encoding: Encoding
) -> dict[str, np.ndarray]:
    """Returns class probabilities of age group, gender and extra heads, by name."""
    from keras import ops

    from keras_agegender.encodings.calibration import class_probabilities

    found = class_probabilities(encoding.decode(outputs))
    for head in encoding.extra_heads:
        if not head.spec.continuous:
            found[head.name] = head.spec.probabilities(head, outputs)
    return {name: ops.convert_to_numpy(values) for name, values in found.items()}


def check_predicted(by: str | None, encoding: Encoding) -> None:
    """Checks that an encoding predicts the target `by`."""
    heads = {"gender": encoding.gender_head, "age_group": encoding.age_head}
    if by is not None and heads[by] is None:
        raise ValueError(
            f"Invalid `by`. The encoding {encoding.name!r} does not predict {by!r}."
        )


def true_classes(head: Head, labels: Mapping[str, Any]) -> np.ndarray | None:
    """Returns the class id of every face, `MISSING` where unknown.

    Ages are years, clipped to the oldest year. `None` for regression heads.
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
    """Returns the temperature that makes the true classes of a head most likely."""
    from keras import ops
    from scipy import optimize

    from keras_agegender.encodings.calibration import divide_logits

    known = np.flatnonzero(classes != MISSING)
    truth = classes[known]
    picked = {name: np.asarray(outputs[name])[known] for name in head.output_names}

    def mean_loss(log_temperature: float) -> float:
        divided = divide_logits(head, picked, math.exp(log_temperature))
        rows = ops.convert_to_numpy(head.spec.probabilities(head, divided))
        loss = table.METRICS["negative_log_likelihood"].function
        return float(loss(_predictions(rows, truth), np).mean())

    low, high = (math.log(t) for t in TEMPERATURES)
    found = optimize.minimize_scalar(
        mean_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    # Below some temperature all correct predictions have the same loss.
    if mean_loss(low) <= found.fun:
        return TEMPERATURES[0]
    return round(float(math.exp(found.x)), 6)


def _predictions(probabilities: np.ndarray, classes: np.ndarray) -> table.Predictions:
    return table.Predictions(
        classes,
        probabilities.argmax(axis=1),
        probabilities.shape[1],
        probabilities.astype("float64"),
    )


def conformal_quantile(scores: np.ndarray, alpha: float) -> float:
    """Returns the threshold that a new score exceeds with probability `alpha`."""
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)  # 0.9 is not 9 / 10
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0


def _true_scores(
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
    by: str | None,
) -> dict[str, tuple[np.ndarray, list[np.ndarray]]]:
    """Returns the scores of the true classes, and the faces of each group."""
    from keras import ops

    from keras_agegender.encodings.calibration import class_probabilities, set_scores

    decoded = encoding.decode(outputs)
    sizes = {"age_group": len(encoding.age_groups), "gender": len(GENDERS)}
    found = {}
    for name, probabilities in class_probabilities(decoded).items():
        truth = np.asarray(labels[name])
        known = np.flatnonzero(truth != MISSING)
        if not len(known):
            continue
        scores = ops.convert_to_numpy(set_scores(probabilities))[known, truth[known]]
        groups = [np.ones(len(known), bool)]
        if by is not None:
            predicted = ops.convert_to_numpy(getattr(decoded, by))[known]
            groups = [predicted == group for group in range(sizes[by])]
        found[name] = scores, groups
    return found


def least_faces(alpha: float) -> int:
    """Returns how many faces prediction sets need to exclude any class: 19 for 0.05."""
    return max(1, math.ceil(1 / alpha - 1e-9) - 1)  # 1 / 0.1 may exceed 10


def calibration_warnings(calibration: Calibration, encoding: Encoding) -> list[str]:
    """Returns a line for each unreliable temperature and threshold."""
    return [*_temperature_warnings(calibration), *_set_warnings(calibration, encoding)]


def _temperature_warnings(calibration: Calibration) -> Iterator[str]:
    low, high = TEMPERATURES
    for name, value in calibration.temperatures.items():
        if low * NEAR_BOUND < value < high / NEAR_BOUND:
            continue
        faces = calibration.num_faces.get(name)
        count = "" if faces is None else f" ({faces})"
        why = "all of them are predicted correctly"
        if value > 1:
            why = "the model is no better than chance"
        yield (
            f"{name}: temperature {value:.3f} is at its bound: too few faces{count}, "
            f"or {why}"
        )


def _set_warnings(calibration: Calibration, encoding: Encoding) -> Iterator[str]:
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
            of = f" of faces predicted {group}" if group else ""
            if count is None or count >= needed:
                why, end = "threshold 1", ""
            else:
                why = f"too few faces ({count}) for {share}" if count else "no face"
                end = f"; at least {needed} needed"
            yield f"{name} sets{of}: {why}: sets contain all classes{end}"


def calibration_scores(
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
    calibration: Calibration,
) -> dict[str, Any]:
    """Scores probabilities before and after calibration, and prediction sets.

    Args:
        outputs: The model's uncalibrated outputs. Shape (num_faces, units) each.
        labels: As in `fit_calibration`.
        encoding: The model's encoding.
        calibration: A calibration that was fitted on other faces.

    Returns:
        - `alpha`, `by`, `temperatures`: those of the calibration.
        - `warnings`: a line for each unreliable temperature or threshold, and for each
          score that is worse after calibration.
        - `answers`: for `age_group`, `gender` and each extra head `num_faces`,
          `accuracy`, negative log-likelihood `nll` in nats and expected calibration
          error `ece`, each with its value `_before` calibration; and `may_change`,
          whether calibration can change the prediction.
        - `sets`: for `age_group` and `gender` `num_faces`, `coverage` (share of the
          sets that contain the true class), `mean_size`, and both again for each true
          age group and gender in `groups`.
    """
    from keras import ops

    calibrated = calibration.apply(outputs, encoding)
    before = all_probabilities(outputs, encoding)
    tasks = {}
    for name, after in all_probabilities(calibrated, encoding).items():
        if name in ("age_group", "gender"):
            classes: Any = np.asarray(labels[name])
        else:
            classes = true_classes(encoding.head(name), labels)
        known = classes != MISSING
        scores: dict[str, Any] = {
            "num_faces": int(known.sum()),
            "may_change": may_change_predictions(name, encoding),
        }
        for rows, suffix in ((before[name], "_before"), (after, "")):
            predictions = _predictions(rows[known], classes[known])
            values = table.score(predictions, SCORES.values())
            scores |= {f"{key}{suffix}": values[SCORES[key]] for key in SCORES}
        tasks[name] = scores
    names = encoding.age_groups.names
    return {
        "alpha": calibration.alpha,
        "by": calibration.by,
        "temperatures": dict(calibration.temperatures),
        "warnings": [*calibration_warnings(calibration, encoding), *_made_worse(tasks)],
        "answers": tasks,
        "sets": {
            name: _score_sets(ops.convert_to_numpy(members), name, labels, names)
            for name, members in calibration.sets(encoding.decode(calibrated))
            ._asdict()
            .items()
            if members is not None
        },
    }


def calibration_lines(scores: Mapping[str, Any]) -> list[str]:
    """Formats the result of `calibration_scores` as lines of text."""
    tasks = scores["answers"]
    changing = [n for n, values in tasks.items() if values.get("may_change")]
    shown = [*SHOWN, ACCURACY] if changing else SHOWN
    titles = {f"{key}_before": f"  {key} before" for key in shown}
    lines = [" " * 12 + "".join(f"{title}{'after':>7}" for title in titles.values())]
    for name, values in tasks.items():
        line = f"{name:<12}"
        for key in shown:
            # If predictions cannot change, the accuracy is printed above.
            skipped = key == ACCURACY and name not in changing
            for column in (f"{key}_before", key):
                width = len(titles.get(column, " " * 7))
                value = None if skipped else values[column]
                line += f"{table.format_value(value):>{width}}"
        lines.append(line)
    by = f", by predicted {scores['by']}" if scores["by"] else ""
    for name, values in scores["sets"].items():
        lines += [
            "",
            f"{name} sets, coverage {1 - scores['alpha']:.0%} requested{by}",
            f"{'faces of':<12}{'faces':>7}{'coverage':>10}{'size':>9}",
        ]
        for group in ({**values, "name": "all"}, *values["groups"]):
            line = f"{group['name']:<12}{group['num_faces']:>7}"
            line += f"{table.format_value(group['coverage']):>10}"
            lines.append(line + f"{table.format_value(group['mean_size'], 2):>9}")
    # Older files have no warnings.
    warnings = [f"WARNING: {line}" for line in scores.get("warnings", ())]
    return [*lines, "", *warnings] if warnings else lines


def _made_worse(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a line for each score that is worse after calibration, rounded."""
    lines = []
    for key in (*SHOWN, ACCURACY):
        worse = []
        for name, values in tasks.items():
            if not values["num_faces"]:
                continue
            before, after = (round(values[k], 3) for k in (f"{key}_before", key))
            if (after < before) if key == ACCURACY else (after > before):
                worse.append(f"{name} {before:.3f} -> {after:.3f}")
        if worse:
            lines.append(f"calibration made {key} worse: {', '.join(worse)}")
    return lines


def _score_sets(
    members: np.ndarray, name: str, labels: Mapping[str, Any], age_groups: Sequence[str]
) -> dict[str, Any]:
    """Returns coverage and size of sets, overall and by true age group and gender."""
    truth = np.asarray(labels[name])
    known = truth != MISSING
    covered = known & members[np.arange(len(truth)), truth]  # -1 is masked by `known`
    sizes = members.sum(axis=1)

    def of_faces(faces: np.ndarray) -> dict[str, Any]:
        faces = faces & known
        return {
            "num_faces": int(faces.sum()),
            "coverage": table.mean(covered[faces]),
            "mean_size": table.mean(sizes[faces]),
        }

    groups = []
    for column, names in (("age_group", age_groups), ("gender", GENDERS)):
        for index, group in enumerate(names):
            chosen = np.asarray(labels[column]) == index
            groups.append({"of": column, "name": group, **of_faces(chosen)})
    return {**of_faces(known), "groups": groups}
