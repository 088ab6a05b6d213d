"""Run directories: starting, resuming and replacing runs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_agegender import files
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training import experiment as experiments
from keras_agegender.training.experiment import Experiment


@contextlib.contextmanager
def run_folder(run: RunDirectory) -> Iterator[None]:
    """Creates and locks the folder of a run; empties it if the settings are invalid."""
    run.check_folder()
    made = [path for path in (run.path, *run.path.parents) if not path.exists()]
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with run.locked():
            is_new = not (run.path / "run.json").is_file()
            try:
                yield
            except ValueError:
                if is_new and not run.has_trained():
                    _empty(run.path)
                raise
    finally:
        with contextlib.suppress(OSError):  # of folders that are not empty
            for folder in made:
                folder.rmdir()


def open_run(run: RunDirectory, experiment: Experiment, overwrite: bool) -> None:
    """Starts a run in its folder, or checks that the run in it can be resumed."""
    # What is overwritten may be damaged, so none of it is read.
    resumes = not overwrite and bool(run.info()) and not is_vacant(run, experiment)
    if resumes:
        check_unfinished(run)
        if run.identity != experiment.identity:
            raise ValueError(
                f"{run.path} contains an unfinished run of another experiment: "
                f"{_differences(run, experiment)}. Choose another directory, or "
                "overwrite it (--overwrite)."
            )
    data, recipe = experiment.data, experiment.recipe
    if not recipe.data.allow_overlap:
        from keras_agegender.datasets.face_index import check_overlap

        # Only an explicit validation split may share faces with the test split.
        explicit = recipe.data.validation_split is not None
        allowed = ("validation", "test") if explicit else ()
        check_overlap(data.prepared.face_index, data.splits, allowed)
    if resumes:
        run.update_info(data=str(data.prepared.directory))  # it may have moved
        # Training continues, so it would belong to an older best model.
        run.calibration_file.unlink(missing_ok=True)
    else:
        import keras

        _empty(run.path)
        first = experiment.initialized_from
        path = first.path if isinstance(first, experiments.InitialWeights) else None
        run.update_info(
            status="new",
            identity=experiment.identity,
            experiment=experiment.to_dict(),
            seed=experiment.seed,
            data=str(data.prepared.directory),
            data_name=data.prepared.info.get("name", data.prepared.builder.name),
            data_sha256=data.sha256,
            splits=dict(data.splits),
            # Absolute: evaluation may run in another working directory.
            initialized_from=str(path.absolute()) if path else "",
            **recorded_pixels(recipe, data.prepared),
            versions=files.versions(),
            backend=keras.backend.backend(),
        )
    files.write_text(run.recipe_file, recipe.to_toml())
    if not run.faces_file.is_file():
        data.prepared.face_index.write(run.faces_file)


def recorded_pixels(recipe: Any, prepared: Any) -> dict[str, Any]:
    """Returns the preprocessing for run.json; predicting does not need the dataset."""
    from keras_agegender.datasets.pipeline import input_path

    found = prepared.pixels
    if found is not None:
        found = input_path(found, recipe.model.image_size, recipe.data.pipeline)
    return {"pixels": found and found.to_dict(), "preparation": prepared.info}


def finish_run(run: RunDirectory) -> None:
    """Records that a run is finished, and the checksums of what training wrote."""
    run.update_info(status="finished", finished=files.now())
    models = [*run.path.glob("[!.]*.keras")]
    records = [model.with_suffix(".json") for model in models]
    # Evaluations and calibrations may be repeated, so they have no checksums.
    written = [*models, *records, run.recipe_file, run.history_file, run.faces_file]
    files.write_checksums(run.path, ["run.json", *(file.name for file in written)])


def check_unfinished(run: RunDirectory) -> None:
    """Checks that the run in a folder is not finished."""
    if run.info().get("status") == "finished":
        raise ValueError(
            f"The run in {run.path} is finished. Choose another directory, or "
            "overwrite it (--overwrite)."
        )


def is_vacant(run: RunDirectory, experiment: Experiment) -> bool:
    """Returns whether the folder has another experiment without a trained epoch."""
    return run.identity != experiment.identity and not run.has_trained()


def check_place(run: RunDirectory, experiment: Experiment, option: str = "") -> None:
    """Checks that the folder has no run of another experiment."""
    if not run.info() or is_vacant(run, experiment):
        return
    if run.identity != experiment.identity:
        raise ValueError(
            f"{run.path} contains a run of another experiment: "
            f"{_differences(run, experiment)}. Choose another directory{option}."
        )


def _differences(run: RunDirectory, experiment: Experiment) -> str:
    existing = run.info().get("experiment")
    if existing is None:
        return "its run.json has no experiment"
    return "; ".join(experiments.differences(existing, experiment.to_dict()))


def truncate_history(file: Path, epochs: int) -> None:
    """Keeps the epochs that are backed up; a killed run may have logged one more."""
    if not file.is_file():
        return
    # As bytes: reading text would change the line endings.
    lines = file.read_bytes().splitlines(keepends=True)[: epochs + 1]
    if epochs == 0:
        file.unlink()
    else:
        files.write_bytes(file, b"".join(lines))


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()
