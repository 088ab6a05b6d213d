"""Plots of histories, confusion matrices, groups, reliability and reproductions."""

from __future__ import annotations

import csv
import re
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.encodings.encoding import LOSS_WEIGHT_SUFFIX, Encoding
from keras_agegender.evaluation.groups import group_title
from keras_agegender.evaluation.of_age import POPULATIONS
from keras_agegender.evaluation.scores import Evaluation
from keras_agegender.files import atomic_write
from keras_agegender.labels import GENDERS
from keras_agegender.metrics.intervals import Clusters, proportion_interval
from keras_agegender.metrics.table import CALIBRATION_BINS, confidence_bins

# Okabe and Ito's colors: most color-blind people can tell them apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK, MUTED, GRID, PALE = "#222222", "#6b6b6b", "#e4e4e4", "#b9b9b9"
# Every color solid, then every color dashed.
MOST_OUTPUTS = 2 * len(COLORS)
STYLE = {
    "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "grid.color": GRID,
    "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "legend.frameon": False, "legend.fontsize": 9.5, "hatch.linewidth": 0.6,
    "font.size": 10.5,
}  # fmt: skip


def style() -> Any:
    """Returns a context manager that applies the house style."""
    import matplotlib

    return matplotlib.rc_context(dict(STYLE))  # type: ignore[arg-type]


def output_style(index: int) -> dict[str, Any]:
    """Returns the line style of an encoding's output; 0 is the first output.

    It depends on the index only, so that an output looks the same in every run. Outputs
    from `MOST_OUTPUTS` on are pale and thin.
    """
    if index >= MOST_OUTPUTS:
        return {"color": PALE, "linestyle": "-", "linewidth": 1, "zorder": 1}
    line = "-" if index < len(COLORS) else "--"
    return {"color": COLORS[index % len(COLORS)], "linestyle": line}


def new_figure(size: tuple[float, float]) -> Any:
    """Returns an empty figure; (width, height) in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.12, h_pad=0.12)
    return figure


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a PNG file atomically and returns its path."""
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
    return path


