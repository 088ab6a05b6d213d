"""Figures of a report: drawn as PNG files, and described for those who see none."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.evaluation.group_lines import scored_questions
from keras_agegender.evaluation.group_plot import plot_groups
from keras_agegender.evaluation.groups import few_further, group_title
from keras_agegender.evaluation.plots import (
    decoded_history,
    history_panels,
    plot_history,
)
from keras_agegender.evaluation.question_answers import QuestionAnswers
from keras_agegender.evaluation.reliability_plot import (
    plot_reliability,
    reliability_bins,
)
from keras_agegender.run_directory import RunDirectory

MOST_DIAGRAMS = 12  # of forty attributes the table has the others
_PANELS = {
    "loss": "Loss of training and validation faces over epochs",
    "accuracy": "Accuracies on validation faces over epochs",
    "weights": "Loss weights in force over epochs",
}


@dataclass(frozen=True)
class Picture:
    """A picture inside a page.

    Attributes:
        source: `data:` URI.
        alt: What is on it, for those who do not see it.
        caption: What stands below it.
    """

    source: str
    alt: str
    caption: str = ""


def embed(content: bytes, alt: str, caption: str = "", kind: str = "png") -> Picture:
    """Returns a PNG or JPEG picture that needs no file."""
    text = base64.b64encode(content).decode("ascii")
    return Picture(f"data:image/{kind};base64,{text}", alt, caption)


def draw_curves(run: RunDirectory, folder: Path) -> list[Picture]:
    """Draws what history.csv has, a picture for each panel; none without a history."""
    if not run.history_file.is_file() or not run.history_file.read_text("utf-8"):
        return []
    history = decoded_history(run.history_file, run.encoding())
    pictures = []
    for panel in history_panels(history):
        path = plot_history(
            history,
            folder / f"curves_{panel}.png",
            outputs=run.encoding().output_names,
            kept_epoch=run.kept_epoch,
            only=panel,
        )
        alt = f"{_PANELS[panel]}."
        if run.kept_epoch is not None:
            alt += f" The model of epoch {run.kept_epoch + 1} was kept."
        pictures.append(embed(path.read_bytes(), alt))
    return pictures


def draw_groups(
    columns: str, found: Mapping[str, Any], metrics: Mapping[str, Any], folder: Path
) -> list[Picture]:
    """Draws the bars of one grouping, a picture for each question; for few of them."""
    pictures = []
    further = metrics.get("extra") or {}
    for question in few_further(scored_questions(found)):
        scores = metrics.get("age" if question == "age_group" else question) or {}
        scores = scores or further.get(question) or {}
        path = plot_groups(
            found,
            folder / f"groups_{file_name(columns)}_{question}.png",
            columns=columns,
            question=question,
            overall=scores.get("accuracy"),
        )
        ranked = sorted(
            (g for g in found["groups"] if g[f"{question}_accuracy"] is not None),
            key=lambda group: group[f"{question}_accuracy"],
        )
        ends = [
            f"{group_title(group, columns.split(','))} "
            f"{group[f'{question}_accuracy']:.3f}"
            for group in (ranked[0], ranked[-1])
        ]
        alt = (
            f"Bars with intervals: {question.replace('_', ' ')} accuracy of "
            f"{len(ranked)} groups, lowest {ends[0]}, highest {ends[1]}."
        )
        pictures.append(embed(path.read_bytes(), alt))
    return pictures


def draw_reliability(
    answers: Sequence[QuestionAnswers],
    subjects: Any,
    metrics: Mapping[str, Any],
    folder: Path,
) -> tuple[list[Picture], pd.DataFrame]:
    """Draws the diagrams of the first 12 questions; returns the bins of all."""
    pictures: list[Picture] = []
    tables = []
    for question in answers:
        bins = reliability_bins(
            question.probabilities, question.truth, subjects=subjects
        )
        tables.append(bins.assign(question=question.name))
        if len(pictures) == MOST_DIAGRAMS:
            continue
        error = _calibration_error(question.name, metrics)
        path = plot_reliability(
            bins,
            folder / f"reliability_{file_name(question.name)}.png",
            title=question.title,
            calibration_error=error,
        )
        shown = "" if error is None else f" Expected calibration error {error:.3f}."
        alt = (
            f"Reliability diagram of {question.title.lower()}: share that is right "
            f"over confidence, of {int(bins['num_faces'].sum()):,} faces.{shown}"
        )
        pictures.append(embed(path.read_bytes(), alt))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return pictures, table


def _calibration_error(name: str, metrics: Mapping[str, Any]) -> float | None:
    scores = metrics.get("age" if name == "age_group" else name)
    if name in ("age_group", "gender") and scores:
        return scores.get("expected_calibration_error")
    calibration = metrics.get("calibration") or {}
    return calibration.get("answers", {}).get(name, {}).get("ece")


def file_name(text: str) -> str:
    """Returns the name of one or more columns as part of a file's name.

    No two share one: commas become `+`; whatever is no letter, digit, `_`, `-` or `.`
    becomes its number between `%`.
    """
    escaped = (c if c.isalnum() or c in "_-.," else f"%{ord(c):x}%" for c in text)
    return "".join(escaped).replace(",", "+")
