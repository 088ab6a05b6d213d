"""Confusion matrices of gender and age group as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.evaluation.figures import (
    GRID,
    INK,
    MUTED,
    PALE,
    new_figure,
    save_figure,
    style,
)
from keras_agegender.evaluation.metrics import Evaluation
from keras_agegender.labels import GENDERS

DARK = 0.66  # above this share, white is easier to read on "Blues" than INK


def plot_confusion_matrices(
    metrics: Evaluation | Mapping[str, Any], path: str | Path
) -> Path:
    """Draws the confusion matrices of gender and age group.

    Colors are shares of the true class, so that rare groups are visible too. A cell
    shows the share in percent and, below it, the number of faces; no face, no figures.
    Rows of classes without a single face are hatched.

    Args:
        metrics: An `Evaluation`, or what `metrics.json` holds.
        path: PNG file to write, whole or not at all.

    Returns:
        That path.
    """
    if isinstance(metrics, Evaluation):
        metrics = metrics.to_dict()
    gender, age = metrics.get("gender"), metrics.get("age")
    drawn: list[tuple[str, Any, Sequence[str], float]] = []
    if gender:
        drawn.append(("Gender", gender, GENDERS, 3.4))
    if age:
        groups = [group["name"] for group in age["groups"]]
        drawn.append(("Age group", age, groups, max(3.4, 0.82 * len(groups))))
    with style():
        if not drawn:
            figure = new_figure((5, 2))
            figure.text(
                0.5,
                0.5,
                "This model answers neither gender nor age group.",
                ha="center",
                va="center",
                color=MUTED,
            )
            return save_figure(figure, Path(path))
        widths = [width for *_, width in drawn]
        figure = new_figure((sum(widths) + 0.9 * len(widths), max(widths) + 0.8))
        grid = figure.subplots(1, len(drawn), squeeze=False, width_ratios=widths)[0]
        for axis, (title, scores, names, _) in zip(grid, drawn, strict=True):
            _draw_confusion(axis, title, scores, names)
        return save_figure(figure, Path(path))


def _draw_confusion(
    axis: Any, title: str, scores: Mapping[str, Any], names: Sequence[str]
) -> None:
    counts = np.array(scores["confusion"], "float64")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_anchor("N")
    accuracy = scores["accuracy"]
    shown = "no labeled faces" if accuracy is None else f"accuracy {accuracy:.3f}"
    axis.set_title(f"{title}: {shown}")
    axis.set_xlabel("answered")
    axis.set_ylabel("true")
    turned: dict[str, Any] = {}
    if len(names) > 2:
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(names)), names, **turned)
    axis.set_yticks(range(len(names)), names)
    _draw_cell_lines(axis, len(names))
    axis.tick_params(which="both", length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    small = 8.5 if len(names) > 2 else 11
    for row in np.flatnonzero(totals[:, 0] == 0):
        _draw_no_faces(axis, int(row), len(names), small)
    for row, column in np.ndindex(counts.shape):
        share, count = float(shares[row, column]), int(counts[row, column])
        if count:
            axis.text(
                column,
                row,
                f"{_percent(share)}\n{count}",
                ha="center",
                va="center",
                color="white" if share > DARK else INK,
                fontsize=small,
                linespacing=1.35,
            )


def _draw_cell_lines(axis: Any, count: int) -> None:
    edges = np.arange(count + 1) - 0.5
    axis.set_xticks(edges, minor=True)
    axis.set_yticks(edges, minor=True)
    axis.grid(False)
    axis.grid(which="minor", color=GRID, linewidth=0.8)


def _draw_no_faces(axis: Any, row: int, count: int, size: float) -> None:
    """Hatches a row: no face of that class, which is not a share of 0."""
    from matplotlib.patches import Rectangle

    cells = Rectangle((-0.5, row - 0.5), count, 1, hatch="///", linewidth=0.8, zorder=2)
    cells.set(facecolor="#f4f4f4", edgecolor=PALE)
    axis.add_patch(cells)
    axis.text(
        (count - 1) / 2,
        row,
        "no faces",
        ha="center",
        va="center",
        color=MUTED,
        fontsize=size,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.5},
        zorder=3,
    )


def _percent(share: float) -> str:
    """Returns a share that is above 0, and 100% only where it is all."""
    if share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"
