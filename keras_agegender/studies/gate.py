"""The gate: whether a second model is worse for some group of people, beyond noise.

A cell is all faces, an age group of a gender, or a group of a column asked for, of
gender, age group or a further output with classes. It got worse if

- the sign-flip test over clusters finds a difference at its level, and
- the interval of the paired difference at that level lies wholly below 0.

All faces are judged apart from the cells, so that many cells do not hide an overall
drop: of gender and of age group at 0.05 each, of further outputs by Holm's correction
over them. The cells share 0.05 by Holm's correction over all cells and questions. As
just one side of these two-sided tests is worse, each of them calls a model that is as
good worse with a chance of at most 0.025, half of 0.05.

The test is exact where cells are small, the interval says by how much. Cells of fewer
than 30 faces or 10 people are shown and not judged. Of several folds and seeds, all
faces are judged together, each by its mean over seeds: other people are the noise, not
other trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from keras_agegender.evaluation.groups import (
    CELLS,
    FEW_FACES,
    FEW_SUBJECTS,
    find_groups,
    is_few,
    known_values,
)
from keras_agegender.metrics.intervals import (
    Clusters,
    difference_interval,
    holm_levels,
    paired_test,
)
from keras_agegender.studies.paired_predictions import TASKS, paired_questions

ALPHA = 0.05
EVERYBODY = "all faces"
_OR_CLUSTERS = {"subject": " or people", "album": " or albums", "face": ""}


@dataclass(frozen=True)
class CellDifference:
    """How two runs, or two sets of runs, answer a question about one cell's faces.

    Attributes:
        cell: `"all faces"`, age group and gender, or a column asked for and its value:
            `"race: Asian"`.
        question: `"gender"`, `"age_group"` or a further output with classes.
        num_faces: Its faces that have the label.
        num_clusters: People (or albums) they are of.
        first: Accuracy of the first; of a set, each face's mean over seeds.
        second: Accuracy of the second.
        p_value: Of the sign-flip test over clusters; `None` where not judged.
        level: What the p-value is held against; `None` likewise.
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
        """Whether the second is worse here beyond noise."""
        return (
            self.p_value is not None
            and self.level is not None
            and self.interval is not None
            and self.p_value <= self.level
            and self.interval[1] < 0
        )


@dataclass(frozen=True)
class MeasuredCell:
    """A cell before its level is known, which depends on all others.

    Attributes:
        cell: As in `CellDifference`.
        question: As there.
        first: How often the first gets each face right, in [0, 1]. Shape (num_faces,).
        second: The same of the second.
        clusters: Which faces belong together.
        p_value: Of the sign-flip test; `None` of few faces or people.
    """

    cell: str
    question: str
    first: np.ndarray
    second: np.ndarray
    clusters: Clusters
    p_value: float | None


def measure_cells(faces: pd.DataFrame, by: Sequence[str] = ()) -> list[MeasuredCell]:
    """Returns every cell of two models, or two sets of them, with its test.

    Args:
        faces: What `pool_seeds` returned.
        by: Further columns to group by, those to cross with a comma between them.

    Raises:
        ValueError: If a column has more than 100 values.
    """
    clusters = Clusters.of(faces["who"])
    found = []
    for cell, rows in _cells(faces, by):
        for question in paired_questions(faces):
            there = np.zeros(len(faces), bool)
            there[rows] = faces[f"first_{question}"].notna().to_numpy()[rows]
            if not there.any():
                continue
            own = clusters.select(there)
            whole = faces[f"whole_{question}"].to_numpy()[there]
            found.append(
                MeasuredCell(
                    cell,
                    question,
                    faces[f"first_{question}"].to_numpy()[there],
                    faces[f"second_{question}"].to_numpy()[there],
                    own,
                    None if is_few(own) else paired_test(whole, own),
                )
            )
    return found


