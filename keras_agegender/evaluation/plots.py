"""Learning curves of a run."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_agegender.callbacks.loss_weight_state import LOG_SUFFIX
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.evaluation.figures import (
    COLORS,
    INK,
    MOST_OUTPUTS,
    MUTED,
    PALE,
    new_figure,
    output_style,
    save_figure,
    style,
)

# The figures of decoded answers, which every encoding has; see `DecodedAccuracy`. The
# first has the first color, and so on, whichever of them a run has.
ACCURACIES = {
    "gender_accuracy": "gender",
    "age_accuracy": "age group",
    "age_all_heads_accuracy": "age, all heads right",
    "mean_accuracy": "mean of gender and age",
}
LONGEST_LABEL = 32  # characters; two columns of the legend fit below a panel


def plot_history(
    history: Mapping[str, Sequence[float]] | str | Path,
    path: str | Path,
    *,
    outputs: Sequence[str] = (),
    kept_epoch: int | None = None,
    only: str | None = None,
) -> Path:
    """Draws loss, accuracies and the loss weights in force, epoch by epoch.

    A dot marks the epoch whose model was kept. Where that is not known, it marks the
    lowest validation loss; the legend says which.

    Args:
        history: Name -> one value per epoch, as Keras' `History.history` has them, or
            the CSV file that `CSVLogger` wrote.
        path: PNG file to write, whole or not at all.
        outputs: The encoding's output names in their order, which the colors of loss
            weights follow. Empty by default: the order of the history.
        kept_epoch: The epoch whose model was kept, counted from 0; `None` (default)
            where that is not known.
        only: One of `history_panels(history)` to draw alone; `None` (default) draws
            all beside each other.

    Returns:
        That path.

    Raises:
        ValueError: If the history holds no epoch, not the one kept, or not the panel.

    Example:
    >>> plot_history("runs/1/history.csv", "curves.png")  # doctest: +SKIP
    """
    columns = _read_columns(history)
    count = max(map(len, columns.values()))
    known = min(map(len, columns.values()))
    if kept_epoch is not None and not 0 <= kept_epoch < known:
        raise ValueError(
            f"Invalid `kept_epoch`. Expected one of {known} epochs, counted from 0. "
            f"Received: kept_epoch={kept_epoch}."
        )
    weights = _loss_weights(columns)
    accuracies = _accuracy_curves(columns)
    panels = history_panels(columns)
    if only is not None and only not in panels:
        raise ValueError(
            f"Invalid `only`. Expected one of {panels}. Received: only={only!r}."
        )
    panels = panels if only is None else [only]
    with style():
        figure = new_figure((5.4 * len(panels), 4.9))
        axes = dict(
            zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True)
        )
        if "loss" in axes:
            _draw_losses(axes["loss"], columns, kept_epoch)
        if "accuracy" in axes:
            _draw_accuracies(axes["accuracy"], accuracies, kept_epoch)
        if "weights" in axes:
            _draw_loss_weights(axes["weights"], weights, outputs)
        for axis in axes.values():
            _finish_panel(axis, count)
        return save_figure(figure, Path(path))


def history_panels(
    history: Mapping[str, Any] | str | Path,
) -> list[str]:
    """Returns what can be drawn of a history: `loss`, `accuracy` and `weights`.

    Args:
        history: As in `plot_history`.
    """
    columns = _read_columns(history)
    found = {"accuracy": _accuracy_curves(columns), "weights": _loss_weights(columns)}
    return ["loss", *(name for name, curves in found.items() if curves)]


def _read_columns(history: Mapping[str, Any] | str | Path) -> dict[str, np.ndarray]:
    if not isinstance(history, Mapping):
        history = read_history(Path(history))
    columns = {
        name: np.asarray(values, "float64")
        for name, values in history.items()
        if name != "epoch" and len(values)
    }
    if not columns:
        raise ValueError(
            "Invalid `history`. Expected at least one epoch. Received none."
        )
    return columns


def _loss_weights(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        n.removesuffix(LOG_SUFFIX): v
        for n, v in columns.items()
        if n.endswith(LOG_SUFFIX)
    }


def decoded_history(file: Path, encoding: Encoding) -> dict[str, list[float]]:
    """Returns a history without the share of exact years that training faces have.

    Keras logs it under the name of the accuracy of age groups, which it is not.
    """
    history, head = read_history(file), encoding.age_head
    if head is not None and head.kind == "years":
        history.pop(f"{head.name}_accuracy", None)
    return history


def read_history(file: Path) -> dict[str, list[float]]:
    """Returns what `CSVLogger` wrote: name -> one value per epoch.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = rows[0] if rows else ()
        return {name: [float(row[name] or "nan") for row in rows] for name in names}
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{file} is damaged ({error}). Put it back, or remove it."
        ) from None


