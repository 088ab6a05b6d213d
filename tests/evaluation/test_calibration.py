"""Fitting calibrations: closed forms, known temperatures, simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from keras_agegender.encodings.calibration import Calibration, divide_logits
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.calibration import (
    calibration_lines,
    calibration_scores,
    calibration_warnings,
    conformal_quantile,
    fit_calibration,
    fit_temperature,
    least_faces,
    may_change_predictions,
    true_classes,
)
from keras_agegender.evaluation.scores import Evaluation, format_metrics


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sample(draw, probabilities):
    """Draws a class per row."""
    below = probabilities.cumsum(axis=1)
    below /= below[:, -1:]
    return (draw.uniform(size=(len(below), 1)) > below).sum(axis=1)


# -- temperatures ----------------------------------------------------------------------


def test_the_temperature_in_closed_form():
    """Logits are 2 or -2, three of four are correct: 2 / T is the logit of 3/4."""
    male = sigmoid(np.array([2.0, 2.0, 2.0, -2.0]))[:, None]
    genders = np.array([1, 1, 0, 0])
    expected = 2 / math.log(3)
    assert fit_temperature(Head("gender"), {"gender": male}, genders) == pytest.approx(
        expected, rel=1e-3
    )
    rows = np.concatenate([1 - male, male], axis=1)
    head = Head("size", "categorical", 2)
    assert fit_temperature(head, {"size": rows}, genders) == pytest.approx(
        expected, rel=1e-3
    )


@pytest.mark.parametrize(
    "head_type", ["binary", "categorical", "ordinal", "coral", "corn"]
)
@pytest.mark.parametrize("temperature", [0.6, 2.5])
def test_the_true_temperature_is_recovered(head_type, temperature):
    draw = np.random.default_rng(3)
    head = Head("x", head_type, 1 if head_type == "binary" else 4)
    count = 4000
    if head_type == "categorical":
        outputs = {"x": softmax(draw.normal(0, 2, (count, 4)))}
    else:
        # Decreasing logits, like those of ranks.
        spread = draw.normal(0, 2, (count, 1)) - np.arange(4) + 1
        if head_type == "binary":
            outputs = {"x": sigmoid(spread[:, :1])}
        elif head_type == "ordinal":
            outputs = {f"x{k + 1}": sigmoid(spread[:, k : k + 1]) for k in range(4)}
        else:
            outputs = {"x": sigmoid(spread[:, :3, None])}
    true = head.spec.probabilities(head, divide_logits(head, outputs, temperature))
    classes = sample(draw, ops.convert_to_numpy(true).astype("float64"))
    assert fit_temperature(head, outputs, classes) == pytest.approx(
        temperature, rel=0.08
    )


def test_years_heads_are_fitted_to_ages():
    """Ages have half the variance that the model predicts."""
    draw = np.random.default_rng(4)
    encoding = get_encoding("years")
    center = draw.uniform(20, 60, (3000, 1))
    rows = softmax(-((np.arange(101) - center) ** 2) / (2 * 6.0**2))
    # The same logits at T = 1/2.
    ages = sample(draw, softmax(-((np.arange(101) - center) ** 2) / 6.0**2))
    labels = {
        "age_years": ages,
        "age_group": np.full(3000, -1),
        "gender": np.full(3000, -1),
    }
    outputs = {"gender": np.full((3000, 1), 0.5), "age": rows}
    calibration = fit_calibration(outputs, labels, encoding)
    assert calibration.temperatures == {"age": pytest.approx(0.5, rel=0.05)}
    assert calibration.thresholds == {}  # no face has a group or a gender
    assert calibration.num_faces == {"age": 3000}


def test_true_classes():
    labels = {"gender": [1, 0, -1], "age_group": [2, -1, 3], "weight": [1.5, 2.0, 0.0]}
    joint = get_encoding("joint").heads[0]
    np.testing.assert_array_equal(true_classes(joint, labels), [10, -1, -1])
    years = get_encoding("years").head("age")
    ages = {"age_years": [3.9, np.nan, 117.0]}
    np.testing.assert_array_equal(true_classes(years, ages), [3, -1, 100])
    assert true_classes(Head("weight", "regression"), labels) is None
    with pytest.raises(ValueError, match="Missing column 'age_years'.*'gender'"):
        true_classes(years, labels)


# -- sets ------------------------------------------------------------------------------


def test_the_conformal_quantile_of_nine_scores():
    """9 of 10 faces, including the new one, must have a score no larger."""
    scores = np.array([0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6])
    assert conformal_quantile(scores, 0.1) == 0.9  # rank 9
    assert conformal_quantile(scores, 0.2) == 0.8  # rank 8
    assert conformal_quantile(scores, 0.25) == 0.8  # rank 7.5, the next one
    assert conformal_quantile(scores, 0.5) == 0.5  # rank 5
    assert conformal_quantile(scores, 0.05) == 1.0  # rank 9.5: too few faces
    assert conformal_quantile(scores[:0], 0.5) == 1.0


def simulated_faces(draw, count):
    """Classes drawn from a softmax; the model's logits are twice too large."""
    encoding = get_encoding("categorical")
    logits = -((np.arange(8) - draw.uniform(-1, 8, (count, 1))) ** 2) / 1.5
    male = draw.normal(0, 1, (count, 1))
    labels = {
        "age_group": sample(draw, softmax(logits)),
        "gender": (draw.uniform(size=count) < sigmoid(male[:, 0])).astype(int),
    }
    outputs = {"age": softmax(2 * logits), "gender": sigmoid(2 * male)}
    return encoding, outputs, labels


