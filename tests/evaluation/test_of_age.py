"""Of age, or not: shares worked out by hand, the probability, printed and drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import keras_agegender as kag
from keras_agegender.encodings.of_age import AgeCheck, at_least_probability
from keras_agegender.evaluation.of_age import of_age_lines, of_age_table, score_of_age

# Minors of 15 and 17, of 8; adults of 18, 25 and 30; one of 50; one unknown.
AGES = [15, 17, 8, 18, 25, 30, 50, -1]
LOOKS = [17.9, 25.0, 9.0, 17.0, 24.9, 33.0, 19.0, 12.0]


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "age_years": AGES,
            "predicted_age_years": LOOKS,
            "subject": ["a", "a", "b", "c", "d", "e", "f", "g"],
            "adult_probability": [0.5, 0.9, 0.0, 0.4, 0.9, 1.0, 0.7, 0.2],
        }
    )


def shares(found, name, *thresholds):
    (one,) = (p for p in found["populations"] if p["name"] == name)
    places = [found["thresholds"].index(t) for t in thresholds]
    return [one["shares"][k] for k in places]


def test_shares_by_hand(table):
    """At 18, the 17-year-old of 25 passes and the 18-year-old of 17 is refused."""
    found = score_of_age(table)
    assert found["thresholds"] == [*range(18, 31)]
    assert shares(found, "minors_14_17", 18, 25, 26) == [0.5, 0.5, 0.0]
    third = pytest.approx(1 / 3)
    assert shares(found, "minors", 18, 26) == [third, 0.0]
    assert shares(found, "adults_18_30", 18, 24, 25, 30) == [
        third, third, pytest.approx(2 / 3), pytest.approx(2 / 3),
    ]  # fmt: skip
    counts = [(p["num_faces"], p["num_subjects"]) for p in found["populations"]]
    assert counts == [(2, 1), (3, 2), (3, 3)]
    # One person has no interval.
    assert found["populations"][0]["intervals"][0] is None
    assert all(p["few"] for p in found["populations"])
    low, high = found["populations"][2]["intervals"][0]
    assert 0 < low < 1 / 3 < high < 1


def test_the_probability_is_scored(table):
    """Seven faces of known age; 17 (0.9) and 18 (0.4) are wrong at one half."""
    found = score_of_age(table)["probability"]
    assert found["num_faces"] == 7
    assert found["accuracy"] == pytest.approx(5 / 7)
    squares = [0.25, 0.81, 0, 0.36, 0.01, 0, 0.09]
    assert found["brier_score"] == pytest.approx(sum(squares) / 7)


def test_without_minors_or_years_there_is_no_check(table):
    assert score_of_age(table.assign(age_years=40)) is None
    assert score_of_age(table.drop(columns="predicted_age_years")) is None
    found = score_of_age(table.drop(columns="adult_probability"))
    assert found["probability"] is None


def test_text_and_table(table):
    found = score_of_age(table)
    lines = of_age_lines(found)
    assert max(map(len, lines)) <= 88
    assert lines[0].split()[:4] == ["must", "look", "minors", "14-17"]
    assert lines[1].startswith("at least 18") and "0.333" in lines[1]
    assert "2 (1) few" in lines[5]
    frame = of_age_table(found)
    assert frame["threshold"].tolist() == found["thresholds"]
    assert frame["minors_14_17"].tolist()[7] == 0.5
    assert frame["minors_14_17_low"].isna().all()


def test_the_plot(table, tmp_path):
    path = kag.plots.plot_of_age(score_of_age(table), tmp_path / "of_age.png")
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_p_of_at_least_18_by_hand():
    years = kag.get_encoding("years")
    outputs = np.zeros((2, 101), "float32")
    outputs[0, [17, 18, 60]] = 0.25, 0.5, 0.25
    outputs[1, 17] = 1.0
    found = at_least_probability(years, {"age": outputs})
    assert found.tolist() == [0.75, 0.0]
    assert at_least_probability(years, {"age": outputs[0]}, 61) == 0.0
    # Adience's 15-20 has ages on both sides; 0-17, 18-64, 65+ have not.
    groups = np.array([[0.2, 0.5, 0.3]])
    adience = kag.get_encoding("categorical")
    assert at_least_probability(adience, {}, 18, np.full((1, 8), 1 / 8)) is None
    own = kag.get_encoding("categorical", age_groups="0-17,18-64,65+")
    assert at_least_probability(own, {}, 18, groups).tolist() == pytest.approx([0.8])


def test_the_check():
    assert AgeCheck().passes(18.0) and not AgeCheck().passes(17.99)
    assert not AgeCheck(18, 25).passes(24.9) and AgeCheck(18, 25).passes(25)
    for arguments in ((18, 17), (0, 25), (18, 200)):
        with pytest.raises(ValueError, match="--at-least, --threshold"):
            AgeCheck(*arguments)
