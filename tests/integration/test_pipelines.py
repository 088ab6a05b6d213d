"""The scripts in pipelines/, each run as a user runs it, on very small data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sample_data import adience_row, write_adience, write_picture

from keras_agegender.labels import CELEBA_ATTRIBUTES

SMALL = "sample_data:small_backbone"
PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, PIPELINES / script, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
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


def csv_in(directory, count=24):
    lines = ["image,age,gender,hat"]
    for number in range(count):
        write_picture(directory / f"{number}.jpg", value=60 + 5 * number)
        split = ("1", "27", "65")[number % 3]
        lines.append(f"{number}.jpg,{split},{'mf'[number % 2]},{number // 2 % 2}")
    (directory / "labels.csv").write_text("\n".join(lines), "utf-8")
    return directory / "labels.csv"


@pytest.mark.slow
def test_celeba_to_a_csv_of_one_s_own(tmp_path):
    """Pretraining hands its trunk on: every layer but the heads is loaded."""
    celeba = celeba_in(tmp_path / "celeba")
    small = ("--model", SMALL, "--size", 32)
    out = run(
        "pretrain_celeba.py", celeba, "--encoding", "gender", *small,
        "--directory", tmp_path / "pretrained", "--epochs", 1,
    )  # fmt: skip
    assert "8 rows read, 8 kept" in out
    out = run(
        "finetune_your_csv.py", csv_in(tmp_path / "mine"), *small, "--epochs", 1, 1,
        "--pretrained", tmp_path / "pretrained" / "best.keras",
        "--directory", tmp_path / "finetuned",
    )  # fmt: skip
    assert "4 layers loaded, 2 skipped" in out  # three below, gender; not age, hat
    assert "column 'hat' is an output: binary" in out
    assert (tmp_path / "finetuned" / "saved_model" / "saved_model.pb").is_file()


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
