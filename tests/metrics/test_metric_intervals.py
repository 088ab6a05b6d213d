"""Figures of a single run with intervals over its people."""

from __future__ import annotations

import numpy as np
import pytest

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.evaluation.scores import evaluate_predictions, format_metrics
from keras_agegender.metrics.intervals import Clusters, metric_intervals
from keras_agegender.metrics.table import METRICS, Predictions, score

WITHOUT = {"auc", "expected_calibration_error"}
YEARS = {"mean_absolute_error_years", "cumulative_score_5"}


def random_answers(num_classes, num_faces=200, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, num_faces)
    near = np.clip(truth + rng.integers(-2, 2, num_faces), 0, num_classes - 1)
    chances = rng.dirichlet(np.ones(num_classes), num_faces)
    agree = rng.random(num_faces) < 0.8
    return Predictions(truth, near, num_classes, chances, 0, agree, near)


@pytest.mark.parametrize("num_classes", [2, 8])
def test_every_figure_is_that_of_the_metric(num_classes):
    """And lies in its interval, which people are counted for, not faces."""
    answers = random_answers(num_classes)
    names = [name for name in METRICS if name not in YEARS]
    if num_classes > 2:
        names = [n for n in names if METRICS[n].needs != "two classes"]
    alone = metric_intervals(answers, names, Clusters.of([""] * 200))
    assert set(alone) == set(names) - WITHOUT
    expected = score(answers, alone)
    for name, found in alone.items():
        assert found.value == pytest.approx(expected[name]), name
        assert found.low < found.high, name
        assert found.low <= found.value <= found.high, name
    # Every face five times, of one person: as many people, and the same intervals.
    five = answers._replace(
        **{
            field: np.repeat(getattr(answers, field), 5, axis=0)
            for field in ("truth", "predicted", "probabilities", "agree", "median")
        }
    )
    people = Clusters.of(np.repeat(np.arange(200), 5).astype(str))
    for name, found in metric_intervals(five, names, people).items():
        width = alone[name].high - alone[name].low
        assert found.high - found.low == pytest.approx(width, rel=0.1), name


def test_the_bootstrap_of_f1_is_near_its_delta_method():
    """400 faces: TP 120, FP 40, FN 40, TN 200: f1 0.75.

    f1 = 2 TP / (2 TP + errors) is a function of the shares of TP and errors: by the
    delta method, g = 2t / (2t + e) has the gradient (2e, -2t) / (2t + e)² in
    (t, e) = (0.3, 0.2): (0.625, -0.9375); with the multinomial covariance
    [[0.21, -0.06], [-0.06, 0.16]] / 400 the variance is 0.000732: ± 0.0530.
    """
    truth = np.repeat([1, 0, 1, 0], [120, 40, 40, 200])
    answer = np.repeat([1, 1, 0, 0], [120, 40, 40, 200])
    found = metric_intervals(
        Predictions(truth, answer, 2), ["f1"], Clusters.of([""] * 400)
    )["f1"]
    assert found.value == pytest.approx(0.75)
    variance = (0.625**2 * 0.21 + 0.9375**2 * 0.16 + 2 * 0.625 * 0.9375 * 0.06) / 400
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.08)


def test_classes_without_a_face_count_nothing():
    """Balanced accuracy and kappa of faces of one class: one is 1, one undefined."""
    answers = Predictions(np.zeros(20, int), np.zeros(20, int), 3)
    names = ["balanced_accuracy", "quadratic_kappa", "negative_log_likelihood"]
    found = metric_intervals(answers, names, Clusters.of([""] * 20))
    assert found["balanced_accuracy"].value == 1.0
    assert found["quadratic_kappa"].value is None
    assert "negative_log_likelihood" not in found


