"""Comparing recipes over folds and seeds: pairs, pooling, variances, messages."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from keras_agegender.cli import main as cli
from keras_agegender.datasets.face_index import FaceIndex
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.compare import compare_reproduction, compare_sets

# Fold 0: four faces of people a (two), b and c; fold 1: two of d and e.
PEOPLE = {0: ["a", "a", "b", "c"], 1: ["d", "e"]}


def make_run(folder, fold, seed, right, settings=()):
    """A run that answers gender, right where asked."""
    run = RunDirectory(folder / f"fold{fold}_seed{seed}")
    run.path.mkdir(parents=True)
    run.recipe_file.write_text(load_recipe("quickstart", settings).to_toml(), "utf-8")
    run.best_model.write_bytes(b"")
    splits = {"train": f"fold_{1 - fold}", "validation": "", "test": f"fold_{fold}"}
    (run.path / "run.json").write_text(json.dumps({"seed": seed, "splits": splits}))
    people = PEOPLE[fold]
    table = {
        "key": [f"{fold}_{k}.jpg" for k in range(len(people))],
        "subject": people,
        "age_group": "",
        "gender": "male",
        "predicted_gender": np.where(np.array(right, bool), "male", "female"),
    }
    pd.DataFrame(table).to_csv(run.path / "predictions.csv", index=False)
    rows = [
        {
            "split": f"fold_{f}",
            "key": str(k),
            "subject": "",
            "source": "",
            "picture": "",
        }
        for f, names in PEOPLE.items()
        for k in range(len(names))
    ]
    FaceIndex(pd.DataFrame(rows)).write(run.faces_file)
    return run


@pytest.fixture
def sets(tmp_path):
    """B - A: fold 0 seed 0 +2/4, seed 1 +1/4; fold 1 seed 0 0, seed 1 -1/2."""
    places = ((0, 0), (0, 1), (1, 0), (1, 1))
    answers = {
        "a": ([0, 0, 1, 1], [0, 1, 1, 1], [1, 0], [1, 1]),
        "b": ([1, 1, 1, 1], [1, 1, 1, 1], [1, 0], [0, 1]),
    }
    for name, runs in answers.items():
        settings = ["training.learning_rate=0.5"] if name == "b" else []
        for (fold, seed), right in zip(places, runs, strict=True):
            make_run(tmp_path / "runs" / name, fold, seed, right, settings)
    return tmp_path / "runs" / "a", tmp_path / "runs" / "b"


def test_pairs_are_pooled_by_hand(sets):
    """Faces' differences, means over seeds: 1, 1/2, 0, 0 | -1/2, 0; mean 1/6.

    People's sums over seeds: a 3, b 0, c 0, d -1, e 0: of four sign patterns two are
    as far as 2 or farther on each side (4, 2, -2, -4), so p = 1.
    """
    found = compare_sets(*sets)
    (gender,) = found.differences
    assert (found.num_pairs, gender.num_faces, gender.num_clusters) == (4, 6, 5)
    assert gender.first == pytest.approx((0 + 0.5 + 1 + 1 + 1 + 0.5) / 6)
    assert gender.difference == pytest.approx(1 / 6)
    assert gender.p_value == 1.0
    assert gender.interval[0] < 1 / 6 < gender.interval[1]
    assert gender.by_run == {
        ("fold_0", 0): 0.5, ("fold_0", 1): 0.25,
        ("fold_1", 0): 0.0, ("fold_1", 1): -0.5,
    }  # fmt: skip
    assert found.settings["training.learning_rate"][1] == 0.5


def test_folds_and_seeds_vary_apart(sets):
    """Table 1/2 1/4 | 0 -1/2: folds' means 3/8, -1/4, seeds' 1/4, -1/8, mean 1/16.

    Rest ±1/16 in all cells: 4 / 256 = 1/64. Folds: (5/8)² / 2 - 1/128 = 3/16; seeds:
    (3/8)² / 2 - 1/128 = 1/16.
    """
    gender = compare_sets(*sets).differences[0]
    components = gender.components
    assert components.rest == pytest.approx(1 / 64)
    assert components.fold == pytest.approx(3 / 16)
    assert components.seed == pytest.approx(1 / 16)
    assert gender.over_runs.mean == pytest.approx(1 / 16)
    assert gender.over_runs.over == "folds"
    text = str(compare_sets(*sets))
    assert "over folds, corrected for shared training faces" in text
    assert "fold_1, seed 1: -0.500" in text


def test_one_pair_is_the_comparison_of_two_runs(sets):
    first, second = (folder / "fold0_seed0" for folder in sets)
    gender = compare_sets(first, second).differences[0]
    # Person a's two faces: signs of one sum of 2, p = 1.
    assert (gender.difference, gender.p_value) == (0.5, 1.0)
    assert gender.over_runs.over == ""
    assert "one fold and one seed" in str(gender.components)


def test_seeds_are_no_more_faces(sets, tmp_path):
    """The same answers with two seeds: interval and p of one seed."""
    for name, right in (("c", [0, 0, 1, 0]), ("d", [1, 1, 0, 1])):
        for seed in (0, 1):
            make_run(tmp_path / name, 0, seed, right)
    twice = compare_sets(tmp_path / "c", tmp_path / "d").differences[0]
    pair = [tmp_path / name / "fold0_seed0" for name in "cd"]
    once = compare_sets(*pair).differences[0]
    assert twice.interval == pytest.approx(once.interval)
    assert (twice.p_value, twice.num_faces) == (once.p_value, once.num_faces)
    # Two pairs that are alike say nothing of what another seed would give.
    assert twice.over_runs.over == "" and twice.components.seed == 0.0
    # A difference is in [-1, 1], and so is its interval.
    assert -1 <= twice.interval[0] and twice.interval[1] <= 1


def test_runs_without_a_partner_are_said(sets):
    (sets[1] / "fold1_seed1" / "best.keras").unlink()
    found = compare_sets(*sets)
    assert found.num_pairs == 3
    assert "has no run of its fold and seed in the other" in found.warnings[0]
    assert "fold1_seed1 is not finished" in found.warnings[1]
    # Fold 0 has two seeds and fold 1 one: faces count alike, whatever their seeds.
    assert found.differences[0].difference == pytest.approx((1 + 0.5) / 6)
    assert "one-way" in str(found.differences[0].components)


def test_folders_that_are_no_sets(sets, tmp_path):
    (sets[0] / "fold1_seed1").rename(tmp_path / "of_a")
    (sets[1] / "fold1_seed1").rename(sets[0] / "fold1_seed1")
    with pytest.raises(ValueError, match="several recipes: training.learning_rate"):
        compare_sets(*sets)
    with pytest.raises(ValueError, match="not a run directory"):
        compare_sets(tmp_path / "runs", sets[1])
    make_run(tmp_path / "c", 0, 5, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="no test split and seed in common"):
        compare_sets(tmp_path / "c", sets[1])
    (tmp_path / "c" / "fold0_seed5").rename(tmp_path / "c" / "x")
    make_run(tmp_path / "c", 0, 5, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="two runs of test split 'fold_0' and seed 5"):
        compare_sets(tmp_path / "c", sets[1])


def test_the_command_takes_folders(sets, tmp_path, capsys):
    assert cli.main(["compare", *map(str, sets)]) == 0
    out = capsys.readouterr().out
    assert "4 pairs of runs" in out and "two-way analysis of variance" in out
    assert cli.main(["compare", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Holm's correction over 1 tests" in out and out.rstrip().endswith("none")
    assert cli.main(["compare", str(sets[0])]) == 2
    assert "runs of two recipes or more" in capsys.readouterr().err


def test_recipes_that_share_no_face_are_skipped(sets, tmp_path):
    for fold, seed in ((0, 0), (0, 1)):
        run = make_run(tmp_path / "runs" / "c", fold, seed, [1, 1, 1, 1])
        text = (run.path / "predictions.csv").read_text().replace("0_", "other_")
        (run.path / "predictions.csv").write_text(text)
    found = compare_reproduction(tmp_path)
    assert len(found.comparisons) == 1
    assert [why.split(":")[0] for why in found.skipped] == ["a and c", "b and c"]
    assert "no face in common" in found.skipped[0]
