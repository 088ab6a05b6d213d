"""A reproduction's table: rows, intervals, flags, labels, Markdown and LaTeX."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from keras_agegender.metrics.intervals import RunsInterval
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.schema import Published
from keras_agegender.studies.reproduce import conditions_note
from keras_agegender.studies.reproduction_table import (
    ReproductionRow as Row,
    ScoredData,
    caption_of,
    escape_latex,
    row_labels,
    table_rows,
    text_tables,
    to_latex,
    to_markdown,
    why_not_comparable,
    write_table,
)

ADIENCE = ScoredData(("adience",), ("fold_4",), 0.25)


def scores(gender, age, confusion=((40, 10), (10, 40))):
    return {
        "gender": {"accuracy": gender, "confusion": confusion},
        "age": {"accuracy": age, "one_off_accuracy": 0.9, "mean_absolute_error": 1.25},
    }


def rows_of(name, *runs, data=ADIENCE):
    """Rows of a recipe whose runs scored that: (fold, seed, scores)."""
    found = [{"fold": f, "seed": s, "best": scores} for f, s, scores in runs]
    return table_rows(load_recipe(name), found, data)


def test_intervals_are_over_folds():
    """0.5 and 0.6: 12.706 · 0.0707 · sqrt(1/2 + 1/4) = 0.7781: cut off at 0 and 1."""
    runs = [("fold_3", 0, scores(0.5, 0.3)), ("fold_4", 0, scores(0.6, 0.3))]
    (row,) = rows_of("13", *runs)
    found = row.intervals["gender accuracy"]
    assert (found.mean, found.low, found.high) == (pytest.approx(0.55), 0, 1)
    unclipped = replace(row, intervals={"age error": RunsInterval(1.2, 0.9, 1.5, "x")})
    assert "1.20 [0.90, 1.50]" in to_markdown([unclipped], "")
    assert "over folds, Student's t with Nadeau and Bengio" in caption_of([row], "")
    # The runs' age accuracies are alike: no interval of no width.
    assert text_tables([row])[1].rows == (("13", "30.0", "90.0", "1.25"),)


def test_captions_of_seeds_and_of_a_single_run(tmp_path):
    runs = [("fold_4", seed, scores(0.5 + seed / 10, 0.3)) for seed in (0, 1)]
    (row,) = rows_of("13", *runs)
    assert (row.num_folds, row.num_seeds, row.interval_over) == (1, 2, "seeds")
    assert "over the seeds of one fold" in caption_of([row], "")
    (alone,) = rows_of("13", runs[0])
    assert (alone.interval_over, alone.intervals["gender accuracy"].low) == ("", None)
    faces = {
        "key": ["1", "2"], "subject": ["a", "b"], "gender": "male",
        "predicted_gender": ["male", "female"], "age_group": "",
    }  # fmt: skip
    pd.DataFrame(faces).to_csv(tmp_path / "predictions.csv", index=False)
    found = [{"fold": "fold_4", "path": tmp_path, "best": scores(0.5, 0.3)}]
    (row,) = table_rows(load_recipe("13"), found, ADIENCE)
    assert row.interval_over == "faces"
    assert "over the faces of the only run" in caption_of([row], "")
    # Predictions that are not of these scores give no interval.
    found[0]["best"] = scores(0.6, 0.3)
    assert table_rows(load_recipe("13"), found, ADIENCE)[0].interval_over == ""


def test_runs_that_predict_one_class_are_flagged():
    runs = [
        ("fold_4", 0, scores(0.5, 0.3, [[0, 50], [0, 50]])),
        ("fold_4", 1, scores(0.8, 0.3)),
    ]
    (row,) = rows_of("13", *runs)
    assert row.one_class == {"gender": "male in 1 of 2 runs"}
    text = to_markdown([row], "")
    assert "65.0 [0.0, 100.0]†" in text and "- 13: gender: male in 1 of 2 runs" in text
    (fine,) = rows_of("13", runs[1])
    assert "†" not in to_markdown([fine], "")


def test_published_scores_have_columns_for_their_data(tmp_path):
    """Model 13 publishes 0.808 and 0.422 of Adience's fold 4."""
    run = ("fold_4", 0, scores(0.5, 0.3))
    here = rows_of("13", run)
    (table, _, _) = text_tables(here)
    assert table.header == (
        "model", "runs", "gender", "report", "age, all heads", "report",
    )  # fmt: skip
    assert table.rows == (("13", "1/1", "50.0", "80.8", "30.0", "42.2"),)
    elsewhere = rows_of("14", run, data=ScoredData(("utkface",), ("fold_4",)))
    (table, *_) = text_tables(elsewhere)
    assert "report" not in table.header and "Report:" not in caption_of(elsewhere, "")
    both = text_tables([*here, *elsewhere])[0]
    assert [row[3] for row in both.rows] == ["80.8", ""]
    write_table(tmp_path, [*here, *elsewhere], "")
    with (tmp_path / "table.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["gender accuracy, published"] == "0.808"
    assert first["gender accuracy, measured mean"] == "0.5"
    assert second["gender accuracy, published"] == ""


def test_labels_are_unique():
    names = [("07_caffe", "age"), ("07_caffe", None), ("05_a", None), ("05_b", None),
             ("my_very_long_recipe", None), ("my_very_long_other", None)]  # fmt: skip
    rows = [Row(name, "t", checkpoint, "male") for name, checkpoint in names]
    assert row_labels(rows) == [
        "7 age", "7", "5a", "5b", "my_very_long_recipe", "my_very_long_other",
    ]  # fmt: skip


def test_markdown_and_latex_by_hand():
    figures = {"gender accuracy": RunsInterval(0.5, 0.25, 0.75, "faces")}
    row = Row("my_|_recipe", "50 %", None, "male", measured={"gender accuracy": [0.5]},
              intervals=figures,
              one_class={"gender": "male in 1 of 1 runs"})  # fmt: skip
    text = to_markdown([row], "A note.")
    assert text.splitlines()[4:9] == [
        "",
        "| model        | runs   | gender             |",
        "|--------------|--------|--------------------|",
        "| my_\\|_recipe | 1/1    | 50.0 [25.0, 75.0]† |",
        "",
    ]
    latex = to_latex([row], "A note.")
    (table,) = re.findall(r"(?s)\\begin\{table\}.*\\end\{table\}", latex)
    assert " ".join(table.split()) == (
        r"\begin{table}[htbp] \centering \setlength{\belowcaptionskip}{6pt} "
        r"\caption{Accuracy, \%. A note. Brackets: 95 \% intervals over the faces of "
        r"the only run, clustered by person: other seeds are not covered.} "
        r"\label{tab:reproduction-1} \small \begin{tabular}{lll} \toprule "
        r"model & runs & gender \\ \midrule "
        r"my\_|\_recipe & 1/1 & 50.0 [25.0, 75.0]† \\ "
        r"\bottomrule \end{tabular} \end{table}"
    )


def test_latex_is_escaped():
    assert escape_latex(r"a_b{c}\d~e^f $1 #2 <3>") == (
        r"a\_b\{c\}\textbackslash{}d\textasciitilde{}e\^{}f \$1 \#2 "
        r"\ensuremath{<}3\ensuremath{>}"
    )
    row = Row("9_x", "50% & more", None, "male", failed=("in C:\\runs_1",))
    text = to_latex([row], "training.epochs=3, set={gender=0.5}")
    assert r"set=\{gender=0.5\}" in text and r"50\% \& more" in text
    assert r"C:\textbackslash{}runs\_1" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a"', r"\symbol{34}a\symbol{34}"),  # \textquotedbl stops pdfLaTeX
        ("--quick", "-{}-quick"),
        ("[x] y", "{}[x] y"),
        ("x [0, 1]", "x [0, 1]"),
        ("1 ≤ `a` | b", r"1 \ensuremath{\le} \textasciigrave{}a\textasciigrave{} "
                        r"\textbar{} b"),
    ],
)  # fmt: skip
def test_what_stopped_latex_is_escaped(text, expected):
    assert escape_latex(text) == expected


