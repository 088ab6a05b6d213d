"""A reproduction's rows: published figures beside measured ones of the same data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_agegender.evaluation.answer_estimates import answer_estimates
from keras_agegender.evaluation.clusters import Estimate
from keras_agegender.evaluation.one_class import one_class_answers
from keras_agegender.evaluation.predictions import read_predictions
from keras_agegender.evaluation.run_intervals import RunsInterval, runs_interval
from keras_agegender.recipes.recipe import Published, Recipe

# Column of the table -> (attribute of `Published`, path in metrics.json).
FIGURES: dict[str, tuple[str, tuple[str, str]]] = {
    "gender accuracy": ("gender_accuracy", ("gender", "accuracy")),
    "gender f1": ("gender_f1", ("gender", "f1")),
    "gender precision": ("gender_precision", ("gender", "precision")),
    "gender recall": ("gender_recall", ("gender", "recall")),
    # The report counts an ordinal answer as right only if all heads are.
    "age accuracy": ("age_accuracy", ("age", "all_heads_accuracy")),
    "age exact": ("", ("age", "accuracy")),
    "age one-off": ("", ("age", "one_off_accuracy")),
    "age error": ("", ("age", "mean_absolute_error")),  # in groups
}
# What is not a share: it may be above 1.
UNBOUNDED = ("age error",)


@dataclass(frozen=True)
class Row:
    """One line of the table: a model kept by a recipe, over all folds and seeds.

    Attributes:
        recipe: Name of the recipe.
        title: What it is.
        checkpoint: Which of its models; `None` for the best.
        positive: Positive class of f1, precision and recall.
        published: Column -> the report's figure, where it gives one of the data that
            was measured on.
        measured: Column -> a figure of each finished run.
        failed: Reasons of the runs that failed.
        notes: What a reader must know of this row.
        intervals: Column -> mean of the runs, with the interval that they allow.
        one_class: `"gender"` or `"age"` -> what runs answer (almost) always, and how
            many of them.
        num_folds: Test folds of the finished runs.
        num_seeds: Their seeds.
    """

    recipe: str
    title: str
    checkpoint: str | None
    positive: str
    published: dict[str, float] = field(default_factory=dict)
    measured: dict[str, list[float]] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    intervals: dict[str, RunsInterval] = field(default_factory=dict)
    one_class: dict[str, str] = field(default_factory=dict)
    num_folds: int = 0
    num_seeds: int = 0

    @property
    def interval_over(self) -> str:
        """`"folds"`, `"seeds"` or `"faces"`; `""` without any interval."""
        return next((found.over for found in self.intervals.values() if found.over), "")

    @property
    def num_runs(self) -> int:
        """Finished runs."""
        return max(map(len, self.measured.values()), default=0)


@dataclass(frozen=True)
class ScoredData:
    """What a recipe's runs are scored on.

    Attributes:
        sources: What those faces were read from, `"adience"` for instance.
        splits: The split of each run.
        test_to_train: Test faces by training faces, the mean over folds; `None` where
            nobody knows.
    """

    sources: tuple[str, ...]
    splits: tuple[str, ...]
    test_to_train: float | None = None


def table_rows(
    recipe: Recipe, found: Sequence[Mapping[str, Any]], data: ScoredData
) -> list[Row]:
    """Returns a recipe's rows.

    Args:
        recipe: Its published rows are those of the table, or one without any.
        found: Of each run the content of its metrics files by checkpoint, `"best"` for
            metrics.json, or `failed`; `fold`, `seed` and `path`, its directory.
        data: What the runs are scored on.
    """
    failed = tuple(run["failed"] for run in found if "failed" in run)
    finished = [run for run in found if "failed" not in run]
    rows = []
    for line in recipe.published or (
        Published(positive=recipe.evaluation.positive_gender),
    ):
        checkpoint = line.checkpoint or "best"
        there = [run for run in finished if checkpoint in run]
        scores = [run[checkpoint] for run in there]
        reason = unlike(line, data) if recipe.published else ""
        published = {
            name: getattr(line, attribute)
            for name, (attribute, _) in FIGURES.items()
            if attribute and getattr(line, attribute) is not None and not reason
        }
        notes = [reason] if reason else []
        if line.checkpoint is not None and line.checkpoint not in recipe.training.keep:
            notes.append(f"no model named {line.checkpoint} is kept")
        measured, intervals = _measured(there, checkpoint, line.positive, data)
        rows.append(
            Row(
                recipe.name,
                recipe.title,
                line.checkpoint,
                line.positive,
                published,
                measured,
                failed,
                (*notes, *_seen(scores)),
                intervals,
                _one_class(scores),
                len({run.get("fold") for run in there}),
                len({run.get("seed") for run in there}),
            )
        )
    return rows


def _measured(
    runs: Sequence[Mapping[str, Any]], checkpoint: str, positive: str, data: ScoredData
) -> tuple[dict[str, list[float]], dict[str, RunsInterval]]:
    """Returns every figure of each run, and its mean with an interval."""
    alone = _face_estimates(runs[0], checkpoint) if len(runs) == 1 else []
    measured, intervals = {}, {}
    for name, (_, path) in FIGURES.items():
        known = [
            (value, run.get("fold"))
            for run in runs
            if (value := figure(run[checkpoint], path, positive)) is not None
        ]
        if not known:
            continue
        values, folds = map(list, zip(*known, strict=True))
        measured[name] = values
        faces = [e for n, e in alone if n == name and _same(e.value, values[0])]
        found = runs_interval(
            values,
            folds,
            test_to_train=data.test_to_train,
            faces=faces[0] if faces else None,
        )
        intervals[name] = found.within(0, math.inf if name in UNBOUNDED else 1)
    return measured, intervals


def _face_estimates(
    run: Mapping[str, Any], checkpoint: str
) -> list[tuple[str, Estimate]]:
    """Returns columns and their figures by a run's predictions, if it has them."""
    suffix = "" if checkpoint == "best" else f"_{checkpoint}"
    file = Path(run.get("path", "")) / f"predictions{suffix}.csv"
    if not file.is_file():
        return []
    found = answer_estimates(read_predictions(file))
    columns = {
        "gender accuracy": ["gender_accuracy"],
        "age accuracy": ["age_all_heads_accuracy", "age_accuracy"],  # a single head
        "age exact": ["age_accuracy"],
        "age one-off": ["age_one_off_accuracy"],
        "age error": ["age_mean_absolute_error"],
    }
    return [
        (column, found[name])
        for column, names in columns.items()
        for name in names
        if name in found
    ]


