"""The cross-dataset table: one model scored on several datasets."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tabulate

from keras_agegender.datasets.readers import READERS
from keras_agegender.errors import counted, one_line
from keras_agegender.evaluation import own_data
from keras_agegender.evaluation.audit import source_type
from keras_agegender.evaluation.evaluate import evaluate
from keras_agegender.evaluation.scores import Evaluation
from keras_agegender.files import atomic_write, write_text
from keras_agegender.metrics.table import METRICS
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.reproduction_table import TextTable, latex_table

# Column -> title in tables, section of the scores, metric of the table.
COLUMNS = {
    "gender_accuracy": ("gender", "gender", "accuracy"),
    "age_accuracy": ("age group", "age", "accuracy"),
    "age_one_off": ("one-off", "age", "one_off_accuracy"),
    "age_error": ("error, years", "age", "mean_absolute_error_years"),
    "age_within_5": ("within 5 years", "age", "cumulative_score_5"),
    "gender_loss": ("gender loss", "gender", "negative_log_likelihood"),
    "age_loss": ("age loss", "age", "negative_log_likelihood"),
}
ACCURACIES = ("gender_accuracy", "age_accuracy", "age_one_off")
INTERVALS = "Brackets: 95 % intervals over people."
NOTE = (
    "Age groups are those of each dataset; loss is the mean negative log-likelihood in "
    "nats."
)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;color:#222;margin:2rem;max-width:80rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.35rem .7rem;border-bottom:1px solid #ddd;text-align:left}"
    "div{overflow-x:auto}"
)


@dataclass(frozen=True)
class CrossRow:
    """The scores on one dataset.

    Attributes:
        name: Name of the dataset: that of its folder or file.
        scores: The scores; `None` if the dataset could not be scored.
        failed: Why it could not be scored; empty otherwise.
    """

    name: str
    scores: Evaluation | None = None
    failed: str = ""

    @property
    def remarks(self) -> list[str]:
        """What a reader of the row must know: faces seen in training, notes."""
        if self.scores is None:
            return [f"failed: {self.failed}"]
        found = []
        for use, count in (
            ("training", self.scores.num_seen_in_training),
            ("validation", self.scores.num_seen_in_validation),
        ):
            if count:
                found.append(f"{counted(count, 'face')} seen in {use}")
            elif use in self.scores.possibly_seen_in:
                found.append(f"possibly seen in {use}")
        return found + self.scores.notes


@dataclass(frozen=True)
class CrossEvaluation:
    """The result of `evaluate_across`.

    Attributes:
        model: Name of the model.
        folder: Folder of the tables, with a folder of results for each dataset.
        rows: One row per dataset.
    """

    model: str
    folder: Path
    rows: tuple[CrossRow, ...]

    @property
    def num_failed(self) -> int:
        """Number of datasets that could not be scored."""
        return sum(bool(row.failed) for row in self.rows)

    def _table(
        self, columns: Sequence[str] = tuple(COLUMNS), *, intervals: bool = True
    ) -> TextTable:
        """Returns a table as text; columns without any score are dropped."""
        titles = [COLUMNS[column][0] for column in columns]
        table = TextTable(
            f"{self.model} on {counted(len(self.rows), 'dataset')}",
            ("dataset", "faces", "people", *titles),
            tuple(_cells(row, columns, intervals) for row in self.rows),
        )
        return table.without_empty_columns()

    def remarks(self) -> list[str]:
        """Returns a line for each remark on a row."""
        return [f"{row.name}: {text}" for row in self.rows for text in row.remarks]

    def to_frame(self) -> pd.DataFrame:
        """Returns the rows of cross.csv: every score with both ends of its interval."""
        return pd.DataFrame([_csv_row(row) for row in self.rows]).convert_dtypes()

    def __str__(self) -> str:
        table = self._table(intervals=False)
        text = tabulate.tabulate(
            table.rows, table.header, "plain", disable_numparse=True
        )
        lines = [line.rstrip() for line in text.splitlines()]
        notes = [NOTE, "The tables have 95 % intervals over people.", *self.remarks()]
        return "\n".join([table.title, "", *lines, "", *notes])


def evaluate_across(
    model: RunDirectory | str | Path,
    data: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    split: str | None = None,
    checkpoint: str = "best",
    by: str | Sequence[str] = (),
    progress: bool = True,
    report: Callable[[str], None] = print,
    **options: Any,
) -> CrossEvaluation:
    """Scores a model on several datasets and writes one table.

    Each dataset is scored as `evaluate` does, after preparing it if necessary. A
    dataset that cannot be scored is a row with its error. In `out` it writes cross.csv,
    cross.tex (LaTeX), cross.html and a folder of results for each dataset.

    Args:
        model: A run or its directory, a `.keras` file or an export of any format.
        data: What `evaluate` takes as `data`, for each dataset.
        out: Folder for the tables. Defaults to `cross` in the run directory; for a
            released model, to a folder with its name and `_cross` in the current one.
        split: As in `evaluate`.
        checkpoint: As in `evaluate`.
        by: Columns to score groups by in every dataset that has them.
        progress: Whether to show the progress of preparations on stderr.
        report: Function that receives progress messages. Defaults to `print`.
        options: Keyword arguments of readers; each reader takes those that it has.

    Raises:
        ValueError: If the model does not exist, or no reader takes an option.

    Example:
    >>> evaluate_across("runs/1", ["fgnet.csv", "data/lfw"])  # doctest: +SKIP
    """
    opened = own_data.open_model(model, checkpoint)
    given = [_options(path, options) for path in data]
    unknown = sorted(set(options) - {name for taken in given for name in taken})
    if unknown:
        raise ValueError(
            f"Invalid options. Expected options of a reader of {list(map(str, data))}. "
            f"Received: {', '.join(unknown)}."
        )
    folder = _folder(opened, out)
    rows: list[CrossRow] = []
    names = _names(data)
    for path, name, taken in zip(data, names, given, strict=True):
        report(f"{name} …")
        try:
            scores = evaluate(
                model,
                path,
                split=split,
                checkpoint=checkpoint,
                by=by,
                out=folder / name,
                progress=progress,
                **taken,
            )
            rows.append(CrossRow(name, scores))
        except ValueError as error:
            rows.append(CrossRow(name, failed=one_line(error, 300)))
        # After every dataset: all of them may take hours.
        found = CrossEvaluation(opened.name, folder, tuple(rows))
        write_cross_table(found)
    return found


def _options(data: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that the reader of a dataset takes."""
    try:
        reader = READERS.get(source_type(data))
    except ValueError:  # reported when it is scored
        return {}
    known = {o.keyword for o in reader.options if o.audit} if reader else set()
    return {name: value for name, value in options.items() if name in known}