def test_the_latex_has_cells_for_every_column_and_whole_commands():
    """Compiled by hand with pdfLaTeX; here its structure, of the worst names."""
    wide = RunsInterval(1.0, 1.0, 1.0, "folds")
    figures = {"gender accuracy": wide, "age accuracy": wide, "gender f1": wide}
    name = "recipe_of_50%_&_more#x"
    failed = ("in " + "C:\\runs_1\\" * 20 + " and " + "/a_b" * 40 + "{}~^$",)
    rows = [
        Row(name, "t & u", None, "male", dict.fromkeys(figures, 1.0), failed=failed,
            intervals=figures),
        *rows_of("13", ("fold_4", 0, scores(0.5, 0.3))),
    ]  # fmt: skip
    lines = to_latex(rows, f"Changed: {name}={{1}}, 5 % & ~").splitlines()[1:]
    columns, num_rows = 0, 0
    for line in lines:
        if found := re.match(r"\\begin\{tabular\}\{(l+)\}", line):
            columns = len(found[1])
        elif line.rstrip().endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
            num_rows += 1
    assert num_rows == 3 * 3  # a head and two rows in each of three tables
    text = re.sub(r"\\symbol\{34\}|\\\^\{\}", "", "\n".join(lines))
    bare = re.sub(r"\\[&%$#_{}]", "", text)  # without what is escaped
    in_cells = re.sub(r"(?m)^.*\\\\$", "", bare)
    assert not re.search(r'[%$#_~^"]', in_cells) and "&" not in in_cells
    # Braces close within a line's paragraph, commands are not cut by a line's end.
    assert bare.count("{") == bare.count("}")
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    opened = []
    for what, environment in environments:
        if what == "begin":
            opened.append(environment)
        else:
            assert opened.pop() == environment
    assert not opened


