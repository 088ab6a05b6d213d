"""Duplicates: numbers of pairs, counted by hand, within and across splits."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_agegender.evaluation.audit import exact_pairs, near_pairs

COLUMNS = ["content", "split", "subject", "age_group", "age_years", "gender"]


def table(*rows):
    found = pd.DataFrame(rows, columns=COLUMNS)
    found["key"] = [f"{n}.jpg" for n in range(len(found))]
    return found


def look(*turned):
    bits = np.zeros(512, bool)
    bits[list(turned)] = True
    return np.packbits(bits).tobytes()


def test_exact_pairs():
    rows = table(
        ("a", "train", "p", 4, 30, 0),
        ("a", "train", "p", 4, 30, 0),
        ("a", "test", "q", 5, 36, 0),
        ("b", "train", "", -1, -1, 1),
        ("b", "validation", "r", 4, 26, 0),
        ("c", "train", "", 4, 26, 0),
        ("", "train", "", 4, 26, 0),
        ("", "test", "", 4, 26, 0),
    )
    counts, listed = exact_pairs(rows)
    assert counts.pairs == 4  # three of a, one of b
    assert counts.across == {"test, train": 2, "train, validation": 1}
    assert (counts.num_within, counts.num_across) == (1, 3)
    assert counts.age_groups_differ == 2
    assert counts.years_differ == 2
    assert counts.many_years_differ == 2  # 6 years
    assert counts.genders_differ == 1
    assert counts.subjects_differ == 2
    assert listed.to_numpy().tolist() == [[0, 1, 0], [0, 2, 0], [3, 4, 0]]


def test_copies_of_an_image_are_counted_and_listed_once():
    rows = table(*[("a", ("train", "test")[n % 2], "", 4, 30, 0) for n in range(5000)])
    counts, listed = exact_pairs(rows)
    assert counts.pairs == 5000 * 4999 // 2
    assert counts.num_across == 2500 * 2500
    assert counts.age_groups_differ == 0
    assert len(listed) == 4999


def test_near_pairs():
    looks = {"a": look(), "b": look(1, 2), "c": look(*range(200)), "d": look()}
    rows = table(
        ("a", "train", "", 4, 30, 0),
        ("a", "train", "", 4, 30, 0),
        ("b", "test", "", 4, 35, 1),
        ("c", "test", "", 4, 30, 0),
        ("d", "test", "", 7, 80, 0),
    )
    counts, listed = near_pairs(rows, looks)
    # Both rows of a with b and with d, and b with d; never a with a.
    assert counts.pairs == 5
    assert counts.across == {"test, train": 4}
    assert counts.age_groups_differ == 3
    assert counts.years_differ == 5 and counts.many_years_differ == 3
    assert counts.genders_differ == 3
    assert listed.to_numpy().tolist() == [
        [0, 2, 2], [0, 4, 0], [1, 2, 2], [1, 4, 0], [2, 4, 2]
    ]  # fmt: skip


def test_no_duplicates():
    rows = table(("a", "train", "", 4, 30, 0), ("b", "test", "", 4, 30, 0))
    for counts, listed in (
        exact_pairs(rows),
        near_pairs(rows, {"a": look(), "b": look(*range(200))}),
        near_pairs(rows, {}),
    ):
        assert counts.pairs == counts.num_across == 0
        assert counts.across == {} and len(listed) == 0
