"""What the tests of faults share: a small folder of everything, made once."""

from __future__ import annotations

import shutil
from typing import NamedTuple

import pytest
from fault_runner import Commands

SETTINGS = (
    "model.backbone=sample_data:small_backbone",
    "model.encoding=categorical",
    "model.image_size=[32, 32]",
    "data.batch_size=16",
    "data.faces=any",
    "training.epochs=2",
    "evaluation={}",
)
OVERRIDES = [part for setting in SETTINGS for part in ("--set", setting)]


class Workshop(NamedTuple):
    """Where everything lies, and what runs commands there."""

    root: object
    run: Commands

    def command(self, verb, out):
        """Returns the command of a verb that makes `out` of what is there."""
        root = self.root
        crops = ("--no-crop", "--size", "48")
        return {
            "prepare": ("prepare", "adience", root / "faces", "--out", out, *crops),
            "train": (
                *("train", "quickstart", "--data", root / "data", "--run", out),
                *OVERRIDES,
            ),
            "reproduce": (
                *("reproduce", "quickstart", "--data", root / "data", "--out", out),
                *("--seeds", "0", "1", *OVERRIDES),
            ),
            "export": ("export", root / "run", "--out", out),
            "predict": (
                *("predict", root / "model", root / "faces" / "faces"),
                *("--out", out.with_suffix(".jsonl")),
            ),
        }[verb]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """80 faces, and of them a dataset, a run, an export and predictions, undisturbed.

    The verbs' results are `data`, `run`, `reproduced`, `model` and `answers.jsonl`.
    """
    from keras_agegender.synthetic.faces import write_synthetic_faces

    root = tmp_path_factory.mktemp("faults")
    write_synthetic_faces(root / "faces", 80, image_size=(48, 48))
    with Commands() as run:
        yield Workshop(root, run)
    shutil.rmtree(root)
