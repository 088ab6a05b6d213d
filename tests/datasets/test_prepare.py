"""Preparation: what is written, what is counted, and what an interruption leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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

from keras_agegender.datasets import prepare as preparation
from keras_agegender.datasets.manifest import (
    BOX_COLUMNS,
    LANDMARK_COLUMNS,
    make_manifest,
    read_manifest,
    write_manifest,
)
from keras_agegender.datasets.prepare import (
    PreparationReport,
    contact_sheet,
    doubtful,
    prepare,
)
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.datasets.readers.csv import read_csv
from keras_agegender.datasets.splits import report_splits
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.files import directory_hash, verify


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


def test_the_same_faces_are_the_same_bytes(prepared):
    """Maps of protocol buffers have another order in each process; files must not."""
    import tensorflow as tf

    shards = sorted(prepared.glob("*.tfrecord*"))
    assert shards
    for shard in shards:
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            assert record == example.SerializeToString(deterministic=True)


def test_heads_are_declared(prepared):
    heads = load_prepared(prepared).extra_heads()
    assert [(h.name, h.head_type, h.num_classes) for h in heads] == [
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
    assert "1 no_face (skipped: --fallback skip)" in str(report)
    assert "cleaning.csv" not in str(report)
    info = json.loads((tmp_path / "out" / "preparation.json").read_text("utf-8"))
    pixels = load_prepared(tmp_path / "out").pixels
    assert pixels.to_dict() == info["pixels"]
    assert pixels.crop.margin == 0.25 and pixels.detector == {"detector": "middle"}
    assert pixels.stored_size == (256, 256) and pixels.jpeg_quality == 95


def test_rows_with_boxes_are_faces_of_their_own(tmp_path):
    write_picture(tmp_path / "a.png", value=60)
    rows = [
        {"key": key, "path": str(tmp_path / "a.png"), "gender": 0,
         **dict(zip(BOX_COLUMNS, box, strict=True))}
        for key, box in (("left", (0, 0, 10, 10)), ("right", (20, 4, 30, 14)),
                         ("beyond", (40, 5, 50, 15)), ("unknown", [np.nan] * 4))
    ]  # fmt: skip
    report = prepare(
        make_manifest(rows), tmp_path / "out", detector=MiddleDetector(),
        crop_options=CropOptions(margin=0.2), output_size=(16, 16), progress=False,
    )  # fmt: skip
    assert report.counts == {"given_box": 2, "box_outside": 1, "ok": 1}
    status = report.status.set_index("key")
    assert status["num_faces"].to_dict() == {
        "left": 1, "right": 1, "beyond": 0, "unknown": 1
    }  # fmt: skip
    # A margin of 2 pixels on each side; at the edge the crop is shifted inside.
    assert status.loc["left", "box"] == "0.0 0.0 14.0 14.0"
    assert status.loc["right", "box"] == "18.0 2.0 32.0 16.0"
    assert "outside of the image of 32 x 40 pixels" in status.loc["beyond", "reason"]
    with pytest.raises(ValueError, match="1 images have several rows with face boxes"):
        prepare(make_manifest(rows), tmp_path / "whole", progress=False)


def test_a_given_box_is_aligned_by_its_landmarks(tmp_path):
    write_picture(tmp_path / "a.png", value=60)
    row = {"path": str(tmp_path / "a.png"), "gender": 0}
    row |= dict(zip(BOX_COLUMNS, (5, 5, 25, 25), strict=True))
    eyes = {"left_eye_x": 10, "left_eye_y": 10, "right_eye_x": 20, "right_eye_y": 20}
    rows = [{"key": "turned", **row, **eyes}, {"key": "as found", **row}]
    rows[0] |= {name: 15 for name in LANDMARK_COLUMNS if name not in eyes}
    images = {}
    for align in (False, True):
        report = prepare(
            make_manifest(rows), tmp_path / f"{align}", detector=MiddleDetector(),
            crop_options=CropOptions(align=align), output_size=(16, 16), progress=False,
        )  # fmt: skip
        assert report.counts == {"given_box": 2}
        data = load_prepared(report.directory).builder.as_dataset(split="train")
        images |= {(align, row["key"].numpy()): row["image"].numpy() for row in data}
    change = {
        key: np.abs(images[False, key].astype(int) - images[True, key]).max()
        for key in (b"as found", b"turned")
    }
    # The eyes of MiddleDetector are level: resampling differs, nothing else.
    assert change[b"as found"] <= 6 and change[b"turned"] > 15


def test_what_splits_share_is_counted(tmp_path):
    rows = make_rows(tmp_path / "pictures", 6)
    for row, split, album in zip(
        rows, "aabbcc", ("x", "", "x", "y", "y", "z"), strict=False
    ):
        row |= {"split": split, "album": album, "subject": ""}
    # One image of a is in c too, under another name.
    Path(rows[4]["path"]).write_bytes(Path(rows[0]["path"]).read_bytes())
    manifest = make_manifest(rows)
    report = prepare(manifest, tmp_path / "out", progress=False)
    assert str(report).splitlines()[1:] == [
        "a and b share: people unknown, 1 album, 0 identical images",
        "a and c share: people unknown, 0 albums, 1 identical image",
        "b and c share: people unknown, 1 album, 0 identical images",
    ]
    again = prepare(manifest, tmp_path / "out", progress=False)
    assert again.shared == report.shared
    splits = {"train": "a+b", "test": "c"}
    named = manifest.assign(subject=[*"pqrstu"])
    report = prepare(named, tmp_path / "two", splits=splits, progress=False)
    text = "train and test share: 0 people, 1 album, 1 identical image"
    assert str(report).splitlines()[1] == text


def ready_made_crops(directory, monkeypatch, detector, count=44):
    monkeypatch.setattr("keras_agegender.faces.detector.MtcnnDetector", detector)
    rows = make_rows(directory / "pictures", count)
    return prepare(make_manifest(rows), directory / "out", progress=False)


def test_where_faces_lie_in_ready_made_crops(tmp_path, monkeypatch):
    report = ready_made_crops(tmp_path, monkeypatch, MiddleDetector)
    pixels = load_prepared(tmp_path / "out").pixels
    assert pixels.crop is None and pixels == Preprocessing()
    assert pixels.region == (0.5, 0.5, 0.5, 0.5, 0.8)  # images of 32 x 40
    assert report.faces_in_images["found"] == report.faces_in_images["searched"] == 44
    assert "ready-made crops (a face in 44 of 44 images, box 0.50 x 0.50" in str(report)
    photos = pixels.for_photos()
    # A face of 16 x 20 pixels is the middle half of its crop, of 32 x 40.
    assert photos.crop.crop_box([40, 30, 56, 50], (99, 99)).tolist() == [32, 20, 64, 60]
    assert photos.for_crops().region == pixels.region and photos.for_crops() == pixels
    again = prepare(
        make_manifest(make_rows(tmp_path / "pictures", 44)), tmp_path / "out"
    )
    assert again.already_there and str(again).endswith(str(report).splitlines()[-1])


class Wandering(MiddleDetector):
    """Finds the faces of photos: each somewhere else."""

    def detect(self, images):
        found = super().detect(images)
        return [
            dataclasses.replace(faces, boxes=faces.boxes * (0.4 + 0.1 * (k % 10)))
            for k, faces in enumerate(found)
        ]


class Blind(MiddleDetector):
    def detect(self, images):
        return [self._detect(image * 0) for image in images]


@pytest.mark.parametrize("detector", [Wandering, Blind])
def test_photos_are_no_ready_made_crops(tmp_path, monkeypatch, detector):
    report = ready_made_crops(tmp_path, monkeypatch, detector)
    pixels = load_prepared(tmp_path / "out").pixels
    assert pixels.region is None and pixels.for_photos() is pixels
    assert "in no common place" in str(report)


def test_the_same_call_again_does_nothing(prepared, monkeypatch):
    monkeypatch.setattr(preparation, "read_or_reason", None)
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


@pytest.mark.parametrize("blocks_before", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_preparation_goes_on(tmp_path, blocks_before):
    """SIGKILL, which no `finally` sees: nothing is lost, done twice or half there."""
    manifest = manifest_in(tmp_path)
    arguments = {"crop_options": CropOptions(), "block_size": 2, "progress": False}
    whole = prepare(manifest, tmp_path / "a", detector=MiddleDetector(), **arguments)
    code = f"""
