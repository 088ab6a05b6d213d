"""The gate: tests whether a second model is significantly worse for a group of people.

`agegender compare --help` states the rule. All faces are tested separately, so that
many cells do not hide an overall drop; the test is exact for small cells, and the
interval gives the size. With several folds and seeds, the noise is that of other
people, not of other training runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from tabulate import tabulate

from keras_agegender.errors import counted
from keras_agegender.evaluation import groups
from keras_agegender.metrics import intervals
from keras_agegender.studies.paired_predictions import TASKS, paired_tasks

ALPHA = 0.05
ALL_FACES = "all faces"
_OR_CLUSTERS = {"subject": " or people", "album": " or albums", "face": ""}


@dataclass(frozen=True)
class CellDifference:
    """The accuracies of two runs, or two sets of runs, on the faces of one cell.

    Attributes:
        cell: `"all faces"`, age group and gender, or a column and its value:
            `"race: Asian"`.
        task: `"gender"`, `"age_group"` or an extra head with classes.
        num_faces: Number of labeled faces.
        num_clusters: Number of people (or albums).
        first: Accuracy of the first; for a set, each face's mean over seeds.
        second: Accuracy of the second.
        p_value: P-value of the sign-flip test over clusters; `None` if not tested.
        level: Significance level of the test; `None` if not tested.
        interval: Interval of second minus first at 1 - `level`, or 95 % if not tested;
            `None` for fewer than two clusters.
    """

    cell: str
    task: str
    num_faces: int
    num_clusters: int
    first: float
    second: float
    p_value: float | None
    level: float | None
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first

    @property
    def worse(self) -> bool:
        """Whether the second model is significantly worse in this cell."""
        if self.p_value is None or self.level is None or self.interval is None:
            return False
        return self.p_value <= self.level and self.interval[1] < 0


class MeasuredCell(NamedTuple):
    """A cell before multiplicity correction; each face's accuracy in [0, 1]."""

    cell: str
    task: str
    first: np.ndarray
    second: np.ndarray
    clusters: intervals.Clusters
    p_value: float | None

    @property
    def family(self) -> str:
        """The tests that share one significance level."""
        if self.cell != ALL_FACES:
            return "cells"
        return self.task if self.task in TASKS else "extra heads"


def measure_cells(faces: pd.DataFrame, by: Sequence[str] = ()) -> list[MeasuredCell]:
    """Returns all cells of two models, or two sets of models, with their tests."""
    clusters = intervals.Clusters.of(faces["cluster"])
    found = []
    for cell, rows in _cells(faces, by):
        for task in paired_tasks(faces):
            known = np.zeros(len(faces), bool)
            known[rows] = faces[f"first_{task}"].notna().to_numpy()[rows]
            if not known.any():
                continue
            own = clusters.select(known)
            first, second, whole = (
                faces[f"{side}_{task}"].to_numpy()[known]
                for side in ("first", "second", "whole")
            )
            p = None if groups.is_few(own) else intervals.paired_test(whole, own)
            found.append(MeasuredCell(cell, task, first, second, own, p))
    return found


def _cells(faces: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name of each cell and its rows."""
    yield ALL_FACES, np.arange(len(faces))
    for grouping in dict.fromkeys((groups.CELLS, *by)):
        names = grouping.split(",")
        columns = [f"group_{name}" for name in names]
        known = np.all([groups.known_values(faces[c]) for c in columns], axis=0)
        title = "" if grouping == groups.CELLS else f"{' × '.join(names)}: "
        found = groups.find_groups(faces[known], columns) if known.any() else {}
        for values, rows in found.items():
            name = title + " ".join(map(str, values))
            yield name, np.flatnonzero(known)[rows]


def apply_levels(
    comparisons: Sequence[Sequence[MeasuredCell]],
) -> list[tuple[CellDifference, ...]]:
    """Returns the cells of each comparison, the worst first, each with its level."""
    families: dict[str, dict[tuple[int, int], float]] = {}
    for number, cells in enumerate(comparisons):
        for position, cell in enumerate(cells):
            if cell.p_value is not None:
                family = families.setdefault(cell.family, {})
                family[number, position] = cell.p_value
    levels: dict[tuple[int, int], float] = {}
    for family in families.values():
        found = intervals.holm_levels([*family.values()], ALPHA)
        levels |= zip(family, found, strict=True)
    corrected = []
    for number, cells in enumerate(comparisons):
        own = [_at_level(c, levels.get((number, k))) for k, c in enumerate(cells)]
        corrected.append(tuple(sorted(own, key=lambda c: (not c.worse, c.difference))))
    return corrected


def _at_level(cell: MeasuredCell, level: float | None) -> CellDifference:
    confidence = 1 - (ALPHA if level is None else level)
    name, task, first, second, clusters, p_value = cell
    found = intervals.difference_interval(first, second, clusters, confidence)
    counts = found.num_faces, found.num_clusters
    means = float(first.mean()), float(second.mean())
    return CellDifference(name, task, *counts, *means, p_value, level, found.interval)


def gate_text(
    cells: Sequence[CellDifference],
    cluster: str = "subject",
    second: str = "B",
    missing: Sequence[str] = (),
    untested: Sequence[str] = (),
) -> str:
    """Returns the cells as a table, and the verdict."""
    lines = [_cell_table(cells, cluster)]
    if untested:
        lines.append(f"not tested: {', '.join(untested)}")
    num_tested = sum(c.p_value is not None for c in cells)
    num_few = len(cells) - num_tested
    few = ""
    if num_few:
        has = "has" if num_few == 1 else "have"
        few = f"; {counted(num_few, 'cell')} {has} too few faces"
        few += f"{_OR_CLUSTERS[cluster]} to test"
    if missing:
        names = ", ".join(missing)
        lines.append(f"gate: failed; {second} does not predict {names}, A does")
    worse = ", ".join(f"{c.cell} ({c.task})" for c in cells if c.worse)
    if worse:
        lines.append(f"gate: {second} is significantly worse in {worse}{few}")
    elif not num_tested:
        lines.append(
            f"gate: no cell is tested, each has under {groups.FEW_FACES} faces or "
            f"{groups.FEW_SUBJECTS} {cluster}s"
        )
    elif not missing:
        lines.append(
            f"gate: passed; {second} is not significantly worse in any of "
            f"{counted(num_tested, 'cell')}{few}"
        )
    return "\n".join(lines)


def _cell_table(cells: Sequence[CellDifference], cluster: str) -> str:
    rows = [
        (
            c.cell,
            c.task,
            c.num_faces,
            c.num_clusters,
            f"{c.first:.3f}",
            f"{c.second:.3f}",
            f"{c.difference:+.3f}",
            format_interval(c.interval),
            "few" if c.p_value is None else f"{c.p_value:.3g}",
            "" if c.level is None else f"{c.level:.3g}",
            "WORSE" if c.worse else "",
        )
        for c in cells
    ]
    headers = (
        "cell", "task", "faces", f"{cluster}s", "A", "B", "B - A", "interval", "p",
        "level", "",
    )  # fmt: skip
    align = ("left", "left", *["right"] * 5, "left", "right", "right", "left")
    return tabulate(rows, headers, "plain", disable_numparse=True, colalign=align)


def format_interval(interval: tuple[float, float] | None) -> str:
    """Returns an interval of a difference as text."""
    return f"[{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "-"
