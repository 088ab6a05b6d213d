"""Tables of a reproduction: published scores next to measured ones."""

from __future__ import annotations

import math
import re
import string
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import tabulate

from keras_agegender.errors import counted
from keras_agegender.evaluation.plots import plot_reproduction
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.evaluation.published import (
    FIGURES,
    ScoredData,
    figure,
    why_not_comparable,
)
from keras_agegender.evaluation.scores import constant_predictions, prediction_estimates
from keras_agegender.files import atomic_write, write_text
from keras_agegender.metrics.intervals import Estimate, RunsInterval, runs_interval
from keras_agegender.recipes.schema import Published, Recipe

# Column -> names of the same figure in `prediction_estimates`, the first that is there.
_ESTIMATES = {
    "gender accuracy": ("gender_accuracy",),
    "age accuracy": ("age_all_heads_accuracy", "age_accuracy"),  # a single head
    "age exact": ("age_accuracy",),
    "age one-off": ("age_one_off_accuracy",),
    "age error": ("age_mean_absolute_error",),
}


@dataclass(frozen=True)
class ReproductionRow:
    """One row of the table: a checkpoint of a recipe, over all folds and seeds.

    Attributes:
        recipe: Name of the recipe.
        title: Title of the recipe.
        checkpoint: Checkpoint of its runs; `None` for the best.
        positive: Positive class of f1, precision and recall.
        published: Column -> score in the report, if it is for the same data.
        measured: Column -> score of each finished run.
        failed: Errors of the failed runs.
        notes: Remarks on this row.
        intervals: Column -> mean of the runs and its interval.
        one_class: `"gender"` or `"age"` -> the class that runs almost always predict,
            and how many of them.
        num_folds: Number of test folds of the finished runs.
        num_seeds: Number of seeds of the finished runs.
    """

    recipe: str
    title: str
    checkpoint: str | None
    positive: str
    published: dict[str, float] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    intervals: dict[str, RunsInterval] = field(default_factory=dict)
    one_class: dict[str, str] = field(default_factory=dict)
    num_folds: int = 0
    num_seeds: int = 0

    @property
    def interval_over(self) -> str:
        """`"folds"`, `"seeds"` or `"faces"`; `""` without any interval."""
        return next((found.over for found in self.intervals.values() if found.over), "")

    @property
    def num_runs(self) -> int:
        """Number of finished runs."""
        return max(map(len, self.measured.values()), default=0)


def table_rows(
    recipe: Recipe, found: Sequence[Mapping[str, Any]], data: ScoredData
) -> list[ReproductionRow]:
    """Returns a recipe's rows, one for each of its published rows."""
    failed = tuple(run["failed"] for run in found if "failed" in run)
    finished = [run for run in found if "failed" not in run]
    unpublished = (Published(positive=recipe.evaluation.positive_gender),)
    rows = []
    for line in recipe.published or unpublished:
        checkpoint = line.checkpoint or "best"
        runs = [run for run in finished if checkpoint in run]
        scores = [run[checkpoint] for run in runs]
        reason = why_not_comparable(line, data) if recipe.published else ""
        notes = [reason] if reason else []
        if line.checkpoint not in (None, *recipe.training.extra_checkpoints):
            notes.append(f"the runs have no checkpoint {line.checkpoint}")
        for key, what in (("training", "trained"), ("validation", "selected")):
            most = max((s.get(f"num_seen_in_{key}") or 0 for s in scores), default=0)
            if most:
                notes.append(f"it was {what} on {most} of the test faces")
        measured, intervals = _measured(runs, checkpoint, line.positive, data)
        rows.append(
            ReproductionRow(
                recipe=recipe.name,
                title=recipe.title,
                checkpoint=line.checkpoint,
                positive=line.positive,
                published={
                    name: getattr(line, attribute)
                    for name, (attribute, _) in FIGURES.items()
                    if attribute and getattr(line, attribute) is not None and not reason
                },
                measured=measured,
                failed=failed,
                notes=tuple(notes),
                intervals=intervals,
                one_class=_one_class(scores),
                num_folds=len({run.get("fold") for run in runs}),
                num_seeds=len({run.get("seed") for run in runs}),
            )
        )
    return rows


