"""Tables of a reproduction."""

from __future__ import annotations

import math
import re
import string
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_agegender.evaluation.plots import plot_reproduction
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.evaluation.scores import answer_estimates, one_class_answers
from keras_agegender.files import atomic_write, write_text
from keras_agegender.metrics.intervals import Estimate, RunsInterval, runs_interval
from keras_agegender.recipes.schema import Published, Recipe

# Column of the table -> (attribute of `Published`, path in metrics.json).
FIGURES: dict[str, tuple[str, tuple[str, str]]] = {
    "gender accuracy": ("gender_accuracy", ("gender", "accuracy")),
    "gender f1": ("gender_f1", ("gender", "f1")),
    "gender precision": ("gender_precision", ("gender", "precision")),
    "gender recall": ("gender_recall", ("gender", "recall")),
    # The report counts an ordinal answer as right only if all heads are.
    "age accuracy": ("age_accuracy", ("age", "all_heads_accuracy")),
    "age exact": ("", ("age", "accuracy")),
    "age one-off": ("", ("age", "one_off_accuracy")),
    "age error": ("", ("age", "mean_absolute_error")),  # in groups
}
# What is not a share: it may be above 1.
UNBOUNDED = ("age error",)


@dataclass(frozen=True)
class Row:
    """One line of the table: a model kept by a recipe, over all folds and seeds.

    Attributes:
        recipe: Name of the recipe.
        title: What it is.
        checkpoint: Which of its models; `None` for the best.
        positive: Positive class of f1, precision and recall.
        published: Column -> the report's figure, where it gives one of the data that
            was measured on.
        measured: Column -> a figure of each finished run.
        failed: Reasons of the runs that failed.
        notes: What a reader must know of this row.
        intervals: Column -> mean of the runs, with the interval that they allow.
        one_class: `"gender"` or `"age"` -> what runs answer (almost) always, and how
            many of them.
        num_folds: Test folds of the finished runs.
        num_seeds: Their seeds.
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
        """Finished runs."""
        return max(map(len, self.measured.values()), default=0)


@dataclass(frozen=True)
class ScoredData:
    """What a recipe's runs are scored on.

    Attributes:
        sources: What those faces were read from, `"adience"` for instance.
        splits: The split of each run.
        test_to_train: Test faces by training faces, the mean over folds; `None` where
            nobody knows.
    """

    sources: tuple[str, ...]
    splits: tuple[str, ...]
    test_to_train: float | None = None


def table_rows(
    recipe: Recipe, found: Sequence[Mapping[str, Any]], data: ScoredData
) -> list[Row]:
    """Returns a recipe's rows.

    Args:
        recipe: Its published rows are those of the table, or one without any.
        found: Of each run the content of its metrics files by checkpoint, `"best"` for
            metrics.json, or `failed`; `fold`, `seed` and `path`, its directory.
        data: What the runs are scored on.
    """
    failed = tuple(run["failed"] for run in found if "failed" in run)
    finished = [run for run in found if "failed" not in run]
    rows = []
    for line in recipe.published or (
        Published(positive=recipe.evaluation.positive_gender),
    ):
        checkpoint = line.checkpoint or "best"
        there = [run for run in finished if checkpoint in run]
        scores = [run[checkpoint] for run in there]
        reason = unlike(line, data) if recipe.published else ""
        published = {
            name: getattr(line, attribute)
            for name, (attribute, _) in FIGURES.items()
            if attribute and getattr(line, attribute) is not None and not reason
        }
        notes = [reason] if reason else []
        if (
            line.checkpoint is not None
            and line.checkpoint not in recipe.training.extra_checkpoints
        ):
            notes.append(f"no model named {line.checkpoint} is kept")
        measured, intervals = _measured(there, checkpoint, line.positive, data)
        rows.append(
            Row(
                recipe.name,
                recipe.title,
                line.checkpoint,
                line.positive,
                published,
                measured,
                failed,
                (*notes, *_seen(scores)),
                intervals,
                _one_class(scores),
                len({run.get("fold") for run in there}),
                len({run.get("seed") for run in there}),
            )
        )
    return rows


def _measured(
    runs: Sequence[Mapping[str, Any]], checkpoint: str, positive: str, data: ScoredData
) -> tuple[dict[str, list[float]], dict[str, RunsInterval]]:
    """Returns every figure of each run, and its mean with an interval."""
    alone = _face_estimates(runs[0], checkpoint) if len(runs) == 1 else []
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
        faces = [e for n, e in alone if n == name and _same(e.value, values[0])]
        found = runs_interval(
            values,
            folds,
            test_to_train=data.test_to_train,
            faces=faces[0] if faces else None,
        )
        intervals[name] = found.within(0, math.inf if name in UNBOUNDED else 1)
    return measured, intervals


def _face_estimates(
    run: Mapping[str, Any], checkpoint: str
) -> list[tuple[str, Estimate]]:
    """Returns columns and their figures by a run's predictions, if it has them."""
    suffix = "" if checkpoint == "best" else f"_{checkpoint}"
    file = Path(run.get("path", "")) / f"predictions{suffix}.csv"
    if not file.is_file():
        return []
    found = answer_estimates(read_predictions(file))
    columns = {
        "gender accuracy": ["gender_accuracy"],
        "age accuracy": ["age_all_heads_accuracy", "age_accuracy"],  # a single head
        "age exact": ["age_accuracy"],
        "age one-off": ["age_one_off_accuracy"],
        "age error": ["age_mean_absolute_error"],
    }
    return [
        (column, found[name])
        for column, names in columns.items()
        for name in names
        if name in found
    ]


