"""The table of readers: the command line and audit offer every row."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_data import write_picture

import keras_agegender as kag
from keras_agegender.cli import main as cli
from keras_agegender.datasets.manifest import CleaningReport, make_manifest
from keras_agegender.datasets.readers import READERS, Option, Reader, find_reader


def read_toy(folder, *, age_shift=0):
    """Reads images called <age>.jpg; a file `labels.toy` marks the folder."""
    files = sorted(Path(folder).glob("*.jpg"))
    report = CleaningReport("toy", rows_read=len(files))
    rows = [
        {
            "key": file.name,
            "path": str(file),
            "source": "toy",
            "age_group": int(int(file.stem) + age_shift >= 18),
        }
        for file in files
    ]
    groups = kag.labels.get_age_groups("0-17,18+")
    return make_manifest(rows, age_groups=groups, cleaning=report), report


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A folder of a source that a row added from outside of the package reads."""
    row = Reader(
        name="toy",
        title="a toy folder",
        help="ages as file names",
        source=("folder", "folder with labels.toy"),
        read=read_toy,
        recognizes=lambda path: (path / "labels.toy").exists(),
        options=(
            Option("--age-shift", "age_shift", {"type": int, "help": "years added"}),
        ),
        citation="Somebody, Toys, 2026",
        terms="do what you like",
    )
    monkeypatch.setitem(READERS, row.name, row)
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "labels.toy").touch()
    for age in (3, 17, 40):
        write_picture(folder / f"{age}.jpg")
    return folder


def test_a_new_row_is_offered_by_prepare(toy, tmp_path, capsys):
    for command, text in (
        (["prepare", "--help"], "ages as file names"),
        (["prepare", "toy", "--help"], "--age-shift"),
        (["prepare", "toy", "--help"], "Terms: do what you like."),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
        assert stopped.value.code == 0
        assert text in capsys.readouterr().out
    out = tmp_path / "prepared"
    command = ["prepare", "toy", str(toy), "--no-crop", "--size", "32"]
    assert cli.main([*command, "--age-shift", "1", "--out", str(out)]) == 0
    prepared = kag.load_prepared(out)
    assert prepared.info["name"] == "toy" and prepared.age_groups.names[1] == "18+"
    assert list(kag.datasets.read_labels(prepared, "train")["age_group"]) == [1, 0, 1]


def test_a_new_row_is_recognized_by_audit(toy, capsys):
    assert find_reader(toy).name == "toy"
    command = ["audit", str(toy), "--no-near", "--age-shift", "1"]
    assert cli.main(command) == 0
    assert "a toy folder, 3 faces" in capsys.readouterr().out.splitlines()[0]
    with pytest.raises(ValueError, match="a toy folder.*age_shift.*Received: strict"):
        kag.audit(toy, strict=True)


def test_every_row_says_what_it_reads():
    for name, reader in READERS.items():
        assert reader.name == name and reader.help and reader.title
        assert all(option.flag.startswith("--") for option in reader.options)
    published = [reader for reader in READERS.values() if reader.name != "csv"]
    assert all(reader.citation and reader.terms for reader in published)


def test_sources_are_recognized_by_their_content(tmp_path):
    for name, files in {
        "adience": ["fold_0_data.txt"],
        "celeba": ["list_attr_celeba.txt"],
        "utkface": ["part1/27_1_0_20170116220224657.jpg.chip.jpg"],
    }.items():
        folder = tmp_path / f"{name}_data"
        for file in files:
            (folder / file).parent.mkdir(parents=True)
            (folder / file).touch()
        assert find_reader(folder).name == name
    (tmp_path / "labels.csv").touch()
    assert find_reader(tmp_path / "labels.csv").name == "csv"
    assert find_reader(tmp_path / "utkface_data" / "part1").name == "utkface"
    (tmp_path / "empty").mkdir()
    assert find_reader(tmp_path / "empty") is None


def test_audit_reads_utkface(tmp_path):
    for name in ("3_0_0_1.jpg", "27_1_0_2.jpg"):
        write_picture(tmp_path / "utkface" / name)
    found = kag.audit(tmp_path / "utkface", near_duplicates=False, progress=False)
    assert found.source_type == "utkface" and found.num_faces == 1
    assert found.cleaning["left_out"] == {"age between two groups": 1}
