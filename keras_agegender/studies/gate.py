"""The gate: whether a second run is worse for some group of people, beyond noise.

A cell is an age group of a gender, or all faces. It got worse if

- the sign-flip test over clusters finds a difference at the level that Holm's
  correction over all judged cells and questions leaves of 0.05, and
- the interval of the paired difference at that level lies wholly below 0.

The test is exact where cells are small, the interval says by how much. Cells of fewer
than 30 faces or 10 people are shown and not judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from keras_agegender.evaluation.clusters import Clusters
from keras_agegender.evaluation.groups import is_few, known_values
from keras_agegender.evaluation.paired_test import holm_levels, paired_test
from keras_agegender.evaluation.resampling import difference_interval

ALPHA = 0.05
EVERYBODY = "all faces"


@dataclass(frozen=True)
class CellDifference:
    """How two runs answer a question about the faces of one cell.

    Attributes:
        cell: Age group and gender, or `"all faces"`.
        question: `"gender"` or `"age_group"`.
        num_faces: Its faces that have the label.
        num_clusters: People (or albums) they are of.
        first: Accuracy of the first run.
        second: Accuracy of the second.
        p_value: Of the sign-flip test over clusters; `None` where not judged.
        level: What Holm's correction holds the p-value against; `None` likewise.
        interval: Of second minus first, covering 1 - `level`, or 95 % if not judged;
            `None` of fewer than two clusters.
    """

    cell: str
    question: str
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
        """Whether the second run is worse here beyond noise."""
        return (
            self.p_value is not None
            and self.level is not None
            and self.interval is not None
            and self.p_value <= self.level
            and self.interval[1] < 0
        )


def compare_cells(
    first: pd.DataFrame,
    second: pd.DataFrame,
    clusters: Clusters,
    questions: tuple[str, ...],
) -> tuple[CellDifference, ...]:
    """Returns every cell's difference, the worst first.

    Args:
        first: Predictions of the first run, as `read_predictions` returns them.
        second: Those of the second, of the same faces in the same order.
        clusters: Which faces belong together.
        questions: What both answer, of `"gender"` and `"age_group"`.
    """
    found = []
    for cell, faces in _cells(first).items():
        for question in questions:
            there = faces & known_values(first[question])
            if not there.any():
                continue
            right = [
                (t[f"predicted_{question}"] == first[question]).to_numpy()[there]
                for t in (first, second)
            ]
            found.append((cell, question, right, clusters.select(there)))
    judged = [k for k, (*_, own) in enumerate(found) if not is_few(own)]
    p_values = [
        paired_test(b.astype(int) - a, own)
        for _, _, (a, b), own in (found[k] for k in judged)
    ]
    levels = dict(zip(judged, holm_levels(p_values, ALPHA), strict=True))
    tests = dict(zip(judged, p_values, strict=True))
    cells = []
    for k, (cell, question, right, own) in enumerate(found):
        level = levels.get(k)
        difference = difference_interval(right[0], right[1], own, 1 - (level or ALPHA))
        cells.append(
            CellDifference(
                cell,
                question,
                difference.num_faces,
                difference.num_clusters,
                float(right[0].mean()),
                float(right[1].mean()),
                tests.get(k),
                level,
                difference.interval,
            )
        )
    return tuple(sorted(cells, key=lambda c: (not c.worse, c.difference)))


def _cells(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns the faces of each cell."""
    known = known_values(table["age_group"]) & known_values(table["gender"])
    names = table["age_group"] + " " + table["gender"]
    cells = {EVERYBODY: np.ones(len(table), bool)}
    for name in names[known].unique():
        cells[name] = known & (names == name).to_numpy()
    return cells


def gate_lines(cells: tuple[CellDifference, ...]) -> list[str]:
    """Returns a verdict, and the cells as lines of a table."""
    worse = [c for c in cells if c.worse]
    judged = sum(c.p_value is not None for c in cells)
    lines = [
        f"{'cell':<18}{'question':<11}{'faces':>7}{'people':>8}{'A':>8}{'B':>8}"
        f"{'B - A':>9}  {'interval':<18}{'p':>9}{'level':>9}"
    ]
    for c in cells:
        ends = f"[{c.interval[0]:+.3f}, {c.interval[1]:+.3f}]" if c.interval else "-"
        line = (
            f"{c.cell:<18}{c.question:<11}{c.num_faces:>7}{c.num_clusters:>8}"
            f"{c.first:>8.3f}{c.second:>8.3f}{c.difference:>+9.3f}  {ends:<18}"
        )
        if c.p_value is None or c.level is None:
            line += f"{'few':>9}"
        else:
            line += f"{c.p_value:>9.2g}{c.level:>9.2g}{'  WORSE' if c.worse else ''}"
        lines.append(line)
    if worse:
        names = ", ".join(f"{c.cell} ({c.question})" for c in worse)
        lines.append(f"gate: B is worse beyond noise in {names}")
    else:
        lines.append(f"gate: passed; B is worse beyond noise in none of {judged} cells")
    return lines
