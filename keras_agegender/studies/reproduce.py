"""Reproduces recipes over folds and seeds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.datasets.splits import cross_validation_splits
from keras_agegender.files import read_json
from keras_agegender.recipes.loading import (
    PREFIX,
    load_recipe,
    override_recipe,
    pretraining_recipe,
)
from keras_agegender.recipes.schema import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.paired_predictions import differing_settings
from keras_agegender.studies.reproduction_table import (
    FIGURES,
    Row,
    ScoredData,
    figure,
    table_rows,
    to_markdown,
    write_table,
)
from keras_agegender.synthetic.faces import SOURCE as SYNTHETIC
from keras_agegender.training.experiment import (
    Experiment,
    make_experiment,
    select_prepared,
)
from keras_agegender.training.resume import check_place, faces_of
from keras_agegender.training.train import train_unless_finished

# What `quick` makes of every recipe: enough to see that it runs, not what it is worth.
QUICK_SIZE, QUICK_EPOCHS, QUICK_FACES = (64, 64), 2, 600
QUICK_BATCH, QUICK_SLICES = 32, 20


@dataclass(frozen=True)
class PlannedRun:
    """One combination of recipe, splits and seed, before it is trained.

    Attributes:
        name: What it is, in words.
        path: Its run directory.
        test_split: Split it is scored on, whole.
        experiment: What to train; `None` if that cannot be.
        failed: Why not.
    """

    name: str
    path: Path
    test_split: str
    experiment: Experiment | None = None
    failed: str = ""


def plan_runs(
    recipe: Recipe,
    by_role: Mapping[str, PreparedDataset | None],
    directory: Path,
    folds: Sequence[int] | None,
    seeds: Sequence[int],
    quick: bool,
) -> Iterator[PlannedRun]:
    """Yields the runs of a recipe, those that cannot be trained too."""
    role = recipe.data.role
    prepared, first = by_role[role], by_role["pretrain"]
    for place, splits in _rounds(prepared, folds if role == "target" else None):
        for seed in seeds:
            path = directory / "runs" / recipe.name / f"{place}_seed{seed}"
            name = f"{recipe.name}, {place}, seed {seed}"
            if prepared is None:
                failed = (
                    f"{name}: it is trained on pretraining data, which was not given "
                    "(--pretraining-data)"
                )
                yield PlannedRun(name, path, "", failed=failed)
                continue
            test = splits.get("test", "")
            try:
                experiment = make_experiment(
                    recipe,
                    prepared,
                    pretraining_data=first,
                    splits=fewer_faces(prepared, splits) if quick else splits,
                    pretraining_splits=(
                        fewer_faces(first, first.splits) if quick and first else None
                    ),
                    seed=seed,
                )
            except ValueError as error:
                yield PlannedRun(name, path, test, failed=f"{name}: {error}")
                continue
            if role == "pretrain":  # where those that begin with it look for it
                path = shared_path(directory, experiment)
            yield PlannedRun(name, path, test, experiment)


def _rounds(
    prepared: PreparedDataset | None, folds: Sequence[int] | None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the name and the splits of each round of a cross-validation."""
    if prepared is None:
        yield "declared_splits", {}
        return
    for fold in folds if folds is not None else [None]:
        if fold is None:
            missing = {"train", "validation", "test"} - set(prepared.splits)
            if missing:
                raise ValueError(
                    f"The dataset in {prepared.directory} declares no {sorted(missing)}"
                    " split."
                )
            yield "declared_splits", dict(prepared.splits)
            continue
        names = set(prepared.builder.info.splits)
        if f"fold_{fold}" not in names:
            raise ValueError(
                f"The dataset in {prepared.directory} has no fold {fold}. Splits: "
                f"{sorted(names)}."
            )
        yield f"fold{fold}", cross_validation_splits(fold)


def shared_path(directory: Path, experiment: Experiment) -> Path:
    """Returns where a pretraining lies that several recipes begin with."""
    name = f"seed{experiment.seed}_{experiment.identity[:12]}"
    return directory / "runs" / experiment.recipe.name / name


def quick_overrides() -> list[str]:
    """Returns what `quick` changes in every recipe."""
    return [
        f"model.image_size={list(QUICK_SIZE)}",
        f"training.epochs={QUICK_EPOCHS}",
        f"data.batch_size={QUICK_BATCH}",
    ]


