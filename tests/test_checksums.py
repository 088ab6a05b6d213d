"""Checksums: every change of a folder is found, named, and never followed outside."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from keras_agegender.cli.main import main
from keras_agegender.files import (
    CHECKSUMS_FILE,
    Difference,
    check_file,
    check_sizes,
    verify,
    write_checksums,
    write_sidecar,
)

ABC = hashlib.sha256(b"abc").hexdigest()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "made"
    (folder / "variables").mkdir(parents=True)
    (folder / "a.tfrecord").write_bytes(b"abc")
    (folder / "variables" / "b").write_bytes(b"")
    write_checksums(folder)
    return folder


def test_what_is_written(folder):
    assert json.loads((folder / CHECKSUMS_FILE).read_text("utf-8")) == {
        "algorithm": "sha256",
        "files": {
            "a.tfrecord": {
                "bytes": 3,
                "sha256": "ba7816bf8f01cfea414140de5dae2223"
                "b00361a396177a9cb410ff61f20015ad",
            },
            "variables/b": {
                "bytes": 0,
                "sha256": "e3b0c44298fc1c149afbf4c8996fb924"
                "27ae41e4649b934ca495991b7852b855",
            },
        },
    }
    assert verify(folder).differences == ()
    assert str(verify(folder)).endswith("2 files match their checksums.")


def test_every_kind_of_difference(folder, tmp_path, capsys):
    (folder / "a.tfrecord").write_bytes(b"abd")
    (folder / "variables" / "b").unlink()
    (folder / "more").write_bytes(b"1234")
    (tmp_path / "secret").write_text("x", "utf-8")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "links").symlink_to(tmp_path)
    changed = hashlib.sha256(b"abd").hexdigest()
    assert verify(folder).differences == (
        Difference("a.tfrecord", f"SHA-256 {ABC}", changed),
        Difference("variables/b", "0 bytes", "no such file"),
        Difference(
            "link",
            "no such file",
            f"a link out of the folder, to {tmp_path / 'secret'}",
        ),
        Difference("links", "no such file", f"a link out of the folder, to {tmp_path}"),
        Difference("more", "no such file", "4 bytes"),
    )
    assert main(["verify", str(folder)]) == 1
    assert "'more': expected no such file, received 4 bytes" in capsys.readouterr().out


def test_the_command_is_content(folder, capsys):
    assert main(["verify", str(folder)]) == 0
    assert "2 files" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "x/../../secret"])
def test_names_that_lead_outside_are_not_opened(folder, tmp_path, name):
    (tmp_path / "secret").write_bytes(b"abc")
    content = {"algorithm": "sha256", "files": {name: {"bytes": 3, "sha256": ABC}}}
    (folder / CHECKSUMS_FILE).write_text(json.dumps(content), "utf-8")
    found = verify(folder).differences[0]
    assert found == (name, "a file of the folder", "a path out of the folder")
    with pytest.raises(ValueError, match="a path out of the folder"):
        check_sizes(folder, "")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"algorithm": "md5", "files": {}}', '{"a"',
                '{"algorithm": "sha256", "files": {"a": 3}}', "[" * 100_000],
)  # fmt: skip
def test_damaged_checksums(folder, content):
    (folder / CHECKSUMS_FILE).write_text(content, "utf-8")
    with pytest.raises(
        ValueError, match="checksums.json (is damaged|is not a checksum)"
    ):
        verify(folder)


def test_folders_without_checksums(tmp_path):
    message = "checksums.json is missing in .*Expected a prep.* a finished run"
    with pytest.raises(ValueError, match=message):
        verify(tmp_path)
    check_sizes(tmp_path, "")


def test_folders_that_change_during_removal(folder):
    write_checksums(folder, ["a.tfrecord", "absent"])
    found = verify(folder)
    assert found.differences == () and (found.num_files, found.num_others) == (1, 1)
    assert str(found).endswith("1 files match their checksums; without a checksum: 1.")
    (folder / "a.tfrecord").write_bytes(b"abd")
    assert [found.file for found in verify(folder).differences] == ["a.tfrecord"]
    (folder / "a.tfrecord").unlink()
    assert [found.received for found in verify(folder).differences] == ["no such file"]


# -- files -----------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "face.onnx"
    file.write_bytes(b"abc")
    return file


def test_files_have_a_checksum_beside_them(file, capsys):
    write_sidecar(file)
    beside = file.with_name("face.onnx.sha256")
    assert beside.read_bytes() == f"{ABC}  face.onnx\n".encode()
    assert verify(file).differences == ()
    check_file(file)
    beside.write_bytes(f"{ABC} *face.onnx\r\n".encode())  # of Windows
    assert main(["verify", str(file)]) == 0
    file.write_bytes(b"abd")
    changed = hashlib.sha256(b"abd").hexdigest()
    assert verify(file).differences == (("face.onnx", f"SHA-256 {ABC}", changed),)
    capsys.readouterr()
    assert main(["verify", str(file)]) == 1
    assert "'face.onnx': expected SHA-256 ba78" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"is damaged. 'face.onnx'.*or remove face.onnx"
    ):
        check_file(file)


def test_files_without_a_checksum(file):
    check_file(file)
    with pytest.raises(
        ValueError, match="has no checksum. Expected a checksum file face.onnx.sha256"
    ):
        verify(file)


@pytest.mark.parametrize(
    "content", [b"", b"abc  face.onnx", f"{ABC}  other.onnx\n".encode(), b"\xff" * 80]
)
def test_checksums_of_other_files(file, content):
    file.with_name("face.onnx.sha256").write_bytes(content)
    for check in (verify, check_file):
        with pytest.raises(
            ValueError, match="is damaged or belongs to another file. Expected"
        ):
            check(file)


# -- what is released ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "num_files"),
    [("utkface-compact", 11), ("utkface-tiny", 6), ("utkface-tiny/face.tflite", 1)],
)
def test_released_models(path, num_files, capsys):
    released = Path(__file__).parents[1] / "saved_models" / path
    assert main(["verify", str(released)]) == 0, capsys.readouterr().out
    assert verify(released).num_files == num_files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_what_is_no_file_is_not_waited_for(folder):
    for name in ("a.tfrecord", "variables/b"):
        (folder / name).unlink()
    os.mkfifo(folder / "a.tfrecord")
    (folder / "variables" / "b").symlink_to("b")
    assert [(d.file, d.received) for d in verify(folder).differences] == [
        ("a.tfrecord", "a folder, a pipe or a device"),
        ("variables/b", "a link to itself"),
    ]


def test_sizes_without_end(folder):
    content = (
        '{"algorithm": "sha256", "files": {"a": {"bytes": Infinity, "sha256": ""}}}'
    )
    (folder / CHECKSUMS_FILE).write_text(content, "utf-8")
    with pytest.raises(ValueError, match="is not a checksum file of this library"):
        verify(folder)