def test_one_answer_for_all_still_has_intervals():
    """Ten men and ten women, all called men: no sample differs.

    Wilson's interval of 10 of 10 faces, of people each, with Student's quantile of 9
    degrees, 2.262157: 1 / (1 + 2.262157² / 10) = 0.661519 to 1. Balanced accuracy lies
    between the means of the ends of both recalls. Half of 20 are right: precision is
    as accuracy.
    """
    answers = Predictions(np.repeat([0, 1], 10), np.ones(20, int), 2)
    names = ["accuracy", "balanced_accuracy", "precision", "recall"]
    found = metric_intervals(answers, names, Clusters.of([""] * 20))
    low = 1 / (1 + 2.262157**2 / 10)
    assert found["recall"].interval == pytest.approx((low, 1))
    ends = (low / 2, (1 - low + 1) / 2)
    assert found["balanced_accuracy"].interval == pytest.approx(ends)
    assert found["balanced_accuracy"].value == 0.5
    assert found["precision"].interval == found["accuracy"].interval
    # Of the women, whom nobody is called: recall and f1 are 0.
    women = metric_intervals(
        answers._replace(positive=0), ["precision", "recall", "f1"],
        Clusters.of([""] * 20),
    )  # fmt: skip
    assert women["recall"].interval == pytest.approx((0, 1 - low))
    assert women["precision"].value is None
    both = (0, 2 * (1 - low) / (2 - low))
    assert women["f1"].interval == pytest.approx(both)


def test_all_right_still_has_intervals():
    answers = Predictions(np.repeat([0, 1], 10), np.repeat([0, 1], 10), 2)
    names = ["balanced_accuracy", "precision", "recall", "f1", "quadratic_kappa"]
    found = metric_intervals(answers, names, Clusters.of([""] * 20))
    low = pytest.approx(1 / (1 + 2.262157**2 / 10))
    for name in names[:-1]:
        assert found[name].value == 1.0
        assert found[name].interval == (low, 1.0), name
    assert found["quadratic_kappa"].value == 1.0
    assert found["quadratic_kappa"].interval is None
    # All women are one person's: of their recall nothing is known.
    people = Clusters.of(["a"] * 10 + [""] * 10)
    found = metric_intervals(answers, names[:1], people)["balanced_accuracy"]
    assert found.interval == (pytest.approx(low.expected / 2), 1.0)
    one = metric_intervals(answers, names, Clusters.of(["a"] * 20))
    assert all(figure.interval is None for figure in one.values())


def test_newborns_have_years():
    """Ages 0 and 10 answered 8 and 10: errors of 8 and 0 years, one within 5."""
    decoded = decoded_of([0, 0, 0], [0, 1, 0])._replace(
        age_years=np.array([8.0, 10, 99])
    )
    ids, years = np.array([0, 1, -1]), np.array([0, 10, -1])
    found = evaluate_predictions(
        ids, ids, decoded, age_years_true=years, subjects=["a", "b", "c"]
    ).age
    assert found.num_faces_with_years == 2
    assert found.mean_absolute_error_years == 4.0
    assert found.cumulative_score_5 == 0.5
    # Of two faces: 4 + 12.706 · √((4² + 4²) / 2).
    high = found.intervals["mean_absolute_error_years"][1]
    assert high == pytest.approx(4 + 12.7062 * 4, abs=0.01)


def decoded_of(genders, ages):
    years = np.asarray(ages) * 8.0 + 3
    return Decoded(np.asarray(ages), None, np.asarray(genders), None, None)._replace(
        age_years=years
    )


def test_an_evaluation_has_intervals_if_people_are_known():
    rng = np.random.default_rng(1)
    genders, ages = rng.integers(-1, 2, 300), rng.integers(-1, 8, 300)
    decoded = decoded_of(rng.integers(0, 2, 300), np.clip(ages, 0, 7))
    given = (ages, genders, decoded)
    plain = evaluate_predictions(*given)
    assert plain.gender.intervals == plain.age.intervals == {}
    assert "[" not in format_metrics(plain)
    years = np.where(ages >= 0, ages * 8 + 1, -1)
    subjects = rng.integers(0, 50, 300).astype(str)
    found = evaluate_predictions(*given, subjects=subjects, age_years_true=years)
    assert set(found.gender.intervals) == {
        "accuracy", "balanced_accuracy", "precision", "recall", "f1",
    }  # fmt: skip
    assert YEARS < set(found.age.intervals)
    for scores in (found.gender, found.age):
        for name, (low, high) in scores.intervals.items():
            value = getattr(scores, name)
            assert low <= value <= high or value == pytest.approx(high), name
    text = format_metrics(found)
    low, high = found.gender.intervals["f1"]
    assert f"f1 {found.gender.f1:.3f} [{low:.3f}, {high:.3f}]" in text
    assert text.rstrip().splitlines() and "95 % intervals over people" in text
    assert max(map(len, text.splitlines())) <= 88
    with pytest.raises(ValueError, match="Invalid `subjects`"):
        evaluate_predictions(*given, subjects=["a"])
