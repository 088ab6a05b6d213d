"""Reproductions: runs that finish, fail and resume, and the table of them."""

from __future__ import annotations

import csv
import shutil
import weakref
from dataclasses import replace

import keras
import pytest
from sample_data import make_prepared

from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.reproduce import plan_runs, reproduce, shared_path

SMALL = (
    "model.backbone=sample_data:small_backbone",
    "model.image_size=[32, 32]",
    "data.batch_size=8",
    "data.faces=any",
    "training.epochs=1",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


def published_on(recipe, data, split="fold_4"):
    """The recipe, with figures that say to be of some dataset."""
    rows = tuple(replace(row, data=data, split=split) for row in recipe.published)
    return replace(recipe, published=rows)


@pytest.fixture(scope="module")
def reproduced(prepared, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reproduced")
    said = []
    recipes = [
        published_on(load_recipe("7", SMALL), "test"),
        load_recipe("9", SMALL),
        load_recipe("5", SMALL),
    ]
    found = reproduce(recipes, prepared, directory, seeds=(0, 1), report=said.append)
    return found, said


def test_published_and_measured_scores_have_separate_columns(reproduced):
    found, said = reproduced
    assert [(r.recipe[:2], r.checkpoint) for r in found.rows] == [
        ("07", "age"), ("07", "gender"), ("07", "both"), ("09", None), ("05", None),
    ]  # fmt: skip
    first = found.rows[0]
    assert first.published["age accuracy"] == 0.399 and first.notes == ()
    assert first.num_runs == 2 and len(first.measured["age accuracy"]) == 2
    with (found.directory / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["gender accuracy, published"] == "0.779"
    mean = sum(first.measured["gender accuracy"]) / 2
    assert float(rows[0]["gender accuracy, measured mean"]) == pytest.approx(mean)
    assert (found.directory / "table.png").stat().st_size > 10_000
    text = (found.directory / "table.md").read_text("utf-8")
    assert "the dataset's own splits; seeds 0, 1." in " ".join(text.split())
    # What the recipe object changed is said, though it was no override.
    assert "Changed in 07_caffe_categorical: data.batch_size=8, data.faces='any'" in (
        " ".join(text.split())
    )
    assert (rows[0]["folds"], rows[0]["seeds"]) == ("1", "2")
    latex = (found.directory / "table.tex").read_text("utf-8")
    assert "07\\_caffe\\_categorical" in latex and "\\toprule" in latex
    assert any("gender accuracy" in line for line in said)


def test_runs_that_cannot_start_are_in_the_table(reproduced):
    """Models 9 and 5 need CelebA, which was not given: nothing stands in for it."""
    found, _ = reproduced
    crops = "`agegender prepare celeba data/celeba --out data/celeba_prepared`"
    for row, reason, command in (
        (found.rows[3], "initialized from 'celeba_attributes'", crops),
        (found.rows[4], "it needs pretraining data", crops),
    ):
        assert row.num_runs == 0 and len(row.failed) == 2 and not row.measured
        assert reason in row.failed[0] and command in row.failed[0]
    assert found.num_failed == 4
    assert "Failed:" in str(found)
    assert {path.name for path in (found.directory / "runs").iterdir()} == {
        "07_caffe_categorical"
    }


def test_published_scores_are_only_shown_for_the_same_data(reproduced):
    """Model 9's is of Adience; these faces are not."""
    found, _ = reproduced
    row = found.rows[3]
    assert row.published == {} and "0.738" not in str(found)
    (note,) = row.notes
    assert note == "published scores are for adience, measured ones for test"
    assert f"- {row.recipe}: {note}" in str(found).replace("\n  ", " ")
    assert row.notes[0] in (found.directory / "table.csv").read_text("utf-8")


def test_finished_runs_are_not_trained_again(reproduced, prepared, monkeypatch):
    found, _ = reproduced

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("keras_agegender.training.train.train_experiment", never)
    recipe = published_on(load_recipe("7", SMALL), "test")
    options = {"report": lambda line: None}
    again = reproduce([recipe], prepared, found.directory, seeds=(0, 1), **options)
    assert again.rows == found.rows[:3]
    with pytest.raises(
        ValueError,
        match=r"run of another experiment: recipe.training.learning_rate is 0.0001 "
        "in the existing run and 0.5 in this one",
    ):
        reproduce([recipe], prepared, found.directory, **options,
                  overrides=["training.learning_rate=0.5"])  # fmt: skip


def test_data_that_was_prepared_again_is_noticed(reproduced, prepared, tmp_path):
    """The same place and the same splits, but one face less."""
    found, _ = reproduced
    moved = shutil.copytree(prepared, tmp_path / "moved")
    recipe = load_recipe("7", SMALL)
    (plan,) = plan_runs(
        recipe, {"target": load_prepared(moved), "pretrain": None}, found.directory,
        None, (0,), False,
    )  # fmt: skip
    assert RunDirectory(plan.path).identity == plan.experiment.identity  # just moved
    other = make_prepared(tmp_path / "again", count=39)
    with pytest.raises(ValueError, match=r"another experiment: data.sha256 is "):
        reproduce([recipe], other, found.directory, report=lambda line: None)


def test_overrides_reach_pretraining_recipes(prepared, tmp_path):
    """Planned, not trained: one pretraining for all folds, at their image size."""
    data = load_prepared(prepared)
    recipe = load_recipe("05_caffe_finetuned", [*SMALL, "training.epochs=4"])
    plan = [*plan_runs(
        recipe, {"target": data, "pretrain": data}, tmp_path, [0, 1], (0,), True
    )]  # fmt: skip
    firsts = [run.experiment.initialized_from for run in plan]
    assert firsts[0] == firsts[1] and plan[0].experiment != plan[1].experiment
    assert firsts[0].recipe.training.epochs == 4
    assert firsts[0].recipe.model.image_size == (32, 32)
    # Model 5 itself is that very run.
    (alone,) = plan_runs(
        load_recipe("5", [*SMALL, "training.epochs=4"]),
        {"target": None, "pretrain": data}, tmp_path, [0, 1], (0,), True,
    )  # fmt: skip
    assert alone.path == shared_path(tmp_path, firsts[0])
    with pytest.raises(ValueError, match="No recipe is initialized from another one"):
        reproduce(["7"], data, tmp_path, overrides=["pretraining.training.epochs=1"])


@pytest.mark.slow
def test_every_recipe_uses_the_images_it_needs(prepared, tmp_path):
    whole = make_prepared(tmp_path / "whole", crop_options=None, detector=None)
    changes = [s for s in SMALL if "faces" not in s]
    found = reproduce(
        ["7", "quickstart"], [prepared, whole], tmp_path / "out",
        overrides=[*changes, "loss_weight_changes=[]"], report=lambda line: None,
    )  # fmt: skip
    assert not found.num_failed
    for name, data in (("07_caffe_categorical", whole), ("quickstart", prepared)):
        run = RunDirectory(next((tmp_path / "out" / "runs" / name).iterdir()))
        assert run.info()["data"] == str(data)


def test_the_caller_s_keras_settings_stay_and_models_are_released(
    prepared, tmp_path, monkeypatch
):
    """Between runs nothing is reset, a model in a reference cycle is freed."""
    models = []

    def stop(*args, **kwargs):
        model = keras.Sequential([keras.layers.Dense(1)])
        model.own = [model]
        models.append(weakref.ref(model))
        raise RuntimeError("stopped")

    monkeypatch.setattr("keras_agegender.training.train.train_unless_finished", stop)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        recipe = load_recipe("7", SMALL)
        found = reproduce([recipe], prepared, tmp_path, report=lambda line: None)
        assert keras.config.dtype_policy().name == "bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
    assert "RuntimeError: stopped" in found.rows[0].failed[0]
    assert [model() for model in models] == [None]


def test_datasets_with_other_preprocessing_are_an_error(prepared, tmp_path):
    """Nothing is trained: model 7 is one of whole pictures. The table says why."""
    found = reproduce(["7"], prepared, tmp_path / "out", report=lambda line: None)
    assert found.num_failed == 1 and found.rows[0].num_runs == 0
    assert "trains on whole images" in found.rows[0].failed[0]
    assert not list((tmp_path / "out").rglob("*.keras"))


@pytest.mark.slow
def test_folds_and_quick_and_pretraining(prepared, tmp_path):
    """A recipe that begins with another one, over two folds: trained first once."""
    first = replace(load_recipe("5", SMALL), name="first")
    path = tmp_path / "first.toml"
    path.write_text(first.to_toml(), "utf-8")
    recipe = load_recipe("05_caffe_finetuned", [*SMALL, f"pretraining={path}"])
    found = reproduce(
        [recipe], prepared, tmp_path / "out", folds=[0, 1], quick=True,
        pretraining_data=prepared, report=lambda line: None,
    )  # fmt: skip
    assert not found.rows[0].failed and found.rows[0].num_runs == 2
    runs = sorted((tmp_path / "out" / "runs").glob("*/*/transfer.txt"))
    assert [run.parent.name for run in runs] == ["fold0_seed0", "fold1_seed0"]
    assert "layers loaded, 0 skipped" in runs[0].read_text("utf-8")
    assert len(list((tmp_path / "out" / "runs" / "first").iterdir())) == 1
    assert "QUICK" in found.note
    # The pretraining saw the faces of both test folds.
    assert "it was trained on 8 of the test faces" in found.rows[0].notes
    with pytest.raises(ValueError, match="no fold 7"):
        reproduce([recipe], prepared, tmp_path / "out", folds=[7])
