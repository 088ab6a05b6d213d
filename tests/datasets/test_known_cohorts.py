"""Cohorts: the same faces with the same labels have one name, whatever their order."""

from __future__ import annotations

import hashlib

import pytest
from sample_data import adience_row, write_adience

from keras_agegender.datasets import splits as known_cohorts
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.readers.adience import read_adience
from keras_agegender.datasets.splits import (
    ADIENCE_COHORTS,
    find_cohort,
    fingerprint,
    make_known_cohorts,
    nearest_cohort,
)
from keras_agegender.labels import ADIENCE_AGE_GROUPS, get_age_groups

ROWS = [
    {"key": "b.jpg", "path": "", "age_group": 4, "gender": 1, "fold": 0},
    {"key": "a.jpg", "path": "", "age_group": -1, "gender": 0, "fold": 3},
]


def value_of(rows, groups=ADIENCE_AGE_GROUPS):
    return fingerprint(make_manifest(rows), groups)


def test_a_fingerprint_is_a_hash_of_sorted_lines():
    text = "a.jpg\t\tfemale\nb.jpg\t25-32\tmale\n"
    expected = hashlib.sha256(text.encode()).hexdigest()[:32]
    assert value_of(ROWS) == expected
    assert value_of(ROWS[::-1]) == expected
    assert value_of([{**row, "split": "test", "path": "x"} for row in ROWS]) == expected


def test_absolute_keys_do_not_say_where_they_lie():
    def below(folder):
        return value_of([{**row, "key": f"{folder}/{row['key']}"} for row in ROWS])

    assert below("/data/faces") == below("/mnt/bbb") == value_of(ROWS)
    assert below("faces") != value_of(ROWS)


@pytest.mark.parametrize("change", [{"key": "c.jpg"}, {"age_group": 3}, {"gender": 0}])
def test_another_label_is_another_cohort(change):
    assert value_of([{**ROWS[0], **change}, ROWS[1]]) != value_of(ROWS)
    assert value_of(ROWS, get_age_groups("fairface")) != value_of(ROWS)


def test_the_numbers_of_the_known_cohorts_are_the_published_ones():
    faces = known_cohorts._known()["faces"]
    both, strict, one, _ = [
        [counts[f"fold_{k}"] for k in range(5)] + [counts["all"]]
        for counts in (faces[name] for name in ADIENCE_COHORTS)
    ]
    assert both == [4007, 3612, 3178, 3303, 3463, 17563]
    assert strict == [3935, 3612, 3178, 3303, 3463, 17491]
    # Usable gender and usable age less both: 17603 + 18734 - 17563.
    assert one[-1] == 18774


def test_known_cohorts_are_found(tmp_path, monkeypatch):
    """By a file made of other labels, as the published ones are not here."""
    rows = {
        0: [adience_row(0, 0), adience_row(1, 0, age="(25, 23)")],
        3: [adience_row(2, 3), adience_row(3, 3, gender="u")],
        **{fold: [adience_row(4 + fold, fold)] for fold in (1, 2, 4)},
    }
    directory = write_adience(tmp_path, rows, tree=None)
    made = make_known_cohorts(directory)
    monkeypatch.setattr(known_cohorts, "_known", lambda: made)
    names = [*ADIENCE_COHORTS]
    for number, options in enumerate(ADIENCE_COHORTS.values()):
        for tree in ("faces", "aligned"):
            manifest, _ = read_adience(directory, tree=tree, **options)
            value = fingerprint(manifest, ADIENCE_AGE_GROUPS)
            assert find_cohort(value) == (names[number], "all")
    manifest, _ = read_adience(directory)
    fold = manifest[manifest["split"] == "fold_3"]
    assert find_cohort(fingerprint(fold, ADIENCE_AGE_GROUPS)) == (names[0], "fold_3")
    assert find_cohort(value_of(ROWS)) is None


def test_the_nearest_cohort_says_what_is_missing(monkeypatch):
    counts = {f"fold_{k}": n for k, n in enumerate((3, 0, 0, 5, 0))}
    other = {f"fold_{k}": 9 for k in range(5)}
    known = {"faces": {"far": other, "near": counts}}
    monkeypatch.setattr(known_cohorts, "_known", lambda: known)
    rows = make_manifest(ROWS)
    name, more = nearest_cohort(rows)
    assert name == "near"
    assert more == {"fold_0": -2, "fold_1": 0, "fold_2": 0, "fold_3": -4, "fold_4": 0}
    rows["fold"] = -1
    assert nearest_cohort(rows) is None