# Accuracies of decoded predictions, logged by `DecodedAccuracy`. Each has its own color
# in every run.
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
    best_epoch: int | None = None,
    only: str | None = None,
) -> Path:
    """Draws loss, accuracies and the loss weights in force, epoch by epoch.

    A dot marks the epoch of the best checkpoint. If it is unknown, the dot marks the
    lowest validation loss. The legend says which.

    Args:
        history: Name -> one value per epoch, as Keras' `History.history` has them, or
            the CSV file that `CSVLogger` wrote.
        path: PNG file to write.
        outputs: Output names of the encoding, in order. They set the colors of the loss
            weights. Defaults to the order of the history.
        best_epoch: Epoch of the best checkpoint, counted from 0; `None` (default) if
            unknown.
        only: The one panel of `history_panels(history)` to draw; `None` (default)
            draws all of them side by side.

    Raises:
        ValueError: If the history is empty, or `best_epoch` or the panel does not
            exist.

    Example:
    >>> plot_history("runs/1/history.csv", "curves.png")  # doctest: +SKIP
    """
    columns = _read_columns(history)
    count = max(map(len, columns.values()))
    known = min(map(len, columns.values()))
    if best_epoch is not None and not 0 <= best_epoch < known:
        raise ValueError(
            f"Invalid `best_epoch`. Expected an epoch in [0, {known}). "
            f"Received: best_epoch={best_epoch}."
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
        drawn = figure.subplots(1, len(panels), squeeze=False)[0]
        axes = dict(zip(panels, drawn, strict=True))
        if "loss" in axes:
            _draw_losses(axes["loss"], columns, best_epoch)
        if "accuracy" in axes:
            _draw_accuracies(axes["accuracy"], accuracies, best_epoch)
        if "weights" in axes:
            _draw_loss_weights(axes["weights"], weights, outputs)
        for axis in axes.values():
            _finish_panel(axis, count)
        return save_figure(figure, Path(path))


def history_panels(history: Mapping[str, Any] | str | Path) -> list[str]:
    """Returns the panels that a history has: `loss`, `accuracy` and `weights`."""
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
        raise ValueError("Invalid `history`. Expected at least one epoch.")
    return columns


def _loss_weights(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    suffix = LOSS_WEIGHT_SUFFIX
    return {n.removesuffix(suffix): v for n, v in columns.items() if n.endswith(suffix)}


def decoded_history(file: Path, encoding: Encoding) -> dict[str, list[float]]:
    """Returns a history without the training accuracy of exact years.

    Keras logs it under the name of the age group accuracy.
    """
    history, head = read_history(file), encoding.age_head
    if head is not None and head.spec.in_years:
        history.pop(f"{head.name}_accuracy", None)
    return history


def read_history(file: Path) -> dict[str, list[float]]:
    """Reads the file that `CSVLogger` wrote: name -> one value per epoch."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = rows[0] if rows else ()
        return {name: [float(row[name] or "nan") for row in rows] for name in names}
    except (ValueError, TypeError, csv.Error) as error:
        message = f"{file} is damaged ({error}). Restore or remove it."
        raise ValueError(message) from None


def _accuracy_curves(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Returns the curves of the accuracy panel; single outputs are gray."""
    curves = []
    covering = np.array_equal(
        columns.get("val_age_accuracy", ()),
        columns.get("val_age_all_heads_accuracy", np.nan),
    )
    for color, (name, label) in zip(COLORS, ACCURACIES.items(), strict=False):
        if name == "age_all_heads_accuracy" and covering:
            continue  # it would cover the curve of the age group
        for column, text, line in (
            (f"val_{name}", label, "-"),
            (name, f"{label}, training", "--"),
        ):
            if column in columns:
                look = {"color": color, "label": text, "linestyle": line}
                decoded = column != name
                curves.append({"y": columns[column], "decoded": decoded, **look})
    single = (name for name in columns if re.fullmatch(r"val_.*accuracy", name))
    others = [name for name in single if name.removeprefix("val_") not in ACCURACIES]
    for number, name in enumerate(others):
        shared: str | None = f"single outputs ({len(others)})" if number == 0 else None
        if len(others) == 1:
            shared = name.removeprefix("val_").removesuffix("_accuracy")
        pale = {"color": PALE, "linewidth": 1, "zorder": 1, "label": shared}
        curves.append({"y": columns[name], **pale})
    return curves


def _draw_losses(
    axis: Any, columns: Mapping[str, np.ndarray], best_epoch: int | None
) -> None:
    if "val_loss" in columns:
        _curve(axis, columns["val_loss"], label="validation", color=COLORS[0])
    if "loss" in columns:
        _curve(axis, columns["loss"], label="training", color=MUTED, linestyle="--")
    if "val_loss" in columns and np.isfinite(columns["val_loss"]).any():
        lowest = int(np.nanargmin(columns["val_loss"]))
        epoch, what = (lowest, "lowest") if best_epoch is None else (best_epoch, "best")
        value = columns["val_loss"][epoch]
        label = f"{what}: epoch {epoch + 1} ({value:.3g})"
        _dot(axis, epoch, value, color=COLORS[0], label=label)
    axis.set_title("Loss, all outputs")


def _draw_accuracies(
    axis: Any, curves: Sequence[dict[str, Any]], best_epoch: int | None
) -> None:
    label = None
    for curve in curves:
        values, decoded = curve.pop("y"), curve.pop("decoded", False)
        _curve(axis, values, **curve)
        if decoded and best_epoch is not None:
            _dot(axis, best_epoch, values[best_epoch], color=curve["color"])
            label = f"best: epoch {best_epoch + 1}"
    if label:
        _dot(axis, np.nan, np.nan, color="white", label=label)  # in the legend only
    axis.set_title("Accuracy, validation data")
    axis.set_ylim(top=min(1.0, axis.get_ylim()[1]))


def _draw_loss_weights(
    axis: Any, weights: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> None:
    """Draws one line for all outputs with the same weights in every epoch.

    The line has the style of the first of these outputs.
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
    """Returns a short label; `a … d` only if it covers all outputs in between."""
    text, first = ", ".join(names), order.index(names[0])
    if len(names) == 1 or (len(names) <= 4 and len(text) <= LONGEST_LABEL):
        return text
    if list(order[first : first + len(names)]) == list(names):
        return f"{names[0]} … {names[-1]}"
    return f"{names[0]} and {len(names) - 1} more"


def _curve(axis: Any, values: np.ndarray, **style: Any) -> None:
    marker = "o" if len(values) == 1 else None  # a line through one point is invisible
    if style.get("linestyle") == "--":
        style["markerfacecolor"] = "white"
    epochs = np.arange(1, len(values) + 1)
    axis.plot(epochs, values, marker=marker, **{"linewidth": 2, **style})


def _dot(axis: Any, epoch: Any, value: float, color: str, **label: Any) -> None:
    """Marks an epoch; the dark edge sets it apart from a curve of one epoch."""
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


DARK = 0.66  # above this share, white is easier to read on "Blues" than INK


def plot_confusion_matrices(
    metrics: Evaluation | Mapping[str, Any], path: str | Path
) -> Path:
    """Draws the confusion matrices of gender and age group.

    Colors are shares of the true class, so that rare groups are visible too. Cells show
    the share in percent and the number of faces, unless it is 0. Rows of classes
    without faces are hatched.

    Args:
        metrics: An `Evaluation`, or the content of metrics.json.
        path: PNG file to write.
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
            text = "This model predicts neither gender nor age group."
            figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
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
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    turned: dict[str, Any] = {}
    if len(names) > 2:
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(names)), names, **turned)
    axis.set_yticks(range(len(names)), names)
    edges = np.arange(len(names) + 1) - 0.5
    axis.set_xticks(edges, minor=True)
    axis.set_yticks(edges, minor=True)
    axis.grid(False)
    axis.grid(which="minor", color=GRID, linewidth=0.8)
    axis.tick_params(which="both", length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    small = 8.5 if len(names) > 2 else 11
    for row in np.flatnonzero(totals[:, 0] == 0):
        _draw_no_faces(axis, int(row), len(names), small)
    for row, column in np.ndindex(counts.shape):
        share, count = float(shares[row, column]), int(counts[row, column])
        if count:
            text = f"{_percent(share)}\n{count}"
            look = {"fontsize": small, "color": "white" if share > DARK else INK}
            axis.text(
                column, row, text, ha="center", va="center", linespacing=1.35, **look
            )


def _draw_no_faces(axis: Any, row: int, count: int, size: float) -> None:
    """Hatches the row of a class without faces, which is not a share of 0."""
    from matplotlib.patches import Rectangle

    cells = Rectangle((-0.5, row - 0.5), count, 1, hatch="///", linewidth=0.8, zorder=2)
    cells.set(facecolor="#f4f4f4", edgecolor=PALE)
    axis.add_patch(cells)
    look = {"color": MUTED, "fontsize": size, "ha": "center", "va": "center"}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2.5}
    axis.text((count - 1) / 2, row, "no faces", bbox=box, zorder=3, **look)


def _percent(share: float) -> str:
    """Returns a share as text: never 0%, and 100% only for all faces."""
    if share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


MOST_GROUPS = 40  # more bars are unreadable


def plot_groups(
    found: Mapping[str, Any],
    path: str | Path,
    *,
    columns: str,
    task: str,
    overall: float | None = None,
) -> Path:
    """Draws the accuracy of a task in each group with intervals, the worst on top.

    Bars of groups with few faces are pale and hatched. Of more than 40 groups, only the
    worst are drawn.

    Args:
        found: A value of `Evaluation.groups`, as `score_groups` returns them.
        path: PNG file to write.
        columns: Name of the grouping: `"age_group,gender"`.
        task: `"gender"`, `"age_group"` or another task of the grouping.
        overall: Accuracy of all faces, drawn as a line; `None` (default) draws none.

    Raises:
        ValueError: If no group has a score for the task.

    Example:
    >>> plot_groups(scores.groups["race"], "race.png", columns="race",
    ...             task="gender")  # doctest: +SKIP
    """
    value = f"{task}_accuracy"
    scored = [g for g in found["groups"] if g.get(value) is not None]
    if not scored:
        raise ValueError(
            f"Invalid `task`. Expected a task with scores. Received: task={task!r}."
        )
    scored.sort(key=lambda group: (group["few"], group[value]))
    drawn = scored[:MOST_GROUPS]
    with style():
        figure = new_figure((5.4, 1.5 + 0.29 * len(drawn)))
        axis = figure.subplots()
        for place, group in enumerate(drawn):
            _draw_group(axis, place, group, task)
        names = [
            f"{group_title(group, columns.split(','))} ({group['num_faces']:,})"
            for group in drawn
        ]
        axis.set_yticks(range(len(drawn)), names)
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlim(0, 1.0)
        axis.set_axisbelow(True)
        axis.set_xlabel("accuracy, 95 % interval (faces in brackets)")
        left = len(scored) - len(drawn)
        more = f", the worst {len(drawn)} of {len(scored)}" if left else ""
        axis.set_title(f"{task.replace('_', ' ').capitalize()} accuracy{more}")
        if overall is not None:
            label = f"all faces: {overall:.3f}"
            axis.axvline(overall, color=INK, linewidth=1.2, label=label)
            axis.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
            axis.set_title(axis.get_title(loc="left"), loc="left", pad=22)
        return save_figure(figure, Path(path))


def _draw_group(axis: Any, place: int, group: Mapping[str, Any], task: str) -> None:
    value, ends = group[f"{task}_accuracy"], group[f"{task}_interval"]
    look: dict[str, Any] = {"color": COLORS[5]}
    if group["few"]:
        look = {"color": PALE, "hatch": "///", "edgecolor": "white"}
    axis.barh(place, value, height=0.72, **look)
    if ends:
        reach = [[max(value - ends[0], 0)], [max(ends[1] - value, 0)]]
        look = {"fmt": "none", "ecolor": INK, "elinewidth": 1.3, "capsize": 3}
        axis.errorbar(value, place, xerr=reach, **look)


def plot_of_age(found: Mapping[str, Any], path: str | Path) -> Path:
    """Draws the minors who pass and the adults who are refused, by threshold.

    Bands are 95 % intervals over people.

    Args:
        found: `Evaluation.of_age`, as `score_of_age` returns it.
        path: PNG file to write.

    Example:
    >>> plot_of_age(scores.of_age, "of_age.png")  # doctest: +SKIP
    """
    thresholds = found["thresholds"]
    with style():
        figure = new_figure((5.4, 4.4))
        axis = figure.subplots()
        for number, one in enumerate(found["populations"]):
            if not one["num_faces"]:
                continue
            color = COLORS[number]
            label = f"{POPULATIONS[one['name']][0]} ({one['num_faces']:,})"
            axis.plot(thresholds, one["shares"], color=color, linewidth=2, label=label)
            if None not in one["intervals"]:
                low, high = zip(*one["intervals"], strict=True)
                axis.fill_between(thresholds, low, high, color=color, alpha=0.15, lw=0)
        axis.set_xlabel("years that a face must look to pass")
        axis.set_ylabel("share of faces")
        axis.set_ylim(0, 1.02)
        axis.set_xlim(thresholds[0], thresholds[-1])
        axis.set_title(f"Of age ({found['age']}), or not")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
        return save_figure(figure, Path(path))


FEW_FACES = 10  # a bin of fewer is drawn pale: its share is unreliable


def reliability_bins(
    probabilities: Any,
    classes: Any,
    *,
    subjects: Any = None,
    bins: int = CALIBRATION_BINS,
) -> pd.DataFrame:
    """Returns the number of faces and the accuracy in bins of confidence.

    Confidence is the probability of the predicted class. The bins are those of the
    expected calibration error: equal widths, open on the left.

    Args:
        probabilities: Probability of each class. Shape (num_faces, num_classes).
        classes: True class ids, -1 if unknown. Shape (num_faces,).
        subjects: Subject of each face, for intervals over people; `None` (default)
            treats faces as independent. Shape (num_faces,).
        bins: Number of bins. Defaults to 15.

    Example:
    >>> found = reliability_bins([[0.75, 0.25], [0.25, 0.75]], [0, 0], bins=2)
    >>> found[["num_faces", "confidence", "accuracy"]].iloc[1].tolist()
    [2.0, 0.75, 0.5]
    """
    probabilities, classes = np.asarray(probabilities), np.asarray(classes)
    known = classes >= 0
    subjects = np.full(len(classes), "") if subjects is None else np.asarray(subjects)
    clusters = Clusters.of(subjects)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == classes
    index = confidence_bins(confidence, bins)
    rows = []
    for number in range(bins):
        there = known & (index == number)
        scores: tuple[Any, ...] = (np.nan,) * 4
        if there.any():
            found = proportion_interval(right[there], clusters.select(there))
            mean = float(np.mean(confidence[there], dtype="float64"))
            scores = mean, found.value, *(found.interval or (np.nan, np.nan))
        edges = number / bins, (number + 1) / bins
        rows.append((*edges, int(there.sum()), *scores))
    columns = ["lower", "upper", "num_faces", "confidence", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def plot_reliability(
    table: pd.DataFrame,
    path: str | Path,
    *,
    title: str = "",
    calibration_error: float | None = None,
) -> Path:
    """Draws a reliability diagram: accuracy over confidence, and faces per bin.

    Points on the dotted line are calibrated; points below it are overconfident. Points
    of fewer than ten faces are pale.

    Args:
        table: The result of `reliability_bins`.
        path: PNG file to write.
        title: Title of the plot. Defaults to none.
        calibration_error: Expected calibration error, shown in the title; `None`
            (default) shows none.

    Example:
    >>> plot_reliability(table, "gender.png", title="Gender")  # doctest: +SKIP
    """
    there = table[table["num_faces"] > 0]
    # With two classes, the confidence is at least one half.
    lowest = float(there["lower"].min()) if len(there) else 0.0
    left = 0.45 if lowest >= 0.4 else 0.0
    with style():
        figure = new_figure((4.6, 5.0))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1.5)
        for few in (True, False):
            part = there[(there["num_faces"] < FEW_FACES) == few]
            _draw_points(upper, part, PALE if few else COLORS[0])
        if len(there) == 0:
            upper.text(0.5, 0.5, "no labeled faces", ha="center", color=MUTED)
        error = "" if calibration_error is None else f": ECE {calibration_error:.3f}"
        upper.set_title(f"{title}{error}")
        upper.set_ylabel("accuracy")
        upper.set_ylim(0, 1.02)
        upper.set_xlim(left, 1.005)
        width = (table["upper"] - table["lower"]) * 0.9
        middles = (table["upper"] + table["lower"]) / 2
        lower.bar(middles, table["num_faces"], width, color=COLORS[5])
        lower.set_axisbelow(True)
        lower.set_ylabel("faces")
        lower.set_xlabel("confidence of the prediction")
        return save_figure(figure, Path(path))


def _draw_points(axis: Any, part: pd.DataFrame, color: str) -> None:
    if part.empty:
        return
    ends = [part["accuracy"] - part["low"], part["high"] - part["accuracy"]]
    reach = np.clip(np.nan_to_num(np.array(ends)), 0, None)
    edge = {"markeredgecolor": INK if color != PALE else PALE, "markeredgewidth": 0.6}
    look = {"fmt": "o", "color": color, "markersize": 6, "capsize": 2.5, **edge}
    x, y = part["confidence"], part["accuracy"]
    axis.errorbar(x, y, yerr=reach, elinewidth=1.4, **look)


def plot_reproduction(rows: Sequence[Any], path: str | Path, note: str = "") -> Path:
    """Draws published and measured accuracies, one line for each row of the table.

    Hollow circles are published scores; dots are measured means, bars their intervals
    (over folds, seeds, or the faces of a single run). A dagger marks runs that almost
    always predict one class. Rows without a finished run are labeled.
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
            axis.set_xlim(-0.02, 1.02)  # show dots at the ends in full
            axis.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(rows)), labels)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)  # the first on top
        over = sorted({row.interval_over for row in rows} - {""})
        interval = f", 95 % interval over {' or '.join(over)}" if over else ""
        measured = {"color": INK, "label": f"measured here{interval}"}
        handles = [axes[0].plot([], [], "o-", **measured)[0]]
        if any(row.published for row in rows):
            hollow = {"mfc": "none", "color": INK, "label": "published"}
            handles.insert(0, axes[0].plot([], [], "o", **hollow)[0])
        if any(row.one_class for row in rows):
            text = "almost always predicts one class"
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
            place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
            axis.annotate("\N{DAGGER}", (measured.mean, position), **place)
    elif row.failed and not row.measured:
        axis.text(0.02, position, "failed", color=MUTED, va="center", fontsize=9)
