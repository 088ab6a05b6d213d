"""A reproduction's table as text: intervals, flags, labels, widths, escaping."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from keras_agegender.metrics.intervals import RunsInterval
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.studies.reproduce import Conditions, conditions_note
from keras_agegender.studies.reproduction_table import (
    Row,
    ScoredData,
    TextTable,
    caption_of,
    escape_latex,
    row_labels,
    table_rows,
    text_tables,
    to_latex,
    to_latex_lines,
    to_markdown,
    to_markdown_lines,
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


def test_seeds_of_one_fold_and_a_single_run_say_so(tmp_path):
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


def test_runs_that_answer_one_class_are_flagged():
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


def test_published_figures_have_columns_where_they_belong(tmp_path):
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


def test_short_labels_are_of_one_row_each():
    names = [("07_caffe", "age"), ("07_caffe", None), ("05_a", None), ("05_b", None),
             ("my_very_long_recipe", None), ("my_very_long_other", None)]  # fmt: skip
    rows = [Row(name, "t", checkpoint, "male") for name, checkpoint in names]
    assert row_labels(rows) == [
        "7 age", "7", "5a", "5b", "my_very_long_recipe", "my_very_long_other",
    ]  # fmt: skip


def test_names_are_cut_only_where_the_table_is_too_wide():
    """Figures of a table of 88 leave so many characters to a name; two names alike."""
    figures = {"gender accuracy": RunsInterval(0.5, 0.4, 0.6, "folds")}
    measured = {"gender accuracy": [0.5]}
    short = [Row(name, "t", None, "male", measured=measured, intervals=figures)
             for name in ("quickstart_a", "quickstart_b")]  # fmt: skip
    assert row_labels(short) == ["quickstart_a", "quickstart_b"]
    begin = "x" * 90
    long = [Row(begin + end, "t", None, "male", measured=measured, intervals=figures)
            for end in "ab"]  # fmt: skip
    first, second = row_labels(long)
    assert first.endswith("x…") and second.endswith("x…b")
    lines = [line for table in text_tables(long) for line in to_markdown_lines(table)]
    assert max(map(len, lines)) == 88
    assert len(first) == len(second) > 40


def test_the_markdown_is_narrow():
    """The widest figures there can be, long names, long failures."""
    wide = RunsInterval(1.0, 1.0, 1.0, "folds")
    figures = dict.fromkeys(
        ("gender accuracy", "age accuracy", "age exact", "age one-off", "gender f1",
         "gender precision", "gender recall"), wide,
    )  # fmt: skip
    figures["age error"] = RunsInterval(7.0, 0.0, 12.34, "folds")
    row = Row(
        "a_recipe_with_a_very_long_name_of_its_own", "title " * 30, "checkpoint",
        "female", dict.fromkeys(figures, 1.0), dict.fromkeys(figures, [1.0] * 15),
        ("failed " * 40,), ("note " * 40,), figures, {"gender": "male", "age": "0-2"},
    )  # fmt: skip
    text = to_markdown([row, row], "changed=1, " * 40)
    assert max(map(len, text.splitlines())) <= 88
    assert "100.0 [100.0, 100.0]†" in text


def test_markdown_and_latex_by_hand():
    table = TextTable("t", ("model", "50 %"), (("a_b", "1|2"), ("c", "")))
    assert to_markdown_lines(table) == [
        "| model | 50 % |",
        "| ----- | ---- |",
        "| a_b   | 1\\|2 |",
        "| c     |      |",
    ]
    assert to_latex_lines(table, "5 % & more", "tab:x") == [
        r"\begin{table}[htbp]", r"\centering", r"\setlength{\belowcaptionskip}{6pt}",
        r"\caption{5 \% \& more}", r"\label{tab:x}", r"\small",
        r"\begin{tabular}{@{}ll@{}}", r"\toprule",
        r"model & 50 \% \\", r"\midrule", r"a\_b & 1\textbar{}2 \\", r"c &  \\",
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip


def test_latex_is_escaped():
    assert escape_latex(r"a_b{c}\d~e^f $1 #2 <3>") == (
        r"a\_b\{c\}\textbackslash{}d\textasciitilde{}e\textasciicircum{}f \$1 \#2 "
        r"\textless{}3\textgreater{}"
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
        ("* y", "{}* y"),
        ("x [0, 1]", "x [0, 1]"),
        ("−1 ≤ `a` → b", r"\textminus{}1 \ensuremath{\le} \textasciigrave{}a"
                         r"\textasciigrave{} \textrightarrow{} b"),
    ],
)  # fmt: skip
def test_what_stopped_latex_is_escaped(text, expected):
    assert escape_latex(text) == expected


def test_the_latex_has_cells_for_every_column_and_whole_commands():
    """Compiled by hand with pdfLaTeX; here its structure, of the worst names."""
    wide = RunsInterval(1.0, 1.0, 1.0, "folds")
    figures = {"gender accuracy": wide, "age accuracy": wide, "gender f1": wide}
    name = 'recipe_of_50%_&_more#"x"'
    failed = ("in " + "C:\\runs_1\\" * 20 + " and " + "/a_b" * 40 + "{}~^$",)
    rows = [
        Row(name, "t & u", None, "male", dict.fromkeys(figures, 1.0), failed=failed,
            intervals=figures),
        *rows_of("13", ("fold_4", 0, scores(0.5, 0.3))),
    ]  # fmt: skip
    lines = to_latex(rows, f"Changed: {name}={{1}}, 5 % & ~").splitlines()[1:]
    columns, num_rows = 0, 0
    for line in lines:
        if found := re.match(r"\\begin\{tabular\}\{@\{\}(l+)@\{\}\}", line):
            columns = len(found[1])
        elif line.endswith(r" \\"):
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
            num_rows += 1
    assert num_rows == 3 * 3  # a head and two rows in each of three tables
    text = re.sub(r"\\symbol\{34\}", "", "\n".join(lines))
    bare = re.sub(r"\\[&%$#_{}]", "", text)  # without what is escaped
    in_cells = re.sub(r"(?m)^.*\\\\$", "", bare)
    assert not re.search(r'[%$#_~^"]', in_cells) and "&" not in in_cells
    # Braces close within a line's paragraph, commands are not cut by a line's end.
    assert bare.count("{") == bare.count("}")
    assert not any(re.search(r"(?<!\\)\\$", line) for line in lines)
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    opened = []
    for what, environment in environments:
        if what == "begin":
            opened.append(environment)
        else:
            assert opened.pop() == environment
    assert not opened


class Data:
    """A prepared dataset, as far as a caption asks."""

    def __init__(self, name, source):
        self.info = {"name": name}
        self.builder = SimpleNamespace(name="faces")
        self.source = source


def test_the_caption_says_what_was_changed(monkeypatch):
    monkeypatch.setattr(
        "keras_agegender.studies.reproduce.faces_of",
        lambda data: SimpleNamespace(sources=[data.source]),
    )
    changed = load_recipe("13", ["training.epochs=3", "training.learning_rate=0.5"])
    own = replace(load_recipe("14"), name="mine")
    note = conditions_note(
        [changed, own],
        [Data("adience", "adience"), Data("whole", "adience")],
        [Data("celeba", "celeba")],
        Conditions([0, 1], (0,), ("training.epochs=3",), False),
    )
    assert note == (
        "Measured on adience, whole (faces of adience); test folds 0, 1 of a "
        "cross-validation; seed 0. What models begin with is trained on celeba. "
        "Changed in every recipe: training.epochs=3. Changed in 13_resnet_ordinal: "
        "training.learning_rate=0.5."
    )
    conditions = Conditions(None, (0, 1), (), True)
    note = conditions_note([], [Data("faces", "synthetic")], [], conditions)
    assert "SYNTHETIC faces, drawn by a program" in note
    assert "the dataset's own splits; seeds 0, 1." in note
    assert "QUICK: 64 x 64 pixels, 2 epochs, a subset of at most 600 faces" in note