def fewer_faces(prepared: PreparedDataset, splits: Mapping[str, str]) -> dict[str, str]:
    """Cuts every split, so that some `QUICK_FACES` remain of it.

    They are taken in slices from everywhere: a dataset may lie sorted by age.
    """
    fewer = {}
    for name, expression in splits.items():
        parts = expression.split("+")
        length = QUICK_FACES // (len(parts) * QUICK_SLICES)
        slices = []
        for part in parts:
            count = prepared.num_faces(part)
            starts = [k * count // QUICK_SLICES for k in range(QUICK_SLICES)]
            if count <= length * QUICK_SLICES:
                slices.append(part)
            else:
                slices += [f"{part}[{start}:{start + length}]" for start in starts]
        fewer[name] = "+".join(slices)
    return fewer


@dataclass(frozen=True)
class Conditions:
    """What holds for all runs of a reproduction.

    Attributes:
        folds: Test folds; `None` for the splits that the dataset declares.
        seeds: Seeds.
        overrides: Settings that replace those of every recipe.
        quick: Whether pictures, epochs and faces are fewer.
    """

    folds: Sequence[int] | None
    seeds: Sequence[int]
    overrides: Sequence[str]
    quick: bool


def conditions_note(
    recipes: Sequence[Recipe],
    targets: Sequence[PreparedDataset],
    firsts: Sequence[PreparedDataset],
    conditions: Conditions,
) -> str:
    """Returns the caption's account of what was done.

    Args:
        recipes: The recipes as they are trained.
        targets: What they are trained and scored on.
        firsts: What some of them begin with is trained on.
        conditions: What holds for all of them.
    """
    parts = [
        f"Measured on {_names(targets)}; "
        + (
            "the dataset's own splits"
            if conditions.folds is None
            else f"test {_listed('fold', conditions.folds)} of a cross-validation"
        )
        + f"; {_listed('seed', conditions.seeds)}."
    ]
    if any(SYNTHETIC in _sources(data) for data in (*targets, *firsts)):
        parts.append("SYNTHETIC faces, drawn by a program: no figure is one of people.")
    if firsts:
        parts.append(f"What models begin with is trained on {_names(firsts)}.")
    if conditions.quick:
        parts.append(
            f"QUICK: {QUICK_SIZE[0]} x {QUICK_SIZE[1]} pixels, {QUICK_EPOCHS} epochs, "
            f"a subset of at most {QUICK_FACES} faces a split. It shows that recipes "
            "run, not what they are worth."
        )
    if conditions.overrides:
        changed = ", ".join(conditions.overrides)
        parts.append(f"Changed in every recipe: {changed}.")
    known = [*(quick_overrides() if conditions.quick else ()), *conditions.overrides]
    for recipe in recipes:
        if own := _own_changes(recipe, known):
            parts.append(f"Changed in {recipe.name}: {own}.")
    return " ".join(parts)


def _own_changes(recipe: Recipe, overrides: Sequence[str]) -> str:
    """Returns how a recipe differs from the package's of that name, overrides apart."""
    try:
        plain = load_recipe(recipe.name)
        if plain.pretraining is None:
            overrides = [o for o in overrides if not o.strip().startswith(PREFIX)]
        package = load_recipe(recipe.name, overrides)
    except ValueError:  # a recipe of one's own: it is what it is
        return ""
    found = differing_settings(package.to_dict(), recipe.to_dict())
    return ", ".join(f"{key}={new!r}" for key, (_, new) in found.items())


def _sources(data: PreparedDataset) -> list[str]:
    name = data.info.get("name", data.builder.name)
    return [source or name for source in faces_of(data).sources]


def _names(datasets: Sequence[PreparedDataset]) -> str:
    """Returns names of datasets, and what their faces were read from."""
    texts = []
    for data in datasets:
        name = data.info.get("name", data.builder.name)
        sources = _sources(data)
        texts.append(
            name if sources == [name] else f"{name} (faces of {', '.join(sources)})"
        )
    return ", ".join(dict.fromkeys(texts))


def _listed(what: str, values: Sequence[int]) -> str:
    plural = "" if len(values) == 1 else "s"
    return f"{what}{plural} {', '.join(map(str, values))}"


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
        first = experiment.initialized_from
        if isinstance(first, Experiment):
            shared = shared_path(directory, first)
            train_unless_finished(first, shared, verbose=0)
            experiment = replace(experiment, weights=shared)
        train_unless_finished(experiment, run.path, verbose=0)
    except Exception as error:  # whatever it was: the table goes on, and shows it
        reason = " ".join(str(error).split())[:300]
        return {"failed": f"{run.name}: {type(error).__name__}: {reason}"}
    finally:
        # Models are in reference cycles: without this, several pile up. Keras'
        # `clear_session` would reset the caller's settings (`dtype_policy`) too.
        gc.collect()
    files = {"best": "metrics.json"} | {
        name: f"metrics_{name}.json"
        for name in experiment.recipe.training.extra_checkpoints
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