@pytest.mark.parametrize("by", [None, "gender"])
@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_coverage_on_exchangeable_faces(alpha, by):
    draw = np.random.default_rng(7)
    encoding, outputs, labels = simulated_faces(draw, 20000)
    calibration = fit_calibration(outputs, labels, encoding, alpha=alpha, by=by)
    assert calibration.temperatures == {
        "gender": pytest.approx(2, rel=0.1),
        "age": pytest.approx(2, rel=0.1),
    }
    assert len(calibration.thresholds["age_group"]) == (1 if by is None else 2)
    encoding, outputs, labels = simulated_faces(draw, 20000)
    decoded = encoding.decode(calibration.apply(outputs, encoding))
    sets = calibration.sets(decoded)
    predicted = ops.convert_to_numpy(decoded.gender)
    groups = [np.full(20000, True)] if by is None else [predicted == 0, predicted == 1]
    for name in ("age_group", "gender"):
        members = ops.convert_to_numpy(getattr(sets, name))
        covered = members[np.arange(20000), labels[name]]
        for group in groups:
            assert covered[group].mean() == pytest.approx(1 - alpha, abs=0.02)
        assert 1 < members.sum(axis=1).mean() < members.shape[1] - 0.2


def test_sets_of_an_accurate_model_have_one_class():
    """Nine of ten genders are correct; a coverage of four of five is requested."""
    outputs = {"gender": np.array([[0.7]] * 9 + [[0.6]])}
    labels = {"gender": np.array([1] * 9 + [0]), "age_group": np.full(10, -1)}
    encoding = get_encoding("gender")
    calibration = fit_calibration(outputs, labels, encoding, alpha=0.2)
    assert calibration.thresholds == {"gender": (0.0,)}
    sets = calibration.sets(encoding.decode(outputs))
    np.testing.assert_array_equal(sets.gender, [[False, True]] * 10)


def test_sets_of_a_group_with_too_few_faces_have_all_classes():
    draw = np.random.default_rng(1)
    outputs = {"gender": np.concatenate([draw.uniform(0.6, 1, (30, 1)), [[0.1]] * 5])}
    labels = {"gender": np.array([1] * 30 + [0] * 5), "age_group": np.full(35, -1)}
    found = fit_calibration(outputs, labels, get_encoding("gender"), by="gender")
    assert found.thresholds == {"gender": (1.0, 0.0)}
    assert found.num_faces == {"gender": 35, "gender_set": (5, 30)}


def test_faces_without_a_label_are_ignored():
    draw = np.random.default_rng(5)
    encoding, outputs, labels = simulated_faces(draw, 60)
    some = {name: np.where(np.arange(60) < 40, v, -1) for name, v in labels.items()}
    first = fit_calibration(outputs, some, encoding)
    second = fit_calibration(
        {name: rows[:40] for name, rows in outputs.items()},
        {name: values[:40] for name, values in labels.items()},
        encoding,
    )
    assert first == second and first.num_faces["age_group_set"] == (40,)


def test_invalid_arguments():
    outputs = {"gender": np.array([[0.7]])}
    labels = {"gender": np.array([-1]), "age_group": np.array([-1])}
    encoding = get_encoding("gender")
    with pytest.raises(ValueError, match="at least one labeled face.*1 faces"):
        fit_calibration(outputs, labels, encoding)
    labels["gender"] = np.array([1])
    with pytest.raises(ValueError, match="'gender' does not predict 'age_group'"):
        fit_calibration(outputs, labels, encoding, by="age_group")
    with pytest.raises(ValueError, match="by='gendr'. Did you mean 'gender'"):
        fit_calibration(outputs, labels, encoding, by="gendr")
    with pytest.raises(ValueError, match="Invalid `alpha`"):
        fit_calibration(outputs, labels, encoding, alpha=0.0)