def _same(first: float | None, second: float) -> bool:
    """Whether predictions are of the very answers that were scored."""
    return first is not None and math.isclose(first, second, abs_tol=1e-6)


def _one_class(scores: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Says of how many runs the answers are (almost) always the same class."""
    found = {}
    for section in ("gender", "age"):
        answers: Counter[str] = Counter()
        for metrics in scores:
            answer = one_class_answers(metrics).get(section)
            answers.update([answer] if answer is not None else [])
        if answers:
            found[section] = ", ".join(
                f"{answer} in {count} of {len(scores)} runs"
                for answer, count in answers.most_common()
            )
    return found


def unlike(line: Published, data: ScoredData) -> str:
    """Returns why a published row cannot stand beside measured ones; `""` if it can."""
    if set(data.sources) != {line.data}:
        others = ", ".join(data.sources) or "no data"
        return f"published figures are of {line.data}, measured ones of {others}"
    other = sorted({split for split in data.splits if split != line.split})
    if other:
        return (
            f"published figures are of {line.data}'s {line.split}, measured ones of "
            f"{', '.join(other)}"
        )
    return ""


def _seen(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for key, what in (("training", "trained"), ("validation", "selected")):
        most = max((s.get(f"num_seen_in_{key}") or 0 for s in scores), default=0)
        if most:
            notes.append(f"{most} test faces are ones that it was {what} on")
    return notes


def figure(
    scores: Mapping[str, Any], path: tuple[str, str], positive: str
) -> float | None:
    """Returns a figure of a metrics file, f1 and its kin of that positive gender."""
    section, key = path
    values = scores.get(section) or {}
    values = {**values, **values.get("by_positive", {}).get(positive, {})}
    value = values.get(key)
    if value is None and key == "all_heads_accuracy":  # one head answers
        value = values.get("accuracy")
    return value


WIDTH = 88
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\symbol{34}",  # \textquotedbl needs another font encoding
        "`": r"\textasciigrave{}",
        "†": r"\textdagger{}",
        "×": r"\texttimes{}",
        "±": r"\textpm{}",
        "…": r"\ldots{}",
        "−": r"\textminus{}",
        "→": r"\textrightarrow{}",
        "≤": r"\ensuremath{\le}",
        "≥": r"\ensuremath{\ge}",
    }
)


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: A text for each column. Those of the first column are the rows' names.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def without_empty_columns(self) -> TextTable:
        """Returns the table without columns that say nothing in any row."""
        kept = [k for k in range(len(self.header)) if any(row[k] for row in self.rows)]
        return TextTable(
            self.title,
            tuple(self.header[k] for k in kept),
            tuple(tuple(row[k] for k in kept) for row in self.rows),
        )


def to_markdown_lines(table: TextTable) -> list[str]:
    """Returns a table as lines of Markdown whose columns are aligned.

    Example:
    >>> to_markdown_lines(TextTable("", ("a", "b"), (("1", "22"),)))
    ['| a   | b   |', '| --- | --- |', '| 1   | 22  |']
    """
    cells = [
        [text.replace("|", "\\|") for text in r] for r in (table.header, *table.rows)
    ]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)) + " |"
        for r in cells
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return [lines[0], rule, *lines[1:]]


def escape_latex(text: str) -> str:
    r"""Returns text that LaTeX prints as it is.

    Example:
    >>> print(escape_latex("07_caffe & 5 %"))
    07\_caffe \& 5 \%
    """
    # Behind \\ and \item a bracket or star is an option; -- becomes one long dash.
    protected = "{}" if text.startswith(("[", "*")) else ""
    return protected + text.translate(_LATEX).replace("--", "-{}-")


def to_latex_lines(table: TextTable, caption: str, label: str) -> list[str]:
    """Returns a table for LaTeX with the package booktabs.

    Args:
        table: The table.
        caption: Its caption, not escaped yet.
        label: Its label.
    """

    def line(row: Sequence[str]) -> str:
        return " & ".join(map(escape_latex, row)) + r" \\"

    return [
        r"\begin{table}[htbp]",
        r"\centering",
        r"\setlength{\belowcaptionskip}{6pt}",  # `article` has the caption on the rule
        *fill_latex(rf"\caption{{{escape_latex(caption)}}}"),
        rf"\label{{{label}}}",
        r"\small",  # else the widest intervals reach beyond a column of 345 pt
        rf"\begin{{tabular}}{{@{{}}{'l' * len(table.header)}@{{}}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *map(line, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def fill(text: str, first: str = "", *, break_long_words: bool = True) -> list[str]:
    """Returns text in lines of 88 characters; those after the first are indented."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
        break_long_words=break_long_words,
    )


def fill_latex(text: str, first: str = "") -> list[str]:
    """Returns escaped text in lines that end between words, never within a command."""
    return fill(text, first, break_long_words=False)


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

    with atomic_write(directory / "table.csv") as partial:
        pd.DataFrame(csv_rows(rows)).to_csv(partial, index=False)
    write_text(directory / "table.md", to_markdown(rows, note) + "\n")
    write_text(directory / "table.tex", to_latex(rows, note) + "\n")
    plot_reproduction(rows, directory / "table.png", note)
