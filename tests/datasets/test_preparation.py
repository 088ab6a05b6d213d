"""Preparation: what is written, what is counted, and what an interruption leaves."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sample_data import (
    EXTRA_HEADS,
    MiddleDetector,
    make_prepared,
    make_rows,
    write_picture,
)

from keras_agegender.datasets import preparation
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.preparation import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.datasets.splits import report_splits
from keras_agegender.faces.cropping import CropOptions


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepared")
    return make_prepared(directory, extra_heads=EXTRA_HEADS)


def manifest_in(directory, **changes):
    rows = make_rows(directory / "pictures", 10)
    return make_manifest([{**row, **changes} for row in rows])


def test_plain_tensorflow_datasets_reads_it(prepared):
    """In another process, which knows nothing of this package."""
    code = f"""
import sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory({str(prepared)!r})
rows = list(tfds.as_numpy(builder.as_dataset(split="fold_0+fold_1")))
print(len(rows), rows[0]["image"].shape, rows[1]["age_group"], rows[1]["gender"],
      builder.info.features["age_group"].names[4], sorted(builder.info.splits),
      rows[0]["face_box"].tolist(), rows[0]["key"].decode(),
      "keras_agegender" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        "16 (48, 48, 3) 5 0 25-32 ['fold_0', 'fold_1', 'fold_2', 'fold_3', 'fold_4'] "
        "[1.0, 5.0, 31.0, 35.0] 000.jpg False"
    )


def test_nothing_but_pixels_is_changed(prepared):
    rows = {}
    dataset = load_prepared(prepared)
    for fold in range(5):
        for row in dataset.as_dataset(f"fold_{fold}").as_numpy_iterator():
            rows[row["key"].decode()] = row
            assert row["fold"] == fold
    assert len(rows) == 40
    for number in range(40):
        row = rows[f"{number:03d}.jpg"]
        assert row["age_group"] == (number % 8 if number != 7 else -1)
        assert row["gender"] == (number // 8 % 2 if number != 6 else -1)
        assert row["subject"].decode() == f"s{number}"
        assert (row["glasses"], row["colour"]) == (number % 2, number % 3)
        assert row["weight"] == pytest.approx(0.5 * number)
        assert row["face_status"] == b"ok" and row["num_faces"] == 1


def test_heads_are_declared(prepared):
    heads = load_prepared(prepared).extra_heads()
    assert [(h.name, h.kind, h.num_classes) for h in heads] == [
        ("glasses", "binary", 1),
        ("colour", "categorical", 3),
        ("weight", "regression", 1),
    ]


def test_status_of_every_picture(tmp_path):
    manifest = manifest_in(tmp_path)
    (tmp_path / "pictures" / "001.jpg").write_bytes(b"")
    (tmp_path / "pictures" / "002.jpg").unlink()
    write_picture(tmp_path / "pictures" / "003.jpg", value=-100)  # dark: no face
    report = prepare(
        manifest, tmp_path / "out", detector=MiddleDetector(),
        crop_options=CropOptions(fallback="skip"), progress=False,
    )  # fmt: skip
    assert report.counts == {"ok": 7, "unreadable": 2, "no_face": 1}
    assert report.written == 7
    status = report.status.set_index("key")
    assert len(status) == 10
    assert "empty file" in status.loc["001.jpg", "reason"]
    assert "no such file" in status.loc["002.jpg", "reason"]
    assert status.loc["003.jpg", "reason"] == "skipped: no face"
    assert status.loc["004.jpg", "box"] == "1.0 5.0 31.0 35.0"
    assert "2 unreadable" in str(report)
    info = json.loads((tmp_path / "out" / "preparation.json").read_text("utf-8"))
    assert info["crop"]["margin"] == 0.25 and info["detector"] == {"detector": "middle"}


def test_the_same_call_again_does_nothing(prepared, monkeypatch):
    monkeypatch.setattr(preparation, "read_picture", None)
    again = make_prepared(prepared.parent, extra_heads=EXTRA_HEADS)
    assert again == prepared


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    manifest = manifest_in(tmp_path)
    arguments = {"crop_options": CropOptions(), "block_size": 2, "progress": False}
    whole = prepare(manifest, tmp_path / "a", detector=MiddleDetector(), **arguments)

    class Interrupted(MiddleDetector):
        calls = 0

        def detect(self, images):
            type(self).calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return super().detect(images)

    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, tmp_path / "b", detector=Interrupted(), **arguments)
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="not finished: run it again"):
        load_prepared(tmp_path / "b")
    report = prepare(manifest, tmp_path / "b", detector=Interrupted(), **arguments)
    assert Interrupted.calls == 3 + 1 + 2  # three blocks, the interrupted one, the rest
    assert report.counts == whole.counts
    assert not (tmp_path / "b.partial").exists()
    for split in ("fold_0", "fold_3"):
        rows = [
            [
                row["key"]
                for row in load_prepared(d).as_dataset(split).as_numpy_iterator()
            ]
            for d in (tmp_path / "a", tmp_path / "b")
        ]
        assert rows[0] == rows[1]


