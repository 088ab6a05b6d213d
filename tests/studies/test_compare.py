"""Comparisons of two runs, of recipes over folds and seeds, and of all recipes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from keras_agegender.cli import main as cli
from keras_agegender.datasets.face_index import FaceIndex
from keras_agegender.files import write_json
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.compare import compare, compare_reproduction


def make_run(path, table):
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
    return make_run(path / "a", first), make_run(path / "b", second)


def test_the_interval_of_independent_faces(tmp_path):
    """Of 1,000 faces 100 are right in the second run alone, 60 in the first alone.

    The difference is 0.04; its variance (0.16 - 0.04²) / 999, so that 1.962 standard
    deviations (999 degrees of freedom) are 0.0247.
    """
    first = np.r_[np.zeros(100), np.ones(60), np.ones(840)]
    second = np.r_[np.ones(100), np.zeros(60), np.ones(840)]
    found = compare(*two_runs(tmp_path, answers(first), answers(second)))
    gender = found.differences[0]
    margin = 1.96234 * np.sqrt(0.1584 / 999)
    assert gender.interval == pytest.approx((0.04 - margin, 0.04 + margin), abs=1e-5)
    assert (gender.only_first, gender.only_second) == (60, 100)
    assert (gender.num_clusters, gender.largest_share) == (1000, 0.001)
    assert "every face counts as a subject of its own" in found.warnings


def test_people_not_faces_are_counted(tmp_path):
    """One person of 8 faces and four of one; B loses all of the first, wins one.

    Sums -8, 1, 0, 0, 0: of the four sign patterns all are as far as 7 or 9, so p = 1.
    McNemar's test over faces says p = 2 · (1 + 9) / 512 = 0.039.
    """
    subjects = ["s"] * 8 + ["t", "u", "v", "w"]
    first = [1] * 8 + [0, 1, 1, 1]
    second = [0] * 8 + [1, 1, 1, 1]
    runs = two_runs(tmp_path, answers(first, subjects), answers(second, subjects))
    found = compare(*runs)
    gender = found.differences[0]
    assert gender.p_value == 1.0
    assert (gender.num_clusters, gender.largest_share) == (5, pytest.approx(2 / 3))
    assert "gender: 5 subjects, the largest has 66.7% of the faces" in str(found)
    alone = compare(*runs, cluster="face").differences[0]
    assert alone.p_value == pytest.approx(20 / 512)
    with pytest.raises(ValueError, match="no column 'album'"):
        compare(*runs, cluster="album")
    with pytest.raises(ValueError, match="Received: 'person'"):
        compare(*runs, cluster="person")


def test_albums_can_be_clusters(tmp_path):
    table = answers([1, 0, 1], ["a", "b", "c"], album=["x", "x", "y"])
    found = compare(*two_runs(tmp_path, table, table), cluster="album")
    assert found.differences[0].num_clusters == 2


def test_predictions_without_subjects(tmp_path):
    old = answers([1, 0, 1])
    del old["subject"]
    runs = two_runs(tmp_path, old, old)
    with pytest.raises(ValueError, match=r"no column .subject.*--cluster face"):
        compare(*runs)
    assert compare(*runs, cluster="face").differences[0].num_faces == 3
    # One of the two is enough: both are of the same faces.
    new = pd.DataFrame(answers([1, 0, 1], ["a", "a", "b"]))
    new.to_csv(runs[1].path / "predictions.csv", index=False)
    assert compare(*runs).differences[0].num_clusters == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("key,gender\n1,male\n", "Missing columns"), ("", "not a table"),
     ("key,age_group,gender\n1,0-2,male\n1,0-2,male\n", "'1' twice")],
)  # fmt: skip
def test_files_without_predictions(tmp_path, text, message):
    runs = two_runs(tmp_path, answers([1, 0]), answers([1, 0]))
    (runs[1].path / "predictions.csv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        compare(*runs)


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        (None, None, "the two are runs of one experiment: differences are chance"),
        (None, {"gender": 1.5}, "A is not calibrated, B is"),
        ({"gender": 1.5}, None, "B is not calibrated, A is"),
        ({"gender": 1.5}, {"gender": 1.5}, "differences are chance"),
        ({"gender": 1.5}, {"gender": 1.6}, "calibrated with different temperatures"),
    ],
)
def test_differences_of_runs_of_one_experiment(tmp_path, first, second, note):
    runs = two_runs(tmp_path, answers([1, 0, 1]), answers([1, 1, 1]))
    for run, temperatures in zip(runs, (first, second), strict=True):
        found = None if temperatures is None else {"temperatures": temperatures}
        write_json(run.path / "run.json", {"identity": "x", "experiment": {}})
        write_json(run.path / "metrics.json", {"calibration": found})
    warnings = compare(*runs).warnings
    (said,) = [w for w in warnings if "chance" in w or "calibrated" in w]
    assert said.endswith(note)


def test_runs_without_metrics_are_not_called_uncalibrated(tmp_path):
    runs = two_runs(tmp_path, answers([1, 0, 1]), answers([1, 1, 1]))
    found = {"calibration": {"temperatures": {"gender": 1.5}}}
    write_json(runs[0].path / "metrics.json", found)
    assert not any("calibrated" in w for w in compare(*runs).warnings)


def predictions_in(run, predicted):
    lines = ["key,subject,age_group,gender,predicted_age_group,predicted_gender"]
    lines += [f"{key},,0-2,{true},4-6,{answer}" for key, true, answer in predicted]
    (run.path / "predictions.csv").write_text("\n".join(lines), "utf-8")


@pytest.fixture
def encodings(tmp_path):
    runs = []
    for name, encoding in (("a", "ordinal"), ("b", "coral")):
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        recipe = load_recipe("quickstart", [f"model.encoding={encoding}"])
        run.recipe_file.write_text(recipe.to_toml(), "utf-8")
        run.best_model.write_bytes(b"")
        runs.append(run)
    return runs


def test_paired_differences_by_hand(encodings):
    """Of 10 faces, A alone is right on 1 and B alone on 4: p = 2 · 6 / 32 = 0.375."""
    truth = [(f"{k}.jpg", "male") for k in range(10)]
    first = [*["male"] * 5, *["female"] * 4, "female"]
    second = ["female", *["male"] * 8, "female"]
    for run, predicted in zip(encodings, (first, second), strict=True):
        rows = [(key, t, a) for (key, t), a in zip(truth, predicted, strict=True)]
        predictions_in(run, rows)
    found = compare(*encodings)
    gender, age = found.differences
    assert (gender.first, gender.second) == (0.5, 0.8)
    assert (gender.only_first, gender.only_second) == (1, 4)
    assert gender.difference == pytest.approx(0.3)
    assert gender.p_value == pytest.approx(0.375)
    assert gender.interval[0] < 0.3 < gender.interval[1]
    assert age.p_value == 1.0 and age.interval == (0.0, 0.0)
    assert found.settings == {
        "model.encoding": ("ordinal", "coral"),
        "model.question": ("older", None),
    }
    assert "+0.300" in str(found) and "0.375" in str(found)


def test_differences_of_two_experiments(encodings):
    """Beside the recipes' settings: data, splits, seeds, and faces seen before."""
    predicted = [("1.jpg", "male", "male")]
    for run, seed in zip(encodings, (0, 1), strict=True):
        predictions_in(run, predicted)
        experiment = {"seed": seed, "data": {"sha256": "a" * 9 + str(seed)}}
        run.update_info(identity=f"id{seed}", experiment=experiment)
    (encodings[1].path / "metrics.json").write_text(
        '{"num_seen_in_training": 7, "num_seen_in_validation": 0}', "utf-8"
    )
    assert compare(*encodings, cluster="face").warnings == (
        "the two were trained on different datasets",
        "seed is 0 in A and 1 in B",
        f"{encodings[1].path} was trained on 7 of the faces it is scored on",
    )
    encodings[0].update_info(identity="id1")
    assert compare(*encodings).warnings[0].startswith("the two are runs of one")


