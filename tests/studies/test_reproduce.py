"""Reproduction and comparison: tables of runs that ended, failed, and went on."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from sample_data import make_prepared

from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.recipe import Published
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.compare import compare
from keras_agegender.studies.reproduce import Row, reproduce, to_markdown

SMALL = (
    "model.name=caffe_1conv",
    "model.image_size=[32, 32]",
    "data.batch_size=8",
    "data.faces=any",
    "training.epochs=1",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def reproduced(prepared, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reproduced")
    said = []
    recipes = [load_recipe("7", SMALL), load_recipe("9", SMALL)]
    found = reproduce(recipes, prepared, directory, seeds=(0, 1), report=said.append)
    return found, said


def test_published_and_measured_have_columns_of_their_own(reproduced):
    found, said = reproduced
    assert [(r.recipe[:2], r.checkpoint) for r in found.rows] == [
        ("07", "age"), ("07", "gender"), ("07", "both"), ("09", ""),
    ]  # fmt: skip
    first = found.rows[0]
    assert first.published["age accuracy"] == 0.399
    assert first.num_runs == 2 and len(first.measured["age accuracy"]) == 2
    with (found.directory / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["gender accuracy, published"] == "0.779"
    mean = sum(first.measured["gender accuracy"]) / 2
    assert float(rows[0]["gender accuracy, measured mean"]) == pytest.approx(mean)
    assert (found.directory / "table.png").stat().st_size > 10_000
    assert "seeds [0, 1]" in (found.directory / "table.md").read_text("utf-8")
    assert any("gender accuracy" in line for line in said)


def test_a_run_that_fails_is_in_the_table(reproduced):
    """Model 9 begins with CelebA, which was not given."""
    found, _ = reproduced
    row = found.rows[-1]
    assert row.num_runs == 0 and len(row.failed) == 2 and not row.measured
    assert "begins with 'celeba_attributes'" in row.failed[0]
    assert found.num_failed == 2
    assert "Failed:" in str(found) and "0.738" in str(found)


def test_the_same_call_trains_nothing_again(reproduced, prepared, monkeypatch):
    found, _ = reproduced
    from keras_agegender.studies import reproduce as reproduction

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(reproduction, "train", never)
    again = reproduce(
        [load_recipe("7", SMALL)],
        prepared,
        found.directory,
        seeds=(0, 1),
        report=lambda line: None,
    )
    assert again.rows == found.rows[:3]
    with pytest.raises(ValueError, match="finished run of other settings"):
        reproduce(
            [load_recipe("7", [*SMALL, "training.learning_rate=0.5"])],
            prepared,
            found.directory,
            report=lambda line: None,
        )


def test_datasets_of_the_other_pixels_are_refused(prepared, tmp_path):
    """Before anything is trained: model 7 is one of whole pictures."""
    with pytest.raises(ValueError, match="trained on whole pictures"):
        reproduce([load_recipe("9", SMALL), "7"], prepared, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_folds_and_quick_and_pretraining(prepared, tmp_path):
    """A recipe that begins with another one, over two folds: trained first once."""
    first = replace(
        load_recipe("5", SMALL), name="first", published=(Published(data="CelebA"),)
    )
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
    with pytest.raises(ValueError, match="no fold 7"):
        reproduce([recipe], prepared, tmp_path / "out", folds=[7])


def test_mean_and_deviation_by_hand():
    """0.5 and 0.7: mean 0.6, sample standard deviation 0.1414."""
    row = Row("r", "t", "", "male", {}, {"gender accuracy": [0.5, 0.7]})
    assert "| 0.600 ± 0.141 |" in to_markdown([row], "")


# -- comparison ------------------------------------------------------------------------


def predictions_in(run, answers):
    lines = ["key,age_group,gender,predicted_age_group,predicted_gender"]
    lines += [f"{key},0-2,{true},4-6,{answer}" for key, true, answer in answers]
    (run.path / "predictions.csv").write_text("\n".join(lines), "utf-8")


@pytest.fixture
def two_runs(tmp_path):
    runs = []
    for name, encoding in (("a", "ordinal"), ("b", "coral")):
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        recipe = load_recipe("quickstart", [f"model.encoding={encoding}"])
        run.recipe_file.write_text(recipe.to_toml(), "utf-8")
        run.best_model.write_bytes(b"")
        runs.append(run)
    return runs


def test_paired_differences_by_hand(two_runs):
    """Of 10 faces, A alone is right on 1 and B alone on 4: p = 2 · 6 / 32 = 0.375."""
    truth = [(f"{k}.jpg", "male") for k in range(10)]
    first = [*["male"] * 5, *["female"] * 4, "female"]
    second = ["female", *["male"] * 8, "female"]
    for run, answers in zip(two_runs, (first, second), strict=True):
        rows = [(key, t, a) for (key, t), a in zip(truth, answers, strict=True)]
        predictions_in(run, rows)
    found = compare(*two_runs)
    gender, age = found.differences
    assert (gender.first, gender.second) == (0.5, 0.8)
    assert (gender.only_first, gender.only_second) == (1, 4)
    assert gender.difference == pytest.approx(0.3)
    assert gender.p_value == pytest.approx(0.375)
    assert gender.interval[0] < 0.3 < gender.interval[1]
    assert age.p_value == 1.0 and age.interval == (0.0, 0.0)
    assert found.settings == {"model.encoding": ("ordinal", "coral")}
    assert "+0.300" in str(found) and "0.38" in str(found)


def test_runs_that_cannot_be_compared(two_runs):
    with pytest.raises(ValueError, match=r"has no predictions\.csv"):
        compare(*two_runs)
    predictions_in(two_runs[0], [("1.jpg", "male", "male"), ("3.jpg", "male", "male")])
    predictions_in(two_runs[1], [("2.jpg", "male", "male")])
    with pytest.raises(ValueError, match="no face in common"):
        compare(*two_runs)
    predictions_in(two_runs[1], [("1.jpg", "male", "male")])
    assert "1 faces of" in compare(*two_runs).warnings[0]
