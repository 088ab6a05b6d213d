"""Rows that show one picture: in one split where drawn, out of training where not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import keras_agegender as kag
from keras_agegender.datasets.duplicates import (
    DROPPED,
    SameImages,
    connected,
    drop_duplicates,
    find_same_images,
)
from keras_agegender.datasets.manifest import CleaningReport, make_manifest
from keras_agegender.datasets.readers.csv import read_csv
from keras_agegender.datasets.readers.file_names import read_utkface
from keras_agegender.datasets.readers.labeled_faces import OTHER_LABELS
from keras_agegender.datasets.splits import KEPT_TOGETHER
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.synthetic.drawing import draw_face

NAME = "keras_agegender.datasets.duplicates"


def write_faces(folder, names):
    """Writes faces: name -> (which face, JPEG quality)."""
    for name, (seed, quality) in names.items():
        rng = np.random.default_rng([9, seed])
        image = draw_face(rng, seed % 8, seed % 2, image_size=(48, 48)).image
        (folder / name).write_bytes(encode_jpeg(image, quality))


@pytest.fixture
def folder(tmp_path):
    """30 faces; of 0 to 4 there is a copy saved again, of 5 one of the same bytes."""
    faces = {f"27_0_0_{n}.jpg": (n, 95) for n in range(30)}
    copies = {f"60_1_0_{100 + n}.jpg": (n, 40) for n in range(5)}
    write_faces(tmp_path, faces | copies | {"60_1_0_105.jpg": (5, 95)})
    return tmp_path


def crossing(manifest):
    """Face -> whether its copy is in another split, of the faces that have one."""
    split = manifest.set_index("key")["split"]
    return [
        split[f"27_0_0_{n}.jpg"] != split[f"60_1_0_{100 + n}.jpg"] for n in range(6)
    ]


def test_near_duplicates_stay_in_one_split(folder):
    pytest.importorskip("imagehash")
    shares = {"validation": 0.3, "test": 0.3, "seed": 3}
    exact, report = read_utkface(folder, **shares)
    assert any(crossing(exact)[:5]) and not crossing(exact)[5]
    assert report.totals == {OTHER_LABELS: 1, KEPT_TOGETHER["exact"]: 1}
    near, report = read_utkface(folder, duplicates="near", **shares)
    assert not any(crossing(near))
    assert report.totals == {OTHER_LABELS: 1, KEPT_TOGETHER["near"]: 6}
    assert ("27_0_0_5.jpg, 60_1_0_105.jpg", KEPT_TOGETHER["near"]) in report.items
    assert near.cleaning == report.counts()
    assert near.cleaning_items == report.items_text()
    # 30 groups: 9 of them each, whatever pictures they have.
    firsts = near[near["key"].str.startswith("27_")]["split"]
    assert firsts.value_counts()[["validation", "test"]].tolist() == [9, 9]


@pytest.mark.parametrize("reader", [read_utkface, read_csv])
def test_what_duplicates_may_be(folder, monkeypatch, reader):
    with pytest.raises(ValueError, match="Expected 'exact', 'near'.*'all'"):
        reader(folder, duplicates="all")
    monkeypatch.setattr(f"{NAME}.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'keras-agegender\[audit\]'"):
        reader(folder, duplicates="near")


def write_csv(folder, *rows):
    file = folder / "labels.csv"
    file.write_text("\n".join(["image,age,split", *rows]) + "\n", "utf-8")
    return file


def test_training_loses_what_other_splits_have(folder):
    pytest.importorskip("imagehash")
    file = write_csv(
        folder,
        "27_0_0_0.jpg,27,train",  # looks like 100 in test
        "27_0_0_1.jpg,27,train",  # looks like 101, which trains too
        "60_1_0_101.jpg,60,train",
        "60_1_0_100.jpg,60,test",
        "60_1_0_105.jpg,60,train",  # has the bytes of 5 in validation
        "27_0_0_5.jpg,27,validation",
        "27_0_0_2.jpg,27,validation",  # looks like 102 in test: both are scored on
        "60_1_0_102.jpg,60,test",
    )
    as_declared, _ = read_csv(file)
    assert len(as_declared) == 8
    exact, _ = read_csv(file, duplicates="exact")
    assert set(as_declared["key"]) - set(exact["key"]) == {"60_1_0_105.jpg"}
    near, report = read_csv(file, duplicates="near")
    gone = set(as_declared["key"]) - set(near["key"])
    assert gone == {"60_1_0_105.jpg", "27_0_0_0.jpg"}
    assert report.dropped == {DROPPED["exact"]: 1, DROPPED["near"]: 1}
    assert report.rows_kept == len(near) == 6
    assert set(report.items) >= {
        ("60_1_0_105.jpg (27_0_0_5.jpg, validation)", DROPPED["exact"]),
        ("27_0_0_0.jpg (60_1_0_100.jpg, test)", DROPPED["near"]),
    }
    assert near.cleaning_items == report.items_text()
    across = kag.audit(near, progress=False).near.across
    assert across == {"test, validation": 1}


def test_several_splits_may_lose_pictures(folder):
    pytest.importorskip("imagehash")
    rows = [("27_0_0_0.jpg", "validation"), ("27_0_0_1.jpg", "train"),
            ("27_0_0_9.jpg", "train"), ("60_1_0_101.jpg", "validation"),
            ("60_1_0_100.jpg", "test")]  # fmt: skip
    manifest = make_manifest(
        {"key": key, "path": str(folder / key), "split": split} for key, split in rows
    )
    report = CleaningReport("mine", rows_read=5)
    kept = drop_duplicates(manifest, report, splits=("train", "validation"))
    assert list(kept["key"]) == [key for key, _ in rows[1:]]
    with pytest.raises(ValueError, match="No image of train is left"):
        drop_duplicates(manifest.iloc[[1, 3]], report)


def test_nothing_to_leave_out_is_said(folder):
    manifest, report = read_utkface(folder, validation=0.3, test=0.3)
    kept = drop_duplicates(manifest, report, "exact")
    assert list(kept["key"]) == list(manifest["key"])
    assert "exact duplicates of other splits in training" in str(report)


def test_hashes_are_kept(folder, monkeypatch):
    pytest.importorskip("imagehash")
    options = {"duplicates": "near", "cache": folder / "hashes.sqlite"}
    first, _ = read_utkface(folder, **options)
    monkeypatch.delattr(f"{NAME}.perceptual_hash")  # nothing is decoded again
    second, _ = read_utkface(folder, **options)
    assert list(second["split"]) == list(first["split"])


def test_pictures_that_are_no_pictures_are_counted(folder):
    pytest.importorskip("imagehash")
    (folder / "27_0_0_999.jpg").write_bytes(b"no picture")
    _, report = read_utkface(folder, duplicates="near")
    assert "cannot be decoded, compared by their bytes only  " in str(report)


def test_a_picture_like_two_others_joins_them():
    """a and b look the same, b and c do; d is alone; two rows have c."""
    near = pd.DataFrame({"a": ["a", "c"], "b": ["b", "b"]})
    same = SameImages(["c", "d", "a", "b", "c"], near)
    groups = same.groups()
    assert len(set(groups[[0, 2, 3, 4]])) == 1 and groups[1] != groups[0]


def test_one_path_is_one_picture_there_or_not(tmp_path):
    groups = find_same_images(["absent", "other", "absent"]).groups()
    assert groups[0] == groups[2] != groups[1]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=14))
@settings(max_examples=40, deadline=None)
def test_connected_is_the_smallest_equivalence(edges):
    """Against merging sets one edge at a time."""
    sets = [{n} for n in range(12)]
    for a, b in edges:
        one, two = (next(s for s in sets if n in s) for n in (a, b))
        if one is not two:
            sets.remove(two)
            one |= two
    starts, ends = np.array(edges, int).reshape(-1, 2).T
    found = connected(12, [(starts, ends)])
    assert {frozenset(np.flatnonzero(found == n)) for n in found} == set(
        map(frozenset, sets)
    )
