"""Scores of groups of people, worked out by hand, and their printed table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.groups import (
    extra_tasks,
    group_lines,
    score_groups,
    shown_tasks,
)
from keras_agegender.metrics.intervals import Clusters, proportion_interval


def make_table():
    """120 faces of 40 people, three each; 9/10 of men and 5/10 of women are correct."""
    index = np.arange(120)
    gender = np.where(index % 2, "male", "female")
    correct = np.where(gender == "male", index // 2 % 10 < 9, index // 2 % 10 < 5)
    other = np.where(gender == "male", "female", "male")
    return pd.DataFrame(
        {
            "subject": [f"s{k // 2 % 20}{k % 2}" for k in index],
            "age_group": np.where(index < 110, "4-6", ""),
            "gender": gender,
            "predicted_gender": np.where(correct, gender, other),
            "race": np.where(index < 60, "a", np.where(index < 118, "b", "")),
            "weight": index / 7,
            "glasses": np.where(index < 60, 1, -1),
        }
    )


def test_accuracies_and_gap_of_groups():
    table = make_table()
    found = score_groups(table, ["gender", "race,gender"])
    assert list(found) == ["age_group,gender", "gender", "race,gender"]
    genders = found["gender"]
    assert [g["gender"] for g in genders["groups"]] == ["female", "male"]
    female = genders["groups"][0]
    assert (female["num_faces"], female["num_subjects"]) == (60, 20)
    assert female["gender_accuracy"] == 0.5 and not female["few"]
    assert female["largest_share"] == pytest.approx(3 / 60)
    women = table[table["gender"] == "female"]
    expected = proportion_interval(
        women["predicted_gender"] == "female", Clusters.of(women["subject"])
    )
    assert female["gender_interval"] == expected.interval
    gap = genders["gaps"]["gender"]
    assert (gap["worst"], gap["best"]) == ("female", "male")
    assert gap["value"] == pytest.approx(0.4)
    assert 0 < gap["interval"][0] < 0.4 < gap["interval"][1]


def test_faces_without_the_column_are_ignored():
    found = score_groups(make_table(), ["race", "glasses"])
    cells = found["age_group,gender"]
    assert (cells["num_faces"], cells["num_unlabelled"]) == (110, 10)
    assert (found["race"]["num_faces"], found["race"]["num_unlabelled"]) == (118, 2)
    assert [g["glasses"] for g in found["glasses"]["groups"]] == [1]
    assert found["glasses"]["gaps"] == {}


def test_small_groups_are_marked_and_come_last():
    """Groups of 29 faces or 9 people."""
    table = make_table()
    table["race"] = np.where(np.arange(120) < 29, "rare", "often")
    table.loc[table["race"] == "rare", "predicted_gender"] = ""
    groups = score_groups(table, "race")["race"]["groups"]
    assert [(g["race"], g["few"]) for g in groups] == [("often", False), ("rare", True)]
    table["subject"] = [f"s{k % 9}" for k in range(120)]
    assert all(g["few"] for g in score_groups(table, "race")["race"]["groups"])


def test_the_gap_ignores_small_groups_and_faces_without_a_label():
    """5/10 of 60 a and 9/10 of 60 b are correct; 10 c are few and all wrong.

    Every third face of a and b has no label in `race`.
    """
    letters = np.repeat(["a", "b", "c"], [60, 60, 10])
    correct = np.concatenate(
        [np.arange(120) % 10 < np.repeat([5, 9], 60), [False] * 10]
    )
    truth = np.where(np.arange(130) % 3 == 0, "", "x")
    table = pd.DataFrame(
        {
            "letter": letters,
            "race": truth,
            "predicted_race": np.where(correct, "x", "y"),
        }
    )
    pairs = {"race": ("race", "predicted_race")}
    gap = score_groups(table, "letter", pairs)["letter"]["gaps"]["race"]
    assert (gap["worst"], gap["best"]) == ("a", "b")
    known = truth != ""
    shares = [correct[known & (letters == letter)].mean() for letter in "ab"]
    assert shares == [0.5, 0.9]  # 20 and 36 of 40 with a label
    assert gap["value"] == pytest.approx(0.4)
    few = table[table["letter"] != "a"]
    assert score_groups(few, "letter", pairs)["letter"]["gaps"] == {}


def test_the_gap_of_groups_that_are_all_correct_or_wrong():
    """All samples are equal: the interval is from those of both shares."""
    table = make_table()
    table["predicted_gender"] = "male"
    found = score_groups(table, "gender")["gender"]
    female, male = (group["gender_interval"] for group in found["groups"])
    gap = found["gaps"]["gender"]
    assert gap["value"] == 1.0
    assert gap["interval"] == (pytest.approx(male[0] - female[1]), 1.0)
    assert 0 < gap["interval"][0] < 1


def test_invalid_columns():
    with pytest.raises(ValueError, match=r"'race'.*Received: 'colour'"):
        score_groups(make_table(), "colour")
    with pytest.raises(ValueError, match="at most 100 groups. Received: 120"):
        score_groups(make_table(), "weight")


def test_the_printed_table():
    lines = group_lines(score_groups(make_table(), "gender"))[1]
    assert lines[0].split() == ["gender", "faces", "people", "gender"]
    assert lines[1].startswith("female") and "0.500 [" in lines[1]
    assert lines[3].startswith("gender: female is 0.400 [")
    assert lines[3].endswith("behind male")
    assert "under 30 faces or 10 people" in lines[4]


def with_size():
    """Sizes 0 and 1, every fourth unknown; 8/10 of women, 6/10 of men are correct."""
    table = make_table()
    tens = np.arange(120) // 2 % 10
    table["size_id"] = np.where(np.arange(120) % 8 < 6, 1, -1)
    correct = np.where(table["gender"] == "male", tens < 6, tens < 8)
    table["predicted_size_id"] = np.where(correct, 1, 0)
    table["size"] = table["size_id"].map({1: "large", -1: ""})
    table["predicted_size"] = table["predicted_size_id"].map({1: "large", 0: "small"})
    return table


def test_extra_heads_are_scored_in_every_group():
    table = with_size()
    heads = (Head("size", "categorical", 2, classes=("small", "large")),
             Head("weight", "regression"), Head("hat", "binary"))  # fmt: skip
    encoding = get_encoding("gender", heads=heads)
    pairs = extra_tasks(table, encoding)
    assert pairs == {
        "size": ("size_id", "predicted_size_id")
    }  # neither a number nor without a column
    found = score_groups(table, "gender", pairs)["gender"]
    known = table["size_id"] == 1
    for group in found["groups"]:
        own = table[known & (table["gender"] == group["gender"])]
        expected = (own["predicted_size"] == "large").mean()
        assert group["size_accuracy"] == pytest.approx(expected)
        assert group["size_interval"][0] < expected < group["size_interval"][1]
    assert found["questions"] == ["gender", "size"]
    # Women are worst in gender and best in size: gender determines the order.
    assert [g["gender"] for g in found["groups"]] == ["female", "male"]
    assert found["gaps"]["size"]["worst"] == "male"
    without = table.drop(columns="predicted_gender")
    ranked = score_groups(without, "gender", pairs)["gender"]["groups"]
    assert [g["gender"] for g in ranked] == ["male", "female"]


def test_at_most_two_extra_heads_are_printed():
    table, pair = with_size(), ("size_id", "predicted_size_id")
    lines = group_lines(score_groups(table, "gender", {"size": pair}))[1]
    assert lines[0].split() == ["gender", "faces", "people", "gender", "size"]
    assert lines[1].split()[-1] == f"{size_accuracy_of('female'):.3f}"
    assert any(line.startswith("size: male is ") for line in lines)
    table["subject"] = ""
    few = score_groups(table.iloc[:20], "gender", {"size": pair})
    assert all(line.endswith(" few") for line in group_lines(few)[1][1:3])
    many = {name: pair for name in ("size", "b", "c")}
    lines = group_lines(score_groups(table, "gender", many))[1]
    assert lines[0].split() == ["gender", "faces", "people", "gender"]
    assert "size" not in score_groups(table, "gender", many)["gender"]["gaps"]
    assert not any(line.startswith(("size:", "b:")) for line in lines)
    assert shown_tasks(["gender", "b", "c"]) == ["gender", "b", "c"]


def size_accuracy_of(gender):
    table = with_size()
    own = table[(table["size_id"] == 1) & (table["gender"] == gender)]
    return (own["predicted_size_id"] == 1).mean()