@pytest.mark.parametrize(
    ("sources", "splits", "reason"),
    [
        (("adience",), ("fold_4",), ""),
        (("synthetic",), ("fold_4",), "measured ones for synthetic"),
        (("adience", "csv"), ("fold_4",), "measured ones for adience, csv"),
        ((), ("fold_4",), "measured ones for no data"),
        (("adience",), ("fold_4", "fold_1"), "for adience's fold_4, measured ones for "
         "fold_1"),
    ],
)  # fmt: skip
def test_comparable_published_scores(sources, splits, reason):
    found = why_not_comparable(Published(), ScoredData(sources, splits))
    assert reason in found and bool(found) == bool(reason)


def test_scores_use_the_published_positive_class():
    """Whichever class the runs were scored with."""
    by_positive = {"male": {"f1": 0.25}, "female": {"f1": 0.75}}
    run = {"best": {"gender": {"f1": 0.25, "by_positive": by_positive}}}
    recipe = load_recipe("9")
    line = replace(recipe.published[0], data="x", split="fold_4")
    recipe = replace(recipe, published=(line,))
    (row,) = table_rows(recipe, [run], ScoredData(("x",), ("fold_4",)))
    assert row.positive == "female" and row.measured["gender f1"] == [0.75]
    assert row.published["gender f1"] == 0.766


def test_a_missing_published_checkpoint_is_a_note():
    recipe = load_recipe("7", ["training.extra_checkpoints={gender='val_gender_loss'}"])
    runs = [{"best": {}, "gender": {"gender": {"accuracy": 0.5}}}]
    rows = table_rows(recipe, runs, ADIENCE)
    assert [row.notes for row in rows] == [
        ("the runs have no checkpoint age",), (),
        ("the runs have no checkpoint both",),
    ]  # fmt: skip
    assert rows[1].measured == {"gender accuracy": [0.5]}


def test_faces_that_a_model_was_trained_on_are_a_note():
    run = {"best": {"num_seen_in_training": 3, "num_seen_in_validation": 8}}
    (row,) = table_rows(load_recipe("quickstart"), [run], ScoredData((), ()))
    assert row.notes == (
        "it was trained on 3 of the test faces",
        "it was selected on 8 of the test faces",
    )


class Data:
    """A prepared dataset, as far as a caption asks."""

    def __init__(self, name, source):
        self.info = {"name": name}
        self.builder = SimpleNamespace(name="faces")
        self.face_index = SimpleNamespace(sources=[source])


def test_the_caption_lists_overrides():
    changed = load_recipe("13", ["training.epochs=3", "training.learning_rate=0.5"])
    own = replace(load_recipe("14"), name="mine")
    note = conditions_note(
        [changed, own],
        [Data("adience", "adience"), Data("whole", "adience")],
        [Data("celeba", "celeba")],
        folds=[0, 1],
        seeds=(0,),
        overrides=("training.epochs=3",),
    )
    assert note == (
        "Measured on adience, whole (faces of adience); test folds 0, 1 of a "
        "cross-validation; seed 0. Pretraining uses celeba. "
        "Changed in every recipe: training.epochs=3. Changed in 13_resnet_ordinal: "
        "training.learning_rate=0.5."
    )
    data = [Data("faces", "synthetic")]
    note = conditions_note([], data, [], folds=None, seeds=(0, 1), quick=True)
    assert "SYNTHETIC faces, drawn by a program" in note
    assert "the dataset's own splits; seeds 0, 1." in note
    assert "QUICK: 64 x 64 pixels, 2 epochs, a subset of at most 600 faces" in note
