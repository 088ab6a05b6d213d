"""A wrong path or recipe is an error before any framework is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from keras_agegender.cli import main as cli
code = cli.main(sys.argv[1:])
heavy = [m for m in ("tensorflow", "keras", "jax", "matplotlib") if m in sys.modules]
print(code, heavy)
"""


@pytest.fixture
def folder(tmp_path):
    """A finished run of nothing, an empty dataset and a photo, as far as names go."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.toml", "best.keras"):
        (run / name).touch()
    (run / "run.json").write_text('{"status": "finished"}', "utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").touch()
    (tmp_path / "file").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train 7 --data missing --run x", "no prepared dataset in missing"),
        ("train 7 --data file --run x", "no prepared dataset in file"),
        ("train 77 --data data --run x", "no recipe named '77'"),
        ("train 7 --data data --run x --set training.epoch=1", "'training.epochs'"),
        ("train 7 --data data --run x --split fold_1", "Invalid --split"),
        ("train 9 --data data --run x --pretraining-data no", "no prepared dataset"),
        ("train 9 --data data --run x --pretrained no", "not a run directory"),
        ("train 9 --data data --run x --pretrained no.keras", "no model file"),
        ("train 7 --data data --run file", "file is a file"),
        ("train 7 --data data --run run", "run is finished"),
        ("evaluate missing", "not a run directory"),
        ("evaluate run --data missing", "no prepared dataset"),
        ("export missing --out out", "not a run directory"),
        ("export missing.keras --out out", "no model file"),
        ("compare missing run", "not a run directory"),
        ("reproduce 7 --data missing --out out", "no prepared dataset"),
        ("reproduce 77 --data data --out out", "no recipe named"),
        ("predict missing file", "no exported model"),
        ("predict model missing.jpg", "no photo missing.jpg"),
        ("predict model file --annotate out.txt", "Invalid --annotate"),
        ("quickstart --set training.epoch=1", "'training.epochs'"),
        ("recipes quikstart", "'quickstart'"),
        ("prepare csv missing.csv --out out", "no CSV file"),
        ("prepare adience missing --out out", "no folder"),
        ("prepare utkface missing --out out", "no folder"),
        ("prepare celeba missing --out out", "missing"),
        ("audit missing", "no file or folder missing"),
        ("audit data --strict", "Received: strict"),
        ("audit data --no-near --json no/found.json", "no folder for --json"),
    ],
)
def test_errors_come_before_frameworks(folder, command, message):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *command.split()],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    code = 2 if command.startswith("audit") else 1
    assert done.stdout.splitlines()[-1] == f"{code} []", done
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not (folder / "out").exists() and not (folder / "x").exists()