import time
from pathlib import Path
from test_prepare import CropOptions, MiddleDetector, manifest_in, prepare
class Slow(MiddleDetector):
    def detect(self, images):
        time.sleep(0.2)
        return super().detect(images)
prepare(manifest_in(Path({str(tmp_path)!r})), {str(tmp_path / "b")!r}, detector=Slow(),
        crop_options=CropOptions(), block_size=2, progress=False)
"""
    folders = os.pathsep.join(
        str(Path(__file__).resolve().parents[k]) for k in range(2)
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders}
    )
    partial = tmp_path / "b.partial"
    while process.poll() is None:
        if len(list(partial.glob("block-*.block"))) >= blocks_before:
            process.kill()
            break
        time.sleep(0.01)
    assert process.wait() == -signal.SIGKILL
    finished = len(list(partial.glob("block-*.block")))
    assert blocks_before <= finished < 5 and not (tmp_path / "b").exists()

    class Counting(MiddleDetector):
        calls = 0

        def detect(self, images):
            type(self).calls += 1
            return super().detect(images)

    report = prepare(manifest, tmp_path / "b", detector=Counting(), **arguments)
    assert Counting.calls == 5 - finished
    assert report.status.equals(whole.status) and report.counts == whole.counts
    for shard in sorted((tmp_path / "a").glob("*.tfrecord*")):
        assert shard.read_bytes() == (tmp_path / "b" / shard.name).read_bytes()


@pytest.mark.parametrize(
    ("fallback", "said"),
    [("center", "cropped at the center"), ("full", "stored whole")],
)
def test_what_became_of_pictures_without_a_face_is_said(tmp_path, fallback, said):
    report = PreparationReport(tmp_path, {"no_face": 3}, 3, fallback=fallback)
    assert f"3 no_face ({said}: --fallback {fallback})" in str(report)


def test_rows_that_cleaning_left_out_lie_beside_the_dataset(tmp_path):
    """All of them, also after a manifest was written and read."""
    for number in range(6):
        write_picture(tmp_path / f"{number}.jpg", value=90 + 7 * number)
    rows = [f"{n}.jpg,{n % 2},f" for n in range(6)] + ["gone.jpg,0,f", "0.jpg,1,m"]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["image,hat,sex", *rows]), "utf-8")
    manifest, _ = read_csv(file, validation=0, test=0)
    write_manifest(manifest, tmp_path / "manifest.csv")
    manifest = read_manifest(tmp_path / "manifest.csv")
    options = {"output_size": (32, 32), "progress": False}
    report = prepare(manifest, tmp_path / "out", **options)
    file = tmp_path / "out" / "cleaning.csv"
    assert file.read_text("utf-8").splitlines() == [
        "item,reason,left_out",
        "gone.jpg,no image file,True",
        '"0.jpg, 0.jpg#2 (gender, hat)","copies with other labels or splits, kept",'
        "False",
    ]
    assert f"dropped or repeated rows: {file}" in str(report)
    assert str(file) in str(prepare(manifest, tmp_path / "out", **options))


def test_the_doubtful_are_shown(tmp_path):
    """Without a face first, then several, then low scores; one is unreadable."""
    (tmp_path / "1.jpg").write_bytes(b"")
    for name in "234":
        write_picture(tmp_path / f"{name}.jpg")
    status = pd.DataFrame(
        [
            ("4", "ok", 0.81, 1),
            ("sure", "ok", 1.0, 1),
            ("3", "several_faces", 0.99, 2),
            ("2", "no_face", 0.0, 0),
            ("1", "unreadable", 0.0, 0),
        ],
        columns=["key", "status", "score", "num_faces"],
    ).assign(box=[[4.0, 4.0, 20.0, 20.0]] * 5)
    assert doubtful(status)["key"].tolist() == ["2", "1", "3", "4"]
    paths = {key: str(tmp_path / f"{key}.jpg") for key in status["key"]}
    sheet = contact_sheet(status, paths)
    assert sheet.shape == (30 + 160 + 16, 4 * 168 + 8, 3)
    left = 8 + np.arange(4) * 168
    middles = [sheet[8 + 80, x + 80].astype(int) for x in left]
    assert (middles[0] != 255).any() and np.ptp(sheet[8:168, 176:336]) > 50  # text
    orange = (sheet.astype(int) - [0xD5, 0x5E, 0]).__abs__().sum(axis=2) < 30
    boxes = [orange[8:168, x : x + 160].any() for x in left]
    assert boxes == [True, False, True, True]
    assert contact_sheet(status[status["key"] == "sure"], paths) is None


def test_each_kind_of_doubt_has_its_share():
    status = pd.DataFrame({"status": ["no_face"] * 50 + ["several_faces"] * 2})
    status = status.assign(score=0.0, num_faces=0)
    low = pd.DataFrame({"status": ["ok"] * 40, "score": 0.9, "num_faces": 1})
    chosen = doubtful(pd.concat([status, low]), 12)["status"].value_counts()
    assert chosen.to_dict() == {"no_face": 6, "ok": 4, "several_faces": 2}


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


def test_other_folders_are_not_changed(tmp_path, prepared):
    manifest = manifest_in(tmp_path)
    with pytest.raises(ValueError, match="different settings"):
        prepare(manifest, prepared, progress=False)
    with pytest.raises(ValueError, match="not empty and contains no prepared dataset"):
        prepare(manifest, tmp_path / "pictures", overwrite=True, progress=False)
    assert len(list((tmp_path / "pictures").iterdir())) == 10
    file = tmp_path / "file"
    file.write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="is a file"):
        prepare(manifest, file, overwrite=True, progress=False)
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


def test_an_unfinished_one_with_other_settings_is_said_in_words(tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    manifest = manifest_in(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparation, "read_or_reason", interrupted)
        prepare(manifest, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match=r"different settings: its JPEG quality is 95"):
        prepare(manifest, tmp_path / "out", jpeg_quality=80, progress=False)
    report = prepare(
        manifest, tmp_path / "out", jpeg_quality=80, overwrite=True, progress=False
    )
    assert report.written == 10 and not report.already_there


def test_a_damaged_dataset_is_noticed(tmp_path):
    """A cut at once, a bit by `verify`; and the same preparation does not say done."""
    directory = make_prepared(tmp_path, count=10, overwrite=True)
    assert verify(directory).differences == ()
    shard = next(directory.glob("*fold_3*.tfrecord*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    assert [found.file for found in verify(directory).differences] == [shard.name]
    shard.write_bytes(content[:-1])
    for use in (load_prepared, lambda _: make_prepared(tmp_path, count=10)):
        with pytest.raises(ValueError, match=r"is damaged.*bytes.*Prepare it again"):
            use(directory)
    assert make_prepared(tmp_path, count=10, overwrite=True) == directory
    assert verify(directory).differences == ()


def test_writing_leaves_other_output_and_settings_alone(tmp_path, monkeypatch, capsys):
    """Of TensorFlow Datasets' user, and of other threads that print meanwhile."""
    import tensorflow_datasets as tfds

    utils = tfds.core.utils
    monkeypatch.setattr(utils.tqdm_utils, "_active", False)  # disabled by the user
    monkeypatch.setattr(utils.gcs_utils, "_is_gcs_disabled", False)
    stdout, during = sys.stdout, []

    def make_and_print(*args):
        during.append((sys.stdout is stdout, utils.gcs_utils._is_gcs_disabled))
        print("another thread")
        return preparation_make_example(*args)

    preparation_make_example = preparation.make_example
    monkeypatch.setattr(preparation, "make_example", make_and_print)
    prepare(make_manifest(make_rows(tmp_path / "images", 3)), tmp_path / "out")
    load_prepared(tmp_path / "out")
    assert during and set(during) == {(True, True)}
    assert not utils.tqdm_utils._active and not utils.gcs_utils._is_gcs_disabled
    assert capsys.readouterr().out == "another thread\n" * len(during)


def test_the_hash_of_a_dataset_is_made_once(tmp_path, monkeypatch):
    prepare(make_manifest(make_rows(tmp_path / "images", 3)), tmp_path / "out")
    prepared = load_prepared(tmp_path / "out")
    expected = directory_hash(tmp_path / "out")
    assert prepared.data_sha256 == expected
    monkeypatch.setattr("keras_agegender.files.directory_hash", None)
    assert prepared.data_sha256 == expected
