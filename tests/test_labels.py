"""Labels: every age text that occurs in Adience, and years on both sides of gaps."""

from __future__ import annotations

import pytest
from sample_data import ALL_AGE_TEXTS

from keras_agegender.labels import (
    AGE_GROUP_NAMES,
    AGE_GROUPS,
    CELEBA_ATTRIBUTES,
    MISPRINTS,
    MISSING,
    TABLE_0,
    age_group_from_adience,
    age_group_from_years,
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
    ("years", "omit", "nearest"),
    [
        (0, 0, 0), (2, 0, 0), (2.99, 0, 0),
        (3, -1, 0),  # one year from 2, one from 4: the younger
        (4, 1, 1), (7, -1, 1), (8, 2, 2), (12, 2, 2), (13, -1, 2),
        (14, -1, 3), (20, 3, 3), (22, -1, 3), (23, -1, 4),
        (35, -1, 4), (36, -1, 5), (45, -1, 5), (46, -1, 6),
        (56, -1, 6), (57, -1, 7), (59, -1, 7), (60, 7, 7), (100, 7, 7), (116, 7, 7),
    ],
)  # fmt: skip
def test_years(years, omit, nearest):
    assert age_group_from_years(years) == omit
    assert age_group_from_years(years, gaps="nearest") == nearest


@pytest.mark.parametrize("years", [-1, 131, float("nan")])
def test_impossible_years(years):
    with pytest.raises(ValueError, match="Expected years"):
        age_group_from_years(years)


def test_unknown_way_with_gaps():
    with pytest.raises(ValueError, match="gaps='drop'"):
        age_group_from_years(3, gaps="drop")


def test_celeba_has_forty_attributes_in_alphabetical_order():
    assert len(set(CELEBA_ATTRIBUTES)) == 40
    lowered = [name.lower() for name in CELEBA_ATTRIBUTES]
    assert lowered == sorted(lowered)
