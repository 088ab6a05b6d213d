"""One smoothed answer for everybody in a video; means are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_agegender.encodings.calibration import Calibration
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.serving.pipeline import Face
from keras_agegender.serving.predictor import PersonAggregator

SIZE = Head("size", "coral", 3, classes=("small", "medium", "large"))
HEIGHT = Head("height", "regression")
ENCODING = get_encoding("categorical", heads=[SIZE, HEIGHT])
METADATA = {
    "age_groups": list(ENCODING.age_groups.names),
    "genders": ["female", "male"],
    "outputs": list(ENCODING.output_names),
    "extra_heads": [
        {"name": "size", "kind": "coral", "classes": ["small", "medium", "large"]},
        {"name": "height", "kind": "regression", "classes": []},
    ],
    "encoding": ENCODING.to_dict(),
    "calibration": None,
}


def face(left, male, groups, sizes=(0.5, 0.5), height=1.0, score=0.9, agree=True):
    """A face whose first three age groups have the probabilities given."""
    ages = np.array([*groups, 0, 0, 0, 0, 0], "float32")
    outputs = {
        "gender": np.array([male], "float32"),
        "age": ages,
        "size": np.array(sizes, "float32")[:, None],  # at least medium, at least large
        "height": np.array([height], "float32"),
        "height_answer": np.float32(height),
        "size_answer": np.float32(0),
        "age_group": np.int64(ages.argmax()),
        "age_group_probabilities": ages,
        "age_years": np.float32(10 * height),
        "heads_agree": np.bool_(agree),
        "gender_id": np.int64(male > 0.5),
        "male_probability": np.float32(male),
    }
    box = np.array([left, 0, left + 10, 10], "float32")
    return Face(box, score, crop_box=box + 1, outputs=outputs)


def test_answers_are_the_most_probable_by_the_means():
    persons = PersonAggregator(METADATA)
    persons.add([face(0, 0.9, (0.7, 0.3, 0.0), (0.9, 0.8), 1.0)], 0.0)
    persons.add([face(1, 0.4, (0.0, 0.45, 0.55), (0.7, 0.1), 2.0, agree=False)], 0.25)
    persons.add([face(2, 0.4, (0.5, 0.45, 0.05), (0.2, 0.1), 6.0, agree=False)], 0.5)
    (person,) = persons.results()
    # Two of three frames say female; the mean of male is 1.7 / 3.
    assert person.gender == "male"
    assert person.male_probability == pytest.approx(1.7 / 3, abs=1e-6)
    # The probabilities' means are 0.4, 0.4 and 0.2; those of the years 10, 20, 60: 30.
    assert list(person.age_probabilities.values())[:3] == pytest.approx(
        [0.4, 0.4, 0.2], abs=1e-6
    )
    assert person.age_years == 30.0
    # Steps of the frames: (.1 .1 .8), (.3 .6 .1), (.8 .1 .1): means .4, .267, .333.
    assert person.extra["size"] == "small"
    assert person.extra["height"] == pytest.approx(3.0)
    assert person.heads_agree is False  # in one of three
    assert person.num_frames == 3


def test_a_group_that_no_frame_answers_may_be_the_answer():
    persons = PersonAggregator(METADATA)
    persons.add([face(0, 0.2, (0.6, 0.4, 0.0))], 0.0)
    persons.add([face(0, 0.2, (0.0, 0.4, 0.6))], 0.25)
    (person,) = persons.results()
    assert person.age_group == "4-6"  # 0.3, 0.4, 0.3
    assert person.age_confidence == pytest.approx(0.4, abs=1e-6)
    assert person.gender == "female"


def test_everybody_with_times_and_the_surest_face():
    persons = PersonAggregator(METADATA)
    one, other = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    persons.add([face(0, 0.1, one, score=0.8)], 0.0)
    persons.add([], 0.25)
    persons.add([face(1, 0.1, one, score=0.95), face(50, 0.8, other)], 0.5)
    persons.add([face(50, 0.8, other), face(2, 0.1, one, score=0.9)], 0.75)
    first, second = persons.results()
    assert (first.first_second, first.last_second, first.num_frames) == (0.0, 0.75, 3)
    assert (first.best_second, first.score, first.box[0]) == (0.5, 0.95, 1.0)
    assert first.crop_box == (2.0, 1.0, 12.0, 11.0)
    assert (second.first_second, second.num_frames) == (0.5, 2)
    assert (first.gender, second.gender) == ("female", "male")
    assert (first.age_group, second.age_group) == ("0-2", "8-12")
    assert str(first).endswith("[0.0-0.8 s, 3 frames]")


def test_sets_are_those_of_the_means():
    calibration = Calibration({}, {"age_group": (0.5,), "gender": (0.75,)})
    persons = PersonAggregator({**METADATA, "calibration": calibration.to_dict()})
    persons.add([face(0, 0.9, (0.8, 0.2, 0.0))], 0.0)
    persons.add([face(0, 0.5, (0.0, 0.2, 0.8))], 0.25)
    (person,) = persons.results()
    # Means .4 .2 .4: the first, and what has at most 0.5 before it: the second (0.4).
    assert person.age_set == ("0-2", "4-6")
    assert person.gender_set == ("female", "male")  # 0.7 before the second


def test_nobody():
    persons = PersonAggregator(METADATA)
    persons.add([], 0.0)
    assert persons.results() == ()
