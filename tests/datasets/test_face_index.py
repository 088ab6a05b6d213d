"""Face indexes: slices as TensorFlow Datasets cuts them, and what two splits share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sample_data import make_prepared, make_rows

from keras_agegender.datasets.face_index import (
    FaceIndex,
    check_overlap,
    index_faces,
    seen_before,
)
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.pipeline import read_labels
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return load_prepared(make_prepared(tmp_path_factory.mktemp("data")))


def index_of(*rows):
    columns = ("split", "key", "subject", "source", "picture")
    return FaceIndex(pd.DataFrame(rows, columns=columns, dtype="object"))


@pytest.mark.parametrize(
    "split",
    [
        "fold_3",
        "fold_0+fold_2",
        "fold_1[:3]",
        "fold_1[3:]+fold_4[25%:75%]",
        "fold_2[-2:]",
    ],
)
def test_expressions_are_those_of_tensorflow_datasets(prepared, split):
    keys = index_faces(prepared).faces(split)["key"]
    assert list(keys) == list(read_labels(prepared, split)["key"])


def test_an_index_says_whose_pictures_there_are_and_keeps_it(prepared, tmp_path):
    index = index_faces(prepared, tmp_path / "faces.csv.gz")
    assert len(index.table) == 40 and index.sources == ["test"]
    assert index.table["picture"].nunique() == index.table["subject"].nunique() == 40
    pd.testing.assert_frame_equal(
        index_faces(None, tmp_path / "faces.csv.gz").table, index.table
    )


def test_folds_share_nothing(prepared):
    check_overlap(index_faces(prepared), prepared.splits)


@pytest.mark.parametrize(
    ("test", "what"), [("fold_0", "8 faces"), ("fold_3+fold_2[:3]", "3 faces")]
)
def test_the_same_faces_in_two_splits(prepared, test, what):
    splits = {"train": "fold_0+fold_1+fold_2", "test": test}
    with pytest.raises(ValueError, match=rf"{what} are in 'train' .*Examples: '0"):
        check_overlap(index_faces(prepared), splits)
    check_overlap(index_faces(prepared), splits, allowed=("test", "train"))


def test_the_same_subject_or_picture_in_two_splits():
    index = index_of(
        ("a", "1", "s", "x", "p"), ("b", "2", "s", "x", "q"), ("c", "3", "", "x", "p"),
        ("d", "4", "", "x", "r"),
    )  # fmt: skip
    for other, what in (("b", "subjects"), ("c", "images")):
        with pytest.raises(ValueError, match=f"1 {what} .* '1' and '[23]'"):
            check_overlap(index, {"train": "a", "test": other})
    check_overlap(index, {"train": "a", "test": "d"})
    check_overlap(index, {"train": "c", "test": "d"})  # '' is nobody


def test_two_copies_of_a_picture_are_one_picture(tmp_path):
    """Under other names, prepared and read back."""
    rows = make_rows(tmp_path / "pictures", 10)
    rows[5]["path"] = rows[4]["path"]
    for row in rows:
        row["split"] = "train" if row["fold"] else "test"
    prepare(make_manifest(rows), tmp_path / "out", progress=False)
    index = index_faces(load_prepared(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"1 images .* '004.jpg' and '005.jpg'"):
        check_overlap(index, {"train": "train", "test": "test"})


def test_faces_seen_before():
    """By picture everywhere; by key and subject within one dataset."""
    faces = index_of(
        ("a", "1", "s", "x", "p"), ("a", "2", "t", "x", "q"), ("a", "3", "", "x", "r"),
        ("a", "4", "", "x", "u"),
    ).table  # fmt: skip
    trained = index_of(
        ("b", "1", "", "y", "v"), ("b", "9", "t", "y", "w"), ("b", "8", "", "y", "r")
    ).table
    same = seen_before(faces, trained, same_dataset=True)
    other = seen_before(faces, trained, same_dataset=False)
    np.testing.assert_array_equal(same, [True, True, True, False])
    np.testing.assert_array_equal(other, [False, False, True, False])
