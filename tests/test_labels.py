"""Labels: every age text that occurs in Adience, and years on both sides of gaps."""

from __future__ import annotations

import pytest
from sample_data import ALL_AGE_TEXTS

from keras_agegender.datasets.readers.adience import (
    MISPRINTS,
    TABLE_0,
    age_group_from_adience,
)
from keras_agegender.labels import (
    ADIENCE_AGE_GROUPS,
    AGE_GROUP_NAMES,
    AGE_GROUP_PRESETS,
    AGE_GROUPS,
    CELEBA_ATTRIBUTES,
    MISSING,
    AgeGroups,
    get_age_groups,
)


def test_there_are_31_texts():
    assert len(ALL_AGE_TEXTS) == 31 == len(AGE_GROUPS) + len(TABLE_0) + 1 + 1


@pytest.mark.parametrize(("text", "name"), ALL_AGE_TEXTS.items())
def test_every_text(text, name):
    group = age_group_from_adience(text)
    assert group == (MISSING if name is None else AGE_GROUP_NAMES.index(name))


def test_strict_differs_in_the_misprint_only():
    differing = [
        text
        for text in ALL_AGE_TEXTS
        if age_group_from_adience(text) != age_group_from_adience(text, strict=True)
    ]
    assert differing == ["(25, 23)"] == list(MISPRINTS)
    assert age_group_from_adience("(25, 23)", strict=True) == MISSING


@pytest.mark.parametrize("text", ["(1, 2)", "7", "none", "(25,32)", " 2"])
def test_unknown_texts_are_errors(text):
    with pytest.raises(ValueError, match="Unknown age label"):
        age_group_from_adience(text)


@pytest.mark.parametrize(
    ("years", "drop", "nearest"),
    [
        (0, 0, 0), (2, 0, 0), (2.99, 0, 0),
        (3, -1, 0),  # one year from 2, one from 4: the younger
        (4, 1, 1), (7, -1, 1), (8, 2, 2), (12, 2, 2), (13, -1, 2),
        (14, -1, 3), (20, 3, 3), (22, -1, 3), (23, -1, 4),
        (35, -1, 4), (36, -1, 5), (45, -1, 5), (46, -1, 6),
        (56, -1, 6), (57, -1, 7), (59, -1, 7), (60, 7, 7), (100, 7, 7), (116, 7, 7),
    ],
)  # fmt: skip
def test_years(years, drop, nearest):
    assert ADIENCE_AGE_GROUPS.from_years(years) == drop
    assert ADIENCE_AGE_GROUPS.from_years(years, unmapped_ages="nearest") == nearest


@pytest.mark.parametrize("years", [-1, 131, float("nan")])
def test_impossible_years(years):
    with pytest.raises(ValueError, match="Expected years"):
        ADIENCE_AGE_GROUPS.from_years(years)


def test_unknown_way_with_gaps():
    with pytest.raises(ValueError, match="unmapped_ages='omit'"):
        ADIENCE_AGE_GROUPS.from_years(3, unmapped_ages="omit")


def test_celeba_has_forty_attributes_in_alphabetical_order():
    assert len(set(CELEBA_ATTRIBUTES)) == 40
    lowered = [name.lower() for name in CELEBA_ATTRIBUTES]
    assert lowered == sorted(lowered)


# -- age groups as a value -------------------------------------------------------------


def test_age_groups_by_text_and_years():
    groups = get_age_groups("0-17, 18-64,65+")
    assert groups.names == ("0-17", "18-64", "65+")
    assert [groups.from_years(y) for y in (0, 17, 18, 64, 65, 119, 125)] == [
        0, 0, 1, 1, 2, 2, 2
    ]  # fmt: skip
    assert groups.centers[0] == 8.5
    assert AgeGroups.from_list(groups.to_list()) == groups


@pytest.mark.parametrize(
    ("text", "index"),
    [("20-29", 3), ("(20, 29)", 3), ("70+", 8), ("more than 70", 8), ("0-2", 0)],
)
def test_fairface_labels_are_recognized(text, index):
    assert get_age_groups("fairface").from_text(text) == index


@pytest.mark.parametrize("text", ["21-29", "60+", "child", ""])
def test_other_labels_are_not(text):
    assert get_age_groups("fairface").from_text(text) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("0-9,x", "'x' in '0-9,x'"),
        ("decade", "'decade'"),
        ([(0, 9), (9, 12)], "not overlapping"),
        ([(5, 9), (0, 4)], "ascending"),
        ([(0, 9)], "at least two"),
        ([(0, 9), (10, 300)], r"\[0, 130\]"),
        ([(0, 1, 2), (3, 4)], r"pairs.*\(0, 1, 2\)"),
        ([0, 9], "pairs.*Received: 0"),
        ([(0, 9.5), (10, 20)], "whole years.*9.5"),
    ],
)
def test_impossible_age_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        get_age_groups(groups)


def test_presets_have_no_gaps_but_adience():
    for name, groups in AGE_GROUP_PRESETS.items():
        gaps = [y for y in range(100) if groups.from_years(y) == MISSING]
        assert bool(gaps) == (name == "adience")