def test_runs_that_cannot_be_compared(encodings):
    with pytest.raises(ValueError, match=r"has no predictions\.csv"):
        compare(*encodings)
    predictions_in(encodings[0], [("1.jpg", "male", "male"), ("3.jpg", "male", "male")])
    predictions_in(encodings[1], [("2.jpg", "male", "male")])
    with pytest.raises(ValueError, match="no scored faces in common"):
        compare(*encodings)
    predictions_in(encodings[1], [("1.jpg", "male", "male")])
    assert ": 1 face" in compare(*encodings).warnings[0]


# -- folders of runs ----------------------------------------------------------------


# Fold 0: four faces of people a (two), b and c; fold 1: two of d and e.
PEOPLE = {0: ["a", "a", "b", "c"], 1: ["d", "e"]}


def run_of(folder, fold, seed, right, settings=()):
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
            run_of(tmp_path / "runs" / name, fold, seed, right, settings)
    return tmp_path / "runs" / "a", tmp_path / "runs" / "b"


def test_pairs_are_pooled_by_hand(sets):
    """Faces' differences, means over seeds: 1, 1/2, 0, 0 | -1/2, 0; mean 1/6.

    People's sums over seeds: a 3, b 0, c 0, d -1, e 0: of four sign patterns two are
    as far as 2 or farther on each side (4, 2, -2, -4), so p = 1.
    """
    found = compare(*sets)
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
    gender = compare(*sets).differences[0]
    components = gender.components
    assert components.rest == pytest.approx(1 / 64)
    assert components.fold == pytest.approx(3 / 16)
    assert components.seed == pytest.approx(1 / 16)
    assert gender.over_runs.mean == pytest.approx(1 / 16)
    assert gender.over_runs.over == "folds"
    text = str(compare(*sets))
    assert "over folds, corrected for shared training faces" in text
    assert "fold_1, seed 1: -0.500" in text


