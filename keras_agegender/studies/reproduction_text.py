"""A reproduction's table as text: Markdown of 88 columns, LaTeX, CSV, and a picture."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.evaluation.reproduction_plot import plot_reproduction
from keras_agegender.evaluation.run_intervals import RunsInterval
from keras_agegender.files import replacing, write_text
from keras_agegender.studies.reproduction_table import FIGURES, Row
from keras_agegender.studies.table_formats import (
    WIDTH,
    TextTable,
    escape_latex,
    fill,
    fill_latex,
    to_latex_lines,
    to_markdown_lines,
)

SHORT_LABEL = 10  # for which there is room beside the widest figures
INTERVALS = {
    "folds": "over folds, Student's t with Nadeau and Bengio's correction for shared "
    "training faces",
    "seeds": "over the seeds of one fold, Student's t: other test faces are not "
    "covered",
    "faces": "over the faces of the only run, clustered by person: other seeds are not "
    "covered",
}
COLUMNS = (
    "All heads: an ordinal answer counts only if every age head is right, as the "
    "report counts. Exact: the most probable age group is right. One-off: it is right "
    "or a neighbor. Error: mean distance in age groups."
)
ONE_CLASS = (
    "† answers (almost) always one class: it is given to 95 % or more of all faces, "
    "and of the faces of the other classes"
)


def row_labels(rows: Sequence[Row]) -> list[str]:
    """Returns a name for each row: the number of its recipe, or its name.

    Names are cut only where the tables would be wider than 88 characters. Recipes of
    one number, or one begin, are told apart by letters.
    """
    whole = _labels(rows, None)
    longest = max(map(len, whole), default=0)
    if longest <= SHORT_LABEL:
        return whole
    used = max(
        len(line) for table in _tables(rows, whole) for line in to_markdown_lines(table)
    )
    return _labels(rows, max(SHORT_LABEL, longest - max(0, used - WIDTH)))


def _labels(rows: Sequence[Row], longest: int | None) -> list[str]:
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    short = {
        name: found[1] if (found := re.match(r"0*(\d+)_", name)) else name
        for name in recipes
    }
    labels: list[str] = []
    for row in rows:
        label = short[row.recipe]
        same = [name for name in recipes if short[name] == label]
        if len(same) > 1:
            label += string.ascii_lowercase[same.index(row.recipe) % 26]
        label += f" {row.checkpoint}" if row.checkpoint else ""
        if longest is not None and len(label) > longest:
            label = label[: longest - 1] + "…"
        letter = iter(string.ascii_lowercase[1:])
        whole = label
        while label in labels:
            begin = whole if longest is None else whole[: longest - 2]
            label = begin + "…" + next(letter)
        labels.append(label)
    return labels


def text_tables(rows: Sequence[Row]) -> list[TextTable]:
    """Returns the tables of accuracies, of age groups, and of the positive gender.

    Published figures have columns of their own, which are there if one belongs to the
    data that was measured on.
    """
    return _tables(rows, row_labels(rows))


def _tables(rows: Sequence[Row], labels: Sequence[str]) -> list[TextTable]:
    runs = [f"{row.num_runs}/{row.num_runs + len(row.failed)}" for row in rows]

    def accuracy(row: Row, name: str) -> str:
        flag = "†" if name.split()[0] in row.one_class else ""
        return _with_interval(row.intervals.get(name), 100, 1, flag)

    def published(row: Row, name: str) -> str:
        return f"{100 * row.published[name]:.1f}" if name in row.published else ""

    first = [
        (
            label,
            count,
            accuracy(row, "gender accuracy"),
            published(row, "gender accuracy"),
            accuracy(row, "age accuracy"),
            published(row, "age accuracy"),
        )
        for label, count, row in zip(labels, runs, rows, strict=True)
    ]
    second = [
        (
            label,
            accuracy(row, "age exact"),
            accuracy(row, "age one-off"),
            _with_interval(row.intervals.get("age error"), 1, 2),
        )
        for label, row in zip(labels, rows, strict=True)
    ]
    kin = ("gender f1", "gender precision", "gender recall")
    third = [
        (
            label,
            row.positive,
            *(
                text
                for name in kin
                for text in (_mean(row.intervals.get(name)), published(row, name))
            ),
        )
        for label, row in zip(labels, rows, strict=True)
        if any(name in row.published or name in row.measured for name in kin)
    ]
    tables = [
        TextTable(
            "Accuracy, %",
            ("model", "runs", "gender", "report", "age, all heads", "report"),
            tuple(first),
        ),
        TextTable(
            "Age group",
            ("model", "exact, %", "one-off, %", "error, groups"),
            tuple(second),
        ),
        TextTable(
            "Gender by its positive class, %, means",
            ("model", "positive", "F1", "report", "precision", "report", "recall",
             "report"),
            tuple(third),
        ),
    ]  # fmt: skip
    slim = [table.without_empty_columns() for table in tables]
    return [slim[0], *(table for table in slim[1:] if len(table.header) > 1)]


def _mean(found: RunsInterval | None) -> str:
    return "" if found is None else f"{100 * found.mean:.1f}"


def _with_interval(
    found: RunsInterval | None, scale: float, digits: int, flag: str = ""
) -> str:
    if found is None:
        return ""
    text = f"{scale * found.mean:.{digits}f}"
    if found.low is not None and found.high is not None:
        low, high = (f"{scale * end:.{digits}f}" for end in (found.low, found.high))
        text += f" [{low}, {high}]"
    return text + flag


def caption_of(rows: Sequence[Row], note: str) -> str:
    """Returns what the figures are of and how their intervals were found."""
    labels = row_labels(rows)
    parts = [note]
    kinds = {
        over: [
            label
            for label, row in zip(labels, rows, strict=True)
            if row.interval_over == over
        ]
        for over in INTERVALS
    }
    used = {over: names for over, names in kinds.items() if names}
    for over, names in used.items():
        whose = "" if len(used) == 1 else f" ({', '.join(names)})"
        parts.append(f"Brackets{whose}: 95 % intervals {INTERVALS[over]}.")
    if any("age accuracy" in row.measured for row in rows):
        parts.append(COLUMNS)
    if any(row.published for row in rows):
        parts.append(
            "Report: published figures, only where they are of the data measured on."
        )
    return " ".join(part for part in parts if part)


def _remarks(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Returns lists below the tables: models, flags, notes, failures."""
    labels = row_labels(rows)
    models, flags = [], []
    for label, row in zip(labels, rows, strict=True):
        kept = f", the model kept for {row.checkpoint}" if row.checkpoint else ""
        count = f"{row.num_runs} run{'' if row.num_runs == 1 else 's'}"
        if row.num_runs > 1:
            count += f" ({row.num_folds} test folds, {row.num_seeds} seeds)"
        models.append(f"{label}: {row.recipe}{kept}: {row.title}; {count}")
        flags += [f"{label}: {what}: {text}" for what, text in row.one_class.items()]
    notes = dict.fromkeys(f"{row.recipe}: {n}" for row in rows for n in row.notes)
    failures = sorted({reason for row in rows for reason in row.failed})
    lists = [
        ("Models:", models),
        (f"{ONE_CLASS}:", flags),
        ("Notes:", list(notes)),
        ("Failed:", failures),
    ]
    return [(title, items) for title, items in lists if items]