def test_whole_pictures_without_a_detector(tmp_path):
    report = prepare(manifest_in(tmp_path), tmp_path / "out", progress=False)
    assert report.counts == {"not_cropped": 10}
    row = next(load_prepared(tmp_path / "out").as_dataset("fold_0").as_numpy_iterator())
    assert row["image"].shape == (256, 256, 3)
    assert row["face_box"].tolist() == [0, 0, 32, 40]


def test_a_split_that_would_be_empty(tmp_path):
    manifest = manifest_in(tmp_path)
    for key in manifest["key"][manifest["fold"] == 4]:
        (tmp_path / "pictures" / key).unlink()
    with pytest.raises(ValueError, match="Split 'fold_4' would be empty"):
        prepare(manifest, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [{"output_size": (0, 9)}, {"jpeg_quality": 101}, {"block_size": 0}]
)
def test_invalid_arguments(tmp_path, options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        prepare(manifest_in(tmp_path), tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out.partial").exists()


def test_subjects_in_two_splits(tmp_path):
    with pytest.raises(ValueError, match="in more than one split"):
        prepare(manifest_in(tmp_path, subject="one"), tmp_path / "out", progress=False)


def test_other_folders_are_left_alone(tmp_path, prepared):
    manifest = manifest_in(tmp_path)
    with pytest.raises(ValueError, match="prepared otherwise"):
        prepare(manifest, prepared, progress=False)
    with pytest.raises(ValueError, match="not empty and holds no prepared dataset"):
        prepare(manifest, tmp_path / "pictures", progress=False)
    file = tmp_path / "file"
    file.write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="is a file"):
        prepare(manifest, file, progress=False)
    assert file.read_text("utf-8") == "mine"


def test_overwrite_replaces_a_dataset(tmp_path):
    manifest = manifest_in(tmp_path)
    prepare(manifest, tmp_path / "out", progress=False)
    report = prepare(
        manifest, tmp_path / "out", output_size=(32, 32), overwrite=True, progress=False
    )
    row = next(load_prepared(report.directory).as_dataset("fold_0").as_numpy_iterator())
    assert row["image"].shape == (32, 32, 3)


def test_loading_what_is_no_dataset(tmp_path):
    with pytest.raises(ValueError, match="There is no prepared dataset"):
        load_prepared(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no dataset_info.json"):
        load_prepared(tmp_path)


def test_splits_are_expressions_over_folds(prepared):
    dataset = load_prepared(prepared)
    assert dataset.splits == report_splits()
    keys = [row["key"] for row in dataset.as_dataset("train").as_numpy_iterator()]
    assert len(keys) == len(set(keys)) == 24


def test_labels_may_be_missing_in_all_columns(tmp_path):
    rows = make_rows(tmp_path / "pictures", 10)
    rows[0]["weight"] = np.nan
    report = prepare(make_manifest(rows), tmp_path / "out", progress=False)
    row = next(load_prepared(report.directory).as_dataset("fold_0").as_numpy_iterator())
    assert np.isnan(row["weight"])
    assert isinstance(report.status, pd.DataFrame)
