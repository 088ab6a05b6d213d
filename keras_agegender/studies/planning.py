"""Planning: the runs of a reproduction, made into experiments before any is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.datasets.splits import cross_validation_splits
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.training.experiment import Experiment, make_experiment

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
