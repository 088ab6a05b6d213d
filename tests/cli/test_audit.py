"""`agegender audit`: 0 nothing found, 1 leakage, 2 unusable input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from sample_data import adience_row, write_adience

import keras_agegender as kag
from keras_agegender.cli import main as cli
from keras_agegender.datasets.manifest import write_manifest
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.synthetic.drawing import draw_face


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "keras_agegender" / "picture_hashes.sqlite"


def run(capsys, *arguments):
    """Returns exit code, stdout, stderr."""
    try:
        code = cli.main(["audit", *[str(a) for a in arguments]])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def write_csv(folder, splits, name="labels.csv"):
    """A CSV of drawn faces: file number -> split, of which 9 is 0 saved again."""
    import numpy as np

    lines = ["image,age,gender,split"]
    for number, split in splits.items():
        seed = number % 9
        image = draw_face(np.random.default_rng(seed), seed, 0, image_size=(64, 64))
        quality = 40 if number == 9 else 95
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(image.image, quality))
        lines.append(f"{number}.jpg,{20 + number},f,{split}")
    (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return folder / name


def test_good_data(tmp_path, capsys, cache):
    pytest.importorskip("imagehash")
    file = write_csv(tmp_path, {0: "train", 1: "val", 2: "test", 9: "train"})
    code, out, err = run(capsys, file, "--json", tmp_path / "found.json")
    assert code == 0, err
    assert out.splitlines()[0] == f"{file}: a CSV file, 4 faces"
    assert out.splitlines()[-1] == "No leakage found."
    assert "same look       1             1              0" in out
    assert json.loads((tmp_path / "found.json").read_text("utf-8"))["leaks"] == []
    assert cache.is_file()


def test_leakage(tmp_path, capsys, cache):
    pytest.importorskip("imagehash")
    file = write_csv(tmp_path, {0: "train", 1: "val", 2: "test", 9: "test"})
    code, out, _ = run(capsys, file, "--no-cache")
    assert code == 1
    assert out.splitlines()[-1].startswith(
        "LEAKAGE: in more than one split: 1 pair of near"
    )
    assert not cache.exists()
    code, out, _ = run(capsys, file, "--no-near")
    assert code == 0 and "Near duplicates were not searched." in out
    splits = ("--split", "train=train+test", "--split", "validation=validation")
    assert run(capsys, file, *splits)[0] == 0


def test_a_manifest_with_a_shared_subject(tmp_path, capsys):
    write_csv(tmp_path, {0: "train", 1: "val", 2: "test"})
    manifest, _ = kag.read_csv(tmp_path / "labels.csv")
    write_manifest(manifest, tmp_path / "manifest.csv")
    assert run(capsys, tmp_path / "manifest.csv", "--no-near")[0] == 0
    text = (tmp_path / "manifest.csv").read_text("utf-8")
    text = text.replace(".jpg,,", ".jpg,somebody,")
    (tmp_path / "manifest.csv").write_text(text, "utf-8")
    code, out, _ = run(capsys, tmp_path / "manifest.csv", "--no-near")
    assert code == 1
    assert "'somebody' in test, train, validation" in out


def test_label_files(tmp_path, capsys):
    rows = {k: [adience_row(k, k), adience_row(9, k, gender="u")] for k in range(5)}
    write_adience(tmp_path, rows, tree=None)
    code, out, _ = run(capsys, tmp_path, "--no-near")
    assert code == 0 and "dropped: no gender" in out
    _, out, _ = run(capsys, tmp_path, "--no-near", "--require-labels", "any")
    assert "10 faces" in out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("missing.csv", "File or folder not found"),
        ("folder", "a folder that contains none of them"),
        ("bad.csv --no-near", "bad.csv, line 2, column 'age'"),
        ("empty.csv --no-near", "expected the names of columns"),
        (
            "labels.csv --no-near --strict",
            "Expected options among age_column, age_groups",
        ),
        ("labels.csv --no-near --age-column years", "no column 'years'"),
        ("labels.csv --no-near --split train=fold_0", "Invalid split train=fold_0"),
        ("labels.csv --no-near --split dev=train", "Invalid --split"),
        ("labels.csv --no-near --json gone/found.json", "Invalid --json"),
        ("labels.csv --cache labels.csv", "Invalid hash cache"),
        ("labels.csv --nonsense", "unrecognized arguments"),
    ],
)
def test_unusable_input(tmp_path, capsys, monkeypatch, command, message):
    if "--cache" in command:
        pytest.importorskip("imagehash")
    write_csv(tmp_path, {0: "train", 1: "test"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bad.csv").write_text("image,age\n0.jpg,old\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *command.split())
    assert code == 2
    assert message in err and "Traceback" not in err


def test_a_missing_package_is_an_error_before_anything_is_read(
    tmp_path, capsys, monkeypatch
):
    name = "keras_agegender.datasets.duplicates.find_spec"
    monkeypatch.setattr(name, lambda _: None)
    file = write_csv(tmp_path, {0: "train", 1: "test"})
    code, out, err = run(capsys, file)
    assert code == 2 and out == ""
    assert "keras-agegender[audit]" in err and "--no-near" in err
    assert run(capsys, file, "--no-near")[0] == 0


def test_a_csv_file_needs_no_framework(tmp_path):
    file = write_csv(tmp_path, {0: "train", 1: "test"})
    code = (
        "import sys; from keras_agegender.cli import main as cli\n"
        "code = cli.main(['audit', sys.argv[1], '--no-near'])\n"
        "print(code, [m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
