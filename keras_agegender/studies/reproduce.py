"""Reproduction: recipes × folds × seeds become one table, published beside measured.

In: names of recipes and prepared datasets by role. Out: a folder with a run directory
for each combination, and `table.csv`, `.md`, `.tex` and `.png` over all of them. The
same call again goes on where it was stopped; a run that failed is in the table as
failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import keras

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.files import read_json
from keras_agegender.recipes.loading import (
    load_recipe,
    override_recipe,
    pretraining_recipe,
)
from keras_agegender.recipes.overrides import PREFIX
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.planning import (
    PlannedRun,
    plan_runs,
    quick_overrides,
    shared_path,
)
from keras_agegender.studies.reproduction_note import Conditions, conditions_note
from keras_agegender.studies.reproduction_table import (
    FIGURES,
    Row,
    ScoredData,
    figure,
    table_rows,
)
from keras_agegender.studies.reproduction_text import to_markdown, write_table
from keras_agegender.training.check_pixels import select_prepared
from keras_agegender.training.experiment import Experiment
from keras_agegender.training.resuming import check_place, faces_of
from keras_agegender.training.train import train_unless_finished

Datasets = PreparedDataset | str | Path | Sequence[PreparedDataset | str | Path]


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found.

    Attributes:
        directory: Folder of the runs and the table.
        rows: Lines of the table.
        note: What the measured figures are of, in words.
    """

    directory: Path
    rows: tuple[Row, ...]
    note: str

    @property
    def num_failed(self) -> int:
        """Runs that failed."""
        return len({reason for row in self.rows for reason in row.failed})

    def __str__(self) -> str:
        return to_markdown(self.rows, self.note)


def reproduce(
    recipes: Sequence[str | Path | Recipe],
    data: Datasets,
    directory: str | Path,
    *,
    pretraining_data: Datasets | None = None,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    overrides: Sequence[str] = (),
    quick: bool = False,
    report: Callable[[str], None] = print,
) -> Reproduction:
    """Trains and evaluates recipes over folds and seeds; writes one table.

    Args:
        recipes: Names, numbers or files of recipes, or recipes.
        data: A prepared dataset or its directory; or several, of whole pictures and of
            face crops, of which every recipe takes the one it needs (`data.faces`).
        directory: Folder to make, or to go on in.
        pretraining_data: Prepared dataset, or several, for recipes whose role is
            `"pretrain"`, and for what others begin with.
        folds: Test folds of a cross-validation over the folds of `data`, 0 to 4; `None`
            takes the splits that the dataset declares.
        seeds: Seeds; every fold is trained with each. Defaults to one, 0.
        overrides: Settings that replace those of every recipe, `"training.epochs=3"`
            for instance. They reach what a recipe begins with as in `load_recipe`.
        quick: Whether pictures are reduced to 64 × 64 pixels, training to 2 epochs and
            data to some 600 faces a split: all of it runs in minutes, and the table
            says that its figures are worth nothing.
        report: Takes each line said on the way. Defaults to `print`.

    Returns:
        The table's rows.

    Raises:
        ValueError: If a recipe, fold or split does not exist, or a run of another
            experiment is in the way (other settings, or data prepared again). A run
            that fails does not raise: it is in the table.

    Example:
    >>> reproduce(["7", "8"], "data/adience", "reproduced", seeds=[0, 1, 2])
    ... # doctest: +SKIP
    """
    targets, firsts = _opened(data), _opened(pretraining_data)
    if not targets:
        raise ValueError("Missing `data`. Expected at least one prepared dataset.")
    directory = Path(directory)
    changes = [*(quick_overrides() if quick else ()), *overrides]
    loaded = [_load(recipe, changes) for recipe in recipes]
    unused = [o for o in overrides if o.strip().startswith(PREFIX)]
    if unused and all(recipe.pretraining is None for recipe in loaded):
        raise ValueError(
            f"Invalid overrides. No recipe begins with another one. Received: {unused}."
        )
    by_role = [_datasets_of(recipe, targets, firsts) for recipe in loaded]
    planned = [
        list(plan_runs(recipe, datasets, directory, folds, seeds, quick))
        for recipe, datasets in zip(loaded, by_role, strict=True)
    ]
    for plan in planned:
        for run in plan:
            if run.experiment is not None:
                check_place(RunDirectory(run.path), run.experiment, " (--out)")
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    note = conditions_note(
        loaded,
        targets,
        firsts,
        Conditions(folds, tuple(seeds), tuple(overrides), quick),
    )
    for recipe, datasets, plan in zip(loaded, by_role, planned, strict=True):
        found: list[dict[str, Any]] = []
        for run in plan:
            report(run.name)
            found.append(_train(run, directory))
            failure = found[-1].get("failed")
            report(f"  failed: {failure}" if failure else f"  {_summary(found[-1])}")
        rows += table_rows(recipe, found, _test_data(recipe, datasets, plan))
        write_table(directory, rows, note)  # after every recipe: it may take days
    return Reproduction(directory, tuple(rows), note)


