"""Pictures of training: learning curves of one run, and figures over many runs."""

from __future__ import annotations

import csv
import re
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.callbacks.loss_weight_state import LOG_SUFFIX
from keras_agegender.evaluation.figures import (
    COLORS,
    INK,
    MUTED,
    new_figure,
    save_figure,
    style,
)

# The figures of decoded answers, which every encoding has; see `DecodedAccuracy`.
ACCURACIES = {
    "gender_accuracy": "gender",
    "age_accuracy": "age group",
    "age_all_heads_accuracy": "age, all heads right",
    "mean_accuracy": "mean of gender and age",
}


def plot_history(
    history: Mapping[str, Sequence[float]] | str | Path, path: str | Path
) -> Path:
    """Draws loss, accuracies and the loss weights in force, epoch by epoch.

    Args:
        history: Name -> one value per epoch, as Keras' `History.history` has them, or
            the CSV file that `CSVLogger` wrote.
        path: PNG file to write, whole or not at all.

    Returns:
        That path.

    Raises:
        ValueError: If the history holds no epoch.

    Example:
    >>> plot_history("runs/1/history.csv", "curves.png")  # doctest: +SKIP
    """
    if not isinstance(history, Mapping):
        history = _read_csv(Path(history))
    columns = {
        name: np.asarray(values, "float64")
        for name, values in history.items()
        if name != "epoch" and len(values)
    }
    if not columns:
        raise ValueError(
            "Invalid `history`. Expected at least one epoch. Received none."
        )
    weights = {n: v for n, v in columns.items() if n.endswith(LOG_SUFFIX)}
    accuracies = _accuracy_curves(columns)
    panels = ["loss"] + ["accuracy"] * bool(accuracies) + ["weights"] * bool(weights)
    with style():
        figure = new_figure((5.4 * len(panels), 4.9))
        axes = dict(
            zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True)
        )
        _draw_losses(axes["loss"], columns)
        if accuracies:
            _draw_accuracies(axes["accuracy"], accuracies)
        if weights:
            _draw_loss_weights(axes["weights"], weights)
        for axis in axes.values():
            _finish_panel(axis, max(map(len, columns.values())))
        return save_figure(figure, Path(path))


