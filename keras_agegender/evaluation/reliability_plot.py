"""Reliability: how often answers are right that say they are right so often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.evaluation.array_metrics import CALIBRATION_BINS, confidence_bins
from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.figures import (
    COLORS,
    INK,
    MUTED,
    PALE,
    new_figure,
    save_figure,
    style,
)
from keras_agegender.evaluation.resampling import proportion_interval

FEW_FACES = 10  # a bin of fewer is drawn pale: its share says little


def reliability_bins(
    probabilities: Any,
    classes: Any,
    *,
    subjects: Any = None,
    bins: int = CALIBRATION_BINS,
) -> pd.DataFrame:
    """Returns for bins of confidence how many faces there are, and how many are right.

    The confidence is the probability of the most probable class. Bins are those of the
    expected calibration error: of equal width, open below.

    Args:
        probabilities: Of each class. Shape (num_faces, num_classes).
        classes: True class ids, -1 where unknown; such faces do not count. Shape
            (num_faces,).
        subjects: Who is on the faces, for the intervals; `None` (default) takes each
            face for a person of its own. Shape (num_faces,).
        bins: Number of bins. Defaults to 15.

    Returns:
        A row per bin: `lower`, `upper`, `num_faces`, mean `confidence`, `accuracy`, and
        the ends `low` and `high` of its 95 % interval; NaN in empty bins.

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
        row: dict[str, Any] = {
            "lower": number / bins,
            "upper": (number + 1) / bins,
            "num_faces": int(there.sum()),
            "confidence": np.nan,
            "accuracy": np.nan,
            "low": np.nan,
            "high": np.nan,
        }
        if there.any():
            found = proportion_interval(right[there], clusters.select(there))
            ends = found.interval or (np.nan, np.nan)
            row |= {
                "confidence": float(np.mean(confidence[there], dtype="float64")),
                "accuracy": found.value,
                "low": ends[0],
                "high": ends[1],
            }
        rows.append(row)
    return pd.DataFrame(rows)


def plot_reliability(
    table: pd.DataFrame,
    path: str | Path,
    *,
    title: str = "",
    calibration_error: float | None = None,
) -> Path:
    """Draws a reliability diagram: accuracy over confidence, and the faces behind it.

    A point on the dotted line is right as often as it says; one below it is too sure.
    Points of fewer than ten faces are pale.

    Args:
        table: What `reliability_bins` returned.
        path: PNG file to write, whole or not at all.
        title: What was answered.
        calibration_error: Expected calibration error to write beside the title; `None`
            (default) writes none.

    Returns:
        That path.

    Example:
    >>> plot_reliability(table, "gender.png", title="Gender")  # doctest: +SKIP
    """
    there = table[table["num_faces"] > 0]
    # Of two classes the more probable one has a half at least.
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
        upper.set_ylabel("share that is right")
        upper.set_ylim(0, 1.02)
        upper.set_xlim(left, 1.005)
        width = (table["upper"] - table["lower"]) * 0.9
        middles = (table["upper"] + table["lower"]) / 2
        lower.bar(middles, table["num_faces"], width, color=COLORS[5])
        lower.set_axisbelow(True)
        lower.set_ylabel("faces")
        lower.set_xlabel("confidence of the answer")
        return save_figure(figure, Path(path))


def _draw_points(axis: Any, part: pd.DataFrame, color: str) -> None:
    if part.empty:
        return
    ends = [part["accuracy"] - part["low"], part["high"] - part["accuracy"]]
    axis.errorbar(
        part["confidence"],
        part["accuracy"],
        yerr=np.clip(np.nan_to_num(np.array(ends)), 0, None),
        fmt="o",
        color=color,
        markeredgecolor=INK if color != PALE else PALE,
        markeredgewidth=0.6,
        markersize=6,
        elinewidth=1.4,
        capsize=2.5,
    )
