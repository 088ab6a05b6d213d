"""Comparison of two recipes over folds and seeds: paired runs, pooled and apart.

Two things vary, and each has an interval of its own: the people that two trained models
are scored on (clustered, over all folds together), and the models that another training
would give (over folds and seeds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.evaluation.grouping import as_groupings
from keras_agegender.studies.gate import (
    CellDifference,
    MeasuredCell,
    judge_cells,
    measure_cells,
)
from keras_agegender.studies.judged import Judged
from keras_agegender.studies.paired_answers import (
    QUESTIONS,
    check_cluster,
    differing_settings,
    paired_answers,
    pool_seeds,
)
from keras_agegender.studies.pooling import (
    PooledDifference,
    ends_text,
    pooled_difference,
    training_lines,
)
from keras_agegender.studies.run_sets import (
    Place,
    RunSet,
    open_run_set,
    test_to_train_of,
)


@dataclass(frozen=True)
class SetComparison(Judged):
    """What `compare_sets` found.

    Attributes:
        sets: The two folders.
        num_pairs: Pairs of runs of the same fold and seed.
        differences: One for each question that all of them answer.
        settings: Recipe setting -> its values in both, where they differ.
        warnings: Reasons why the comparison may be unfair.
        cluster: What intervals and tests take for independent.
        cells: The pooled differences of all faces, of every age group of a gender and
            of the groups asked for, the worst first; of further outputs too.
        unanswered: Questions that the first answers and the second does not: the gate
            is failed.
        unjudged: What else is answered and is not among `cells`.
    """

    sets: tuple[str, str]
    num_pairs: int
    differences: tuple[PooledDifference, ...]
    settings: dict[str, tuple[Any, Any]]
    warnings: tuple[str, ...] = ()
    cluster: str = "subject"
    cells: tuple[CellDifference, ...] = ()
    unanswered: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"A {self.sets[0]}", f"B {self.sets[1]}"]
        lines += [f"  {key}: {a!r} | {b!r}" for key, (a, b) in self.settings.items()]
        lines += [f"  note: {warning}" for warning in self.warnings]
        lines.append(
            f"{self.num_pairs} pairs of runs\n"
            f"{'':<11}{'faces':>7}{self.cluster + 's':>10}{'A':>8}{'B':>8}"
            f"{'B - A':>9}  {'95 % interval':<18}{'p':>9}"
        )
        for d in self.differences:
            lines.append(
                f"{d.question:<11}{d.num_faces:>7}{d.num_clusters:>10}{d.first:>8.3f}"
                f"{d.second:>8.3f}{d.difference:>+9.3f}  {ends_text(d.interval):<18}"
                f"{d.p_value:>9.3g}"
            )
        lines.append(
            f"interval and p: these trained models on other {self.cluster}s, each "
            "face's mean over seeds"
        )
        for d in self.differences:
            lines += ["", *training_lines(d)]
        return "\n".join(lines)


def compare_sets(
    first: str | Path,
    second: str | Path,
    *,
    predictions: str = "predictions.csv",
    cluster: str = "subject",
    by: str | Sequence[str] = (),
) -> SetComparison:
    """Compares two recipes over folds and seeds, by runs of the same fold and seed.

    The pooled difference takes each face's mean over seeds, then all faces of all
    folds, clustered: its interval and test are of these trained models on other
    people. `over_runs` is what other trainings would give; `components` says how much
    of its spread is of folds and how much of seeds.

    Args:
        first: A folder of runs of one recipe, or a single run.
        second: Another one, over the same folds and seeds.
        predictions: File of every run to read. Defaults to that of the test split.
        cluster: What is independent: `"subject"` (default), `"album"` or `"face"`. A
            face whose subject nobody knows counts as a subject of its own.
        by: Columns of the predictions that give further `cells`: `"race"`, or
            `"race,gender"` for both crossed. Defaults to none.

    Returns:
        Pooled differences, those of cells, variances over folds and seeds, settings
        that differ.

    Raises:
        ValueError: If a folder holds no runs or several recipes, the two have no fold
            and seed or no face in common, nobody says who is on the faces, or
            predictions have no such column.

    Example:
    >>> print(compare_sets("reproduced/runs/13_resnet_ordinal",
    ...                    "reproduced/runs/14_resnet_se_ordinal"))  # doctest: +SKIP
    """
    found, measured = measure_sets(
        first, second, predictions=predictions, cluster=cluster, by=by
    )
    return replace(found, cells=judge_cells([measured])[0])


def measure_sets(
    first: str | Path,
    second: str | Path,
    *,
    predictions: str,
    cluster: str,
    by: str | Sequence[str],
) -> tuple[SetComparison, list[MeasuredCell]]:
    """Returns a comparison without cells, and its cells before they are judged.

    Args:
        first: As in `compare_sets`, and so are the others.
        second: Another one.
        predictions: File of every run to read.
        cluster: What is independent.
        by: Columns that give further cells.
    """
    check_cluster(cluster)
    by = as_groupings(by)
    sets = [open_run_set(folder, predictions) for folder in (first, second)]
    pairs = {
        place: (run, sets[1].runs[place])
        for place, run in sorted(sets[0].runs.items())
        if place in sets[1].runs
    }
    if not pairs:
        theirs = [sorted(found.runs) for found in sets]
        raise ValueError(
            f"{first} and {second} have no test split and seed in common. Expected "
            f"runs of the same folds and seeds. Received: {theirs[0]} and {theirs[1]}."
        )
    warnings = [*_unpaired(sets, pairs)]
    tables = []
    unanswered: dict[str, None] = {}
    unjudged: dict[str, None] = {}
    for place, runs in pairs.items():
        paired = paired_answers(runs, predictions, cluster, by)
        tables.append(paired.faces.assign(fold=place[0], seed=place[1]))
        warnings += [note for note in paired.notes if note not in warnings]
        unanswered |= dict.fromkeys(paired.unanswered)
        unjudged |= dict.fromkeys(paired.unjudged)
    answers = pd.concat(tables, ignore_index=True)
    ratio = test_to_train_of({place: runs[0] for place, runs in pairs.items()})
    settings = [next(iter(found.runs.values())).recipe().to_dict() for found in sets]
    found = SetComparison(
        (str(first), str(second)),
        len(pairs),
        tuple(
            pooled_difference(question, answers, ratio)
            for question in QUESTIONS
            if f"second_{question}" in answers
            and answers[f"second_{question}"].notna().any()
        ),
        differing_settings(*settings),
        tuple(warnings),
        cluster,
        unanswered=tuple(unanswered),
        unjudged=tuple(unjudged),
    )
    return found, measure_cells(pool_seeds(answers), by)


def _unpaired(sets: Sequence[RunSet], pairs: dict[Place, Any]) -> list[str]:
    """Says which runs are left out."""
    notes = []
    for found in sets:
        notes += [f"{path} is not finished" for path in found.unfinished]
        alone = [place for place in found.runs if place not in pairs]
        notes += [
            f"{found.runs[place].path} has no run of its fold and seed in the other"
            for place in alone
        ]
    return notes