def _measured(
    runs: Sequence[Mapping[str, Any]], checkpoint: str, positive: str, data: ScoredData
) -> tuple[dict[str, list[float]], dict[str, RunsInterval]]:
    """Returns every score of each run, and its mean with an interval."""
    estimates = _face_estimates(runs[0], checkpoint) if len(runs) == 1 else {}
    measured, intervals = {}, {}
    for name, (_, path) in FIGURES.items():
        known = [
            (value, run.get("fold"))
            for run in runs
            if (value := figure(run[checkpoint], path, positive)) is not None
        ]
        if not known:
            continue
        values, folds = map(list, zip(*known, strict=True))
        measured[name] = values
        keys = _ESTIMATES.get(name, ())
        faces = next((estimates[key] for key in keys if key in estimates), None)
        # Predictions may be older than the scores: then they give no interval.
        value = None if faces is None else faces.value
        if value is None or not math.isclose(value, values[0], abs_tol=1e-6):
            faces = None
        ratio = data.test_to_train
        found = runs_interval(values, folds, test_to_train=ratio, faces=faces)
        intervals[name] = found.within(0, math.inf if name == "age error" else 1)
    return measured, intervals


def _face_estimates(run: Mapping[str, Any], checkpoint: str) -> dict[str, Estimate]:
    """Returns scores with intervals over faces from a run's predictions, if any."""
    suffix = "" if checkpoint == "best" else f"_{checkpoint}"
    file = Path(run.get("path", "")) / f"predictions{suffix}.csv"
    return prediction_estimates(read_predictions(file)) if file.is_file() else {}


