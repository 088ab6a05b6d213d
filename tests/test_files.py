"""Files appear under their names whole or not at all; hashes and folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest

from keras_agegender import files


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_new_file_appears_when_the_block_ends(tmp_path):
    file = tmp_path / "table.csv"
    with files.atomic_write(file) as partial:
        partial.write_text("half")
        assert not file.exists()
        assert partial.parent == tmp_path and partial.suffix == ".csv"
        partial.write_text("whole")
    assert file.read_text() == "whole"
    assert names_in(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(error), files.atomic_write(file) as partial:
        partial.write_text("half")
        assert file.read_text() == "old"
        raise error
    assert file.read_text() == "old"
    assert names_in(tmp_path) == ["table.csv"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    for durable in (True, False):
        with (
            pytest.raises(OSError),
            files.atomic_write(tmp_path / "a", durable=durable),
        ):
            pass
    assert names_in(tmp_path) == []


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))
    )
    files.write_bytes(tmp_path / "a", b"a")
    assert calls == ["fsync", "replace"]
    files.write_bytes(tmp_path / "a", b"b", durable=False)
    assert calls == ["fsync", "replace", "replace"]


def test_text_and_json(tmp_path):
    files.write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()
    content = {"b": [1, None], "a": "ö"}
    files.write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == content and text.endswith("}\n") and "ö" in text


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert names_in(tmp_path) == ["a.json"]


def make_folder(folder, text):
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


def test_a_folder_takes_the_place_of_another(tmp_path):
    make_folder(tmp_path / "data", "old")
    (tmp_path / "data" / "gone").touch()
    new = make_folder(files.partial_directory(tmp_path / "data"), "new")
    assert new.name == "data.partial"
    files.replace_directory(new, tmp_path / "data")
    assert names_in(tmp_path) == ["data"]
    assert names_in(tmp_path / "data") == ["file"]
    assert (tmp_path / "data" / "file").read_text() == "new"


def test_an_existing_folder_named_replaced_does_not_change(tmp_path):
    make_folder(tmp_path / "data.replaced", "precious")
    for old in (False, True):
        if old:
            make_folder(tmp_path / "data", "old")
        new = make_folder(tmp_path / "data.partial", "new")
        files.replace_directory(new, tmp_path / "data")
        assert names_in(tmp_path) == ["data", "data.replaced"]
        assert (tmp_path / "data.replaced" / "file").read_text() == "precious"
        shutil.rmtree(tmp_path / "data")


def test_a_folder_that_cannot_be_renamed_leaves_the_old(tmp_path, monkeypatch):
    make_folder(tmp_path / "data", "old")
    new = make_folder(tmp_path / "data.partial", "new")
    replace = os.replace

    def fail(source, target):
        if source == new:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        files.replace_directory(new, tmp_path / "data")
    assert names_in(tmp_path) == ["data", "data.partial"]
    assert (tmp_path / "data" / "file").read_text() == "old"


def test_the_old_folder_is_whole_until_the_new_one_has_its_name(tmp_path, monkeypatch):
    """Killed between any two steps, there is a whole folder to go on with."""
    make_folder(tmp_path / "data", "old")
    new = make_folder(tmp_path / "data.partial", "new")
    seen = []
    replace = os.replace

    def watch(source, target):
        replace(source, target)
        seen.append({p.name: (p / "file").read_text() for p in tmp_path.iterdir()})

    monkeypatch.setattr(os, "replace", watch)
    files.replace_directory(new, tmp_path / "data")
    assert seen == [
        {"data.replaced": "old", "data.partial": "new"},
        {"data.replaced": "old", "data": "new"},
    ]


def test_hashes(tmp_path):
    (tmp_path / "a.tfrecord-0").write_bytes(b"one")
    (tmp_path / "b.json").write_bytes(b"not counted")
    assert (
        files.file_hash(tmp_path / "b.json")
        == hashlib.sha256(b"not counted").hexdigest()
    )
    first = files.directory_hash(tmp_path)
    assert first == hashlib.sha256(b"a.tfrecord-0one").hexdigest()
    (tmp_path / "b.json").write_bytes(b"changed")
    assert files.directory_hash(tmp_path) == first
    assert files.directory_hash(tmp_path, "*") != first
    (tmp_path / "a.tfrecord-0").rename(tmp_path / "c.tfrecord-0")
    assert files.directory_hash(tmp_path) != first


def test_a_file_longer_than_a_block_is_hashed_to_its_end(tmp_path):
    content = bytes(1 << 20) + b"end"
    (tmp_path / "long").write_bytes(content)
    assert files.file_hash(tmp_path / "long") == hashlib.sha256(content).hexdigest()


def test_versions_and_time():
    found = files.versions()
    assert {"python", "keras", "numpy"} <= set(found)
    assert files.now().endswith("+00:00") and len(files.now()) == 25