def plot_reproduction(rows: Sequence[Any], path: str | Path, note: str = "") -> Path:
    """Draws published beside measured accuracies, a line for each row of the table.

    Hollow circles are published figures; dots are measured means, bars their standard
    deviations over folds and seeds. A row without a finished run says so.

    Args:
        rows: Rows of a `Reproduction`.
        path: PNG file to write, whole or not at all.
        note: What the measured figures are of.

    Returns:
        That path.
    """
    panels = (("gender accuracy", COLORS[0]), ("age accuracy", COLORS[1]))
    with style():
        figure = new_figure((11, 1.9 + 0.34 * len(rows)))
        axes = figure.subplots(1, len(panels), sharey=True)
        labels = [
            f"{r.recipe}{f' ({r.checkpoint})' if r.checkpoint else ''}" for r in rows
        ]
        for axis, (name, color) in zip(axes, panels, strict=True):
            for position, row in enumerate(rows):
                _draw_figures(axis, position, row, name, color)
            axis.set_title(name.capitalize())
            axis.set_xlim(0, 1)
            axis.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(rows)), labels)
        axes[0].invert_yaxis()
        handles = [
            axes[0].plot([], [], "o", mfc="none", color=INK, label="published")[0],
            axes[0].plot([], [], "o", color=INK, label="measured here")[0],
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        if note:
            figure.suptitle(
                textwrap.fill(note, 150), x=0.01, ha="left", fontsize=8.5, color=MUTED
            )
        return save_figure(figure, Path(path))


def _draw_figures(axis: Any, position: int, row: Any, name: str, color: str) -> None:
    published, measured = row.published.get(name), row.measured.get(name, [])
    if published is not None:
        axis.plot([published], [position], "o", mfc="none", color=color, markersize=8)
    if measured:
        spread = np.std(measured, ddof=1) if len(measured) > 1 else 0.0
        axis.errorbar(np.mean(measured), position, xerr=spread, fmt="o", color=color)
    elif row.failed and not row.measured:
        axis.text(0.02, position, "failed", color=MUTED, va="center", fontsize=9)


def _read_csv(file: Path) -> dict[str, list[float]]:
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = rows[0] if rows else ()
    return {name: [float(row[name] or "nan") for row in rows] for name in names}


def _accuracy_curves(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Returns the curves of the accuracy panel: the decoded ones, others in gray."""
    curves = []
    shown = dict(ACCURACIES)
    if np.array_equal(
        columns.get("val_age_accuracy", ()),
        columns.get("val_age_all_heads_accuracy", np.nan),
    ):
        del shown["age_all_heads_accuracy"]  # would cover the curve of the age group
    for color, (name, label) in zip(COLORS, shown.items(), strict=False):
        if f"val_{name}" in columns:
            curves.append({"y": columns[f"val_{name}"], "color": color, "label": label})
        if name in columns:
            curves.append(
                {
                    "y": columns[name],
                    "color": color,
                    "linestyle": "--",
                    "label": f"{label}, training",
                }
            )
    others = [
        name
        for name in columns
        if re.fullmatch(r"val_.*accuracy", name)
        and name.removeprefix("val_") not in ACCURACIES
    ]
    for number, name in enumerate(others):
        shared: str | None = f"single outputs ({len(others)})" if number == 0 else None
        if len(others) == 1:
            shared = name.removeprefix("val_").removesuffix("_accuracy")
        curves.append(
            {
                "y": columns[name],
                "color": "#b9b9b9",
                "linewidth": 1,
                "label": shared,
                "zorder": 1,
            }
        )
    return curves


def _draw_losses(axis: Any, columns: Mapping[str, np.ndarray]) -> None:
    if "val_loss" in columns:
        _curve(axis, columns["val_loss"], label="validation", color=COLORS[0])
    if "loss" in columns:
        _curve(axis, columns["loss"], label="training", color=MUTED, linestyle="--")
    if "val_loss" in columns and np.isfinite(columns["val_loss"]).any():
        best = int(np.nanargmin(columns["val_loss"]))
        value = columns["val_loss"][best]
        axis.plot(best + 1, value, "o", color=COLORS[0], zorder=3)
        axis.annotate(
            f"{value:.3g}",
            (best + 1, value),
            (0, 8),
            ha="center",
            textcoords="offset points",
            color=COLORS[0],
            fontsize=9.5,
        )
    axis.set_title("Loss, all outputs")


def _draw_accuracies(axis: Any, curves: Sequence[dict[str, Any]]) -> None:
    for curve in curves:
        _curve(axis, curve.pop("y"), **curve)
    axis.set_title("Accuracy, validation data")
    axis.set_ylim(top=min(1.0, axis.get_ylim()[1]))


def _draw_loss_weights(axis: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Draws one line for all outputs whose weights are the same in every epoch."""
    same = defaultdict(list)
    for name, values in weights.items():
        same[tuple(values.round(6))].append(name.removesuffix(LOG_SUFFIX))
    for number, (level, names) in enumerate(same.items()):
        label = ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}"
        _curve(
            axis,
            np.array(level),
            drawstyle="steps-mid",
            label=label,
            color=COLORS[number % len(COLORS)],
        )
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    axis.set_title("Loss weights in force")


def _curve(axis: Any, values: np.ndarray, **style: Any) -> None:
    marker = "o" if len(values) == 1 else None  # a line through one point is nothing
    epochs = np.arange(1, len(values) + 1)
    axis.plot(epochs, values, marker=marker, **{"linewidth": 2, **style})


def _finish_panel(axis: Any, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axis.set_xlim(0.5, count + 0.5)
    # Below the panel: above it, or in it, curves run through.
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
