"""Answers as text."""

from __future__ import annotations

from dataclasses import replace

from keras_agegender.serving.answers import FacePrediction

FACE = FacePrediction(
    box=(1.0, 2.0, 3.0, 4.0),
    crop_box=(0.0, 0.0, 5.0, 5.0),
    score=0.9,
    age_group="25-32",
    age_probabilities={"15-20": 0.1, "25-32": 0.6, "38-43": 0.3},
    age_years=30.0,
    gender="male",
    male_probability=0.8,
    heads_agree=True,
    heads={},
    extra={},
)


def test_sets_of_answers_are_shown():
    assert str(FACE) == "25-32 (60%)  male (80%)  [1 2 3 4]"
    one = replace(FACE, age_set=("25-32",), gender_set=("male",))
    assert str(one) == str(FACE)
    two = replace(FACE, age_set=("25-32", "38-43"), gender_set=("female", "male"))
    assert str(two) == (
        "25-32 or 38-43 (25-32: 60%)  female or male (male: 80%)  [1 2 3 4]"
    )
    three = replace(FACE, age_set=("15-20", "25-32", "38-43"), heads_agree=False)
    assert str(three).startswith(
        "15-20 to 38-43 (25-32: 60%, age outputs disagree)  male (80%)"
    )
    assert two.to_dict()["age_set"] == ("25-32", "38-43")
