"""Signals, locks, other writers, full and read-only disks, files that change."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from fault_results import clear, content, differing, undisturbed
from sample_data import make_rows

from keras_agegender.cli import main as cli
from keras_agegender.cli.console import exit_code
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.prepare import open_job
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.files import disk_errors, exclusive_lock, lock_beside, write_bytes
from keras_agegender.models.builder import build_model
from keras_agegender.serving.export import export


def stopped_by(number):
    os.kill(os.getpid(), number)
    time.sleep(5)


def test_ctrl_c_ends_calmly(capsys):
    closed = []

    def work():
        try:
            stopped_by(signal.SIGINT)
        finally:
            closed.append(True)

    assert exit_code(work, "program") == 130 and closed
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "program: interrupted; run the same command to resume"


def test_disk_errors(tmp_path):
    """Of TensorFlow and what TensorFlow Datasets puts around them; no others."""

    class ResourceExhaustedError(Exception):
        pass

    with (
        pytest.raises(OSError, match="Cannot write .*: split x$"),
        disk_errors(tmp_path),
    ):
        try:
            raise ResourceExhaustedError("No space left")
        except ResourceExhaustedError as error:
            raise RuntimeError("split x") from error
    with pytest.raises(RuntimeError, match="^other$"), disk_errors(tmp_path):
        raise RuntimeError("other")


def start(tmp_path):
    """Begins to prepare eight pictures."""
    manifest = make_manifest(make_rows(tmp_path / "pictures", 8))
    return open_job(manifest, tmp_path / "data", output_size=(32, 32), block_size=4)


def test_another_process_was_faster(tmp_path):
    """It finished between this one's look at the folder and its turn to write."""
    slow, fast = start(tmp_path), start(tmp_path)
    assert fast.run(progress=False).written == 8
    with pytest.raises(ValueError, match="Another process has prepared .*data in"):
        slow.run(progress=False)


def test_one_process_writes(tmp_path):
    with (
        exclusive_lock(lock_beside(tmp_path / "data"), "taken"),
        pytest.raises(ValueError, match="Another process prepares .*data. Wait for it"),
    ):
        start(tmp_path)
    start(tmp_path)
    assert not lock_beside(tmp_path / "data").exists()


def test_a_stale_lock_holds_nothing(tmp_path):
    lock = lock_beside(tmp_path / "data")
    lock.write_text("of a process that was killed")
    assert start(tmp_path).missing_blocks() == [0, 1]
    assert not lock.exists()


def test_the_lock_of_an_owner_that_left_is_not_enough(tmp_path, monkeypatch):
    """Between opening a lock file and locking it, its owner may have removed it."""
    from filelock import FileLock

    acquire, tries = FileLock.acquire, []

    def late(self, **options):
        found = acquire(self, **options)
        tries.append(self.lock_file)
        if len(tries) == 1:
            os.unlink(self.lock_file)
        return found

    monkeypatch.setattr(FileLock, "acquire", late)
    with exclusive_lock(tmp_path / "lock", "taken"):
        assert len(tries) == 2 and (tmp_path / "lock").exists()


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; returns its folder and what changes its options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a disk here")

    def change(options):
        command = ["mount", "-o", f"remount,{options}", str(folder)]
        subprocess.run(command, check=True)

    yield folder, change
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_with_its_file(disk, capsys):
    folder, change = disk
    file = folder / "large"
    assert exit_code(lambda: write_bytes(file, bytes(100_000)), "program") == 1
    line = capsys.readouterr().err
    assert line == f"program: No space left on device: {file}\n"
    assert not list(folder.iterdir())  # nor a part of it
    change("size=1m")
    write_bytes(file, bytes(100_000))


def test_a_disk_that_tensorflow_finds_full(disk):
    """It has errors of its own about files, which are no `OSError`."""
    folder, _ = disk
    network = build_model("caffe_1conv", get_encoding("gender"), image_size=(32, 32))
    with pytest.raises(OSError, match=r"Cannot write .*partial: .* No space left"):
        export(network, folder / "saved", pixels=Preprocessing())
    assert not (folder / "saved").exists()


def test_a_read_only_folder_is_one_line(disk, capsys, tmp_path):
    folder, change = disk
    make_rows(tmp_path / "faces", 4)
    table = tmp_path / "faces" / "labels.csv"
    rows = ("000.jpg,f,train", "001.jpg,m,validation", "002.jpg,f,test")
    table.write_text("\n".join(("image,gender,split", *rows)), "utf-8")
    change("ro")
    for out in (folder / "data", folder / "new" / "data"):
        command = ("prepare", "csv", str(table), "--out", str(out), "--no-crop")
        assert cli.main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "Read-only file system" in line and str(folder) in line


# -- whole commands --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "train", "export", "predict"])
def test_signals_at_any_moment(workshop, verb, capsys):
    """After either the same command resumes; before, it prints one line at most."""
    whole, _ = undisturbed(workshop, verb)
    expected, out = content(verb, whole), workshop.root / "stopped"
    command = workshop.command(verb, out)
    clear(out)
    seconds = workshop.run(*command).seconds
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        clear(out)
        for share in (0.15, 0.4, 0.7):
            result = workshop.run(*command, after=seconds * share, number=number)
            assert result.code in (0, code), result.text
            assert result.calm, result.text
        assert workshop.run(*command).code in (0, 1)
        assert differing(expected, content(verb, out)) == []
    with capsys.disabled():
        print(f"\n{verb}: 3 SIGINT, 3 SIGTERM, equal")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "export", "predict", "train"])
def test_a_disk_that_fills_up(workshop, disk, verb, capsys):
    """One line without a traceback; with room, the same command ends the same."""
    whole, _ = undisturbed(workshop, verb)
    expected, (folder, change) = content(verb, whole), disk
    out, failed = folder / "out", 0
    for size in (64, 256, 512, 900, 20_000):
        change(f"size={size}k")
        result = workshop.run(*workshop.command(verb, out))
        if result.code == 0:
            break
        failed += 1
        with capsys.disabled():
            print(f"\n{verb}, {size} kB: {result.text.splitlines()[-1][:200]}")
        assert result.code == 1 and result.calm, result.text
    change("size=200m")
    if result.code:
        assert workshop.run(*workshop.command(verb, out)).code == 0
    assert failed and differing(expected, content(verb, out)) == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "train", "export", "predict"])
def test_two_at_once(workshop, verb):
    """One makes it; the other one says that another process does, or finds it made."""
    whole, _ = undisturbed(workshop, verb)
    out = workshop.root / "twice"
    clear(out)
    command = workshop.command(verb, out)
    results = workshop.run.together(command, command)
    assert all(result.calm for result in results), results
    assert 0 in [result.code for result in results], results
    assert {result.code for result in results} <= {0, 1}
    assert differing(content(verb, whole), content(verb, out)) == []