def _opened(data: Any) -> list[PreparedDataset]:
    """Opens one dataset, several or none."""
    if data is None:
        return []
    several = data if isinstance(data, (list, tuple)) else [data]
    return [d if isinstance(d, PreparedDataset) else load_prepared(d) for d in several]


def _datasets_of(
    recipe: Recipe,
    targets: Sequence[PreparedDataset],
    firsts: Sequence[PreparedDataset],
) -> dict[str, PreparedDataset | None]:
    """Returns the datasets a recipe takes, by role, of the pixels that it needs."""
    first = pretraining_recipe(recipe) if recipe.pretraining is not None else recipe
    return {
        "target": select_prepared(recipe, targets),
        "pretrain": select_prepared(first, firsts),
    }


def _load(recipe: str | Path | Recipe, overrides: Sequence[str]) -> Recipe:
    """Loads a recipe; overrides of a pretraining pass by those that have none."""
    plain = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if plain.pretraining is None:
        overrides = [o for o in overrides if not o.strip().startswith(PREFIX)]
    if isinstance(recipe, Recipe):
        return override_recipe(recipe, overrides)
    return load_recipe(recipe, overrides)


def _train(run: PlannedRun, directory: Path) -> dict[str, Any]:
    """Trains a run unless it is finished; returns its figures, or why it failed."""
    experiment = run.experiment
    if experiment is None:
        return {"failed": run.failed}
    try:
        first = experiment.begins_with
        if isinstance(first, Experiment):
            shared = shared_path(directory, first)
            train_unless_finished(first, shared, verbose=0)
            experiment = replace(experiment, weights=shared)
        train_unless_finished(experiment, run.path, verbose=0)
    except Exception as error:  # whatever it was: the table goes on, and shows it
        reason = " ".join(str(error).split())[:300]
        return {"failed": f"{run.name}: {type(error).__name__}: {reason}"}
    finally:
        keras.backend.clear_session()  # models of finished runs
    files = {"best": "metrics.json"} | {
        name: f"metrics_{name}.json" for name in experiment.recipe.training.keep
    }
    place = {"fold": run.test_split, "seed": experiment.seed, "path": run.path}
    return place | {
        checkpoint: read_json(run.path / file) for checkpoint, file in files.items()
    }


def _test_data(
    recipe: Recipe,
    by_role: Mapping[str, PreparedDataset | None],
    plan: Sequence[PlannedRun],
) -> ScoredData:
    """Returns what a recipe's runs are scored on."""
    prepared = by_role[recipe.data.role]
    if prepared is None:
        return ScoredData((), ())
    by_split = {run.test_split: run.experiment for run in plan}
    index = faces_of(prepared)
    faces = index.faces("+".join(by_split))
    name = prepared.info.get("name", prepared.builder.name)
    ratios = [
        len(index.faces(split)) / len(index.faces(experiment.data.splits["train"]))
        for split, experiment in by_split.items()
        if experiment is not None
    ]
    return ScoredData(
        tuple(sorted({s or name for s in faces["source"]})),
        tuple(by_split),
        fmean(ratios) if ratios else None,
    )


def _summary(run: Mapping[str, Any]) -> str:
    scores = run["best"]
    parts = [
        f"{name} {value:.3f}"
        for name in ("gender accuracy", "age exact")
        if (value := figure(scores, FIGURES[name][1], "male")) is not None
    ]
    return ", ".join(parts) or f"mean accuracy {scores.get('extra_mean_accuracy')}"
