"""Sets of runs: the folds and seeds of one recipe, found in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_agegender.datasets.face_index import FaceIndex
from keras_agegender.run_directory import RunDirectory
from keras_agegender.studies.paired_answers import differing_settings

Place = tuple[str, int]  # test fold (a split expression) and seed


@dataclass(frozen=True)
class RunSet:
    """Runs of one recipe over folds and seeds.

    Attributes:
        path: Folder that holds them, or the only one.
        runs: Test fold and seed -> run.
        unfinished: Folders of runs that have no model or no predictions yet.
    """

    path: Path
    runs: dict[Place, RunDirectory]
    unfinished: tuple[Path, ...] = ()


def holds_runs(folder: str | Path) -> bool:
    """Whether a folder is one of runs, and no run itself."""
    folder = Path(folder)
    return not (folder / "recipe.toml").is_file() and any(folder.glob("*/recipe.toml"))


def open_run_set(folder: str | Path, predictions: str = "predictions.csv") -> RunSet:
    """Returns the runs in a folder, or the one that the folder is.

    Args:
        folder: A run, or a folder of runs of one recipe.
        predictions: File that a finished run has.

    Raises:
        ValueError: If it holds no finished run, runs of several recipes, or a fold and
            seed twice.
    """
    folder = Path(folder)
    if not holds_runs(folder):
        run = RunDirectory.open(folder)
        return RunSet(folder, {place_of(run): run})
    runs: dict[Place, RunDirectory] = {}
    unfinished = []
    for file in sorted(folder.glob("*/recipe.toml")):
        run = RunDirectory(file.parent)
        if not run.best_model.is_file() or not (run.path / predictions).is_file():
            unfinished.append(run.path)
            continue
        place = place_of(run)
        if place in runs:
            raise ValueError(
                f"{folder} holds two runs of test split {place[0]!r} and seed "
                f"{place[1]}: {runs[place].path.name} and {run.path.name}. Expected a "
                "folder of runs of one recipe, each fold and seed once."
            )
        runs[place] = run
    if not runs:
        raise ValueError(f"None of the runs in {folder} has a model and {predictions}.")
    first, *others = runs.values()
    for run in others:
        changed = differing_settings(first.recipe().to_dict(), run.recipe().to_dict())
        if changed:
            key, (one, other) = next(iter(changed.items()))
            raise ValueError(
                f"{folder} holds runs of several recipes: {key} is {one!r} in "
                f"{first.path.name} and {other!r} in {run.path.name}. Expected a "
                "folder of runs of one recipe; `agegender compare FOLDER` takes the "
                "folder of a reproduction."
            )
    return RunSet(folder, runs, tuple(unfinished))


def place_of(run: RunDirectory) -> Place:
    """Returns the test split and the seed of a run; `("", 0)` if it says neither."""
    info = run.info()
    return info.get("splits", {}).get("test", ""), int(info.get("seed", 0))


def fold_name(test_split: str) -> str:
    """Returns a test split as people say it; that of `quick` is a long expression.

    Example:
    >>> fold_name("fold_0[0:30]+fold_0[60:90]")
    'fold_0 (a part)'
    """
    names = dict.fromkeys(part.partition("[")[0] for part in test_split.split("+"))
    return "+".join(names) + (" (a part)" if "[" in test_split else "")


def test_to_train_of(runs: dict[Place, RunDirectory]) -> float | None:
    """Returns how many test faces there are for a training face, the mean over folds.

    `None` where a run does not know its faces: one of an older version.
    """
    ratios = []
    for run in {place[0]: run for place, run in runs.items()}.values():
        splits = run.info().get("splits", {})
        if not run.faces_file.is_file() or not {"train", "test"} <= set(splits):
            return None
        index = FaceIndex.read(run.faces_file)
        train, test = (len(index.faces(splits[name])) for name in ("train", "test"))
        ratios.append(test / train)
    return float(np.mean(ratios))
