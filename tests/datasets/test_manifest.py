"""Manifests: what is valid, and that files hold all of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keras_agegender.datasets.manifest import (
    MANIFEST_COLUMNS,
    CleaningReport,
    make_manifest,
    read_manifest,
    summarize,
    validate_manifest,
    write_manifest,
)

ROWS = [
    {"key": "a.jpg", "path": "x/a.jpg", "age_group": 3, "gender": 1, "hat": 1,
     "weight": 2.5, "subject": "007"},
    {"key": "NA.jpg", "path": "x/NA.jpg", "split": "test", "hat": 0,
     "weight": float("nan")},
]  # fmt: skip


def test_columns_left_out_get_their_empty_value():
    manifest = make_manifest([{"key": "a", "path": "b"}])
    assert list(manifest.columns) == list(MANIFEST_COLUMNS)
    row = manifest.iloc[0]
    assert (row["age_group"], row["gender"], row["fold"]) == (-1, -1, -1)
    assert (row["split"], row["subject"], row["source"]) == ("train", "", "")


def test_round_trip_through_a_file(tmp_path):
    rows = [
        {"split": "train", "subject": "", "age_group": -1, "gender": -1, "album": "01"}
        | row
        for row in ROWS
    ]
    manifest = make_manifest(rows, {"hat": {"kind": "binary", "classes": []}})
    write_manifest(manifest, tmp_path / "m.csv")
    again = read_manifest(tmp_path / "m.csv")
    pd.testing.assert_frame_equal(again, manifest)
    assert again.attrs == manifest.attrs
    assert again["subject"][0] == "007" and again["key"][1] == "NA.jpg"
    assert again["album"][0] == "01"
    assert np.isnan(again["weight"][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age_group": 8}, r"age_group ids in \[-1, 8\)"),
        ({"gender": 2}, r"gender ids in \[-1, 2\)"),
        ({"fold": -2}, "fold ids"),
        ({"key": "b.jpg"}, "'b.jpg' is there twice"),
        ({"hat": "yes"}, "Extra column 'hat' must hold numbers"),
    ],
)
def test_invalid_rows(changes, message):
    rows = [{"key": "b.jpg", "path": "b.jpg"}, {"key": "a.jpg", "path": "a", **changes}]
    for row in rows:
        row.setdefault("hat", 0)
        row.setdefault("fold", 0)
        row.setdefault("gender", 0)
        row.setdefault("age_group", 0)
    with pytest.raises(ValueError, match=message):
        make_manifest(rows)


def test_missing_columns_and_rows():
    with pytest.raises(ValueError, match="no column"):
        validate_manifest(pd.DataFrame({"key": ["a"]}))
    with pytest.raises(ValueError, match="no rows"):
        validate_manifest(make_manifest(ROWS[:1]).iloc[:0])
    with pytest.raises(ValueError, match="no manifest file"):
        read_manifest("nowhere.csv")


def two_rows(**values):
    return [
        {"key": "a.jpg", "path": "a.jpg", "split": "train", **values},
        {"key": "b.jpg", "path": "b.jpg", "split": "test", **values},
    ]


def test_a_file_keeps_what_cleaning_did(tmp_path):
    report = CleaningReport("csv", rows_read=3)
    report.leave_out("c.jpg", "no picture file")
    manifest = make_manifest(two_rows(), cleaning=report)
    write_manifest(manifest, tmp_path / "m.csv")
    cleaning = read_manifest(tmp_path / "m.csv").attrs["cleaning"]
    assert cleaning["left_out"] == {"no picture file": 1}
    assert cleaning["rows_kept"] == 2 and "items" not in cleaning
    write_manifest(make_manifest(two_rows()), tmp_path / "n.csv")
    assert "cleaning" not in read_manifest(tmp_path / "n.csv").attrs


def test_shared_subjects_are_read_on_request(tmp_path):
    rows = two_rows(subject="007")
    with pytest.raises(ValueError, match="1 subjects are in more than one split"):
        make_manifest(rows)
    manifest = make_manifest(rows, shared_subjects=True)
    manifest.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match="subject '007' in"):
        read_manifest(tmp_path / "m.csv")
    assert len(read_manifest(tmp_path / "m.csv", shared_subjects=True)) == 2


def test_summary_counts_every_row():
    table = summarize(make_manifest(ROWS[:1]))
    assert table.loc[("train", "male"), "15-20"] == 1
    assert table.to_numpy().sum() == 1