def _same(first: float | None, second: float) -> bool:
    """Whether predictions are of the very answers that were scored."""
    return first is not None and math.isclose(first, second, abs_tol=1e-6)


def _one_class(scores: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Says of how many runs the answers are (almost) always the same class."""
    found = {}
    for section in ("gender", "age"):
        answers: Counter[str] = Counter()
        for metrics in scores:
            answer = one_class_answers(metrics).get(section)
            answers.update([answer] if answer is not None else [])
        if answers:
            found[section] = ", ".join(
                f"{answer} in {count} of {len(scores)} runs"
                for answer, count in answers.most_common()
            )
    return found


def unlike(line: Published, data: ScoredData) -> str:
    """Returns why a published row cannot stand beside measured ones; `""` if it can."""
    if set(data.sources) != {line.data}:
        others = ", ".join(data.sources) or "no data"
        return f"published figures are of {line.data}, measured ones of {others}"
    other = sorted({split for split in data.splits if split != line.split})
    if other:
        return (
            f"published figures are of {line.data}'s {line.split}, measured ones of "
            f"{', '.join(other)}"
        )
    return ""


def _seen(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for key, what in (("training", "trained"), ("validation", "selected")):
        most = max((s.get(f"num_seen_in_{key}") or 0 for s in scores), default=0)
        if most:
            notes.append(f"{most} test faces are ones that it was {what} on")
    return notes


def figure(
    scores: Mapping[str, Any], path: tuple[str, str], positive: str
) -> float | None:
    """Returns a figure of a metrics file, f1 and its kin of that positive gender."""
    section, key = path
    values = scores.get(section) or {}
    values = {**values, **values.get("by_positive", {}).get(positive, {})}
    value = values.get(key)
    if value is None and key == "all_heads_accuracy":  # one head answers
        value = values.get("accuracy")
    return value