# -- scores ----------------------------------------------------------------------------


def test_scores():
    """Four faces; one without a gender, another without an age group."""
    encoding = get_encoding("categorical", age_groups="0-9,10-19,20+")
    outputs = {
        "gender": np.array([[0.9], [0.9], [0.9], [0.9]]),
        "age": np.array([[0.6, 0.3, 0.1]] * 3 + [[0.2, 0.2, 0.6]]),
    }
    labels = {
        "gender": np.array([1, 1, 0, -1]),
        "age_group": np.array([0, 1, -1, 0]),
    }
    calibration = Calibration(
        {"gender": 2.0}, {"age_group": (0.6,), "gender": (0.5,)}, alpha=0.2
    )
    found = calibration_scores(outputs, labels, encoding, calibration)
    gender = found["answers"]["gender"]
    assert gender["num_faces"] == 3
    assert gender["accuracy"] == gender["accuracy_before"] == pytest.approx(2 / 3)
    assert gender["nll_before"] == pytest.approx(-math.log(0.9 * 0.9 * 0.1) / 3)
    assert gender["nll"] == pytest.approx(-math.log(0.75 * 0.75 * 0.25) / 3, rel=1e-5)
    assert gender["ece_before"] == pytest.approx(0.9 - 2 / 3)
    assert gender["ece"] == pytest.approx(0.75 - 2 / 3, rel=1e-4)
    age = found["answers"]["age_group"]
    assert age["nll"] == age["nll_before"]
    # {0, 1} twice, which hold 0 and 1, and {1, 2}, which does not hold 0. In float32
    # 0.6 is not above the threshold.
    sets = found["sets"]["age_group"]
    assert (sets["num_faces"], sets["coverage"], sets["mean_size"]) == (
        3, pytest.approx(2 / 3), 2.0
    )  # fmt: skip
    by_name = {group["name"]: group for group in sets["groups"]}
    assert by_name["0-9"]["coverage"] == 0.5 and by_name["10-19"]["coverage"] == 1.0
    assert by_name["20+"]["coverage"] is None
    assert by_name["male"]["num_faces"] == 2 and by_name["female"]["num_faces"] == 0
    assert found["sets"]["gender"]["coverage"] == pytest.approx(2 / 3)


def test_scores_are_printed():
    draw = np.random.default_rng(2)
    encoding, outputs, labels = simulated_faces(draw, 50)
    calibration = fit_calibration(outputs, labels, encoding, by="gender")
    found = calibration_scores(outputs, labels, encoding, calibration)
    lines = calibration_lines(found)
    assert any(line.startswith("age_group sets, coverage 90% requested, by predicted")
               for line in lines)  # fmt: skip
    (worse,) = found["warnings"]  # ECE of gender, by 0.002
    assert lines[-2:] == ["", f"WARNING: {worse}"]
    assert len(lines) == 1 + 2 + 2 * (3 + 1 + 8 + 2) + 2
    assert "\n".join(lines) in format_metrics(Evaluation(50, calibration=found))


def coral_faces():
    """Five faces of 10-19; three have 0.47 for 20+ and 0.43 for 10-19."""
    encoding = get_encoding("coral", age_groups="0-9,10-19,20+")
    age = np.array([[0.9, 0.47]] * 3 + [[0.9, 0.1]] * 2)[..., None]
    outputs = {"gender": np.full((5, 1), 0.9), "age": age}
    return encoding, outputs, {"gender": np.ones(5, int), "age_group": np.ones(5, int)}


def test_changed_predictions_of_ranks_are_counted():
    """Divided by 0.5 the logits of 0.9 and 0.47 are those of 0.988 and 0.440."""
    encoding, outputs, labels = coral_faces()
    found = fit_calibration(outputs, labels, encoding)
    assert found.num_changed == {"age_group": (3, 5)}
    assert "age_group: predictions change for 3 of 5 faces" in str(found).splitlines()
    assert Calibration.from_dict(found.to_dict()) == found

    scores = calibration_scores(outputs, labels, encoding, Calibration({"age": 0.5}))
    age = scores["answers"]["age_group"]
    assert (age["accuracy_before"], age["accuracy"]) == (0.4, 1.0)
    title, age_line, gender_line = calibration_lines(scores)[:3]
    assert title.split()[-3:] == ["accuracy", "before", "after"]
    assert age_line.split()[-2:] == ["0.400", "1.000"]
    assert gender_line.split()[-2:] == ["-", "-"]


