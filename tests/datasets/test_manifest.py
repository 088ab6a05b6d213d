"""Manifests: what is valid, and that files hold all of it."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from keras_agegender.datasets.manifest import (
    BOX_COLUMNS,
    MANIFEST_COLUMNS,
    CleaningReport,
    Manifest,
    extra_columns,
    given_faces,
    make_manifest,
    read_manifest,
    summarize,
    validate_manifest,
    write_manifest,
)
from keras_agegender.labels import ADIENCE_AGE_GROUPS, get_age_groups

THREE_GROUPS = get_age_groups("0-17,18-64,65+")
HEADS = {"hat": {"kind": "binary", "classes": []}}


def meaning(manifest):
    return [getattr(manifest, name) for name in Manifest._metadata]


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
    assert meaning(again) == meaning(manifest)
    assert again["subject"][0] == "007" and again["key"][1] == "NA.jpg"
    assert again["album"][0] == "01"
    assert np.isnan(again["weight"][1])


def test_boxes_are_of_the_face_and_no_outputs(tmp_path):
    box = dict(zip(BOX_COLUMNS, (1, 2, 3, 4), strict=True))
    manifest = make_manifest([{"key": "a", "path": "x", **box}, {"key": "b"}])
    assert extra_columns(manifest) == []
    write_manifest(manifest, tmp_path / "m.csv")
    faces = given_faces(read_manifest(tmp_path / "m.csv"))
    assert faces[0, :4].tolist() == [1, 2, 3, 4]
    assert np.isnan(faces[0, 4:]).all() and np.isnan(faces[1]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age_group": 8}, r"age_group ids in \[-1, 8\)"),
        ({"gender": 2}, r"gender ids in \[-1, 2\)"),
        ({"fold": -2}, "fold ids"),
        ({"key": "b.jpg"}, "'b.jpg' is there twice"),
        ({"hat": "yes"}, "Extra column 'hat' must hold numbers"),
        ({"face_left": 3}, "Expected all of the columns .'face_left', 'face_top'"),
        (
            {"face_left": 9, "face_top": 0, "face_right": 3, "face_bottom": 9},
            "Expected face_left < face_right .* Received: .9.0, 0.0, 3.0, 9.0",
        ),
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
        validate_manifest(make_manifest(ROWS[:1])[["key"]])
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
    report.drop("c.jpg", "no image file")
    manifest = make_manifest(two_rows(), cleaning=report)
    write_manifest(manifest, tmp_path / "m.csv")
    cleaning = read_manifest(tmp_path / "m.csv").cleaning
    assert cleaning["left_out"] == {"no image file": 1}
    assert cleaning["rows_kept"] == 2 and "items" not in cleaning
    write_manifest(make_manifest(two_rows()), tmp_path / "n.csv")
    assert read_manifest(tmp_path / "n.csv").cleaning is None


def test_shared_subjects_are_read_on_request(tmp_path):
    rows = two_rows(subject="007")
    with pytest.raises(ValueError, match="1 subjects are in more than one split"):
        make_manifest(rows)
    manifest = make_manifest(rows, shared_subjects=True)
    with pytest.raises(ValueError, match="1 subjects"):
        write_manifest(manifest, tmp_path / "m.csv")
    write_manifest(manifest.assign(split="train"), tmp_path / "m.csv")
    manifest.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match="subject '007' in"):
        read_manifest(tmp_path / "m.csv")
    assert len(read_manifest(tmp_path / "m.csv", shared_subjects=True)) == 2


def test_summary_counts_every_row():
    table = summarize(make_manifest(ROWS[:1]), ADIENCE_AGE_GROUPS)
    assert table.loc[("train", "male"), "15-20"] == 1
    assert table.to_numpy().sum() == 1


@pytest.fixture
def own_groups():
    """A manifest whose group 2 is 65+, not Adience's 8-12."""
    rows = [
        {"key": f"{n}.jpg", "path": f"{n}.jpg", "age_group": n % 3, "hat": n % 2}
        for n in range(6)
    ]
    report = CleaningReport("csv", rows_read=7)
    report.drop("7.jpg", "no image file")
    return make_manifest(rows, HEADS, THREE_GROUPS, cleaning=report)


