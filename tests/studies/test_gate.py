"""The gate over folds and seeds, over a reproduction, and over a user's columns."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from keras_agegender.cli import main as cli
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.compare import compare, compare_reproduction, compare_sets

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
    found = compare_sets(reproduced / "runs" / "a", reproduced / "runs" / "b")
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
    assert compare_sets(*pair, by="race").cells == compare(*pair, by="race").cells


def test_any_column_gives_cells(reproduced):
    """Of fold 0, faces 0, 3, 6 and 9 of the lost are of race x, and so of fold 1."""
    pair = reproduced / "runs" / "a", reproduced / "runs" / "b"
    found = compare_sets(*pair, by=["race", "race,gender", "fold"])
    assert cell(found, "race: x").difference == pytest.approx(-(4 + 4 / 2) / 40)
    assert cell(found, "race × gender: x male").difference == 0.0
    # Twenty faces of race x are women: too few to judge.
    assert cell(found, "race × gender: x female").p_value is None
    assert cell(found, "fold: 7").num_faces == 120
    with pytest.raises(ValueError, match="'rase'. Did you mean 'race'?"):
        compare_sets(*pair, by="rase")
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
    assert "gate: b is worse beyond noise in 0-2 female (gender)" in found.gate()
    assert "gate: passed; c is worse beyond noise in none of 3 cells" in found.gate()


def test_exit_codes(reproduced, capsys):
    first, second = (str(reproduced / "runs" / name) for name in "ab")
    assert cli.main(["compare", first, second, "--by", "race"]) == 0
    assert "race: x" in capsys.readouterr().out
    assert cli.main(["compare", first, second, "--gate"]) == 1
    assert "gate: B is worse" in capsys.readouterr().out
    assert cli.main(["compare", second, first, "--gate", "--by", "race"]) == 0
    assert cli.main(["compare", str(reproduced), "--gate"]) == 1
    capsys.readouterr()
    assert cli.main(["compare", first, second, "--gate", "--by", "rase"]) == 2
    assert "Did you mean 'race'?" in capsys.readouterr().err


def test_a_gate_that_judges_nothing_says_so(reproduced):
    for name in "ab":
        file = reproduced / "runs" / name / "fold0_seed0" / "predictions.csv"
        pd.read_csv(file).iloc[:20].to_csv(file, index=False)
    pair = [reproduced / "runs" / name / "fold0_seed0" for name in "ab"]
    assert "no cell is judged, each has under 30 faces" in compare(*pair).gate()
