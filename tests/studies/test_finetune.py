"""Fine-tuning: heads by name, new heads first, and initial weights to improve on."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from sample_data import make_prepared, make_rows

import keras_agegender as kag
from keras_agegender.cli import main as cli
from keras_agegender.models.weights import load_model
from keras_agegender.studies.finetune import Change

RECIPE = """
[model]
backbone = "sample_data:small_backbone"
encoding = "years"
image_size = [32, 32]
[training]
epochs = 4
learning_rate = 0.01
[loss_weights]
colour = 0.5
"""
COLOURS = {"kind": "categorical", "classes": ["red", "green", "blue"]}
OTHER_ORDER = {"kind": "categorical", "classes": ["Blue", "green", "red"]}
GLASSES = {"kind": "binary", "classes": []}
WHOLE = {"crop_options": None, "detector": None}  # no detector is needed for a CSV file


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A run with a head of three named colors."""
    folder = tmp_path_factory.mktemp("released")
    (folder / "small.toml").write_text(RECIPE, "utf-8")
    data = make_prepared(folder, 40, {"colour": COLOURS}, **WHOLE)
    return kag.train(folder / "small.toml", data, folder / "run", verbose=0)


def weights_of(file, *layers):
    model = load_model(file, compile=False)
    return [w for name in layers for w in model.get_layer(name).get_weights()]


