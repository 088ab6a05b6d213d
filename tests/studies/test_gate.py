"""The gate over folds and seeds, over a reproduction, and over a user's columns."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from keras_agegender.cli import main as cli
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.compare import compare, compare_reproduction


def run_with(path, table):
    run = RunDirectory(path)
    run.path.mkdir()
    run.recipe_file.write_text(load_recipe("quickstart").to_toml(), "utf-8")
    run.best_model.write_bytes(b"")
    pd.DataFrame(table).to_csv(run.path / "predictions.csv", index=False)
    return run


def answers(right, subjects=None, genders=None, **columns):
    """Predictions of gender, right where asked; age groups of one kind, all right."""
    right = np.asarray(right, bool)
    genders = np.full(len(right), "female") if genders is None else np.asarray(genders)
    other = np.where(genders == "female", "male", "female")
    return {
        "key": [f"{k}.jpg" for k in range(len(right))],
        "subject": [""] * len(right) if subjects is None else subjects,
        "age_group": "0-2",
        "gender": genders,
        "predicted_age_group": "0-2",
        "predicted_gender": np.where(right, genders, other),
        **columns,
    }


def two_runs(path, first, second):
    return run_with(path / "a", first), run_with(path / "b", second)


def gate_runs(path, lost_women, subjects_per_face=1):
    """200 women and 200 men; A is right on all, B wrong on some of the women."""
    genders = ["female"] * 200 + ["male"] * 200
    subjects = [f"s{k // subjects_per_face}" for k in range(400)]
    second = np.r_[np.zeros(lost_women), np.ones(400 - lost_women)]
    return two_runs(
        path,
        answers(np.ones(400), subjects, genders),
        answers(second, subjects, genders),
    )


def test_the_gate_names_the_cell_that_got_worse(tmp_path, capsys):
    """20 of 200 women lost: p = 2 / 2^20, far below 0.05 / 4 for four cells."""
    first, second = gate_runs(tmp_path, 20)
    found = compare(first, second)
    assert [(c.cell, c.task) for c in found.worse] == [
        ("0-2 female", "gender"), ("all faces", "gender"),
    ]  # fmt: skip
    worst = found.worse[0]
    assert worst.difference == pytest.approx(-0.1)
    assert worst.p_value == pytest.approx(2**-19)
    assert {c.level for c in found.worse} == {0.05 / 4, 0.05}
    assert worst.interval[1] < 0
    arguments = ["compare", str(first.path), str(second.path), "--gate"]
    assert cli.main(arguments) == 1
    assert "significantly worse in 0-2 female (gender)" in capsys.readouterr().out
    arguments[1:3] = arguments[2:0:-1]  # B got better: nothing to say
    assert cli.main(arguments) == 0
    assert "gate: passed" in capsys.readouterr().out
    assert cli.main(arguments[:-1]) == 0


def test_the_gate_corrects_for_many_cells(tmp_path):
    """Seven of 200 lost: p = 2 / 2^7 = 0.016, above 0.05 / 4 = 0.0125."""
    found = compare(*gate_runs(tmp_path, 7))
    women, everybody = (
        next(c for c in found.cells if (c.cell, c.task) == (name, "gender"))
        for name in ("0-2 female", "all faces")
    )
    assert women.p_value == everybody.p_value == pytest.approx(2**-6)
    assert (women.level, women.worse) == (0.05 / 4, False)
    assert (everybody.level, everybody.worse) == (0.05, True)


def race_runs(path, second_columns=(), lost=0):
    """300 women who answer race and years; B is wrong about race on the first."""
    faces = np.arange(300)
    race = np.where(faces % 2, "x", "y")
    table = answers(np.ones(300), [f"s{k}" for k in faces])
    table |= {"race": race, "predicted_race": race, "age_years": 1.0,
              "predicted_age_years": 1.5}  # fmt: skip
    wrong = np.where(faces % 2, "y", "x")
    other = {**table, "predicted_race": np.where(faces < lost, wrong, race)}
    other = {k: v for k, v in other.items() if k not in second_columns}
    runs = two_runs(path, table, other)
    heads = [{"name": "race", "head_type": "categorical", "num_classes": 2}]
    for run in runs:
        run.update_info(extra_heads=heads)
    return runs


def test_many_cells_do_not_hide_an_overall_drop(tmp_path):
    """Six faces lost: p = 2 / 2^6 = 0.031, above 0.05 / 3 for three cells."""
    first, second = race_runs(tmp_path)
    table = pd.read_csv(second.path / "predictions.csv")
    table.loc[:59:10, "predicted_gender"] = "male"
    table.to_csv(second.path / "predictions.csv", index=False)
    found = compare(first, second)
    assert [(c.cell, c.task) for c in found.worse] == [("all faces", "gender")]
    assert found.worse[0].p_value == pytest.approx(2**-5)
    others = [c.level for c in found.cells if c.cell == "0-2 female"]
    assert others == [pytest.approx(0.05 / 3)] * 3


def test_extra_heads_are_tested_and_numbers_are_listed(tmp_path):
    """Twenty faces lost of race alone: p = 2 / 2^20."""
    found = compare(*race_runs(tmp_path, lost=20))
    assert {(c.cell, c.task) for c in found.worse} == {
        ("all faces", "race"), ("0-2 female", "race"),
    }  # fmt: skip
    assert found.worse[0].p_value == pytest.approx(2**-19)
    assert "\nnot tested: age in years\n" in found.gate()
    assert [d.task for d in found.differences] == ["gender", "age_group"]


@pytest.mark.parametrize("question", ["age_group", "race"])
def test_a_task_no_longer_predicted_fails_the_gate(tmp_path, capsys, question):
    first, second = race_runs(tmp_path, [f"predicted_{question}"])
    found = compare(first, second)
    assert (found.failed, found.worse, found.missing) == (True, (), (question,))
    assert f"note: A predicts {question}, B does not" in str(found)
    command = ["compare", str(first.path), str(second.path), "--gate"]
    assert cli.main(command) == 1
    text = capsys.readouterr().out
    assert f"gate: failed; B does not predict {question}, A does" in text
    assert "passed" not in text
    command[1:3] = command[2:0:-1]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert f"not tested: {question} (A does not predict it), age in years" in text


def test_one_person_is_not_significant(tmp_path):
    """20 lost faces of one person say as much as one lost face."""
    found = compare(*gate_runs(tmp_path, 20, subjects_per_face=20))
    assert not found.worse


def test_small_cells_are_shown_and_not_tested(tmp_path):
    genders = ["female"] * 29 + ["male"] * 200
    first = answers(np.ones(229), [f"{k}" for k in range(229)], genders)
    second = answers(
        np.r_[np.zeros(29), np.ones(200)], [f"{k}" for k in range(229)], genders
    )
    found = compare(*two_runs(tmp_path, first, second))
    cell = next(c for c in found.cells if c.cell == "0-2 female")
    assert (cell.p_value, cell.level, cell.worse) == (None, None, False)
    assert [c.cell for c in found.worse] == ["all faces"]
    (same := tmp_path / "same").mkdir()
    verdict = "; 2 cells have too few faces or people to test"
    assert found.gate().splitlines()[-1].endswith(verdict)
    passed = compare(*two_runs(same, first, first)).gate()
    end = (
        "gate: passed; B is not significantly worse in any of 4 cells; 2 cells have too"
    )
    assert end in passed


# -- folds and seeds ------------------------------------------------------------------

NUM_FACES = 60  # of each fold; the first half women, every third face of race x


def make_run(folder, fold, seed, num_lost=0):
    """A run that answers gender, wrong on the first women of its fold."""
    run = RunDirectory(folder / f"fold{fold}_seed{seed}")
    run.path.mkdir(parents=True)
    run.recipe_file.write_text(load_recipe("quickstart").to_toml(), "utf-8")
    run.best_model.write_bytes(b"")
    splits = {"train": "fold_9", "validation": "", "test": f"fold_{fold}"}
    (run.path / "run.json").write_text(json.dumps({"seed": seed, "splits": splits}))
    faces = np.arange(NUM_FACES)
    gender = np.where(faces < NUM_FACES // 2, "female", "male")
    table = {
        "key": [f"{fold}_{k}.jpg" for k in faces],
        "subject": [f"{fold} person {k}" for k in faces],
        "fold": 7,  # a column that a comparison has too
        "race": np.where(faces % 3 == 0, "x", "y"),
        "age_group": "0-2",
        "gender": gender,
        "predicted_gender": np.where(faces < num_lost, "male", gender),
    }
    pd.DataFrame(table).to_csv(run.path / "predictions.csv", index=False)
    return run


@pytest.fixture
def reproduced(tmp_path):
    """Recipe a loses nobody; b 10 women of fold 0, of fold 1 10 with seed 0 alone."""
    lost = {(0, 0): 10, (0, 1): 10, (1, 0): 10, (1, 1): 0}
    for (fold, seed), number in lost.items():
        make_run(tmp_path / "runs" / "a", fold, seed)
        make_run(tmp_path / "runs" / "b", fold, seed, number)
    return tmp_path


def cell(found, name):
    return next(c for c in found.cells if c.cell == name)


def test_cells_are_pooled_over_folds_and_seeds(reproduced):
    """Women: ten lost in both seeds, ten in one of two, forty kept: -15 / 60.

    Twenty people's sums are below 0 and none above: p = 2 / 2^20.
    """
    found = compare(reproduced / "runs" / "a", reproduced / "runs" / "b")
    women = cell(found, "0-2 female")
    assert (women.num_faces, women.num_clusters) == (60, 60)
    assert (women.first, women.second) == (1.0, pytest.approx(45 / 60))
    assert women.p_value == pytest.approx(2**-19)
    # Two cells are judged together, all faces apart.
    assert cell(found, "all faces").level == 0.05
    assert women.level == pytest.approx(0.05 / 2)
    assert [c.cell for c in found.worse] == ["0-2 female", "all faces"]
    men = cell(found, "0-2 male")
    assert (men.difference, men.p_value, men.worse) == (0.0, 1.0, False)
    # "All faces" is the pooled difference of the comparison itself.
    everybody, (gender,) = cell(found, "all faces"), found.differences
    assert everybody.p_value == gender.p_value
    assert everybody.difference == pytest.approx(gender.difference)


def test_one_pair_is_the_gate_of_two_runs(reproduced):
    pair = [reproduced / "runs" / name / "fold0_seed0" for name in "ab"]
    assert compare(*pair, by="race").cells == compare(*pair, by="race").cells


def test_any_column_gives_cells(reproduced):
    """Of fold 0, faces 0, 3, 6 and 9 of the lost are of race x, and so of fold 1."""
    pair = reproduced / "runs" / "a", reproduced / "runs" / "b"
    found = compare(*pair, by=["race", "race,gender", "fold"])
    assert cell(found, "race: x").difference == pytest.approx(-(4 + 4 / 2) / 40)
    assert cell(found, "race × gender: x male").difference == 0.0
    # Twenty faces of race x are women: too few to judge.
    assert cell(found, "race × gender: x female").p_value is None
    assert cell(found, "fold: 7").num_faces == 120
    with pytest.raises(ValueError, match="'rase'. Did you mean 'race'?"):
        compare(*pair, by="rase")
    with pytest.raises(ValueError, match="'sex' in 'race,sex'"):
        compare(*(p / "fold0_seed0" for p in pair), by="race,sex")


def test_a_reproduction_is_one_family_of_tests(reproduced):
    """Three recipes, three comparisons of two cells and all faces: six tests, three."""
    for fold, seed in ((0, 0), (0, 1), (1, 0), (1, 1)):
        make_run(reproduced / "runs" / "c", fold, seed)
    found = compare_reproduction(reproduced)
    assert [len(c.worse) for c in found.comparisons] == [2, 0, 0]  # b -> c is better
    cells = [c for one in found.comparisons for c in one.cells]
    levels = {c.level for c in cells if c.cell != "all faces"}
    assert min(levels) == pytest.approx(0.05 / 6)
    levels = {c.level for c in cells if c.cell == "all faces"}
    assert min(levels) == pytest.approx(0.05 / 3)
    assert "A a, B b" in found.gate()
    assert "gate: b is significantly worse in 0-2 female (gender)" in found.gate()
    assert (
        "gate: passed; c is not significantly worse in any of 3 cells" in found.gate()
    )


def test_exit_codes(reproduced, capsys):
    first, second = (str(reproduced / "runs" / name) for name in "ab")
    assert cli.main(["compare", first, second, "--by", "race"]) == 0
    assert "race: x" in capsys.readouterr().out
    assert cli.main(["compare", first, second, "--gate"]) == 1
    assert "gate: B is significantly worse" in capsys.readouterr().out
    assert cli.main(["compare", second, first, "--gate", "--by", "race"]) == 0
    assert cli.main(["compare", str(reproduced), "--gate"]) == 1
    capsys.readouterr()
    assert cli.main(["compare", first, second, "--gate", "--by", "rase"]) == 2
    assert "Did you mean 'race'?" in capsys.readouterr().err


def test_a_gate_without_tested_cells(reproduced):
    for name in "ab":
        file = reproduced / "runs" / name / "fold0_seed0" / "predictions.csv"
        pd.read_csv(file).iloc[:20].to_csv(file, index=False)
    pair = [reproduced / "runs" / name / "fold0_seed0" for name in "ab"]
    assert "no cell is tested, each has under 30 faces" in compare(*pair).gate()
