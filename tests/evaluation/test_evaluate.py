"""Evaluation of a run: faces that it, or its initial run, was trained on."""

from __future__ import annotations

import shutil

import pytest
from sample_data import make_prepared

import keras_agegender as kag
from keras_agegender.evaluation.evaluate import count_seen
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.experiment import make_experiment
from keras_agegender.training.resume import open_run, run_folder

SMALL = ("model.image_size=[32, 32]", "data.batch_size=8", "training.epochs=1",
         "model.backbone=sample_data:small_backbone", "data.faces=any")  # fmt: skip
FIRST_SPLITS = {"train": "fold_4", "validation": "fold_3", "test": "fold_0"}
NONE_SEEN = {"num_seen_in_training": 0, "num_seen_in_validation": 0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return kag.load_prepared(make_prepared(tmp_path_factory.mktemp("data")))


def opened(path, prepared, recipe="7", **options):
    """A run that is begun and not trained."""
    run = RunDirectory(path)
    experiment = make_experiment(kag.load_recipe(recipe, SMALL), prepared, **options)
    with run_folder(run):
        open_run(run, experiment, overwrite=False)
    return run


@pytest.mark.parametrize("weights", ["first", "first/last.keras"])
def test_faces_seen_in_pretraining_count_in_any_working_directory(
    prepared, tmp_path, monkeypatch, weights
):
    """Fold 4 trained the first run: 8 faces. A relative path names it."""
    first = opened(tmp_path / "first", prepared, recipe="1", splits=FIRST_SPLITS)
    for file in (first.best_model, first.last_model):
        file.write_bytes(b"model")
    monkeypatch.chdir(tmp_path)
    run = opened(tmp_path / "run", prepared, pretrained=weights)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert count_seen(run, prepared, "fold_4")["num_seen_in_training"] == 8


def test_a_missing_pretraining_run_is_a_warning(prepared, tmp_path):
    first = opened(tmp_path / "first", prepared, recipe="1", splits=FIRST_SPLITS)
    run = opened(tmp_path / "run", prepared)
    assert count_seen(run, prepared, "fold_4") == NONE_SEEN
    run.update_info(initialized_from=str(first.path))
    shutil.move(first.path, tmp_path / "moved")
    with pytest.warns(UserWarning, match="initialized from .*first, which is not in"):
        found = count_seen(run, prepared, "fold_4")
    assert found == dict.fromkeys(NONE_SEEN)
    # Of its own training faces the run still knows.
    with pytest.warns(UserWarning, match="not counted"):
        found = count_seen(run, prepared, "fold_2")
    assert found["num_seen_in_training"] == 8
