"""Comparing two runs by people: differences, columns of old files, the gate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keras_agegender.cli import main as cli
from keras_agegender.files import write_json
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.compare import compare


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
    assert "gender: 5 subjects, the largest holds 66.7% of the faces" in str(found)
    alone = compare(*runs, cluster="face").differences[0]
    assert alone.p_value == pytest.approx(20 / 512)
    with pytest.raises(ValueError, match="no column 'album'"):
        compare(*runs, cluster="album")
    with pytest.raises(ValueError, match="cluster='person'"):
        compare(*runs, cluster="person")


def test_albums_are_clusters_if_asked_for(tmp_path):
    table = answers([1, 0, 1], ["a", "b", "c"], album=["x", "x", "y"])
    found = compare(*two_runs(tmp_path, table, table), cluster="album")
    assert found.differences[0].num_clusters == 2


def test_files_of_older_versions_say_what_to_do(tmp_path):
    old = answers([1, 0, 1])
    del old["subject"]
    runs = two_runs(tmp_path, old, old)
    with pytest.raises(ValueError, match=r"no column 'subject'.*agegender evaluate"):
        compare(*runs)
    assert compare(*runs, cluster="face").differences[0].num_faces == 3
    # One of the two is enough: both are of the same faces.
    new = pd.DataFrame(answers([1, 0, 1], ["a", "a", "b"]))
    new.to_csv(runs[1].path / "predictions.csv", index=False)
    assert compare(*runs).differences[0].num_clusters == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("key,gender\n1,male\n", "no column"), ("", "no table"),
     ("key,age_group,gender\n1,0-2,male\n1,0-2,male\n", "'1' twice")],
)  # fmt: skip
def test_files_that_hold_no_predictions(tmp_path, text, message):
    runs = two_runs(tmp_path, answers([1, 0]), answers([1, 0]))
    (runs[1].path / "predictions.csv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        compare(*runs)


# -- the gate --------------------------------------------------------------------------


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
    assert [(c.cell, c.question) for c in found.worse] == [
        ("0-2 female", "gender"), ("all faces", "gender"),
    ]  # fmt: skip
    worst = found.worse[0]
    assert worst.difference == pytest.approx(-0.1)
    assert worst.p_value == pytest.approx(2**-19)
    assert {c.level for c in found.worse} == {0.05 / 4, 0.05}
    assert worst.interval[1] < 0
    arguments = ["compare", str(first.path), str(second.path), "--gate"]
    assert cli.main(arguments) == 1
    assert "worse beyond noise in 0-2 female (gender)" in capsys.readouterr().out
    arguments[1:3] = arguments[2:0:-1]  # B got better: nothing to say
    assert cli.main(arguments) == 0
    assert "gate: passed" in capsys.readouterr().out
    assert cli.main(arguments[:-1]) == 0


def test_the_gate_corrects_for_many_cells(tmp_path):
    """Seven of 200 lost: p = 2 / 2^7 = 0.016, above 0.05 / 4 = 0.0125."""
    found = compare(*gate_runs(tmp_path, 7))
    women, everybody = (
        next(c for c in found.cells if (c.cell, c.question) == (name, "gender"))
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
    heads = [{"name": "race", "kind": "categorical", "num_classes": 2}]
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
    assert [(c.cell, c.question) for c in found.worse] == [("all faces", "gender")]
    assert found.worse[0].p_value == pytest.approx(2**-5)
    others = [c.level for c in found.cells if c.cell == "0-2 female"]
    assert others == [pytest.approx(0.05 / 3)] * 3


def test_further_outputs_are_judged_and_numbers_are_named(tmp_path):
    """Twenty faces lost of race alone: p = 2 / 2^20."""
    found = compare(*race_runs(tmp_path, lost=20))
    assert {(c.cell, c.question) for c in found.worse} == {
        ("all faces", "race"), ("0-2 female", "race"),
    }  # fmt: skip
    assert found.worse[0].p_value == pytest.approx(2**-19)
    assert "\nnot judged: age in years\n" in found.gate()
    assert [d.question for d in found.differences] == ["gender", "age_group"]


@pytest.mark.parametrize("question", ["age_group", "race"])
def test_a_question_no_longer_answered_fails_the_gate(tmp_path, capsys, question):
    first, second = race_runs(tmp_path, [f"predicted_{question}"])
    found = compare(first, second)
    assert (found.failed, found.worse, found.unanswered) == (True, (), (question,))
    assert f"note: A answers {question}, B does not" in str(found)
    command = ["compare", str(first.path), str(second.path), "--gate"]
    assert cli.main(command) == 1
    text = capsys.readouterr().out
    assert f"gate: failed; B does not answer {question}, A does" in text
    assert "passed" not in text
    command[1:3] = command[2:0:-1]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert f"not judged: {question} (A does not answer it), age in years" in text


def test_one_person_is_no_reason(tmp_path):
    """20 lost faces of one person say as much as one lost face."""
    found = compare(*gate_runs(tmp_path, 20, subjects_per_face=20))
    assert not found.worse


def test_small_cells_are_shown_and_not_judged(tmp_path):
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
    verdict = "; 2 cells have too few faces or people to judge"
    assert found.gate().splitlines()[-1].endswith(verdict)
    passed = compare(*two_runs(same, first, first)).gate()
    end = "gate: passed; B is worse beyond noise in none of 4 cells; 2 cells have too"
    assert end in passed


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
def test_what_differs_of_runs_of_one_experiment(tmp_path, first, second, note):
    runs = two_runs(tmp_path, answers([1, 0, 1]), answers([1, 1, 1]))
    for run, temperatures in zip(runs, (first, second), strict=True):
        found = None if temperatures is None else {"temperatures": temperatures}
        write_json(run.path / "run.json", {"identity": "x", "experiment": {}})
        write_json(run.path / "metrics.json", {"calibration": found})
    warnings = compare(*runs).warnings
    (said,) = [w for w in warnings if "chance" in w or "calibrated" in w]
    assert said.endswith(note)


def test_runs_whose_metrics_are_gone_are_not_called_uncalibrated(tmp_path):
    runs = two_runs(tmp_path, answers([1, 0, 1]), answers([1, 1, 1]))
    found = {"calibration": {"temperatures": {"gender": 1.5}}}
    write_json(runs[0].path / "metrics.json", found)
    assert not any("calibrated" in w for w in compare(*runs).warnings)
