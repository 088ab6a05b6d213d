"""Published and measured figures of many runs as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_agegender.evaluation.figures import (
    COLORS,
    INK,
    MUTED,
    new_figure,
    save_figure,
    style,
)


def plot_reproduction(rows: Sequence[Any], path: str | Path, note: str = "") -> Path:
    """Draws published beside measured accuracies, a line for each row of the table.

    Hollow circles are published figures; dots are measured means, bars their intervals
    (over folds, seeds, or the faces of a single run). A dagger marks runs that answer
    (almost) always one class. A row without a finished run says so.

    Args:
        rows: Rows of a `Reproduction`.
        path: PNG file to write, whole or not at all.
        note: What the measured figures are of.

    Returns:
        That path.
    """
    panels = (
        ("gender accuracy", "Gender accuracy", COLORS[0]),
        ("age accuracy", "Age accuracy, all heads", COLORS[1]),
    )
    lines = textwrap.wrap(note, 150)
    with style():
        figure = new_figure((11, 1.9 + 0.34 * len(rows) + 0.15 * len(lines)))
        axes = figure.subplots(1, len(panels), sharey=True)
        labels = [
            f"{r.recipe}{f' ({r.checkpoint})' if r.checkpoint else ''}" for r in rows
        ]
        for axis, (name, title, color) in zip(axes, panels, strict=True):
            for position, row in enumerate(rows):
                _draw_figures(axis, position, row, name, color)
            axis.set_title(title)
            axis.set_xlim(-0.02, 1.02)  # dots at the ends are whole
            axis.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(rows)), labels)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)  # the first on top, none at the edge
        over = sorted({row.interval_over for row in rows} - {""})
        interval = f", 95 % interval over {' or '.join(over)}" if over else ""
        measured = {"color": INK, "label": f"measured here{interval}"}
        handles = [axes[0].plot([], [], "o-", **measured)[0]]
        if any(row.published for row in rows):
            hollow = {"mfc": "none", "color": INK, "label": "published"}
            handles.insert(0, axes[0].plot([], [], "o", **hollow)[0])
        if any(row.one_class for row in rows):
            text = "answers (almost) always one class"
            dagger = {"marker": "$\\dagger$", "color": INK, "label": text}
            handles.append(axes[0].plot([], [], linestyle="", **dagger)[0])
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        if lines:
            text = "\n".join(lines)
            figure.suptitle(text, x=0.01, ha="left", fontsize=8.5, color=MUTED)
        return save_figure(figure, Path(path))


def _draw_figures(axis: Any, position: int, row: Any, name: str, color: str) -> None:
    published, measured = row.published.get(name), row.intervals.get(name)
    if published is not None:
        axis.plot([published], [position], "o", mfc="none", color=color, markersize=8)
    if measured is not None:
        spread = None
        if measured.low is not None:
            spread = [[measured.mean - measured.low], [measured.high - measured.mean]]
        axis.errorbar(measured.mean, position, xerr=spread, fmt="o", color=color)
        if name.split()[0] in row.one_class:
            axis.annotate(
                "\N{DAGGER}",
                (measured.mean, position),
                (0, 4),
                textcoords="offset points",
                ha="center",
            )
    elif row.failed and not row.measured:
        axis.text(0.02, position, "failed", color=MUTED, va="center", fontsize=9)
