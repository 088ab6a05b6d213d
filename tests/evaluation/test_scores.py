"""Scores worked out by hand and compared with scikit-learn, and missing labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.scores import (
    Evaluation,
    constant_prediction,
    constant_prediction_warnings,
    evaluate_predictions,
    format_metrics,
    prediction_estimates,
)
from keras_agegender.labels import get_age_groups
from keras_agegender.metrics.intervals import Clusters, proportion_interval
from keras_agegender.metrics.table import metrics_for

# Six faces; the last has no gender, the one before it no age group.
AGES = np.array([0, 4, 4, 7, -1, 2])
GENDERS = np.array([1, 1, 0, 0, 0, -1])
DECODED = Decoded(
    age_group=np.array([0, 5, 4, 4, 1, 2]),
    age_probabilities=None,
    gender=np.array([1, 0, 1, 0, 0, 1]),
    gender_probability=None,
    heads_agree=np.array([True, True, False, True, True, True]),
)


def random_predictions(seed=0, count=200):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(-1, 8, count),
        rng.integers(-1, 2, count),
        Decoded(
            rng.integers(0, 8, count),
            None,
            rng.integers(0, 2, count),
            None,
            rng.random(count) < 0.7,
        ),
    )


def test_gender_by_hand():
    gender = evaluate_predictions(AGES, GENDERS, DECODED).gender
    # Labels: m m f f f; predictions m f m f f: 3 of 5 correct.
    assert (gender.num_faces, gender.num_unlabelled) == (5, 1)
    assert gender.accuracy == pytest.approx(3 / 5)
    # male: 2 labels, 2 predictions, 1 both.
    assert gender.positive == "male"
    assert gender.precision == gender.recall == gender.f1 == pytest.approx(1 / 2)
    assert gender.confusion == [[2, 1], [1, 1]]


def test_positive_class_is_an_option():
    gender = evaluate_predictions(
        AGES, GENDERS, DECODED, positive_gender="female"
    ).gender
    # female: 3 labels, 3 predictions, 2 both.
    assert gender.positive == "female"
    assert gender.precision == gender.recall == gender.f1 == pytest.approx(2 / 3)
    assert gender.by_positive["male"]["recall"] == pytest.approx(1 / 2)


def test_age_by_hand():
    age = evaluate_predictions(AGES, GENDERS, DECODED, separate_age_heads=True).age
    # Labels 0 4 4 7 2, predictions 0 5 4 4 2: errors 0 1 0 3 0.
    assert (age.num_faces, age.num_unlabelled) == (5, 1)
    assert age.accuracy == pytest.approx(3 / 5)
    assert age.one_off_accuracy == pytest.approx(4 / 5)
    assert age.mean_absolute_error == pytest.approx(4 / 5)
    # The heads of the third face contradict each other, but count to its group.
    assert age.all_heads_accuracy == pytest.approx(2 / 5)
    assert age.groups[4] == {
        "name": "25-32",
        "num_faces": 2,
        "num_answered": 2,
        "recall": 0.5,
        "mean_absolute_error": 0.5,
    }
    assert age.groups[1]["recall"] is None and age.groups[1]["num_faces"] == 0


def test_cells_count_faces_with_both_labels():
    scores = evaluate_predictions(AGES, GENDERS, DECODED)
    cells = {(c["age_group"], c["gender"]): c for c in scores.cells}
    assert len(cells) == 16
    assert sum(c["num_faces"] for c in scores.cells) == 4
    assert cells["25-32", "male"]["num_faces"] == 1
    assert cells["25-32", "male"]["age_accuracy"] == 0.0
    assert cells["25-32", "male"]["gender_accuracy"] == 0.0
    assert cells["25-32", "female"]["age_accuracy"] == 1.0
    assert cells["8-12", "male"]["age_accuracy"] is None


def test_mean_accuracy():
    scores = evaluate_predictions(AGES, GENDERS, DECODED)
    assert scores.mean_accuracy == pytest.approx((3 / 5 + 3 / 5) / 2)
    assert scores.age.all_heads_accuracy is None  # a single age head
    only_gender = evaluate_predictions(AGES, GENDERS, DECODED._replace(age_group=None))
    assert only_gender.age is None
    assert only_gender.mean_accuracy == pytest.approx(3 / 5)


def test_all_heads_accuracy_is_that_of_all_thresholded_bits():
    rng = np.random.default_rng(1)
    for question in ("older", "younger"):
        encoding = get_encoding("ordinal", question=question)
        truth = rng.integers(0, 8, 400)
        targets = encoding.encode(truth, rng.integers(0, 2, 400))
        # Mostly correct heads, so that both cases occur.
        outputs = {
            name: np.where(rng.random((400, 1)) < 0.9, target, 1 - target)
            for name, target in targets.items()
        }
        bits_correct = np.all(
            [(outputs[f"age{k}"] > 0.5) == targets[f"age{k}"] for k in range(1, 9)],
            axis=0,
        )
        decoded = encoding.decode(outputs)
        decoded = Decoded(*(None if x is None else np.asarray(x) for x in decoded))
        age = evaluate_predictions(
            truth, np.full(400, -1), decoded, separate_age_heads=True
        ).age
        assert 0 < age.all_heads_accuracy < age.accuracy
        assert age.all_heads_accuracy == pytest.approx(bits_correct.mean())


def test_agrees_with_scikit_learn():
    ages, genders, decoded = random_predictions()
    scores = evaluate_predictions(ages, genders, decoded)
    known = genders != -1
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        genders[known], decoded.gender[known], pos_label=1, average="binary"
    )
    assert scores.gender.precision == pytest.approx(precision)
    assert scores.gender.recall == pytest.approx(recall)
    assert scores.gender.f1 == pytest.approx(f1)
    known = ages != -1
    np.testing.assert_array_equal(
        scores.age.confusion,
        sk.confusion_matrix(ages[known], decoded.age_group[known], labels=range(8)),
    )
    assert scores.age.mean_absolute_error == pytest.approx(
        sk.mean_absolute_error(ages[known], decoded.age_group[known])
    )
    recalls = sk.recall_score(
        ages[known], decoded.age_group[known], average=None, labels=range(8)
    )
    np.testing.assert_allclose([g["recall"] for g in scores.age.groups], recalls)


def test_mean_of_classes_and_kappa_by_hand():
    scores = evaluate_predictions(AGES, GENDERS, DECODED)
    # Recalls: males 1 of 2, females 2 of 3.
    assert scores.gender.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    # Labels 0 4 4 7 2, predictions 0 5 4 4 2. Recalls of groups 0, 2, 4, 7; the other
    # four have no face and are ignored.
    assert scores.age.balanced_accuracy == pytest.approx((1 + 1 + 1 / 2 + 0) / 4)
    # Squared distances: 1 + 9 = 10; of all labels to all predictions 61 + 21 + 2 * 21 +
    # 96 = 220, by chance a fifth of that.
    assert scores.age.quadratic_kappa == pytest.approx(1 - 10 / 44)
    text = format_metrics(scores)
    assert "accuracy 0.600, mean of classes 0.625\n" in text
    assert "            quadratic kappa 0.773\n" in text
    assert "accuracy 0.600, mean of classes 0.583\n" in text


def test_kappa_of_one_class_is_none():
    decoded = Decoded(np.array([3, 3]), None, None, None, None)
    age = evaluate_predictions([3, 3], [-1, -1], decoded).age
    assert age.accuracy == 1.0 and age.quadratic_kappa is None
    age = evaluate_predictions([2, 2], [-1, -1], decoded).age
    assert age.quadratic_kappa == 0.0 and age.balanced_accuracy == 0.0


def test_scores_of_an_earlier_version_can_be_printed():
    """Its metrics.json lacks newer metrics."""
    old = evaluate_predictions(AGES, GENDERS, DECODED).to_dict()
    for scores in (old["gender"], old["age"]):
        scores.pop("balanced_accuracy")
        scores.pop("quadratic_kappa", None)
    assert "accuracy 0.600\n" in format_metrics(old)


def test_order_of_faces_does_not_matter():
    ages, genders, decoded = random_predictions()
    order = np.random.default_rng(2).permutation(len(ages))
    shuffled = Decoded(*(None if x is None else x[order] for x in decoded))
    extra = np.arange(len(ages)) % 3 - 1.0
    outputs = np.linspace(0, 1, len(ages))[:, None]
    first = evaluate_predictions(
        ages,
        genders,
        decoded,
        separate_age_heads=True,
        extra={"a": ("binary", extra, outputs)},
    )
    second = evaluate_predictions(
        ages[order],
        genders[order],
        shuffled,
        separate_age_heads=True,
        extra={"a": ("binary", extra[order], outputs[order])},
    )
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())


def test_extra_heads():
    none = Decoded(None, None, None, None, None)
    scores = evaluate_predictions(
        [-1] * 4,
        [-1] * 4,
        none,
        extra={
            "glasses": ("binary", [1, 0, -1, 1], [1, 1, 0, 1]),
            "hair": ("categorical", [2, 0, 1, -1], [2, 1, 1, 0]),
            "years": ("regression", [30.0, np.nan, -1.0, 5.0],
                      [33.0, 9.0, 0.0, 5.0]),
        },
    )  # fmt: skip
    assert scores.gender is None and scores.age is None
    assert scores.extra["glasses"]["accuracy"] == pytest.approx(2 / 3)
    assert scores.extra["glasses"]["num_unlabelled"] == 1
    assert scores.extra["hair"]["accuracy"] == pytest.approx(2 / 3)
    # -1 is a value like any other for a regression: |33 - 30|, |0 + 1|, |5 - 5|.
    assert scores.extra["years"]["mean_absolute_error"] == pytest.approx(4 / 3)
    assert scores.extra_mean_accuracy == pytest.approx(2 / 3)
    assert "glasses" in format_metrics(scores)


@pytest.mark.parametrize("count", [0, 3])
def test_without_labels_metrics_are_none(count):
    decoded = Decoded(
        np.zeros(count, int), None, np.zeros(count, int), None, np.ones(count, bool)
    )
    scores = evaluate_predictions(
        np.full(count, -1),
        np.full(count, -1),
        decoded,
        separate_age_heads=True,
        extra={"a": ("binary", np.full(count, -1), np.zeros((count, 1)))},
    )
    assert scores.gender.accuracy is None and scores.gender.f1 is None
    assert scores.age.accuracy is None and scores.age.all_heads_accuracy is None
    assert scores.mean_accuracy is None and scores.extra["a"]["accuracy"] is None
    assert scores.gender.num_unlabelled == count
    json.dumps(scores.to_dict(), allow_nan=False)
    assert "-" in format_metrics(scores)


def test_precision_of_a_class_never_predicted_is_none():
    decoded = Decoded(None, None, np.array([0, 0]), None, None)
    gender = evaluate_predictions([-1, -1], [1, 0], decoded).gender
    assert gender.precision is None and gender.recall == 0.0 and gender.f1 == 0.0


def test_scores_can_be_read_from_json():
    scores = evaluate_predictions(AGES, GENDERS, DECODED, separate_age_heads=True)
    assert json.loads(json.dumps(scores.to_dict())) == scores.to_dict()
    again = json.loads(
        json.dumps({"recipe": "14", "split": "fold_4", **scores.to_dict()})
    )
    text = format_metrics(again)
    assert text.startswith("14 on fold_4: 6 faces")
    assert text.endswith(format_metrics(scores).partition("\n")[2])


def lowest_of(true, predicted):
    decoded = Decoded(np.array(predicted), heads_agree=np.ones(len(true), bool))
    text = format_metrics(evaluate_predictions(true, [-1] * len(true), decoded))
    return [s.split()[0] for s in text.splitlines() if s.endswith("lowest recall")]


def test_text_shows_the_worst_group_and_the_positive_class():
    text = format_metrics(evaluate_predictions(AGES, GENDERS, DECODED))
    assert [s.split()[0] for s in text.splitlines() if "lowest" in s] == ["60-100"]
    assert "positive class: male" in text
    assert "1 without a label" in text


def test_lowest_recall_marks_ties_but_not_all():
    """Groups without a face are ignored."""
    assert lowest_of([0, 1, 2], [0, 1, 0]) == ["8-12"]
    assert lowest_of([0, 1, 2], [0, 0, 0]) == ["4-6", "8-12"]
    assert lowest_of([0, 1, 2], [0, 1, 2]) == []
    assert lowest_of([0, 1, 2], [3, 3, 3]) == []
    # A third, and two sixths.
    assert lowest_of([0] * 3 + [1] * 6, [0, 7, 7, 1, 1, 7, 7, 7, 7]) == []
    assert lowest_of([4, 4], [4, 0]) == []


def test_all_heads_and_the_most_probable_group_can_differ_either_way():
    """An example of the note below the table, with heads "older than group k"."""
    encoding = get_encoding("ordinal", question="older")

    def scores_of(*older):
        outputs = {f"age{k}": np.array([[p]]) for k, p in enumerate(older, start=1)}
        outputs["gender"] = np.array([[0.2]])
        decoded = encoding.decode(outputs)
        decoded = Decoded(*(None if x is None else np.asarray(x) for x in decoded))
        return evaluate_predictions([1], [0], decoded, separate_age_heads=True)

    # Heads cut at a half: 1 0 0 …, group 1; the probability of group 0 is 0.4, of
    # group 1 0.2, of group 2 0.4.
    correct_heads = scores_of(0.6, 0.4, 0, 0, 0, 0, 0, 0)
    assert (correct_heads.age.all_heads_accuracy, correct_heads.age.accuracy) == (1, 0)
    # 1 1 0 …, group 2; the probabilities are 0.1, 0.35, 0.25, 0.2, 0.1, 0 ….
    correct_group = scores_of(0.9, 0.55, 0.3, 0.1, 0, 0, 0, 0)
    assert (correct_group.age.all_heads_accuracy, correct_group.age.accuracy) == (0, 1)
    text = format_metrics(correct_heads)
    assert "all age heads correct 1.000 *" in text
    assert text.count("* all age heads, thresholded") == 1
    assert text.splitlines()[-2].startswith("* ")
    one_head = format_metrics(evaluate_predictions(AGES, GENDERS, DECODED))
    assert "*" not in one_head and "heads" not in one_head


def test_many_extra_heads_are_listed_worst_first():
    extra = {
        f"attribute{k}": ("binary", np.arange(50) < k, np.zeros((50, 1)))
        for k in range(40)
    }
    nothing = Decoded(None, None, None, None, None)
    scores = evaluate_predictions([-1] * 50, [-1] * 50, nothing, extra=extra)
    lines = format_metrics(scores).splitlines()
    assert lines[3].split()[:3] == ["attribute39", "accuracy", "0.220,"]
    assert lines[2] == "the 12 worst of 40 extra heads"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive_gender": "f"}, "positive_gender='f'"),
        ({"age_group_true": [0, 8]}, "age_group_true.*Received: 8"),
        ({"gender_true": [0, 1, 1]}, "gender_true.*shape"),
        ({"decoded": Decoded(None, None, [0, -1], None, None)}, "decoded.gender"),
        (
            {"extra": {"a": ("binary", [1], [[1]])}},
            "'a'.*Expected 2 labels.*Received: 1 and 1",
        ),
    ],
)
def test_invalid_arguments(change, message):
    arguments = {
        "age_group_true": [0, 1],
        "gender_true": [0, 1],
        "decoded": Decoded(None, None, [0, 1], None, None),
        **change,
    }
    with pytest.raises(ValueError, match=message) as caught:
        evaluate_predictions(**arguments)
    assert "\n" not in str(caught.value)


def test_errors_in_years_and_other_groups():
    """|28 - 30| = 2, |47 - 40| = 7, unknown: a mean of 4.5, one of two within 5."""
    groups = get_age_groups("decades")
    decoded = Decoded(
        age_group=np.array([2, 4, 4]),
        heads_agree=np.ones(3, bool),
        age_years=np.array([28.0, 47.0, 44.0]),
        median_age_group=np.array([2, 4, 4]),
    )
    scores = evaluate_predictions(
        [3, 4, -1], [-1] * 3, decoded, age_groups=groups, age_years_true=[30, 40, -1]
    )
    assert scores.age.num_faces_with_years == 2
    assert scores.age.mean_absolute_error_years == pytest.approx(4.5)
    assert scores.age.cumulative_score_5 == pytest.approx(0.5)
    assert scores.age.groups[4]["name"] == "40-49"
    assert scores.age.groups[4]["recall"] == 1.0
    assert np.shape(scores.age.confusion) == (10, 10)
    assert "mean error 4.50 years, within 5 years 0.500" in format_metrics(scores)


def test_text_warns_of_faces_seen_in_training():
    scores = Evaluation(num_faces=8)
    assert "WARNING" not in format_metrics(scores)
    text = format_metrics(replace(scores, num_seen_in_training=3))
    assert "WARNING: the model was trained on 3 of these faces" in text
    text = format_metrics(replace(scores, num_seen_in_validation=8))
    assert "WARNING: the model was selected on 8 of these faces" in text


def test_within_one_group_is_not_within_two():
    """Errors of 0, 1, 2 and 7 groups: two of four are within one, three within two."""
    decoded = Decoded(age_group=np.array([3, 4, 2, 0]), heads_agree=np.ones(4, bool))
    scores = evaluate_predictions([3, 3, 4, 7], [-1] * 4, decoded)
    assert scores.age.one_off_accuracy == 0.5
    assert scores.age.mean_absolute_error == 2.5


def test_majority_class_baseline():
    """Labels m m f f f, 0 4 4 7 2: always female is 3 of 5, always group 4 2 of 5.

    The distances to group 4 are 4, 0, 0, 3 and 2: two of five within one, 9 / 5 on
    average. Its center is 28.5 years, 1.5 and 11.5 from 30 and 40.
    """
    years = np.array([-1, 30, 40, -1, -1, -1])
    decoded = DECODED._replace(age_years=np.zeros(6))
    scores = evaluate_predictions(AGES, GENDERS, decoded, age_years_true=years)
    assert scores.gender.majority == {
        "answer": "female",
        "accuracy": pytest.approx(3 / 5),
        "balanced_accuracy": pytest.approx(1 / 2),
    }
    assert scores.age.majority == {
        "answer": "25-32",
        "accuracy": pytest.approx(2 / 5),
        "balanced_accuracy": pytest.approx(1 / 4),  # of the four groups with a face
        "one_off_accuracy": pytest.approx(2 / 5),
        "mean_absolute_error": pytest.approx(9 / 5),
        "mean_absolute_error_years": pytest.approx(6.5),
        "cumulative_score_5": pytest.approx(1 / 2),
    }
    assert scores.majority_mean_accuracy == pytest.approx(1 / 2)
    text = format_metrics(scores)
    assert "majority baseline (female): accuracy 0.600\n" in text
    words = " ".join(text.split())
    assert "(25-32): accuracy 0.400, within one group 0.400, mean error 1.80" in words
    assert "(center of 25-32): mean error 6.50 years, within 5 years 0.500" in words
    assert "mean        accuracy 0.600, majority baseline 0.500" in text


def test_majority_class_baseline_of_extra_heads():
    """Labels 1 1 0: always 1 is two of three; `None` without labels."""
    none = Decoded(None, None, None, None, None)
    extra = {
        "glasses": ("binary", [1, 1, 0, -1], [0, 1, 0, 1]),
        "hair": ("categorical", [-1] * 4, [0] * 4),
    }
    scores = evaluate_predictions([-1] * 4, [-1] * 4, none, extra=extra)
    assert scores.extra["glasses"]["majority_accuracy"] == pytest.approx(2 / 3)
    assert scores.extra["hair"]["majority_accuracy"] is None
    assert scores.majority_mean_accuracy is None
    assert "accuracy 0.667, majority 0.667, over 3" in format_metrics(scores)


def test_metrics_of_probabilities():
    """P(male) is 0.8 for a man, 0.4 for a woman, 0.9 for an unlabeled face.

    -ln 0.8 and -ln 0.6; squared errors 0.04 and 0.16; confidences 0.8 and 0.6, correct.
    """
    decoded = Decoded(
        gender=np.array([1, 0, 1]),
        gender_probability=np.array([0.8, 0.4, 0.9]),
        age_group=np.array([0, 1, 2]),
        age_probabilities=np.eye(8)[[0, 1, 2]],
        heads_agree=np.array([True, False, True]),
    )
    scores = evaluate_predictions(
        [0, 0, -1], [1, 0, -1], decoded, separate_age_heads=True
    )
    gender, age = scores.gender, scores.age
    assert gender.auc == 1.0
    expected = -np.log([0.8, 0.6]).mean()
    assert gender.negative_log_likelihood == pytest.approx(expected)
    assert gender.brier_score == pytest.approx(0.1)
    assert gender.expected_calibration_error == pytest.approx(0.3)
    # The second face is in group 0, with a probability of 1 for group 1.
    assert age.brier_score == pytest.approx(2 / 2)
    assert age.expected_calibration_error == pytest.approx(1 / 2)
    assert age.rank_violation_rate == pytest.approx(1 / 2)
    text = format_metrics(scores)
    assert (
        "auc 1.000, -log likelihood 0.367, Brier 0.100, calibration error 0.300" in text
    )
    assert "age heads contradict each other 0.500" in text
    assert max(map(len, text.splitlines())) <= 88
    males = evaluate_predictions([-1] * 3, [1, -1, 1], decoded).gender
    assert males.auc is None and males.majority["accuracy"] == 1.0


def test_text_has_at_most_88_columns():
    """With the longest names of age groups, and all metrics."""
    groups = get_age_groups("adience")
    count = 30_000
    truth = np.full(count, 7)
    decoded = Decoded(
        truth,
        np.full((count, 8), 1 / 8),
        np.ones(count, int),
        np.full(count, 0.5),
        np.ones(count, bool),
        np.full(count, 30.0),
        truth,
    )
    scores = evaluate_predictions(
        truth,
        np.ones(count, int),
        decoded,
        separate_age_heads=True,
        age_groups=groups,
        age_years_true=np.full(count, 99),
        positive_gender="female",
    )
    assert max(map(len, format_metrics(scores).splitlines())) <= 88


@pytest.mark.parametrize("field", ["gender_probability", "age_probabilities"])
def test_probabilities_of_other_shapes_are_an_error(field):
    decoded = DECODED._replace(**{field: np.full((5, 8), 0.1)[:, 0]})
    with pytest.raises(ValueError, match=f"decoded.{field}"):
        evaluate_predictions(AGES, GENDERS, decoded)


# -- constant predictions --------------------------------------------------------------


@pytest.mark.parametrize(
    ("confusion", "predicted"),
    [
        ([[0, 50], [0, 50]], "male"),
        ([[50, 0], [50, 0]], "female"),
        ([[2, 48], [0, 50]], "male"),  # 96 % of the women are predicted as male
        ([[3, 47], [0, 50]], None),  # 94 %
        ([[5, 0], [0, 95]], None),  # 95 % are men, and all women are correct
        ([[0, 5], [0, 95]], "male"),
        ([[0, 0], [0, 95]], None),  # no other class has faces
        ([[0, 5], [6, 89]], None),  # 94 % of all
        ([[0, 0], [0, 0]], None),
    ],
)
def test_constant_predictions(confusion, predicted):
    assert constant_prediction(confusion, ["female", "male"]) == predicted


def test_constant_predictions_are_a_warning():
    """Two women and four men are all predicted as male; age groups are correct."""
    ages, genders = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1])
    decoded = Decoded(
        age_group=ages, gender=np.ones(6, int), heads_agree=np.ones(6, bool)
    )
    scores = evaluate_predictions(ages, genders, decoded)
    line = "gender: (almost) every face is predicted as male, regardless of its label"
    assert constant_prediction_warnings(scores.to_dict()) == [line]
    assert f"WARNING: {line}" in format_metrics(scores).splitlines()
    one_age = decoded._replace(age_group=np.full(6, 2), gender=genders)
    text = format_metrics(evaluate_predictions(ages, genders, one_age))
    assert "age group: (almost) every face is predicted as 8-12" in text
    assert "WARNING: gender" not in text


def test_estimates_of_a_table_of_predictions():
    """Groups 0, 1, 2, 3 predicted as 0, 2, 0, 3, of people a, a, b, c; one unknown."""
    table = pd.DataFrame(
        {
            "subject": ["a", "a", "b", "c", "d"],
            "gender": ["male"] * 5,
            "predicted_gender": ["male", "female", "male", "male", "male"],
            "age_group": ["g0", "g1", "g2", "g3", ""],
            "predicted_age_group": ["g0", "g2", "g0", "g3", "g0"],
            "age_group_id": [0, 1, 2, 3, -1],
            "predicted_age_group_id": [0, 2, 0, 3, 0],
            "heads_agree": [True, True, True, False, True],
        }
    )
    found = prediction_estimates(table)
    assert {name: e.value for name, e in found.items()} == {
        "gender_accuracy": 0.8,
        "age_accuracy": 0.5,
        "age_all_heads_accuracy": 0.25,
        "age_one_off_accuracy": 0.75,
        "age_mean_absolute_error": 0.75,
    }
    assert found["age_accuracy"].num_clusters == 3
    people = Clusters.of(["a", "a", "b", "c", "d"])
    assert found["gender_accuracy"] == proportion_interval([1, 0, 1, 1, 1], people)


# -- intervals -------------------------------------------------------------------------


def test_newborns_have_an_age_in_years():
    """Ages 0 and 10 predicted as 8 and 10: errors of 8 and 0 years, one within 5."""
    decoded = decoded_with_years([0, 0, 0], [0, 1, 0])._replace(
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


def decoded_with_years(genders, ages):
    years = np.asarray(ages) * 8.0 + 3
    return Decoded(np.asarray(ages), None, np.asarray(genders), None, None)._replace(
        age_years=years
    )


def test_intervals_need_subject_ids():
    rng = np.random.default_rng(1)
    genders, ages = rng.integers(-1, 2, 300), rng.integers(-1, 8, 300)
    decoded = decoded_with_years(rng.integers(0, 2, 300), np.clip(ages, 0, 7))
    arguments = (ages, genders, decoded)
    plain = evaluate_predictions(*arguments)
    assert plain.gender.intervals == plain.age.intervals == {}
    assert "[" not in format_metrics(plain)
    years = np.where(ages >= 0, ages * 8 + 1, -1)
    subjects = rng.integers(0, 50, 300).astype(str)
    found = evaluate_predictions(*arguments, subjects=subjects, age_years_true=years)
    assert set(found.gender.intervals) == {
        "accuracy", "balanced_accuracy", "precision", "recall", "f1",
    }  # fmt: skip
    assert {*metrics_for("years")} < set(found.age.intervals)
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
        evaluate_predictions(*arguments, subjects=["a"])


def test_few_faces_are_mentioned():
    """An interval such as [0.000, 0.996] is no news about eight faces."""
    few = gender_scores([0, 1] * 4, [1, 0] * 4)
    text = format_metrics(few)
    assert "TOO FEW faces or people for reliable scores (gender 8 faces)" in text
    assert "over 8 labeled faces" in text
    one = format_metrics(gender_scores([1], [1]))
    assert one.startswith("1 face\n") and "over 1 labeled face\n" in one
    many = format_metrics(gender_scores([0, 1] * 40, [0, 1] * 40))
    assert "TOO FEW" not in many
    # Forty faces of two people have an interval, which says nothing.
    clustered = gender_scores([0, 1] * 20, [0, 1] * 20, ["a", "b"] * 20)
    assert "TOO FEW faces or people" in format_metrics(clustered)


def gender_scores(truth, predicted, subjects=None):
    decoded = Decoded(gender=np.array(predicted))
    return evaluate_predictions(
        [-1] * len(truth), truth, decoded, subjects=subjects or [""] * len(truth)
    )