def test_scores_that_calibration_made_worse_are_warnings():
    """0.9 becomes 0.988, which is worse if one of five is wrong; ages are correct.

    Nll: -(4 ln 0.9 + ln 0.1) / 5 and, of 81 / 82, -(4 ln (81 / 82) + ln (1 / 82)) / 5.
    """
    encoding, outputs, labels = coral_faces()
    labels["gender"] = np.array([1, 1, 1, 1, 0])
    calibration = Calibration({"gender": 0.5, "age": 0.5})
    found = calibration_scores(outputs, labels, encoding, calibration)
    warnings = [
        "calibration made nll worse: gender 0.545 -> 0.891",
        "calibration made ece worse: gender 0.100 -> 0.188",
    ]
    assert found["warnings"] == warnings
    assert calibration_lines(found)[-2:] == [f"WARNING: {line}" for line in warnings]
    same = calibration_scores(outputs, labels, encoding, Calibration({"gender": 1.0}))
    assert same["warnings"] == []


@pytest.mark.parametrize(
    ("encoding", "age", "gender"),
    [
        ("categorical", False, False),
        ("ordinal", True, False),
        ("coral", True, False),
        ("corn", True, False),
        ("years", True, False),
        ("joint", True, True),
        ("gender", False, False),
    ],
)
def test_may_change_predictions(encoding, age, gender):
    encoding = get_encoding(encoding)
    assert may_change_predictions("age_group", encoding) is age
    assert may_change_predictions("gender", encoding) is gender


# -- warnings --------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.15, 0.3, 0.5, 0.7])
def test_least_faces_is_the_first_count_that_excludes_a_class(alpha):
    least = least_faces(alpha)
    assert conformal_quantile(np.full(least, 0.5), alpha) == 0.5
    assert conformal_quantile(np.full(least - 1, 0.5), alpha) == 1.0


def test_least_faces():
    assert [least_faces(a) for a in (0.05, 0.1, 0.3, 0.5)] == [19, 9, 3, 1]


def test_warnings_of_eleven_wrong_predictions():
    """The temperature is at its bound; sets for 95 % need 19 faces."""
    labels = {"gender": np.zeros(11, int), "age_group": np.full(11, -1)}
    encoding = get_encoding("gender")
    wrong = {"gender": np.full((11, 1), 0.9)}
    found = fit_calibration(wrong, labels, encoding, alpha=0.05)
    assert calibration_warnings(found, encoding) == [
        "gender: temperature 10.000 is at its bound: too few faces (11), or the model "
        "is no better than chance",
        "gender sets: too few faces (11) for 95%: sets contain all classes; at least "
        "19 needed",
    ]
    correct = {"gender": np.full((11, 1), 0.1)}
    found = fit_calibration(correct, labels, encoding)  # for 90 % 9 are enough
    (line,) = calibration_warnings(found, encoding)
    assert line.startswith("gender: temperature 0.100 is at its bound: too few faces")
    assert line.endswith("(11), or all of them are predicted correctly")


def test_warnings_of_groups_without_faces():
    encoding = get_encoding("categorical")
    found = Calibration(
        {"age": 1.5},
        {"age_group": (1.0, 0.7), "gender": (1.0, 1.0)},
        by="gender",
        num_faces={"age_group_set": (0, 40), "gender_set": (3, 40)},
    )
    assert calibration_warnings(found, encoding) == [
        "age_group sets of faces predicted female: no face: sets contain all classes; "
        "at least 9 needed",
        "gender sets of faces predicted female: too few faces (3) for 90%: sets "
        "contain all classes; at least 9 needed",
        "gender sets of faces predicted male: threshold 1: sets contain all classes",
    ]
    ages = Calibration(
        {}, {"gender": (0.5,) * 7 + (1.0,)}, by="age_group",
        num_faces={"gender_set": (20,) * 7 + (0,)},
    )  # fmt: skip
    (line,) = calibration_warnings(ages, encoding)
    assert line.startswith("gender sets of faces predicted 60-100: no face:")
    assert calibration_warnings(Calibration({"age": 1.5}), encoding) == []


def test_scores_contain_the_warnings():
    encoding, outputs, labels = simulated_faces(np.random.default_rng(1), 12)
    found = fit_calibration(outputs, labels, encoding, alpha=0.05)
    scores = calibration_scores(outputs, labels, encoding, found)
    warnings = calibration_warnings(found, encoding)
    assert scores["warnings"] == warnings and len(warnings) >= 2
    lines = calibration_lines(scores)
    assert lines[-len(warnings) :] == [f"WARNING: {line}" for line in warnings]
