"""Outputs as text."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

import keras_agegender as kag
from keras_agegender.labels import MISSING
from keras_agegender.serving.bundle import _padded
from keras_agegender.serving.predictions import (
    FacePrediction,
    PhotoPrediction,
    csv_rows,
    face_fields,
    is_nearly_all_face,
    json_line,
    with_groups,
    without_auxiliary,
)

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
    assert str(FACE) == "25-32 (60%)  male 80 %  [1 2 3 4]"
    one = replace(FACE, age_set=("25-32",), gender_set=("male",))
    assert str(one) == str(FACE)
    two = replace(FACE, age_set=("25-32", "38-43"), gender_set=("female", "male"))
    assert str(two) == (
        "25-32 or 38-43 (25-32: 60%)  female or male (male: 80%)  [1 2 3 4]"
    )
    three = replace(FACE, age_set=("15-20", "25-32", "38-43"), heads_agree=False)
    assert str(three).startswith(
        "15-20 to 38-43 (25-32: 60%, age outputs disagree)  male 80 %"
    )
    assert two.to_dict()["age_set"] == ("25-32", "38-43")


def test_further_outputs_are_words():
    face = replace(
        FACE,
        extra={"glasses": 0.54, "hat": 0.03, "sex": 0.8, "race": "Asian", "size": 3.0},
        binary={"glasses": "yes", "hat": "no", "sex": "m"},
    )
    assert face.words == (
        "25-32 (60%)", "male 80 %",
        "glasses yes (54%)", "hat no (97%)", "sex m (80%)", "race Asian", "size 3",
    )  # fmt: skip
    assert str(face) == "  ".join([*face.words, "[1 2 3 4]"])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"), (2.0, "2"), (2.7345, "2.73"), (71.25, "71.2"), (-0.001, "-0.001"),
        (99.96, "100"), (178.4, "178"), (54321.6, "54322"), (-3.0, "-3"), (-0.0, "0"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_or_all_before_the_point(number, text):
    assert replace(FACE, extra={"kilos": number}).words[-1] == f"kilos {text}"


def test_of_many_outputs_six_are_listed():
    extra = {f"a{k}": "x" for k in range(9)}
    words = replace(FACE, extra=extra).words
    assert words[2:] == (*(f"a{k} x" for k in range(6)), "… and 3 more outputs")


def test_what_was_found():
    photo = PhotoPrediction("a.jpg", "ok", (FACE, FACE), (9, 9))
    assert str(photo).splitlines()[0] == "a.jpg: 2 faces"
    whole = replace(photo, status="whole_image", faces=(FACE,))
    assert str(whole).splitlines()[0] == "a.jpg: no face found; the whole image"
    assert str(PhotoPrediction("a.jpg", "no_face")) == "a.jpg: no face found"
    broken = PhotoPrediction("a.jpg", "unreadable", reason="a.jpg: empty file")
    assert str(broken) == "unreadable: a.jpg: empty file"


def test_rows_of_a_batch_of_photos_are_padded_with_no_answer():
    ids = tf.ragged.constant([[4], [0, 2]], dtype=tf.int64)
    assert _padded(ids).numpy().tolist() == [[4, MISSING], [0, 2]]
    assert _padded(tf.ragged.constant([[0.5], []])).numpy().tolist() == [[0.5], [0.0]]
    assert _padded(tf.ragged.constant([[], [True]])).numpy().tolist() == [[0], [1]]


def test_years_are_shown_with_their_interval():
    face = replace(FACE, age_years=41.4, age_interval=(36, 47))
    assert face.words[:2] == ("41 (36–47)", FACE.words[1])
    photo = PhotoPrediction("x.jpg", "ok", (face,), (10, 10))
    assert "41 (36–47)" in str(photo) and "25-32" not in str(photo)
    (grouped,) = with_groups(photo).faces
    assert grouped.words == FACE.words
    (row,) = csv_rows(photo.to_dict())
    assert (row["age_low"], row["age_high"]) == (36, 47)
    assert json.loads(json_line(face.to_dict()))["age_interval"] == [36, 47]


def test_intervals_are_the_middle_of_the_distribution():
    """A tenth of the probability is below the interval, and a tenth above."""
    ages = np.zeros(101)
    ages[30:35] = (0.08, 0.12, 0.5, 0.25, 0.05)
    metadata = {
        "age_groups": [], "genders": [], "outputs": ["age"], "extra_heads": [],
        "encoding": kag.get_encoding("years").to_dict(),
    }  # fmt: skip
    assert face_fields(metadata, {"age": ages})["age_interval"] == (31, 33)
    metadata["encoding"] = kag.get_encoding("categorical").to_dict()
    assert face_fields(metadata, {"age": ages})["age_interval"] is None


def test_auxiliary_outputs_are_hidden():
    metadata = {
        "outputs": ["age", "race"], "auxiliary_outputs": ["race"],
        "extra_heads": [{"name": "race"}],
    }  # fmt: skip
    shown = without_auxiliary(metadata)
    assert shown["outputs"] == ["age"] and shown["extra_heads"] == []
    assert without_auxiliary({**metadata, "auxiliary_outputs": []}) != shown


@pytest.mark.parametrize(
    ("box", "expected"),
    [((-20, -30, 95, 130), True), ((10, 10, 90, 70), False), ((0, 0, 100, 60), True)],
)
def test_a_photo_that_is_nearly_all_face(box, expected):
    face = replace(FACE, box=box)
    photo = PhotoPrediction("a.jpg", "ok", (face,), image_size=(100, 100))
    assert is_nearly_all_face(photo) == expected
    assert not is_nearly_all_face(replace(photo, faces=(face, face)))
