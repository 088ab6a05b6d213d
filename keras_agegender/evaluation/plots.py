"""Pictures of a run: learning curves and confusion matrices as PNG files.

Figures are drawn without pyplot: no window, no global state, nothing left open.
"""

from __future__ import annotations

import csv
import os
import re
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.callbacks.loss_weight_state import LOG_SUFFIX
from keras_agegender.evaluation.metrics import Evaluation
from keras_agegender.labels import AGE_GROUP_NAMES, GENDERS

# Okabe and Ito's colours, told apart by most colour-blind people too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, MUTED, GRID = "#222222", "#6b6b6b", "#e4e4e4"
STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}

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
    with _style():
        figure = _figure((5.4 * len(panels), 4.9))
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
        return _save(figure, Path(path))


def plot_confusion_matrices(
    metrics: Evaluation | Mapping[str, Any], path: str | Path
) -> Path:
    """Draws the confusion matrices of gender and age group.

    Colours are shares of the true class, so that rare groups are seen too; a cell says
    the share in per cent and, below it, the number of faces.

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
        drawn.append(("Age group", age, AGE_GROUP_NAMES, 6.6))
    with _style():
        if not drawn:
            figure = _figure((5, 2))
            figure.text(
                0.5,
                0.5,
                "This model answers neither gender nor age group.",
                ha="center",
                va="center",
                color=MUTED,
            )
            return _save(figure, Path(path))
        widths = [width for *_, width in drawn]
        figure = _figure((sum(widths) + 0.9 * len(widths), max(widths) + 0.8))
        grid = figure.subplots(1, len(drawn), squeeze=False, width_ratios=widths)[0]
        for axis, (title, scores, names, _) in zip(grid, drawn, strict=True):
            _draw_confusion(axis, title, scores, names)
        return _save(figure, Path(path))


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
    with _style():
        figure = _figure((11, 1.9 + 0.34 * len(rows)))
        axes = figure.subplots(1, len(panels), sharey=True)
        labels = [
            f"{r.recipe}{f' ({r.checkpoint})' if r.checkpoint else ''}" for r in rows
        ]
        for axis, (name, color) in zip(axes, panels, strict=True):
            for place, row in enumerate(rows):
                _draw_figures(axis, place, row, name, color)
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
        return _save(figure, Path(path))


def _draw_figures(axis: Any, place: int, row: Any, name: str, color: str) -> None:
    published, measured = row.published.get(name), row.measured.get(name, [])
    if published is not None:
        axis.plot([published], [place], "o", mfc="none", color=color, markersize=8)
    if measured:
        spread = np.std(measured, ddof=1) if len(measured) > 1 else 0.0
        axis.errorbar(np.mean(measured), place, xerr=spread, fmt="o", color=color)
    elif row.failed and not row.measured:
        axis.text(0.02, place, "failed", color=MUTED, va="center", fontsize=9)


# -- history ---------------------------------------------------------------------------


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
    for place, name in enumerate(others):
        shared: str | None = f"single outputs ({len(others)})" if place == 0 else None
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
    for place, (level, names) in enumerate(same.items()):
        label = ", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}"
        _curve(
            axis,
            np.array(level),
            drawstyle="steps-mid",
            label=label,
            color=COLORS[place % len(COLORS)],
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


# -- confusion -------------------------------------------------------------------------


def _draw_confusion(
    axis: Any, title: str, scores: Mapping[str, Any], names: Sequence[str]
) -> None:
    counts = np.array(scores["confusion"], "float64")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_anchor("N")
    accuracy = scores["accuracy"]
    shown = "no labelled faces" if accuracy is None else f"accuracy {accuracy:.3f}"
    axis.set_title(f"{title}: {shown}")
    axis.set_xlabel("answered")
    axis.set_ylabel("true")
    axis.set_xticks(range(len(names)), names, rotation=45 if len(names) > 2 else 0)
    axis.set_yticks(range(len(names)), names)
    axis.grid(False)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    small = 8.5 if len(names) > 2 else 11
    for row, column in np.ndindex(counts.shape):
        share, count = shares[row, column], int(counts[row, column])
        if count:
            axis.text(
                column,
                row,
                f"{share:.0%}\n{count}",
                ha="center",
                va="center",
                color="white" if share > 0.55 else INK,
                fontsize=small,
                linespacing=1.35,
            )


# -- figures ---------------------------------------------------------------------------


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(dict(STYLE))  # type: ignore[arg-type]


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.12, h_pad=0.12)
    return figure


def _save(figure: Any, path: Path) -> Path:
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=130)
    os.replace(partial, path)
    return path
