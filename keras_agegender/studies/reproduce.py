"""Reproduces recipes over folds and seeds."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.datasets.splits import cross_validation_splits
from keras_agegender.errors import one_line
from keras_agegender.evaluation.evaluate import data_name
from keras_agegender.files import read_json
from keras_agegender.recipes import loading
from keras_agegender.recipes.schema import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies import reproduction_table as tables
from keras_agegender.studies.paired_predictions import differing_settings
from keras_agegender.synthetic.faces import SOURCE as SYNTHETIC
from keras_agegender.training import experiment as experiments, resume, train
from keras_agegender.training.experiment import Experiment

# `quick` shows that a recipe runs, not its quality.
QUICK_SIZE, QUICK_EPOCHS, QUICK_FACES = (64, 64), 2, 600
QUICK_BATCH, QUICK_SLICES = 32, 20
QUICK_OVERRIDES = (
    f"model.image_size={list(QUICK_SIZE)}",
    f"training.epochs={QUICK_EPOCHS}",
    f"data.batch_size={QUICK_BATCH}",
)


@dataclass(frozen=True)
class PlannedRun:
    """One combination of recipe, splits and seed; `failed` is why it cannot train."""

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
    """Yields the runs of a recipe, including those that cannot be trained."""
    role = recipe.data.role
    prepared, pretraining = by_role[role], by_role["pretrain"]
    for place, splits in _rounds(prepared, folds if role == "target" else None):
        for seed in seeds:
            path = directory / "runs" / recipe.name / f"{place}_seed{seed}"
            name = f"{recipe.name}, {place}, seed {seed}"
            test = splits.get("test", "")
            if prepared is None:
                failed = f"{name}: it needs pretraining data (--pretraining-data)."
                failed += _preparation(recipe, by_role)
                yield PlannedRun(name, path, test, failed=failed)
                continue
            fewer = fewer_faces(pretraining) if quick and pretraining else None
            try:
                experiment = experiments.make_experiment(
                    recipe,
                    prepared,
                    pretraining_data=pretraining,
                    splits=fewer_faces(prepared, splits) if quick else splits,
                    pretraining_splits=fewer,
                    seed=seed,
                )
            except ValueError as error:
                failed = f"{name}: {error}{_preparation(recipe, by_role)}"
                yield PlannedRun(name, path, test, failed=failed)
                continue
            if role == "pretrain":  # where runs that are initialized from it look
                path = shared_path(directory, experiment)
            yield PlannedRun(name, path, test, experiment)


# Role and images of a recipe's data -> the command for the report's dataset.
PREPARATIONS = {
    ("target", "cropped"): "adience data/adience --out data/adience_prepared",
    ("target", "whole"): "adience data/adience --out data/adience_whole --no-crop",
    ("pretrain", "cropped"): "celeba data/celeba --out data/celeba_prepared",
    ("pretrain", "whole"): "celeba data/celeba --out data/celeba_whole --no-crop",
}


def _preparation(recipe: Recipe, by_role: Mapping[str, PreparedDataset | None]) -> str:
    """Returns the command for the report's data that a recipe is missing, if any."""
    for one in filter(None, (recipe, recipe.pretraining_recipe)):
        role, faces = one.data.role, one.data.faces
        data = by_role[role]
        found = data.pixels.faces if data and data.pixels else None
        if data is None or faces not in ("any", found):
            faces = "cropped" if faces == "any" else faces
            command = f"agegender prepare {PREPARATIONS[role, faces]}"
            return f" The report's data for {one.name}: `{command}`."
    return ""


