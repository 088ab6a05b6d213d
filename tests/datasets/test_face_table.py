"""Face tables: any data is read as it is; what it cannot be is said."""

from __future__ import annotations

import pandas as pd
import pytest
from sample_data import adience_row, make_rows, write_adience, write_picture

from keras_agegender.datasets.face_index import kind_of, read_faces
from keras_agegender.datasets.manifest import make_manifest, write_manifest


def manifest_of(directory, **options):
    return make_manifest(make_rows(directory, 10), **options)


def test_a_manifest_and_its_file_are_the_same(tmp_path):
    manifest = manifest_of(tmp_path)
    write_manifest(manifest, tmp_path / "manifest.csv")
    first, second = read_faces(manifest), read_faces(tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(first.rows, second.rows)
    assert first.kind == second.kind == "manifest"
    assert list(first.rows["age_years"][:8]) == [0, 5, 10, 15, 26, 40, 48, -1]
    pictures = [*second.pictures()]
    assert pictures == [*first.pictures()]
    assert pictures[3] == (tmp_path / "003.jpg").read_bytes()


def test_a_subject_in_two_splits_is_read(tmp_path):
    manifest = manifest_of(tmp_path)
    write_manifest(manifest, tmp_path / "manifest.csv")
    text = (tmp_path / "manifest.csv").read_text("utf-8").replace(",s1,", ",s0,")
    (tmp_path / "manifest.csv").write_text(text, "utf-8")
    rows = read_faces(tmp_path / "manifest.csv").rows
    assert list(rows["split"][rows["subject"] == "s0"]) == ["fold_0", "fold_1"]


def test_a_csv_file_keeps_its_splits_and_subjects(tmp_path):
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.jpg")
    file = tmp_path / "labels.csv"
    file.write_text(
        "image,age,sex,person,split\na.jpg,30,f,p,train\nb.jpg,30,f,p,test\n"
        "c.jpg,,m,,val\ngone.jpg,9,m,,val\n",
        "utf-8",
    )
    found = read_faces(file)
    assert found.kind == "csv"
    assert list(found.rows["split"]) == ["train", "test", "validation"]
    assert list(found.rows["subject"]) == ["p", "p", ""]
    assert list(found.rows["age_years"]) == [30, 30, -1]
    assert found.left_out == [("gone.jpg", "no picture file")]
    assert found.cleaning["rows_kept"] == 3


def test_a_csv_file_without_splits_is_one(tmp_path):
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("image,age\na.jpg,30\n", "utf-8")
    assert list(read_faces(tmp_path / "labels.csv").rows["split"]) == ["all"]


def test_label_files_with_and_without_pictures(tmp_path):
    rows = {0: [adience_row(0)], 4: [adience_row(1, 4)]}
    write_adience(tmp_path / "with", rows)
    write_adience(tmp_path / "without", rows, tree=None)
    found = read_faces(tmp_path / "with")
    assert None not in [*found.pictures()]
    assert list(found.rows["fold"]) == [0, 4]
    assert [*read_faces(tmp_path / "without").pictures()] == [None, None]
    apart = read_faces(tmp_path / "without", images_dir=tmp_path / "with")
    assert [*apart.pictures()] == [*found.pictures()]


def test_splits_are_named_again(tmp_path):
    manifest = manifest_of(tmp_path)
    splits = {"train": "fold_0+fold_1", "test": "fold_1"}
    rows = read_faces(manifest, splits).rows
    assert rows["split"].value_counts().to_dict() == {"train": 4, "test": 2}
    assert set(rows["key"][rows["split"] == "test"]) == {"001.jpg", "006.jpg"}
    with pytest.raises(ValueError, match="Invalid split test=fold_9.*'fold_9'"):
        read_faces(manifest, {"test": "fold_9"})


def test_what_is_not_data_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "half.partial").mkdir()
    (tmp_path / "binary.csv").write_bytes(b"\xff\xd8\xff\xe0" * 20)
    cases = {
        "empty": "a folder with neither",
        "gone": "no file or folder",
        "half": "was not finished",
        "binary.csv": "Expected a CSV file",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            kind_of(tmp_path / name)


def test_options_belong_to_a_reader(tmp_path):
    manifest = manifest_of(tmp_path)
    with pytest.raises(ValueError, match="Invalid option 'strict'. A manifest"):
        read_faces(manifest, strict=True)
    write_adience(tmp_path / "labels", {0: [adience_row(0)]}, tree=None)
    with pytest.raises(ValueError, match="Invalid option 'age_column' of Adience"):
        read_faces(tmp_path / "labels", age_column="age")