def _one_class(scores: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the class that runs almost always predict, and how many of them."""
    found = {}
    for section in ("gender", "age"):
        constant = [constant_predictions(metrics).get(section) for metrics in scores]
        counts = Counter(name for name in constant if name is not None).most_common()
        if counts:
            texts = (f"{name} in {n} of {len(scores)} runs" for name, n in counts)
            found[section] = ", ".join(texts)
    return found


_INTERVALS = {
    "folds": "over folds, Student's t with Nadeau and Bengio's correction for shared "
    "training faces",
    "seeds": "over the seeds of one fold, Student's t: other test faces are not "
    "covered",
    "faces": "over the faces of the only run, clustered by person: other seeds are not "
    "covered",
}
_COLUMNS = (
    "All heads: an ordinal prediction is right only if every age head is, as the "
    "report counts. Exact: the most probable age group is right. One-off: it is right "
    "or a neighbor. Error: mean distance in age groups."
)
_ONE_CLASS = (
    "† almost always predicts one class: for at least 95 % of all faces, and of the "
    "faces of the other classes:"
)


def row_labels(rows: Sequence[ReproductionRow]) -> list[str]:
    """Returns a label for each row: its recipe's number, or name, and checkpoint.

    Letters distinguish recipes with the same number.
    """
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    short = {
        name: found[1] if (found := re.match(r"0*(\d+)_", name)) else name
        for name in recipes
    }
    labels = []
    for row in rows:
        label = short[row.recipe]
        same = [name for name in recipes if short[name] == label]
        if len(same) > 1:
            label += string.ascii_lowercase[same.index(row.recipe) % 26]
        labels.append(label + (f" {row.checkpoint}" if row.checkpoint else ""))
    return labels


class TextTable(NamedTuple):
    """A table of text; the first column holds the names of the rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def without_empty_columns(self) -> TextTable:
        """Returns the table without columns that are empty in every row."""
        every = range(len(self.header))
        return self._select([k for k in every if any(row[k] for row in self.rows)])

    def without(self, *titles: str) -> TextTable:
        """Returns the table without some columns."""
        return self._select([k for k, t in enumerate(self.header) if t not in titles])

    def _select(self, used: Sequence[int]) -> TextTable:
        return TextTable(
            self.title,
            tuple(self.header[k] for k in used),
            tuple(tuple(row[k] for k in used) for row in self.rows),
        )


def text_tables(rows: Sequence[ReproductionRow]) -> list[TextTable]:
    """Returns the tables of accuracies, of age groups, and of the positive gender.

    Published scores have their own columns, if any is for the same data.
    """
    labels = row_labels(rows)

    def measured(row: ReproductionRow, name: str, scale: float, digits: int) -> str:
        found = row.intervals.get(name)
        if found is None:
            return ""
        text = f"{scale * found.mean:.{digits}f}"
        if found.low is not None and found.high is not None:
            low, high = scale * found.low, scale * found.high
            text += f" [{low:.{digits}f}, {high:.{digits}f}]"
        return text + ("†" if name.split()[0] in row.one_class and digits == 1 else "")

    def mean(row: ReproductionRow, name: str) -> str:
        found = row.intervals.get(name)
        return "" if found is None else f"{100 * found.mean:.1f}"

    def published(row: ReproductionRow, name: str) -> str:
        return f"{100 * row.published[name]:.1f}" if name in row.published else ""

    accuracies, age_groups, positives = [], [], []
    kin = ("gender f1", "gender precision", "gender recall")
    for label, row in zip(labels, rows, strict=True):
        count = f"{row.num_runs}/{row.num_runs + len(row.failed)}"
        cells = [label, count]
        for name in ("gender accuracy", "age accuracy"):
            cells += [measured(row, name, 100, 1), published(row, name)]
        accuracies.append(tuple(cells))
        exact, one_off = (
            measured(row, name, 100, 1) for name in ("age exact", "age one-off")
        )
        age_groups.append((label, exact, one_off, measured(row, "age error", 1, 2)))
        if any(name in row.published or name in row.measured for name in kin):
            cells = [label, row.positive]
            for name in kin:
                cells += [mean(row, name), published(row, name)]
            positives.append(tuple(cells))
    with_report = ("F1", "report", "precision", "report", "recall", "report")
    tables = [
        TextTable(title, header, tuple(cells))
        for title, header, cells in (
            ("Accuracy, %", ("model", "runs", "gender", "report", "age, all heads",
                             "report"), accuracies),
            ("Age group", ("model", "exact, %", "one-off, %", "error, groups"),
             age_groups),
            ("Gender by its positive class, %, means",
             ("model", "positive", *with_report), positives),
        )
    ]  # fmt: skip
    slim = [table.without_empty_columns() for table in tables]
    return [slim[0], *(table for table in slim[1:] if len(table.header) > 1)]


def caption_of(rows: Sequence[ReproductionRow], note: str) -> str:
    """Returns the caption: the scored data and the method of the intervals."""
    labels = row_labels(rows)
    parts = [note]
    over = [row.interval_over for row in rows]
    for kind in (name for name in _INTERVALS if name in over):
        names = [n for n, found in zip(labels, over, strict=True) if found == kind]
        whose = f" ({', '.join(names)})" if len(set(over) - {""}) > 1 else ""
        parts.append(f"Brackets{whose}: 95 % intervals {_INTERVALS[kind]}.")
    if any("age accuracy" in row.measured for row in rows):
        parts.append(_COLUMNS)
    if any(row.published for row in rows):
        parts.append("Report: published scores, only for the same data.")
    return " ".join(part for part in parts if part)


def _remarks(rows: Sequence[ReproductionRow]) -> list[tuple[str, list[str]]]:
    """Returns lists below the tables: models, constant predictions, notes, failures."""
    models, constant = [], []
    for label, row in zip(row_labels(rows), rows, strict=True):
        checkpoint = f", checkpoint {row.checkpoint}" if row.checkpoint else ""
        count = counted(row.num_runs, "run")
        if row.num_runs > 1:
            folds = counted(row.num_folds, "test fold")
            count += f" ({folds}, {counted(row.num_seeds, 'seed')})"
        models.append(f"{label}: {row.recipe}{checkpoint}: {row.title}; {count}")
        constant += [f"{label}: {what}: {text}" for what, text in row.one_class.items()]
    notes = dict.fromkeys(f"{row.recipe}: {n}" for row in rows for n in row.notes)
    failures = sorted({reason for row in rows for reason in row.failed})
    lists = {"Models:": models, _ONE_CLASS: constant, "Notes:": list(notes)}
    lists["Failed:"] = failures
    return [(title, items) for title, items in lists.items() if items]


def to_markdown(rows: Sequence[ReproductionRow], note: str) -> str:
    """Returns the tables as Markdown; text is wrapped at 88 columns."""

    def fill(text: str, first: str = "") -> str:
        indent = " " * len(first)
        return textwrap.fill(
            text, 88, initial_indent=first, subsequent_indent=indent,
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip

    blocks = [fill(caption_of(rows, note))]
    for table in text_tables(rows):
        cells = [[text.replace("|", "\\|") for text in row] for row in table.rows]
        blocks += [
            f"**{table.title}**",
            tabulate.tabulate(cells, table.header, "github", disable_numparse=True),
        ]
    for title, items in _remarks(rows):
        blocks += [fill(title), "\n".join(fill(item, "- ") for item in items)]
    return "\n\n".join(block for block in blocks if block)


# tabulate's escapes and characters that OT1 fonts of pdfLaTeX do not have.
_LATEX = str.maketrans(
    {
        **tabulate.LATEX_ESCAPE_RULES,
        "|": r"\textbar{}",
        '"': r"\symbol{34}",
        "`": r"\textasciigrave{}",
        "≤": r"\ensuremath{\le}",
        "≥": r"\ensuremath{\ge}",
    }
)


def escape_latex(text: str) -> str:
    """Returns text that LaTeX prints verbatim."""
    # After \item a bracket starts an option; -- would become one long dash.
    protected = "{}" if text.startswith("[") else ""
    return protected + text.translate(_LATEX).replace("--", "-{}-")


def latex_table(table: TextTable, caption: str, label: str) -> list[str]:
    """Returns the lines of a LaTeX table; the first names the required packages."""
    return [
        r"% \usepackage{booktabs}, \usepackage{textcomp}",
        r"\begin{table}[htbp]",
        r"\centering",
        # The class `article` leaves no space between caption and table.
        r"\setlength{\belowcaptionskip}{6pt}",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{{label}}}",
        r"\small",  # the widest intervals would not fit a column of 345 pt
        tabulate.tabulate(
            table.rows, table.header, "latex_booktabs", disable_numparse=True
        ),
        r"\end{table}",
        "",
    ]


def to_latex(rows: Sequence[ReproductionRow], note: str) -> str:
    """Returns the tables for LaTeX; a document needs `booktabs` and `textcomp`.

    Names in scripts that pdfLaTeX does not support need LuaLaTeX or XeLaTeX.
    """
    lines = []
    for number, table in enumerate(text_tables(rows)):
        text = "Of the runs of the first table." if number else caption_of(rows, note)
        label = f"tab:reproduction-{number + 1}"
        lines += latex_table(table, f"{table.title}. {text}", label)[number > 0 :]
    for title, items in _remarks(rows):
        lines += [rf"\paragraph{{{escape_latex(title)}}}", r"\begin{itemize}"]
        lines.append(r"\sloppy")
        for item in items:
            # Paths are long words: they may break after a slash.
            text = escape_latex(item).replace("/", r"/\allowbreak{}")
            lines.append(rf"\item {text}")
        lines.append(r"\end{itemize}")
    return "\n".join(lines)


def csv_rows(rows: Sequence[ReproductionRow]) -> list[dict[str, Any]]:
    """Returns the rows of table.csv: every score with its ends, shares in [0, 1]."""
    table = []
    for row in rows:
        line: dict[str, Any] = {
            "recipe": row.recipe, "title": row.title,
            "checkpoint": row.checkpoint or "best", "positive": row.positive,
            "runs": row.num_runs, "failed": len(row.failed), "folds": row.num_folds,
            "seeds": row.num_seeds, "intervals over": row.interval_over,
        }  # fmt: skip
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


def write_table(directory: Path, rows: Sequence[ReproductionRow], note: str) -> None:
    """Writes table.csv, table.md, table.tex and table.png."""
    with atomic_write(directory / "table.csv") as partial:
        pd.DataFrame(csv_rows(rows)).to_csv(partial, index=False)
    write_text(directory / "table.md", to_markdown(rows, note) + "\n")
    write_text(directory / "table.tex", to_latex(rows, note) + "\n")
    plot_reproduction(rows, directory / "table.png", note)
