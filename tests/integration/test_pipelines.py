"""The scripts in pipelines/, each run as a user runs it, on very small data."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from sample_data import adience_row, write_adience, write_picture

import keras_agegender as kag
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.files import verify
from keras_agegender.labels import CELEBA_ATTRIBUTES
from keras_agegender.run_directory import RunDirectory
from keras_agegender.synthetic.drawing import draw_face

SMALL = "sample_data:small_backbone"
PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


def start(script, *arguments):
    return subprocess.run(
        [sys.executable, PIPELINES / script, *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def run(script, *arguments):
    done = start(script, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def celeba_in(directory, count=8):
    lines, partition = [str(count), " ".join(CELEBA_ATTRIBUTES)], []
    for number in range(count):
        name = f"{number:06d}.jpg"
        write_picture(directory / "img_align_celeba" / name, value=80 + 10 * number)
        values = ("1" if (number + k) % 3 else "-1" for k in range(40))
        lines.append(" ".join([name, *values]))
        partition.append(f"{name} {(0, 0, 1, 2)[number % 4]}")
    (directory / "list_attr_celeba.txt").write_text("\n".join(lines), "utf-8")
    (directory / "list_eval_partition.txt").write_text("\n".join(partition), "utf-8")
    return directory


@pytest.mark.slow
def test_pretrain_celeba(tmp_path):
    celeba = celeba_in(tmp_path / "celeba")
    small = ("--model", SMALL, "--size", 32)
    out = run(
        "pretrain_celeba.py", celeba, "--encoding", "gender", *small,
        "--directory", tmp_path / "pretrained", "--epochs", 1,
    )  # fmt: skip
    assert "8 rows read, 8 kept" in out
    assert (tmp_path / "pretrained" / "best.keras").is_file()


@pytest.mark.slow
def test_adience(tmp_path):
    rows = {
        fold: [adience_row(n, fold, "(25, 32)", "fm"[n % 2]) for n in range(4)]
        for fold in range(5)
    }
    out = run(
        "train_adience.py", write_adience(tmp_path / "adience", rows),
        "--recipe", "7", "--prepared", tmp_path / "prepared",
        "--runs", tmp_path / "runs", "--test-fold", 0,
        "--set", "training.epochs=1", "--set", "model.image_size=[32, 32]",
        "--set", f"model.backbone={SMALL}",
    )  # fmt: skip
    assert "adience: 20 rows read, 20 kept" in out
    assert "07_caffe_categorical_fold0_saved_model" in out


@pytest.mark.slow
def test_quickstart(tmp_path):
    out = run("quickstart.py", "--directory", tmp_path, "--faces", 160, "--epochs", 1)
    assert "160 rows read, 160 kept" in out
    assert (tmp_path / "annotated.png").is_file()


@pytest.mark.slow
def test_utkface_to_released_models_and_encodings(tmp_path):
    """From two tar files; the second call finds every step done."""
    for package in ("jax", "imagehash", "ai_edge_litert"):
        pytest.importorskip(package)
    ages = (1, 5, 10, 17, 27, 40, 50, 70)
    for part, numbers in (("a", range(96)), ("b", range(96, 128))):
        (tmp_path / part).mkdir()
        for n in numbers:
            rng = np.random.default_rng([4, n])
            gender = n // 8 % 2
            face = draw_face(rng, n % 8, gender, image_size=(96, 96)).image
            name = f"{ages[n % 8]}_{gender}_{n % 5}_{n:017d}.jpg.chip.jpg"
            (tmp_path / part / name).write_bytes(encode_jpeg(face, 95))
        with tarfile.open(tmp_path / f"{part}.tar", "w") as file:
            file.add(tmp_path / part, part)
    small = (
        "--set", f"model.backbone={SMALL}", "--set", "model.image_size=[32, 32]",
        "--set", "training.epochs=1", "--set", "data.batch_size=16",
    )  # fmt: skip
    command = (
        "utkface_models.py", tmp_path / "a.tar", tmp_path / "b.tar",
        "--out", tmp_path / "out", *small,
    )  # fmt: skip
    assert "utkface: 96 rows read, 96 kept" in run(*command)
    released = tmp_path / "out" / "released"
    assert not verify(released / "utkface-compact").differences
    assert not verify(released / "utkface-tiny").differences
    file = kag.Predictor(released / "utkface-tiny" / "face.tflite")
    assert "non-commercial" in file.metadata["license"]
    assert file.metadata["limits"].startswith("Guesses from appearance")
    student = RunDirectory(tmp_path / "out" / "utkface-tiny")
    assert len(student.recipe().distillation.teachers) == 2
    assert student.info()["seed"] == 0
    assert run(*command).count("there already") == 7
    out = run(
        "compare_encodings.py", tmp_path / "out" / "data", "--out", tmp_path / "enc",
        "--recipe", "utkface_compact", "--encodings", "categorical", "ordinal",
        "--seeds", 0, *small,
    )  # fmt: skip
    assert "ordinal_encoding" in out and "Failed" not in out


def test_no_image_of_utkface_is_in_two_splits(tmp_path, monkeypatch):
    """One test face trains, saved again; one that trains is there twice."""
    pytest.importorskip("imagehash")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(PIPELINES)
    from utkface_models import utkface_manifest

    for folder, faces, quality in (("a", range(24), 95), ("a", (3,), 50),
                                   ("b", (7, 30), 50)):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        for face in faces:
            rng = np.random.default_rng([4, face])
            image = draw_face(rng, face % 8, face % 2, image_size=(48, 48)).image
            file = tmp_path / folder / f"27_0_1_{face}{quality}.jpg.chip.jpg"
            file.write_bytes(encode_jpeg(image, quality))
    manifest = utkface_manifest(tmp_path / "a", tmp_path / "b")
    counts = manifest["split"].value_counts()
    assert counts["test"] == 2 and counts["train"] + counts["validation"] == 24
    assert "27_0_1_795.jpg.chip.jpg" not in set(manifest["key"])
    assert kag.audit(manifest, progress=False).leaks == []
    assert list(manifest.extra_heads) == ["race"]
    assert manifest.cleaning["rows_kept"] == 24