def _cells(faces: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name of each cell and its rows."""
    yield EVERYBODY, np.arange(len(faces))
    for grouping in dict.fromkeys((CELLS, *by)):
        names = grouping.split(",")
        columns = [f"group_{name}" for name in names]
        known = np.all([known_values(faces[c]) for c in columns], axis=0)
        title = "" if grouping == CELLS else f"{' × '.join(names)}: "
        groups = find_groups(faces[known], columns) if known.any() else {}
        for values, rows in groups.items():
            name = title + " ".join(map(str, values))
            yield name, np.flatnonzero(known)[rows]


def judge_cells(
    comparisons: Sequence[Sequence[MeasuredCell]],
) -> list[tuple[CellDifference, ...]]:
    """Returns the cells of each comparison, the worst first, each with its level.

    Args:
        comparisons: What `measure_cells` returned, of every comparison that is judged
            at once.
    """
    families: dict[str, list[tuple[int, int, float]]] = {}
    for number, cells in enumerate(comparisons):
        for position, cell in enumerate(cells):
            if cell.p_value is not None:
                place = (number, position, cell.p_value)
                families.setdefault(_family(cell), []).append(place)
    levels = {
        (number, position): level
        for family in families.values()
        for (number, position, _), level in zip(
            family, holm_levels([p for _, _, p in family], ALPHA), strict=True
        )
    }
    return [
        tuple(
            sorted(
                (_judge(c, levels.get((number, k))) for k, c in enumerate(cells)),
                key=lambda c: (not c.worse, c.difference),
            )
        )
        for number, cells in enumerate(comparisons)
    ]


def _family(cell: MeasuredCell) -> str:
    """Returns the name of the tests that a cell's shares its level with."""
    if cell.cell != EVERYBODY:
        return "cells"
    return cell.question if cell.question in TASKS else "further outputs"


def _judge(cell: MeasuredCell, level: float | None) -> CellDifference:
    confidence = 1 - (ALPHA if level is None else level)
    found = difference_interval(cell.first, cell.second, cell.clusters, confidence)
    return CellDifference(
        cell.cell,
        cell.question,
        found.num_faces,
        found.num_clusters,
        float(cell.first.mean()),
        float(cell.second.mean()),
        cell.p_value,
        level,
        found.interval,
    )


def worse_cells(cells: Sequence[CellDifference]) -> tuple[CellDifference, ...]:
    """Returns the cells in which the second is worse beyond noise."""
    return tuple(cell for cell in cells if cell.worse)


def gate_lines(
    cells: Sequence[CellDifference],
    cluster: str = "subject",
    second: str = "B",
    unanswered: Sequence[str] = (),
    unjudged: Sequence[str] = (),
) -> list[str]:
    """Returns the cells as lines of a table, and a verdict.

    Args:
        cells: What `judge_cells` returned of one comparison.
        cluster: What was taken for independent. Defaults to `"subject"`.
        second: What to call the second in the verdict. Defaults to `"B"`.
        unanswered: Questions that the second does not answer and the first does: the
            gate is failed. Defaults to none.
        unjudged: What else is answered and not judged. Defaults to none.
    """
    lines = _cell_lines(cells, cluster)
    if unjudged:
        lines.append(f"not judged: {', '.join(unjudged)}")
    judged = sum(c.p_value is not None for c in cells)
    names = ", ".join(f"{c.cell} ({c.question})" for c in worse_cells(cells))
    if unanswered:
        lines.append(
            f"gate: failed; {second} does not answer {', '.join(unanswered)}, A does"
        )
    if names:
        lines.append(
            f"gate: {second} is worse beyond noise in {names}"
            + _too_few(len(cells) - judged, cluster)
        )
    elif not judged:
        lines.append(
            f"gate: no cell is judged, each has under {FEW_FACES} faces or "
            f"{FEW_SUBJECTS} {cluster}s"
        )
    elif not unanswered:
        lines.append(
            f"gate: passed; {second} is worse beyond noise in none of {judged} cells"
            + _too_few(len(cells) - judged, cluster)
        )
    return lines


def _too_few(count: int, cluster: str) -> str:
    """Says at the end of a verdict what it says nothing about."""
    if not count:
        return ""
    what = "1 cell has" if count == 1 else f"{count} cells have"
    return f"; {what} too few faces{_OR_CLUSTERS[cluster]} to judge"


def _cell_lines(cells: Sequence[CellDifference], cluster: str) -> list[str]:
    width = max([len(c.cell) for c in cells] + [16]) + 2
    asked = max([len(c.question) for c in cells] + [9]) + 2
    lines = [
        f"{'cell':<{width}}{'question':<{asked}}{'faces':>7}{cluster + 's':>10}{'A':>8}"
        f"{'B':>8}{'B - A':>9}  {'interval':<18}{'p':>9}{'level':>9}"
    ]
    for c in cells:
        ends = f"[{c.interval[0]:+.3f}, {c.interval[1]:+.3f}]" if c.interval else "-"
        line = (
            f"{c.cell:<{width}}{c.question:<{asked}}{c.num_faces:>7}{c.num_clusters:>10}"
            f"{c.first:>8.3f}{c.second:>8.3f}{c.difference:>+9.3f}  {ends:<18}"
        )
        if c.p_value is None or c.level is None:
            line += f"{'few':>9}"
        else:
            line += f"{c.p_value:>9.3g}{c.level:>9.3g}{'  WORSE' if c.worse else ''}"
        lines.append(line)
    return lines