def _accuracy_curves(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Returns the curves of the accuracy panel: the decoded ones, others in gray."""
    curves = []
    covering = np.array_equal(
        columns.get("val_age_accuracy", ()),
        columns.get("val_age_all_heads_accuracy", np.nan),
    )
    for color, (name, label) in zip(COLORS, ACCURACIES.items(), strict=False):
        if name == "age_all_heads_accuracy" and covering:
            continue  # it would cover the curve of the age group
        if f"val_{name}" in columns:
            values = columns[f"val_{name}"]
            look = {"color": color, "label": label}
            curves.append({"y": values, "decoded": True, **look})
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
                "color": PALE,
                "linewidth": 1,
                "label": shared,
                "zorder": 1,
            }
        )
    return curves


def _draw_losses(
    axis: Any, columns: Mapping[str, np.ndarray], kept_epoch: int | None
) -> None:
    if "val_loss" in columns:
        _curve(axis, columns["val_loss"], label="validation", color=COLORS[0])
    if "loss" in columns:
        _curve(axis, columns["loss"], label="training", color=MUTED, linestyle="--")
    if "val_loss" in columns and np.isfinite(columns["val_loss"]).any():
        lowest = int(np.nanargmin(columns["val_loss"]))
        epoch, what = (lowest, "lowest") if kept_epoch is None else (kept_epoch, "kept")
        value = columns["val_loss"][epoch]
        label = f"{what}: epoch {epoch + 1} ({value:.3g})"
        _dot(axis, epoch, value, color=COLORS[0], label=label)
    axis.set_title("Loss, all outputs")


def _draw_accuracies(
    axis: Any, curves: Sequence[dict[str, Any]], kept_epoch: int | None
) -> None:
    label = None
    for curve in curves:
        values, decoded = curve.pop("y"), curve.pop("decoded", False)
        _curve(axis, values, **curve)
        if decoded and kept_epoch is not None:
            _dot(axis, kept_epoch, values[kept_epoch], color=curve["color"])
            label = f"kept: epoch {kept_epoch + 1}"
    if label:
        _dot(axis, np.nan, np.nan, color="white", label=label)  # in the legend alone
    axis.set_title("Accuracy, validation data")
    axis.set_ylim(top=min(1.0, axis.get_ylim()[1]))


def _draw_loss_weights(
    axis: Any, weights: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> None:
    """Draws one line for all outputs whose weights are the same in every epoch.

    It looks as its first output does: by the place among all outputs of the encoding.
    """
    order = list(dict.fromkeys([*outputs, *weights]))
    same = defaultdict(list)
    for name in sorted(weights, key=order.index):
        same[tuple(weights[name].round(6))].append(name)
    pale = [n for n in same.values() if order.index(n[0]) >= MOST_OUTPUTS]
    for level, names in same.items():
        label: str | None = _label(names, order)
        if len(pale) > 1 and names in pale:
            count = sum(map(len, pale))
            label = f"{count} more outputs" if names is pale[0] else None
        look = output_style(order.index(names[0]))
        _curve(axis, np.array(level), drawstyle="steps-mid", label=label, **look)
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    axis.set_title("Loss weights in force")


def _label(names: Sequence[str], order: Sequence[str]) -> str:
    """Returns a short text for outputs; `a … d` only if those between are meant too."""
    text, first = ", ".join(names), order.index(names[0])
    if len(names) == 1 or (len(names) <= 4 and len(text) <= LONGEST_LABEL):
        return text
    if list(order[first : first + len(names)]) == list(names):
        return f"{names[0]} … {names[-1]}"
    return f"{names[0]} and {len(names) - 1} more"


def _curve(axis: Any, values: np.ndarray, **style: Any) -> None:
    marker = "o" if len(values) == 1 else None  # a line through one point is nothing
    if style.get("linestyle") == "--":
        style["markerfacecolor"] = "white"
    epochs = np.arange(1, len(values) + 1)
    axis.plot(epochs, values, marker=marker, **{"linewidth": 2, **style})


def _dot(axis: Any, epoch: Any, value: float, color: str, **label: Any) -> None:
    """Marks an epoch of a curve; the dark edge tells it from a curve of one epoch."""
    edge = {"markeredgecolor": INK, "markeredgewidth": 1.2, "markersize": 7.5}
    axis.plot(epoch + 1, value, "o", color=color, zorder=3, **edge, **label)


def _finish_panel(axis: Any, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axis.set_xlim(0.5, count + 0.5)
    # Below the panel: above it, or in it, curves run through.
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