ADDED = pd.DataFrame({"key": [f"{n}.jpg" for n in range(6)], "race": range(6)})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m.merge(ADDED, on="key"), id="merge"),
        pytest.param(lambda m: m.merge(m[["key", "hat"]], on="key"), id="merge both"),
        pytest.param(lambda m: m.join(ADDED.set_index("key"), on="key"), id="join"),
        pytest.param(lambda m: pd.concat([m.iloc[:2], m.iloc[2:]]), id="concat"),
        pytest.param(lambda m: pd.concat([m, ADDED["race"]], axis=1), id="column"),
        pytest.param(
            lambda m: pd.concat([m, ADDED[["race"]]], axis=1), id="columns of a frame"
        ),
        pytest.param(
            lambda m: m.groupby("age_group", group_keys=False)[m.columns].apply(
                lambda part: part.head(1)
            ),
            id="groupby apply",
        ),
        pytest.param(lambda m: m.groupby("age_group").head(1), id="groupby head"),
        pytest.param(lambda m: m[m["hat"] == 1], id="filter"),
        pytest.param(lambda m: m.query("hat == 1"), id="query"),
        pytest.param(lambda m: m.copy(), id="copy"),
        pytest.param(lambda m: pickle.loads(pickle.dumps(m)), id="pickle"),
        pytest.param(lambda m: m.sort_values("hat"), id="sort_values"),
        pytest.param(lambda m: m.assign(race=1), id="assign"),
        pytest.param(lambda m: m.sample(3, random_state=0), id="sample"),
        pytest.param(lambda m: m.drop_duplicates("hat"), id="drop_duplicates"),
        pytest.param(lambda m: m.reset_index(drop=True), id="reset_index"),
        pytest.param(lambda m: m.with_rows(pd.DataFrame(m)), id="with_rows"),
    ],
)
def test_operations_keep_what_columns_mean(own_groups, change):
    changed = change(own_groups)
    assert isinstance(changed, Manifest)
    assert meaning(changed) == meaning(own_groups)
    assert changed.age_groups.names[2] == "65+"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m, other: pd.concat([m, other]), id="concat"),
        pytest.param(
            lambda m, other: pd.concat([m, pd.DataFrame(m)]), id="rows of a frame"
        ),
        pytest.param(
            lambda m, other: m.merge(other[["key", "fold"]], on="key", how="left"),
            id="merge",
        ),
        pytest.param(lambda m, other: pd.DataFrame(m), id="a plain frame"),
        pytest.param(
            lambda m, other: ADDED.merge(m, on="key"), id="merged into a frame"
        ),
    ],
)
def test_manifests_that_lost_their_meaning_are_errors(own_groups, change):
    changed = change(own_groups, make_manifest(ROWS[:1], HEADS))
    with pytest.raises(ValueError, match="Expected a `Manifest`.*with_rows"):
        validate_manifest(changed)
    again = own_groups.with_rows(changed.drop_duplicates("key"))
    assert meaning(again) == meaning(own_groups)


def test_manifests_that_were_cleaned_otherwise_lose_that_alone(own_groups):
    other = own_groups.copy()
    other.cleaning = {"source": "another"}
    both = pd.concat([own_groups, other])
    assert both.age_groups == THREE_GROUPS and both.extra_heads == HEADS
    assert both.cleaning is None and not both.cleaning_items


def test_a_file_without_its_age_groups_is_an_error(own_groups, tmp_path):
    write_manifest(own_groups, tmp_path / "m.csv")
    (tmp_path / "m.json").unlink()
    with pytest.raises(ValueError, match=r"no m.json beside it that says what its age"):
        read_manifest(tmp_path / "m.csv")
