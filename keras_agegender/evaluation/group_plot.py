"""Accuracy of groups of people as bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_agegender.evaluation.figures import (
    COLORS,
    INK,
    PALE,
    new_figure,
    save_figure,
    style,
)
from keras_agegender.evaluation.groups import group_title

MOST_GROUPS = 40  # more bars are a wall; the worst are drawn


def plot_groups(
    found: Mapping[str, Any],
    path: str | Path,
    *,
    columns: str,
    question: str,
    overall: float | None = None,
) -> Path:
    """Draws one question's accuracy in each group, the worst on top, with intervals.

    Bars of groups that are `few` are pale and hatched. Of more than 40 groups, the
    worst are drawn.

    Args:
        found: One of the groupings that `score_groups` returned.
        path: PNG file to write, whole or not at all.
        columns: Its name there: `"age_group,gender"`, for instance.
        question: `"gender"`, `"age_group"` or a further one that was scored.
        overall: Accuracy over all faces, drawn as a line; `None` (default) draws none.

    Returns:
        That path.

    Raises:
        ValueError: If no group was scored on the question.

    Example:
    >>> plot_groups(scores.groups["race"], "race.png", columns="race",
    ...             question="gender")  # doctest: +SKIP
    """
    value = f"{question}_accuracy"
    scored = [g for g in found["groups"] if g.get(value) is not None]
    if not scored:
        raise ValueError(
            f"Invalid `question`. Expected one that groups were scored on. Received: "
            f"question={question!r}."
        )
    scored.sort(key=lambda group: (group["few"], group[value]))
    drawn = scored[:MOST_GROUPS]
    with style():
        figure = new_figure((5.4, 1.5 + 0.29 * len(drawn)))
        axis = figure.subplots()
        for place, group in enumerate(drawn):
            _draw_group(axis, place, group, question)
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
        axis.set_title(f"{question.replace('_', ' ').capitalize()} accuracy{more}")
        if overall is not None:
            label = f"all faces: {overall:.3f}"
            axis.axvline(overall, color=INK, linewidth=1.2, label=label)
            axis.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
            axis.set_title(axis.get_title(loc="left"), loc="left", pad=22)
        return save_figure(figure, Path(path))


def _draw_group(axis: Any, place: int, group: Mapping[str, Any], question: str) -> None:
    value, ends = group[f"{question}_accuracy"], group[f"{question}_interval"]
    look = {"color": PALE, "hatch": "///", "edgecolor": "white"}
    axis.barh(
        place, value, height=0.72, **(look if group["few"] else {"color": COLORS[5]})
    )
    if ends:
        low, high = ends
        reach = [[max(value - low, 0)], [max(high - value, 0)]]
        axis.errorbar(
            value, place, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.3, capsize=3
        )
