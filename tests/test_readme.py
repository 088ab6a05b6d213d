"""README's Python example runs as it is printed, and prints scores and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_agegender as kag

README = Path(__file__).parent.parent / "README.md"


def python_example() -> str:
    """Returns the block of README that builds and fits a model."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S
    )
    (example,) = [b for b in blocks if "build_model" in b and ".fit(" in b]
    return example


def test_the_example_uses_names_that_exist():
    names = set(re.findall(r"\bkag\.(\w+)", python_example()))
    assert "build_model" in names and names <= set(kag.__all__)


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    """After a quickstart of few faces, which are not cropped to save time."""
    kag.synthetic.write_synthetic_faces(tmp_path / "faces", 80, image_size=(96, 96))
    manifest, _ = kag.synthetic.read_synthetic(tmp_path / "faces")
    kag.prepare(
        manifest.drop(columns=manifest.columns[8:]),
        tmp_path / "quickstart" / "prepared",
        detector=None,
        crop_options=None,
        output_size=(64, 64),
        splits=kag.datasets.report_splits(),
        progress=False,
    )
    done = subprocess.run(
        [sys.executable, "-c", python_example()],
        capture_output=True, text=True, cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "16 faces" in done.stdout and "age group   accuracy" in done.stdout
    assert len(done.stdout.splitlines()) < 40
