"""Pictures that vanish or change behind the listing: all counted, the others answered.

What becomes of eight of twenty pictures is done when the first one is about to be read,
by whoever reads it; other threads wait for it.
"""

from __future__ import annotations

import csv
import json
import os
import threading
from collections import Counter

import numpy as np
import pytest
from sample_data import make_rows, write_picture

from keras_agegender.cli import main as cli
from keras_agegender.datasets import duplicates as same_images, prepare as blocks
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.files import verify
from keras_agegender.models.builder import build_model
from keras_agegender.serving import pipeline as photo_reading
from keras_agegender.serving.export import export

COUNT = 20


def becoming(make):
    """Replaces a file by what `make` makes under its name."""

    def change(file):
        file.unlink()
        make(file)

    return change


# Number of a picture -> what becomes of it, and the reason that is given.
CHANGES = {
    3: (os.unlink, "no such file"),
    5: (lambda file: file.write_bytes(b""), "empty file"),
    6: (lambda file: os.truncate(file, file.stat().st_size // 2), "damaged image"),
    7: (lambda file: file.write_text("text"), "not an image"),
    8: (becoming(os.mkdir), "a directory, not an image"),
    11: (becoming(os.mkfifo), "a pipe or a device, not a file"),
    13: (becoming(lambda file: file.symlink_to("/dev/zero")), "a pipe or a device"),
    14: (becoming(lambda file: file.symlink_to(file.name)), "symbolic link"),
}
CHANGED = 16  # it shows another picture, which is as good as any


def disturbing(monkeypatch, module, folder):
    """Lets a module's first reading of a picture change the folder before."""
    read, alone, left = module.read_image, threading.Lock(), dict(CHANGES)

    def disturbed(source):
        with alone:
            while left:
                number, (change, _) = left.popitem()
                change(folder / f"{number:03d}.jpg")
                write_picture(folder / f"{CHANGED:03d}.jpg", value=250)
                write_picture(folder / "999.jpg")  # a new one, which nobody listed
        return read(source)

    monkeypatch.setattr(module, "read_image", disturbed)


def check(statuses, reasons, text):
    """Every picture has the status that it should have, and nothing is printed."""
    assert len(statuses) == COUNT
    assert Counter(statuses.values()) == {"unreadable": 8, "not_cropped": 12}
    for number, (_, reason) in CHANGES.items():
        key = f"{number:03d}.jpg"
        assert statuses[key] == "unreadable" and reason in reasons[key], reasons[key]
    assert "8 unreadable" in text and "12 not_cropped" in text
    assert "Traceback" not in text and "unexpected" not in text


def test_while_it_prepares(tmp_path, monkeypatch, capsys):
    folder, data = tmp_path / "pictures", tmp_path / "data"
    splits = ["train", "validation", "test", "test"]
    rows = [(row["key"], "fm"[row["gender"]], splits[number % 4])
            for number, row in enumerate(make_rows(folder, COUNT))]  # fmt: skip
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("image", "gender", "split"), *rows])
    disturbing(monkeypatch, blocks, folder)
    command = ["prepare", "csv", str(folder / "labels.csv"), "--out", str(data)]
    assert cli.main([*command, "--no-crop"]) == 0
    text = "".join(capsys.readouterr())
    with (data / "status.csv").open(newline="", encoding="utf-8") as stream:
        table = {row["key"]: row for row in csv.DictReader(stream)}
    statuses = {key: row["status"] for key, row in table.items()}
    check(statuses, {key: row["reason"] for key, row in table.items()}, text)

    assert verify(data).differences == ()
    prepared = load_prepared(data)
    faces = [face for split in set(splits) for face in
             prepared.as_dataset(split).as_numpy_iterator()]  # fmt: skip
    kept = {key for key, status in statuses.items() if status != "unreadable"}
    assert {face["key"].decode() for face in faces} == kept and len(faces) == 12
    (changed,) = (face for face in faces if face["key"] == b"016.jpg")
    assert changed["image"].mean() > 240  # what it was when it was read


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    network = build_model("caffe_1conv", get_encoding("gender"), image_size=(32, 32))
    return export(network, tmp_path_factory.mktemp("m") / "m", pixels=Preprocessing())


def test_while_it_predicts(model, tmp_path, monkeypatch, capsys):
    folder, out = tmp_path / "pictures", tmp_path / "answers.jsonl"
    make_rows(folder, COUNT)
    disturbing(monkeypatch, photo_reading, folder)
    assert cli.main(["predict", str(model), str(folder), "--out", str(out)]) == 1
    text = "".join(capsys.readouterr())
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    names = [os.path.basename(line["source"]) for line in lines]
    assert names == [f"{number:03d}.jpg" for number in range(COUNT)]
    statuses = {name: line["status"] for name, line in zip(names, lines, strict=True)}
    reasons = {name: line["reason"] for name, line in zip(names, lines, strict=True)
               if "reason" in line}  # fmt: skip
    check(statuses, reasons, text)
    faces = {name: line["faces"] for name, line in zip(names, lines, strict=True)}
    assert all(len(faces[n]) == (statuses[n] != "unreadable") for n in names)


def test_between_answer_and_annotation(model, tmp_path, monkeypatch, capsys):
    folder, out = tmp_path / "pictures", tmp_path / "annotated"
    make_rows(folder, 3)
    read = photo_reading.read_image

    def disturbed(source):
        found = read(source)
        if source.name == "001.jpg":
            source.unlink()
        return found

    monkeypatch.setattr(photo_reading, "read_image", disturbed)
    command = ["predict", str(model), str(folder), "--annotate", str(out)]
    assert cli.main(command) == 0
    text = "".join(capsys.readouterr())
    assert "not annotated" in text and "001.jpg: no such file" in text
    assert sorted(os.listdir(out)) == ["000.png", "002.png"]


def test_while_twins_are_looked_for(tmp_path, monkeypatch):
    """Of one size, and gone or changed before their bytes are compared."""
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path in paths:
        write_picture(path)
    paths[2].write_bytes(np.roll(np.frombuffer(paths[2].read_bytes(), "uint8"), 1))
    read = same_images.file_hash

    def disturbed(file):
        paths[0].unlink(missing_ok=True)
        return read(file)

    monkeypatch.setattr(same_images, "file_hash", disturbed)
    found = same_images.find_same_images([str(path) for path in paths]).contents
    assert found[0] == str(paths[0])  # `prepare` will say that it is unreadable
    assert found[1] == found[3] != found[2]
