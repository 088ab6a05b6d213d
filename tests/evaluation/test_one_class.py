"""Models that answer one class, and figures of a single run: golden numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.evaluation.scores import (
    constant_prediction,
    constant_prediction_warnings,
    evaluate_predictions,
    format_metrics,
    prediction_estimates,
)
from keras_agegender.metrics.intervals import Clusters, proportion_interval


@pytest.mark.parametrize(
    ("confusion", "answer"),
    [
        ([[0, 50], [0, 50]], "male"),
        ([[50, 0], [50, 0]], "female"),
        ([[2, 48], [0, 50]], "male"),  # of the women 96 % are called men
        ([[3, 47], [0, 50]], None),  # 94 %
        ([[5, 0], [0, 95]], None),  # 95 % are men, and the model knows who is not
        ([[0, 5], [0, 95]], "male"),
        ([[0, 0], [0, 95]], None),  # nobody else is there to be wrong about
        ([[0, 5], [6, 89]], None),  # 94 % of all
        ([[0, 0], [0, 0]], None),
    ],
)
def test_who_answers_one_class(confusion, answer):
    assert constant_prediction(confusion, ["female", "male"]) == answer


def test_who_answers_one_class_is_said_with_the_scores():
    """Ages differ; of two women and four men all are called men."""
    ages, genders = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1])
    answers = Decoded(
        age_group=ages, gender=np.ones(6, int), heads_agree=np.ones(6, bool)
    )
    scores = evaluate_predictions(ages, genders, answers)
    line = "gender: (almost) every face is predicted as male, regardless of its label"
    assert constant_prediction_warnings(scores.to_dict()) == [line]
    assert f"WARNING: {line}" in format_metrics(scores).splitlines()
    one_age = answers._replace(age_group=np.full(6, 2), gender=genders)
    said = format_metrics(evaluate_predictions(ages, genders, one_age))
    assert "age group: (almost) every face is predicted as 8-12" in said
    assert "WARNING: gender" not in said


def test_the_figures_of_a_run_by_its_faces():
    """Ages 0, 1, 2, 3 answered 0, 2, 0, 3, of people a, a, b, c; one without an age."""
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
