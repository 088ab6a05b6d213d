"""What a verb checks before it loads a framework: a wrong path is said at once.

The library checks the same again; here it costs no five seconds of imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keras_agegender.datasets.prepared import check_prepared
from keras_agegender.recipes.loading import (
    check_beginning,
    check_pretraining_data,
    check_weights_file,
    load_recipe,
    training_data,
)
from keras_agegender.run_directory import RunDirectory


def check_data(*directories: str | None) -> None:
    """Raises a `ValueError` if a folder is no prepared dataset; skips `None`."""
    for directory in directories:
        if directory is not None:
            check_prepared(directory)


def check_run(path: str) -> None:
    """Raises a `ValueError` if a folder is no run with a model."""
    RunDirectory.open(path)


def check_evaluated(path: str) -> None:
    """Raises a `ValueError` if a folder is no run, or one that nobody evaluated."""
    run = RunDirectory.open(path)
    if not any(run.path.glob("predictions*.csv")):
        raise ValueError(
            f"The run in {path} has no predictions: it was not evaluated yet. "
            f"`agegender evaluate {path}` writes them."
        )


def check_model(path: str) -> None:
    """Raises a `ValueError` if a path is neither a `.keras` file nor a run."""
    if Path(path).suffix != ".keras":
        check_run(path)
    elif not Path(path).is_file():
        raise ValueError(f"There is no model file {path}.")


def check_recipes(names: Sequence[str], overrides: Sequence[str]) -> None:
    """Raises a `ValueError` if a recipe, a setting or a weights file does not exist."""
    for name in names:
        check_weights_file(load_recipe(name, overrides))


def check_training(
    name: str,
    overrides: Sequence[str],
    data: str | None,
    pretraining_data: str | None,
    pretrained: str | None,
) -> None:
    """Raises a `ValueError` if a recipe lacks what it is trained on or begins with."""
    recipe = load_recipe(name, overrides)
    check_pretraining_data(recipe, pretraining_data)
    training_data(recipe, data, pretraining_data)
    check_beginning(recipe, pretraining_data, pretrained)
    check_data(data, pretraining_data)
    if pretrained is not None:
        check_model(pretrained)


def check_new_run(path: str | Path, overwrite: bool) -> None:
    """Raises a `ValueError` if a run cannot begin or be resumed in a folder."""
    run = RunDirectory(Path(path))
    run.check_folder()
    if not overwrite and run.info().get("status") == "finished":
        raise ValueError(
            f"The run in {path} is finished. Choose another directory, or overwrite "
            "it (--overwrite)."
        )