def to_markdown(rows: Sequence[Row], note: str) -> str:
    """Returns the tables as Markdown, at most 88 columns wide."""
    lines = fill(caption_of(rows, note))
    for table in text_tables(rows):
        lines += ["", f"**{table.title}**", "", *to_markdown_lines(table)]
    for title, items in _remarks(rows):
        lines += ["", *fill(title), ""]
        lines += [line for item in items for line in fill(item, "- ")]
    return "\n".join(lines)


def to_latex(rows: Sequence[Row], note: str) -> str:
    """Returns the tables for LaTeX; a document needs `booktabs` and `textcomp`.

    Names in scripts that pdfLaTeX does not know take LuaLaTeX or XeLaTeX.
    """
    tables = text_tables(rows)
    lines = [r"% \usepackage{booktabs}, \usepackage{textcomp}"]
    for number, table in enumerate(tables):
        caption = f"{table.title}. "
        if number == 0:
            caption += caption_of(rows, note)
        else:
            caption += "Of the runs of the first table."
        name = f"tab:reproduction-{number + 1}"
        lines += [*to_latex_lines(table, caption, name), ""]
    for title, items in _remarks(rows):
        heading = rf"\paragraph{{{escape_latex(title)}}}"
        lines += [*fill_latex(heading), r"\begin{itemize}", r"\sloppy"]
        for item in items:
            # Paths are long words: they may end a line behind a slash.
            text = escape_latex(item).replace("/", r"/\allowbreak{}")
            lines += fill_latex(text, r"\item ")
        lines += [r"\end{itemize}"]
    return "\n".join(lines)


def csv_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the rows of table.csv: every figure with its ends, shares in [0, 1]."""
    table = []
    for row in rows:
        line: dict[str, Any] = {
            "recipe": row.recipe,
            "title": row.title,
            "checkpoint": row.checkpoint or "best",
            "positive": row.positive,
            "runs": row.num_runs,
            "failed": len(row.failed),
            "folds": row.num_folds,
            "seeds": row.num_seeds,
            "intervals over": row.interval_over,
        }
        for name, (attribute, _) in FIGURES.items():
            found = row.intervals.get(name)
            if attribute:
                line[f"{name}, published"] = row.published.get(name)
            line[f"{name}, measured mean"] = found.mean if found else None
            line[f"{name}, measured low"] = found.low if found else None
            line[f"{name}, measured high"] = found.high if found else None
        for what in ("gender", "age"):
            line[f"{what}, one class"] = row.one_class.get(what, "")
        line["notes"] = "; ".join(row.notes)
        table.append(line)
    return table


def write_table(directory: Path, rows: Sequence[Row], note: str) -> None:
    """Writes table.csv, table.md, table.tex and table.png."""
    import pandas as pd

    with replacing(directory / "table.csv") as partial:
        pd.DataFrame(csv_rows(rows)).to_csv(partial, index=False)
    write_text(directory / "table.md", to_markdown(rows, note) + "\n")
    write_text(directory / "table.tex", to_latex(rows, note) + "\n")
    plot_reproduction(rows, directory / "table.png", note)