def _folder(model: own_data.EvaluatedModel, out: str | Path | None) -> Path:
    if out is not None:
        folder = Path(out)
    elif model.run is not None and not model.is_release:
        folder = model.run.path / "cross"
    else:
        folder = Path(f"{model.name}_cross")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _names(data: Sequence[str | Path]) -> list[str]:
    """Returns a name for each dataset, all different."""
    names: list[str] = []
    for path in data:
        stem = Path(path).absolute().stem
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names.append(name)
    return names


def _value(
    scores: Evaluation, column: str
) -> tuple[float | None, tuple[float, float] | None]:
    _, section, metric = COLUMNS[column]
    found = getattr(scores, section)
    if found is None:
        return None, None
    return found.metrics.get(metric), found.intervals.get(metric)


def _cells(row: CrossRow, columns: Sequence[str], intervals: bool) -> tuple[str, ...]:
    if row.scores is None:
        return (row.name, *[""] * (2 + len(columns)))
    cells = []
    for column in columns:
        digits = METRICS[COLUMNS[column][2]].digits
        value, interval = _value(row.scores, column)
        text = "" if value is None else f"{value:.{digits}f}"
        if intervals and interval is not None:
            text += f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
        cells.append(text)
    people = row.scores.num_subjects
    shown = "" if people is None else f"{people:,}"
    return row.name, f"{row.scores.num_faces:,}", shown, *cells


def _csv_row(row: CrossRow) -> dict[str, Any]:
    found: dict[str, Any] = {"dataset": row.name}
    if row.scores is not None:
        groups = [group["name"] for group in (row.scores.age.groups if row.scores.age
                                              else ())]  # fmt: skip
        found |= {
            "num_faces": row.scores.num_faces,
            "num_subjects": row.scores.num_subjects,
            "age_groups": " ".join(groups),
        }
        for column in COLUMNS:
            value, interval = _value(row.scores, column)
            low, high = interval or (None, None)
            found |= {column: value, f"{column}_low": low, f"{column}_high": high}
    return found | {"remarks": "; ".join(row.remarks)}


def write_cross_table(found: CrossEvaluation) -> None:
    """Writes cross.csv, cross.tex and cross.html."""
    with atomic_write(found.folder / "cross.csv") as partial:
        found.to_frame().to_csv(partial, index=False)
    remarks = [f"{text}." for text in found.remarks()]
    lines: list[str] = []
    others = [column for column in COLUMNS if column not in ACCURACIES]
    for number, columns in enumerate((ACCURACIES, others), 1):
        table = found._table(columns)
        what = "accuracies" if columns == ACCURACIES else "errors in years and losses"
        notes = [INTERVALS, NOTE, *(remarks if number == 1 else ())]
        caption = f"{table.title}: {what}. {' '.join(notes)}"
        if number > 1:  # too wide for a page with the numbers of faces
            table = table.without("faces", "people")
        lines += latex_table(table, caption, f"tab:cross-{number}")[number > 1 :]
    write_text(found.folder / "cross.tex", "\n".join(lines) + "\n")
    write_text(found.folder / "cross.html", _page(found))


def _page(found: CrossEvaluation) -> str:
    table = found._table()
    title = html.escape(table.title)
    rows = tabulate.tabulate(table.rows, table.header, "html", disable_numparse=True)
    remarks = "".join(f"<li>{html.escape(text)}</li>" for text in found.remarks())
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        f'<div tabindex="0">{rows}</div>\n<p>{INTERVALS} {html.escape(NOTE)}</p>\n'
        f"{f'<ul>{remarks}</ul>' if remarks else ''}</body></html>\n"
    )