def test_heads_are_kept_by_name_and_new_ones_learn_first(released, tmp_path, capsys):
    """The stage of the new head changes neither the trunk nor the other heads."""
    heads = {"colour": OTHER_ORDER, "glasses": GLASSES}
    data = make_prepared(tmp_path, 40, heads, **WHOLE)
    found = kag.finetune(
        data, released, tmp_path / "run", overrides=["training.epochs=1"], verbose=1
    )
    states = {
        "gender": "kept",
        "age": "kept",
        "colour": "kept, classes reordered",
        "glasses": "new",
    }
    assert found.heads == states
    printed = capsys.readouterr().out
    for name, state in states.items():
        assert f"head {name}: {state}" in printed and f"head {name}: {state}" in str(
            found
        )
    first = found.run.path / "pretraining" / "best.keras"
    for a, b in zip(
        weights_of(first, "conv1", "batch_norm", "conv2", "gender", "age"),
        weights_of(
            released.best_model, "conv1", "batch_norm", "conv2", "gender", "age"
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    kernel, old = (weights_of(f, "colour")[0] for f in (first, released.best_model))
    np.testing.assert_array_equal(kernel, old[:, [2, 1, 0]])
    assert found.run.encoding().head("colour").classes == ("Blue", "green", "red")
    verdicts = {change.name: change.verdict for change in found.changes}
    assert verdicts["glasses accuracy"] == "new"
    assert set(verdicts) == {
        "gender accuracy", "age group accuracy", "age in years mean absolute error",
        "colour accuracy", "glasses accuracy",
    }  # fmt: skip
    assert "before" in str(found) and "after" in str(found)


def test_a_head_without_labels_is_dropped(released, tmp_path):
    data = make_prepared(tmp_path, 40, {"glasses": GLASSES}, **WHOLE)
    settings = ["training.epochs=1"]
    found = kag.finetune(
        data, released, tmp_path / "run", overrides=settings, verbose=0
    )
    assert found.heads["colour"] == "dropped" and found.heads["glasses"] == "new"
    assert "colour accuracy" not in {change.name for change in found.changes}
    assert "head colour: dropped" in str(found)


def test_the_pretrained_weights_stay_if_no_epoch_is_better(released, tmp_path, capsys):
    """A learning rate of 1000 makes every epoch worse."""
    data = make_prepared(tmp_path, 40, {"colour": COLOURS}, **WHOLE)
    settings = ["training.learning_rate=1000", "training.epochs=4"]
    settings += ["training.patience=2", "training.optimizer=sgd"]
    options = {"overrides": settings, "verbose": "auto"}
    found = kag.finetune(data, released, tmp_path / "run", **options)
    assert found.epoch == 0 and found.worse == ()
    assert "the pretrained weights stay" in str(found)
    layers = ("conv1", "batch_norm", "conv2", "gender", "age", "colour")
    for a, b in zip(
        weights_of(found.run.best_model, *layers),
        weights_of(released.best_model, *layers),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    for change in found.changes:
        assert change.before == change.after
    assert found.run.checkpoint_info()["epoch"] == -1
    assert found.run.describe_model()["epoch"] == 0
    # The starting point counts for early stopping: two epochs without a better one.
    assert len(found.run.history_file.read_text("utf-8").splitlines()) == 3
    assert "Initial weights: val_loss" in capsys.readouterr().out
    again = kag.finetune(data, released, tmp_path / "run", **options)
    assert again.changes == found.changes
    assert "epoch" not in capsys.readouterr().out


def write_labels(folder):
    """A CSV file with two of the three colors, in another order, and a new column."""
    rows = make_rows(folder / "images", 40)
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "age", "gender", "colour", "hat", "split"])
        for number, row in enumerate(rows):
            split = ("train", "train", "train", "validation", "test")[row["fold"]]
            age = row["age_years"] if row["age_years"] >= 0 else ""
            gender = ("female", "male", "")[row["gender"]]
            colour = ("blue", "green")[number % 2]
            writer.writerow([row["path"], age, gender, colour, "ny"[number % 2], split])
    return folder / "labels.csv"


def test_a_csv_file_is_prepared_like_the_run(released, tmp_path, capsys):
    """Classes that the file lacks stay: a head of three colors is kept."""
    (tmp_path / "mine").mkdir()
    file = write_labels(tmp_path / "mine")
    arguments = ["finetune", file, "--from", released.path, "--run", tmp_path / "run"]
    arguments += ["--set", "training.epochs=1"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "head colour: kept\n" in printed and "head hat: new" in printed
    assert "before" in printed and "equal within noise" in printed
    run = kag.RunDirectory.open(tmp_path / "run")
    assert run.encoding().head("colour").classes == ("red", "green", "blue")
    stored = kag.load_prepared(tmp_path / "run_data").pixels
    assert stored == released.pixels().stored()
    assert run.recipe().model.image_size == (32, 32)
    assert run.recipe().model.encoding == "years"


def test_other_preprocessing_is_an_error(released, tmp_path):
    data = make_prepared(tmp_path, 40, {"colour": COLOURS})
    with pytest.raises(ValueError, match="preprocessed differently.*Pass the CSV file"):
        kag.finetune(data, released, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_run_is_an_error(released, tmp_path):
    file = tmp_path / "alone.keras"
    file.write_bytes(released.best_model.read_bytes())
    with pytest.raises(ValueError, match="not part of a run"):
        kag.finetune(tmp_path, file, tmp_path / "run")


@pytest.mark.parametrize(
    ("interval", "lower_is_better", "verdict"),
    [
        ((-0.2, -0.1), False, "worse"),
        ((0.1, 0.2), False, "better"),
        ((-0.1, 0.2), False, "equal within noise"),
        ((0.1, 0.2), True, "worse"),
        ((-0.2, -0.1), True, "better"),
        (None, False, "equal within noise"),
    ],
)
def test_verdicts(interval, lower_is_better, verdict):
    change = Change("score", 9, 0.5, 0.4, interval, lower_is_better)
    assert change.verdict == verdict
    run = kag.RunDirectory.__new__(kag.RunDirectory)
    result = kag.studies.FinetuneResult(run, {}, 1, (change,))
    assert ("worse: score" in str(result)) == (verdict == "worse")


@pytest.mark.slow
def test_few_drawn_faces_do_not_make_a_model_worse(tmp_path):
    """160 drawn faces, 32 of them to choose the epoch, after 800 others."""
    made = {}
    for seed, count in ((0, 800), (1, 240)):
        folder = kag.synthetic.write_synthetic_faces(
            tmp_path / f"faces{seed}", count, image_size=(48, 48), seed=seed
        )
        manifest, _ = kag.synthetic.read_synthetic(folder)
        made[seed] = kag.prepare(
            manifest, tmp_path / f"data{seed}", output_size=(48, 48), progress=False
        ).directory
    (tmp_path / "small.toml").write_text(
        RECIPE.partition("[loss_weights]")[0].replace("epochs = 4", "epochs = 12"),
        "utf-8",
    )
    run = kag.train(tmp_path / "small.toml", made[0], tmp_path / "run", verbose=0)
    found = kag.finetune(made[1], run, tmp_path / "mine", verbose=0)
    assert found.worse == ()
    assert {change.name for change in found.changes} >= {"gender accuracy"}
