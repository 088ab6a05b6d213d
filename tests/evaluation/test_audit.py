"""Audits: leaks between splits are found in every form of data."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import pandas as pd
import pytest
from sample_data import (
    MiddleDetector,
    adience_row,
    make_rows,
    write_adience,
    write_picture,
)

import keras_agegender as kag
from keras_agegender.datasets.manifest import (
    BOX_COLUMNS,
    make_manifest,
    write_manifest,
)
from keras_agegender.datasets.splits import ADIENCE_COHORTS, find_cohort
from keras_agegender.evaluation.audit import read_faces, source_type
from keras_agegender.faces.images import encode_jpeg, read_image

pytest.importorskip("imagehash")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """80 drawn faces, none like another."""
    directory = tmp_path_factory.mktemp("faces")
    return kag.synthetic.write_synthetic_faces(
        directory / "faces", 80, image_size=(64, 64)
    )


@pytest.fixture(scope="module")
def manifest(faces):
    found, _ = kag.synthetic.read_synthetic(faces)
    made = make_manifest(found[found.columns[:8]].to_dict("records"))
    made.cleaning = found.cleaning
    return made


def with_copies(manifest, folder):
    """Adds an exact copy in another split and a near one in the same, other labels."""
    first, second = manifest.iloc[0], manifest.iloc[1]
    copy = folder / "copy.jpg"
    copy.write_bytes(open(first["path"], "rb").read())
    near = folder / "near.jpg"
    image = read_image(second["path"])
    near.write_bytes(encode_jpeg(cv2.resize(image, (100, 100)), 50))
    exact_row = {**first, "key": "copy.jpg", "path": str(copy), "subject": "new"}
    near_row = {**second, "key": "near.jpg", "path": str(near), "subject": "other"}
    exact_row |= {"fold": 4, "split": "fold_4", "gender": 1 - first["gender"]}
    near_row |= {"age_group": (second["age_group"] + 1) % 8}
    rows = [*manifest.to_dict("records"), exact_row, near_row]
    return make_manifest(rows)


def test_nothing_is_found_in_good_data(manifest):
    found = kag.audit(manifest, progress=False)
    assert found.leaks == []
    assert found.num_faces == 80
    assert found.exact.pairs == found.near.pairs == 0
    assert found.counts.to_numpy().sum() == 80
    assert found.num_subjects == len(set(manifest["subject"]))
    assert found.images == {
        "there": 80, "absent": 0, "unreadable": 0, "of one color": 0
    }  # fmt: skip
    assert found.cleaning["rows_kept"] == 80
    assert "No leakage found." in str(found)


def test_copies_are_found(manifest, tmp_path):
    found = kag.audit(with_copies(manifest, tmp_path), progress=False)
    assert found.exact.pairs == 1
    assert found.exact.across == {"fold_0, fold_4": 1}
    assert found.exact.genders_differ == 1 and found.exact.age_groups_differ == 0
    assert found.near.pairs == 1 and found.near.num_across == 0
    assert found.near.age_groups_differ == 1 and found.near.genders_differ == 0
    assert found.leaks == ["1 pair of exact duplicates"]
    listed = found.duplicates
    assert list(listed["kind"]) == ["exact", "near"]
    assert list(listed["key_2"]) == ["copy.jpg", "near.jpg"]
    assert listed["distance"][0] == 0 < listed["distance"][1] <= 84
    text = str(found)
    assert "LEAKAGE: in more than one split: 1 pair of exact duplicates." in text
    assert "near.jpg (fold_0, " in text
    lines = text.splitlines()
    shown = lines[lines.index("In one split, same look:") + 1]
    assert listed["key_1"][1] in shown and "near.jpg (fold_0, " in shown
    # The copy is called somebody new; without subjects there is nothing to compare.
    (line,) = [line for line in text.splitlines() if "subjects differ" in line]
    (exact,) = [line for line in text.splitlines() if line.startswith("same bytes")]
    assert line.endswith("subjects differ") and exact.split()[-1] == "1"
    assert "subjects differ" not in str(replace(found, num_subjects=0))


def test_a_near_duplicate_in_two_splits_is_leakage(manifest, tmp_path):
    made = with_copies(manifest, tmp_path)
    made = made[made["key"] != "copy.jpg"]
    made.loc[made["key"] == "near.jpg", "split"] = "fold_3"
    found = kag.audit(made, progress=False)
    assert found.leaks == ["1 pair of near duplicates"]
    assert kag.audit(made, near_duplicates=False, progress=False).leaks == []


def test_faces_of_one_image_are_no_duplicates(manifest):
    photo = manifest.iloc[0].to_dict()
    boxes = {"a": (0, 0, 30, 30), "b": (30, 20, 64, 64), "far": (90, 0, 99, 9)}
    rows = [
        {
            **photo,
            "key": key,
            "gender": n % 2,
            **dict(zip(BOX_COLUMNS, box, strict=True)),
        }
        for n, (key, box) in enumerate(boxes.items())
    ]
    found = kag.audit(make_manifest(rows), cache=None)
    assert found.exact.pairs == 0 and found.near.pairs == 0
    assert found.images == {"there": 2, "absent": 1, "unreadable": 0, "of one color": 0}
    rows.append({**rows[0], "key": "again", "split": "fold_3", "subject": ""})
    found = kag.audit(make_manifest(rows), cache=None)
    assert found.exact.pairs == 1 and found.leaks


def test_shared_subjects_are_leakage(manifest):
    made = manifest.copy()
    made.loc[made.index[:2], "subject"] = ["twin", "twin"]
    made.loc[made.index[:2], "split"] = ["fold_0", "fold_3"]
    found = kag.audit(made, near_duplicates=False, progress=False)
    assert found.shared_subjects == {"twin": ["fold_0", "fold_3"]}
    assert found.leaks == ["1 subject"]
    assert "'twin' in fold_0, fold_3" in str(found)
    # In the report's protocol both of them train.
    made.loc[made.index[1], "split"] = "fold_1"
    splits = kag.datasets.report_splits()
    assert kag.audit(made, near_duplicates=False, progress=False).leaks
    assert not kag.audit(
        made, splits=splits, near_duplicates=False, progress=False
    ).leaks


def test_unreadable_and_missing_images_are_counted(manifest, tmp_path):
    made = manifest.head(6).copy()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    made.loc[made.index[0], "path"] = str(tmp_path / "broken.jpg")
    made.loc[made.index[1], "path"] = str(tmp_path / "gone.jpg")
    found = kag.audit(made, progress=False)
    assert found.images["unreadable"] == found.images["absent"] == 1
    assert list(found.unreadable) == [made["key"].iloc[0]]
    assert made["key"].iloc[0] in str(found)


def test_a_prepared_dataset(manifest, tmp_path):
    """Its splits and status are its own, its crops are compared."""
    made = manifest.copy()
    path = made["path"].iloc[0]
    dark = tmp_path / "dark.jpg"
    dark.write_bytes(encode_jpeg(read_image(path) // 16))
    made.loc[made.index[0], "path"] = str(dark)
    kag.prepare(
        made, tmp_path / "prepared", detector=MiddleDetector(),
        crop_options=kag.faces.CropOptions(), output_size=(64, 64),
        splits=kag.datasets.report_splits(), progress=False,
    )  # fmt: skip
    found = kag.audit(tmp_path / "prepared", progress=False)
    assert found.source_type == "prepared" and found.num_faces == 80
    assert found.leaks == []
    assert found.status["train"] == {"no_face": 1, "ok": 47}
    assert found.status["test"] == {"ok": 16} == found.status["validation"] | {}
    assert found.cleaning["source"] == "synthetic"
    # Split expressions that share faces are leakage; slices work as in training.
    overlap = {"train": "fold_0", "test": "fold_0[:2]"}
    found = kag.audit(tmp_path / "prepared", splits=overlap, progress=False)
    assert found.exact.across == {"test, train": 2}
    assert len(found.shared_subjects) >= 1
    assert "Faces found in images:" in str(found)


def test_label_files_without_images(tmp_path):
    rows = {0: [adience_row(0)], 4: [adience_row(1, 4, subject=0, gender="u")]}
    write_adience(tmp_path, rows, tree=None)
    found = kag.audit(tmp_path, progress=False)
    assert found.exact is found.near is None
    assert found.cleaning["left_out"] == {"no gender": 1}
    assert found.dropped[0][1] == "no gender"
    assert list(found.nearest) == [[*ADIENCE_COHORTS][1]]  # that has fewer faces
    assert "there are no images to compare" in str(found)
    leaks = kag.audit(tmp_path, require_labels="any", progress=False).leaks
    assert leaks == ["1 subject"]


def test_the_fingerprint_is_of_faces_and_labels(manifest):
    options = {"near_duplicates": False, "progress": False}
    first = kag.audit(manifest, **options).fingerprints
    assert set(first) == {"all", *(f"fold_{k}" for k in range(5))}
    other = manifest.iloc[::-1].assign(path="elsewhere")
    assert kag.audit(other, **options).fingerprints == first
    other["gender"] = 1 - other["gender"]
    assert kag.audit(other, **options).fingerprints["all"] != first["all"]
    assert find_cohort(first["all"]) is None


def test_everything_is_in_the_json(manifest, tmp_path):
    found = kag.audit(with_copies(manifest, tmp_path), progress=False)
    values = json.loads(json.dumps(found.to_dict()))
    assert values["leaks"] == found.leaks
    assert values["exact"]["num_across"] == 1 and values["near"]["num_within"] == 1
    assert [pair["key_2"] for pair in values["duplicates"]] == ["copy.jpg", "near.jpg"]
    assert sum(
        n for row in values["counts"] for k, n in row.items()
        if k not in ("split", "gender")
    ) == 82  # fmt: skip


def test_a_second_audit_decodes_nothing(manifest, tmp_path, monkeypatch):
    first = kag.audit(manifest, cache=tmp_path / "hashes.sqlite", progress=False)

    def refuse(picture):
        raise AssertionError("decoded again")

    name = "keras_agegender.datasets.duplicates.perceptual_hash"
    monkeypatch.setattr(name, refuse)
    second = kag.audit(manifest, cache=tmp_path / "hashes.sqlite", progress=False)
    assert second.to_dict() == first.to_dict()


def manifest_of(directory, **options):
    return make_manifest(make_rows(directory, 10), **options)


def test_a_manifest_and_its_file_are_the_same(tmp_path):
    manifest = manifest_of(tmp_path)
    write_manifest(manifest, tmp_path / "manifest.csv")
    first, second = read_faces(manifest), read_faces(tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(first.rows, second.rows)
    assert first.source_type == second.source_type == "manifest"
    assert list(first.rows["age_years"][:8]) == [0, 5, 10, 15, 26, 40, 48, -1]
    images = [*second.images()]
    assert images == [*first.images()]
    assert images[3] == (tmp_path / "003.jpg").read_bytes()


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
    assert found.source_type == "csv"
    assert list(found.rows["split"]) == ["train", "test", "validation"]
    assert list(found.rows["subject"]) == ["p", "p", ""]
    assert list(found.rows["age_years"]) == [30, 30, -1]
    assert found.dropped == [("gone.jpg", "no image file")]
    assert found.cleaning["rows_kept"] == 3


def test_a_csv_file_without_splits_is_one(tmp_path):
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("image,age\na.jpg,30\n", "utf-8")
    assert list(read_faces(tmp_path / "labels.csv").rows["split"]) == ["all"]


def test_label_files_with_and_without_images(tmp_path):
    rows = {0: [adience_row(0)], 4: [adience_row(1, 4)]}
    write_adience(tmp_path / "with", rows)
    write_adience(tmp_path / "without", rows, tree=None)
    found = read_faces(tmp_path / "with")
    assert None not in [*found.images()]
    assert list(found.rows["fold"]) == [0, 4]
    assert [*read_faces(tmp_path / "without").images()] == [None, None]
    apart = read_faces(tmp_path / "without", images_dir=tmp_path / "with")
    assert [*apart.images()] == [*found.images()]


def test_splits_can_be_renamed(tmp_path):
    manifest = manifest_of(tmp_path)
    splits = {"train": "fold_0+fold_1", "test": "fold_1"}
    rows = read_faces(manifest, splits).rows
    assert rows["split"].value_counts().to_dict() == {"train": 4, "test": 2}
    assert set(rows["key"][rows["split"] == "test"]) == {"001.jpg", "006.jpg"}
    with pytest.raises(ValueError, match="Invalid split test=fold_9.*'fold_9'"):
        read_faces(manifest, {"test": "fold_9"})


def test_invalid_data_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "half.partial").mkdir()
    (tmp_path / "binary.csv").write_bytes(b"\xff\xd8\xff\xe0" * 20)
    cases = {
        "empty": "a folder that contains none of them",
        "gone": "File or folder not found",
        "half": "was not finished",
        "binary.csv": "Expected a CSV file",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            source_type(tmp_path / name)


def test_options_of_another_reader_are_an_error(tmp_path):
    manifest = manifest_of(tmp_path)
    with pytest.raises(ValueError, match="no options. Received: strict"):
        read_faces(manifest, strict=True)
    write_adience(tmp_path / "labels", {0: [adience_row(0)]}, tree=None)
    with pytest.raises(
        ValueError, match="read as Adience's label files.*Received: age_column"
    ):
        read_faces(tmp_path / "labels", age_column="age")