def test_one_pair_is_the_comparison_of_two_runs(sets):
    first, second = (folder / "fold0_seed0" for folder in sets)
    gender = compare(first, second).differences[0]
    # Person a's two faces: signs of one sum of 2, p = 1.
    assert (gender.difference, gender.p_value) == (0.5, 1.0)
    assert gender.over_runs.over == ""
    assert "one fold and one seed" in str(gender.components)


def test_seeds_add_no_faces(sets, tmp_path):
    """The same answers with two seeds: interval and p of one seed."""
    for name, right in (("c", [0, 0, 1, 0]), ("d", [1, 1, 0, 1])):
        for seed in (0, 1):
            run_of(tmp_path / name, 0, seed, right)
    twice = compare(tmp_path / "c", tmp_path / "d").differences[0]
    pair = [tmp_path / name / "fold0_seed0" for name in "cd"]
    once = compare(*pair).differences[0]
    assert twice.interval == pytest.approx(once.interval)
    assert (twice.p_value, twice.num_faces) == (once.p_value, once.num_faces)
    # Two pairs that are alike say nothing of what another seed would give.
    assert twice.over_runs.over == "" and twice.components.seed == 0.0
    # A difference is in [-1, 1], and so is its interval.
    assert -1 <= twice.interval[0] and twice.interval[1] <= 1


def test_runs_without_a_partner_are_notes(sets):
    (sets[1] / "fold1_seed1" / "best.keras").unlink()
    found = compare(*sets)
    assert found.num_pairs == 3
    assert "have no other run" in found.warnings[0]
    assert "fold1_seed1 is unfinished" in found.warnings[1]
    # Fold 0 has two seeds and fold 1 one: faces count alike, whatever their seeds.
    assert found.differences[0].difference == pytest.approx((1 + 0.5) / 6)
    assert "one-way" in str(found.differences[0].components)


def test_invalid_folders_of_runs(sets, tmp_path):
    (sets[0] / "fold1_seed1").rename(tmp_path / "of_a")
    (sets[1] / "fold1_seed1").rename(sets[0] / "fold1_seed1")
    with pytest.raises(ValueError, match="several recipes: training.learning_rate"):
        compare(*sets)
    with pytest.raises(ValueError, match="not a run directory"):
        compare(tmp_path / "runs", sets[1])
    run_of(tmp_path / "c", 0, 5, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="no test split and seed in common"):
        compare(tmp_path / "c", sets[1])
    (tmp_path / "c" / "fold0_seed5").rename(tmp_path / "c" / "x")
    run_of(tmp_path / "c", 0, 5, [1, 1, 1, 1])
    with pytest.raises(
        ValueError, match="two runs with test split 'fold_0' and seed 5"
    ):
        compare(tmp_path / "c", sets[1])


def test_the_command_takes_folders(sets, tmp_path, capsys):
    assert cli.main(["compare", *map(str, sets)]) == 0
    out = capsys.readouterr().out
    assert "4 pairs of runs" in out and "two-way analysis of variance" in out
    assert cli.main(["compare", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Holm's correction over 1 tests" in out and out.rstrip().endswith("none")
    assert cli.main(["compare", str(sets[0])]) == 2
    assert "at least two recipes" in capsys.readouterr().err


def test_recipes_without_common_faces_are_skipped(sets, tmp_path):
    for fold, seed in ((0, 0), (0, 1)):
        run = run_of(tmp_path / "runs" / "c", fold, seed, [1, 1, 1, 1])
        text = (run.path / "predictions.csv").read_text().replace("0_", "other_")
        (run.path / "predictions.csv").write_text(text)
    found = compare_reproduction(tmp_path)
    assert len(found.comparisons) == 1
    assert [why.split(":")[0] for why in found.skipped] == ["a and c", "b and c"]
    assert "no scored faces in common" in found.skipped[0]