def _rounds(
    prepared: PreparedDataset | None, folds: Sequence[int] | None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the name and the splits of each round of a cross-validation."""
    if prepared is None:
        yield "declared_splits", {}
    elif folds is None:
        missing = {"train", "validation", "test"} - set(prepared.splits)
        if missing:
            raise ValueError(
                f"The dataset in {prepared.directory} has no {sorted(missing)} split."
            )
        yield "declared_splits", dict(prepared.splits)
    else:
        names = set(prepared.builder.info.splits)
        for fold in folds:
            if f"fold_{fold}" not in names:
                raise ValueError(
                    f"The dataset in {prepared.directory} has no fold {fold}. Splits: "
                    f"{sorted(names)}."
                )
            yield f"fold{fold}", cross_validation_splits(fold)


def shared_path(directory: Path, experiment: Experiment) -> Path:
    """Returns the directory of a pretraining run that several recipes share."""
    name = f"seed{experiment.seed}_{experiment.identity[:12]}"
    return directory / "runs" / experiment.recipe.name / name


def fewer_faces(
    prepared: PreparedDataset, splits: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns splits cut to about `QUICK_FACES` faces each.

    The slices are spread over each split, since a dataset may be sorted by age.
    """
    fewer = {}
    for name, expression in (splits or prepared.splits).items():
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


def conditions_note(
    recipes: Sequence[Recipe],
    targets: Sequence[PreparedDataset],
    pretraining: Sequence[PreparedDataset],
    *,
    folds: Sequence[int] | None,
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    quick: bool = False,
) -> str:
    """Returns the conditions of a reproduction for its caption."""
    splits = "the dataset's own splits"
    if folds is not None:
        splits = f"test {_listed('fold', folds)} of a cross-validation"
    parts = [f"Measured on {_names(targets)}; {splits}; {_listed('seed', seeds)}."]
    if any(SYNTHETIC in _sources(data) for data in (*targets, *pretraining)):
        parts.append("SYNTHETIC faces, drawn by a program: no score is about people.")
    if pretraining:
        parts.append(f"Pretraining uses {_names(pretraining)}.")
    if quick:
        parts.append(
            f"QUICK: {QUICK_SIZE[0]} x {QUICK_SIZE[1]} pixels, {QUICK_EPOCHS} epochs, "
            f"a subset of at most {QUICK_FACES} faces a split. It shows that recipes "
            "run, not their quality."
        )
    if overrides:
        parts.append(f"Changed in every recipe: {', '.join(overrides)}.")
    known = [*(QUICK_OVERRIDES if quick else ()), *overrides]
    for recipe in recipes:
        if own := _own_changes(recipe, known):
            parts.append(f"Changed in {recipe.name}: {own}.")
    return " ".join(parts)


def _own_changes(recipe: Recipe, overrides: Sequence[str]) -> str:
    """Returns the differences from the built-in recipe, overrides apart."""
    try:
        package = _load(recipe.name, overrides)
    except ValueError:  # a user's own recipe
        return ""
    found = differing_settings(package.to_dict(), recipe.to_dict())
    return ", ".join(f"{key}={new!r}" for key, (_, new) in found.items())


def _sources(data: PreparedDataset) -> list[str]:
    return [source or data_name(data) for source in data.face_index.sources]


def _names(datasets: Sequence[PreparedDataset]) -> str:
    """Returns names of datasets, and what their faces were read from."""
    texts = []
    for data in datasets:
        name, sources = data_name(data), _sources(data)
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
    """The result of `reproduce`.

    Attributes:
        directory: Folder of the runs and the table.
        rows: Rows of the table.
        note: The conditions of the measurements.
    """

    directory: Path
    rows: tuple[tables.ReproductionRow, ...]
    note: str

    @property
    def num_failed(self) -> int:
        """Number of failed runs."""
        return len({reason for row in self.rows for reason in row.failed})

    def __str__(self) -> str:
        return tables.to_markdown(self.rows, self.note)


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

    A second call resumes the first: finished runs are not trained again.

    Args:
        recipes: Recipes, or their names, numbers or files.
        data: A prepared dataset or its directory; or several, of whole images and of
            face crops. Every recipe takes the one it needs (`data.faces`).
        directory: Folder for the runs and the table.
        pretraining_data: Prepared dataset, or several, for pretraining recipes.
        folds: Test folds of a cross-validation over the folds of `data`, 0 to 4; `None`
            (default) takes the dataset's own splits.
        seeds: Seeds; every fold is trained with each. Defaults to `(0,)`.
        overrides: Settings to override in every recipe, such as `"training.epochs=3"`;
            for pretraining recipes as in `load_recipe`.
        quick: Whether to reduce images to 64 × 64 pixels, training to 2 epochs and
            data to about 600 faces per split, to test in minutes that everything runs.
            Defaults to `False`.
        report: Function that receives progress messages. Defaults to `print`.

    Returns:
        The rows of the table. A failed run does not raise an error: it is in the table.

    Raises:
        ValueError: If a recipe, fold or split does not exist, or the folder has a run
            of another experiment (other settings, or data prepared again).

    Example:
    >>> reproduce(["7", "8"], "data/adience", "reproduced", seeds=[0, 1, 2])
    ... # doctest: +SKIP
    """
    changes = [*(QUICK_OVERRIDES if quick else ()), *overrides]
    loaded = [_load(recipe, changes) for recipe in recipes]
    for recipe in loaded:
        loading.check_weights_file(recipe)
    targets, pretraining = _open(data), _open(pretraining_data)
    if not targets:
        raise ValueError("Missing `data`. Expected at least one prepared dataset.")
    directory = Path(directory)
    unused = [o for o in overrides if o.strip().startswith(loading.PREFIX)]
    if unused and all(recipe.pretraining is None for recipe in loaded):
        raise ValueError(
            "Invalid overrides. No recipe is initialized from another one. "
            f"Received: {unused}."
        )
    by_role = [_select(recipe, targets, pretraining) for recipe in loaded]
    planned = [
        list(plan_runs(recipe, datasets, directory, folds, seeds, quick))
        for recipe, datasets in zip(loaded, by_role, strict=True)
    ]
    for run in itertools.chain(*planned):
        if run.experiment is not None:
            resume.check_place(RunDirectory(run.path), run.experiment, " (--out)")
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[tables.ReproductionRow] = []
    conditions: Any = {"folds": folds, "seeds": seeds, "overrides": overrides}
    note = conditions_note(loaded, targets, pretraining, quick=quick, **conditions)
    for recipe, datasets, plan in zip(loaded, by_role, planned, strict=True):
        found: list[dict[str, Any]] = []
        for run in plan:
            report(run.name)
            found.append(_train(run, directory))
            failure = found[-1].get("failed")
            report(f"  failed: {failure}" if failure else f"  {_summary(found[-1])}")
        scored = _scored_data(datasets[recipe.data.role], plan)
        rows += tables.table_rows(recipe, found, scored)
        # After every recipe: all of them may take days.
        tables.write_table(directory, rows, note)
    return Reproduction(directory, tuple(rows), note)


def _open(data: Any) -> list[PreparedDataset]:
    if data is None:
        return []
    several = data if isinstance(data, (list, tuple)) else [data]
    return [d if isinstance(d, PreparedDataset) else load_prepared(d) for d in several]


def _select(
    recipe: Recipe,
    targets: Sequence[PreparedDataset],
    pretraining: Sequence[PreparedDataset],
) -> dict[str, PreparedDataset | None]:
    """Returns the datasets with the images that a recipe needs, by role."""
    first = recipe.pretraining_recipe or recipe
    return {
        "target": experiments.select_prepared(recipe, targets),
        "pretrain": experiments.select_prepared(first, pretraining),
    }


def _load(recipe: str | Path | Recipe, overrides: Sequence[str]) -> Recipe:
    """Loads a recipe; one without pretraining ignores overrides of pretraining."""
    plain = recipe if isinstance(recipe, Recipe) else loading.load_recipe(recipe)
    if plain.pretraining is None:
        overrides = [o for o in overrides if not o.strip().startswith(loading.PREFIX)]
    return loading.override_recipe(plain, overrides)


def _train(run: PlannedRun, directory: Path) -> dict[str, Any]:
    """Trains a run unless it is finished; returns its scores, or the error."""
    experiment = run.experiment
    if experiment is None:
        return {"failed": run.failed}
    try:
        first = experiment.initialized_from
        if isinstance(first, Experiment):
            shared = shared_path(directory, first)
            train.train_unless_finished(first, shared, verbose=0)
            weights = experiments.InitialWeights(shared, first.to_dict())
            experiment = replace(experiment, initialized_from=weights)
        train.train_unless_finished(experiment, run.path, verbose=0)
    except Exception as error:  # of any kind: the table shows it, other runs follow
        reason = one_line(error, 300)
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


def _scored_data(
    prepared: PreparedDataset | None, plan: Sequence[PlannedRun]
) -> tables.ScoredData:
    if prepared is None:
        return tables.ScoredData((), ())
    by_split = {run.test_split: run.experiment for run in plan}
    index = prepared.face_index
    faces = index.faces("+".join(by_split))
    name = data_name(prepared)
    ratios = [
        len(index.faces(split)) / len(index.faces(experiment.data.splits["train"]))
        for split, experiment in by_split.items()
        if experiment is not None
    ]
    return tables.ScoredData(
        tuple(sorted({s or name for s in faces["source"]})),
        tuple(by_split),
        fmean(ratios) if ratios else None,
    )


def _summary(run: Mapping[str, Any]) -> str:
    scores = run["best"]
    parts = [
        f"{name} {value:.3f}"
        for name in ("gender accuracy", "age exact")
        if (value := tables.figure(scores, tables.FIGURES[name][1], "male")) is not None
    ]
    return ", ".join(parts) or f"mean accuracy {scores.get('extra_mean_accuracy')}"
