"""A reproduction's table: published figures beside measured ones of the same data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_agegender.evaluation.reproduction_plot import plot_reproduction
from keras_agegender.files import replacing, write_text
from keras_agegender.recipes.recipe import Published, Recipe

# Column of the table -> (attribute of `Published`, path in metrics.json).
FIGURES: dict[str, tuple[str, tuple[str, str]]] = {
    "gender accuracy": ("gender_accuracy", ("gender", "accuracy")),
    "gender f1": ("gender_f1", ("gender", "f1")),
    "gender precision": ("gender_precision", ("gender", "precision")),
    "gender recall": ("gender_recall", ("gender", "recall")),
    # The report counts an ordinal answer as right only if all heads are.
    "age accuracy": ("age_accuracy", ("age", "all_heads_accuracy")),
    "age accuracy, decoded": ("", ("age", "accuracy")),
}


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
    """

    recipe: str
    title: str
    checkpoint: str | None
    positive: str
    published: dict[str, float] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
    """

    sources: tuple[str, ...]
    splits: tuple[str, ...]


def table_rows(
    recipe: Recipe, found: Sequence[Mapping[str, Any]], data: ScoredData
) -> list[Row]:
    """Returns a recipe's rows.

    Args:
        recipe: Its published rows are those of the table, or one without any.
        found: Of each run the content of its metrics files by checkpoint, `"best"` for
            metrics.json, or `failed`.
        data: What the runs are scored on.
    """
    failed = tuple(run["failed"] for run in found if "failed" in run)
    finished = [run for run in found if "failed" not in run]
    rows = []
    for line in recipe.published or (
        Published(positive=recipe.evaluation.positive_gender),
    ):
        checkpoint = line.checkpoint or "best"
        scores = [run[checkpoint] for run in finished if checkpoint in run]
        measured = {
            name: [
                value
                for s in scores
                if (value := figure(s, path, line.positive)) is not None
            ]
            for name, (_, path) in FIGURES.items()
        }
        reason = unlike(line, data) if recipe.published else ""
        published = {
            name: getattr(line, attribute)
            for name, (attribute, _) in FIGURES.items()
            if attribute and getattr(line, attribute) is not None and not reason
        }
        notes = [reason] if reason else []
        if line.checkpoint is not None and line.checkpoint not in recipe.training.keep:
            notes.append(f"no model named {line.checkpoint} is kept")
        rows.append(
            Row(
                recipe.name,
                recipe.title,
                line.checkpoint,
                line.positive,
                published,
                {k: v for k, v in measured.items() if v},
                failed,
                (*notes, *_seen(scores)),
            )
        )
    return rows


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


def to_markdown(rows: Sequence[Row], note: str) -> str:
    """Returns the table as Markdown, published and measured in columns of their own."""
    header = ["recipe", "model kept", "runs", "failed", "positive"]
    for name in FIGURES:
        header += ([f"{name}, published"] if FIGURES[name][0] else []) + [
            f"{name}, measured"
        ]
    lines = [note, "", _line(header), _line(["---"] * len(header))]
    for row in rows:
        cells = [
            row.recipe,
            row.checkpoint or "best",
            str(row.num_runs),
            str(len(row.failed)),
            row.positive,
        ]
        for name in FIGURES:
            if FIGURES[name][0]:
                value = row.published.get(name)
                cells.append("" if value is None else f"{value:.3f}")
            cells.append(_mean_and_deviation(row.measured.get(name, [])))
        lines.append(_line(cells))
    notes = dict.fromkeys(f"- {row.recipe}: {n}" for row in rows for n in row.notes)
    if notes:
        lines += ["", "Notes:", *notes]
    failures = sorted({reason for row in rows for reason in row.failed})
    if failures:
        lines += ["", "Failed:", *(f"- {reason}" for reason in failures)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}"


def write_table(directory: Path, rows: Sequence[Row], note: str) -> None:
    """Writes table.csv, table.md and table.png."""
    import pandas as pd

    table = []
    for row in rows:
        line: dict[str, Any] = {
            "recipe": row.recipe,
            "title": row.title,
            "checkpoint": row.checkpoint or "best",
            "positive": row.positive,
            "runs": row.num_runs,
            "failed": len(row.failed),
        }
        for name in FIGURES:
            values = row.measured.get(name, [])
            if FIGURES[name][0]:
                line[f"{name}, published"] = row.published.get(name)
            line[f"{name}, measured mean"] = (
                statistics.fmean(values) if values else None
            )
            several = len(values) > 1
            line[f"{name}, measured sd"] = (
                statistics.stdev(values) if several else math.nan
            )
        line["notes"] = "; ".join(row.notes)
        table.append(line)
    with replacing(directory / "table.csv") as partial:
        pd.DataFrame(table).to_csv(partial, index=False)
    write_text(directory / "table.md", to_markdown(rows, note) + "\n")
    plot_reproduction(rows, directory / "table.png", note)
