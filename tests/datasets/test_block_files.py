"""Block files: read back as written, and never believed when they are not."""

from __future__ import annotations

import hashlib
import json
import os
import pickle

import pandas as pd
import pytest
from sample_data import MiddleDetector, make_rows

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.prepare import (
    BlockFiles,
    DamagedBlockError,
    open_job,
)
from keras_agegender.faces.preprocessing import CropOptions

RECORDS = [
    {
        "key": "ä/1.jpg", "split": "train", "status": "ok", "reason": "",
        "num_faces": 1, "score": 0.9, "box": [0.0, 1.0, 2.0, 3.5], "jpeg": b"\xff\n\0",
    },
    {
        "key": "2.jpg", "split": "test", "status": "unreadable", "reason": "no",
        "num_faces": 0, "score": 0.0, "box": [0.0] * 4, "jpeg": None,
    },
]  # fmt: skip
ROWS = pd.DataFrame({"key": ["ä/1.jpg", "2.jpg"], "split": ["train", "test"]})
ROWS["path"] = "gone.jpg"


@pytest.fixture
def files(tmp_path):
    files = BlockFiles(tmp_path, "asked")
    files.write(0, RECORDS)
    return files


def test_what_was_written_is_read(files):
    assert files.read(0) == RECORDS
    assert files.is_finished(0, ROWS)
    assert not files.is_finished(1, ROWS)


def test_every_changed_bit_and_every_cut_is_noticed(files):
    whole = files.file(0).read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        files.file(0).write_bytes(changed)
        assert not files.is_finished(0, ROWS), place
        files.file(0).write_bytes(whole[:place])
        assert not files.is_finished(0, ROWS), place
    with pytest.raises(DamagedBlockError, match="is damaged.*same preparation again"):
        files.read(0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(files):
    files.file(0).unlink()
    os.mkfifo(files.file(0))
    assert not files.is_finished(0, ROWS)


def test_blocks_of_other_rows_or_requests_do_not_count(files, tmp_path):
    assert not files.is_finished(0, ROWS.iloc[:1])
    assert not files.is_finished(0, ROWS.assign(split="train"))
    with pytest.raises(DamagedBlockError, match="other settings"):
        BlockFiles(tmp_path, "something else").read(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jpeg": 4}, "truncated"),
        ({"jpeg": 2}, "1 bytes belong to no image"),
        ({"jpeg": -3}, "truncated"),
        ({"box": "0 0 1 1"}, "expected the fields"),
        ({"more": 1}, "expected the fields"),
        ({"key": None}, "expected the fields"),
    ],
)
def test_strange_content_with_a_right_checksum(files, change, message):
    record = {**RECORDS[0], "jpeg": 3, **change}
    write_content(files, {"request": "asked", "records": [record]}, b"\xff\n\0")
    with pytest.raises(DamagedBlockError, match=message):
        files.read(0)


@pytest.mark.parametrize("header", [[], {}, 3, {"request": "asked", "records": [7]}])
def test_other_json_with_a_right_checksum(files, header):
    write_content(files, header, b"")
    with pytest.raises(DamagedBlockError, match="is damaged"):
        files.read(0)


def write_content(files, header, jpegs):
    content = json.dumps(header).encode() + b"\n" + jpegs
    digest = hashlib.sha256(content).hexdigest().encode()
    files.file(0).write_bytes(digest + b"\n" + content)


# -- a preparation that goes on --------------------------------------------------------


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def begun(tmp_path):
    """An unfinished preparation with three of its four blocks, and its folder."""
    task = start(tmp_path, count=8)
    for number, rows in enumerate(task.blocks()[:3]):
        made = zip(rows["key"], rows["split"], strict=True)
        records = [{**RECORDS[1], "key": key, "split": split} for key, split in made]
        task.block_files.write(number, records)
    assert task.missing_blocks() == [3]
    return task.partial


def test_damaged_blocks_are_made_again(begun, tmp_path):
    blocks = sorted(begun.glob("block-*"))
    blocks[0].write_bytes(b"")
    blocks[1].write_bytes(blocks[2].read_bytes())
    assert start(tmp_path, count=8).missing_blocks() == [0, 1, 3]


def test_a_block_that_is_older_than_a_picture_is_made_again(begun, tmp_path):
    """What the picture was before would stand beside what the others are now."""
    task = start(tmp_path, count=8)
    later = (begun / "block-000001.block").stat().st_mtime_ns + 1
    os.utime(task.blocks()[1]["path"].iloc[1], ns=(later, later))
    assert task.missing_blocks() == [1, 3]


def test_a_damaged_request_loses_no_block(begun, tmp_path):
    for content in (b"", b"{", b"\xff\xfe", b"[]"):
        (begun / "request.json").write_bytes(content)
        task = start(tmp_path, count=8)
        assert task.missing_blocks() == [3]
        assert json.loads((begun / "request.json").read_text("utf-8")) == task.request


def test_blocks_of_other_settings_do_not_count_without_a_request(begun, tmp_path):
    (begun / "request.json").unlink()
    task = start(tmp_path, count=8, jpeg_quality=90)
    assert task.missing_blocks() == [0, 1, 2, 3]


def test_no_block_runs_a_command(begun, tmp_path):
    evil = pickle.dumps([Command(f"touch {tmp_path / 'ran'}")])
    for name in ("block-000000.pickle", "block-000000.block"):
        (begun / name).write_bytes(evil)
    assert start(tmp_path, count=8).missing_blocks() == [0, 3]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_never_removed(tmp_path, overwrite):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "diary.txt").write_text("mine", "utf-8")
    with pytest.raises(ValueError, match=r"other files.*'diary.txt'"):
        start(tmp_path, overwrite)
    assert (tmp_path / "out.partial" / "diary.txt").is_file()


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link or a file"):
        start(tmp_path)


def start(tmp_path, overwrite=False, *, count=2, jpeg_quality=95):
    rows = make_rows(tmp_path / "pictures", count)
    for row in rows:  # made anew, but not changed
        os.utime(row["path"], (1, 1))
    return open_job(
        make_manifest(rows), tmp_path / "out", detector=MiddleDetector(),
        crop_options=CropOptions(), output_size=(32, 32), jpeg_quality=jpeg_quality,
        block_size=2, overwrite=overwrite,
    )  # fmt: skip
