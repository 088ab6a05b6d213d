"""Resuming: a run directory is begun, or goes on with the very same experiment."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras

from keras_agegender.datasets.face_index import FaceIndex, check_overlap, index_faces
from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.files import (
    directory_hash,
    now,
    versions,
    write_bytes,
    write_checksums,
    write_text,
)
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.experiment import Experiment, differences, recorded_pixels


@contextlib.contextmanager
def run_folder(run: RunDirectory) -> Iterator[None]:
    """Makes the folder of a run, and keeps other processes from writing into it.

    What is refused before an epoch was trained, of settings that contradict each other,
    leaves nothing of a run that it began.

    Raises:
        ValueError: If it is a file, or a folder of other things, or another process
            trains there.
    """
    run.check_folder()
    made = [path for path in (run.path, *run.path.parents) if not path.exists()]
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with run.locked():
            begins = not (run.path / "run.json").is_file()
            try:
                yield
            except ValueError:
                if begins and not run.has_trained():
                    _empty(run.path)
                raise
    finally:
        with contextlib.suppress(OSError):  # of folders that are not empty
            for folder in made:
                folder.rmdir()


def open_run(run: RunDirectory, experiment: Experiment, overwrite: bool) -> None:
    """Begins a run in its folder, or makes sure that it is the one to be resumed.

    One that stopped before an epoch was trained, by a wrong setting for instance, is
    begun anew by another experiment.

    Raises:
        ValueError: If two of the splits share a face, or the folder holds a finished
            run or an unfinished one of another experiment.
    """
    # What is overwritten may be damaged: nothing of it is read.
    resumes = not overwrite and bool(run.info()) and not is_vacant(run, experiment)
    if resumes:
        check_same(run, experiment)
    index = checked_faces(experiment)
    data = experiment.data
    if resumes:
        run.update_info(data=str(data.prepared.directory))  # it may have been moved
        # Training goes on: it would belong to an older best model.
        run.calibration_file.unlink(missing_ok=True)
    else:
        _empty(run.path)
        weights = experiment.weights
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
            initialized_from=str(Path(weights).absolute()) if weights else "",
            **recorded_pixels(experiment.recipe, data.prepared),
            versions=versions(),
            backend=keras.backend.backend(),
        )
    write_text(run.recipe_file, experiment.recipe.to_toml())
    if not run.faces_file.is_file():
        index.write(run.faces_file)


def finish_run(run: RunDirectory) -> None:
    """Writes down that a run is finished, and the checksums of what training wrote.

    Evaluations and calibrations come and go: they have none.
    """
    run.update_info(status="finished", finished=now())
    models = [*run.path.glob("*.keras")]
    records = [model.with_suffix(".json") for model in models]
    files = [*models, *records, run.recipe_file, run.history_file, run.faces_file]
    write_checksums(run.path, ["run.json", *(file.name for file in files)])


def check_same(run: RunDirectory, experiment: Experiment) -> None:
    """Raises ValueError unless a run is an unfinished one of the experiment."""
    info = run.info()
    if info.get("status") == "finished":
        raise ValueError(
            f"The run in {run.path} is finished. Choose another directory, or "
            "overwrite it (--overwrite)."
        )
    if info.get("identity") != experiment.identity:
        raise ValueError(
            f"{run.path} holds an unfinished run of another experiment: "
            f"{other_experiment(run, experiment)}. Choose another directory, or "
            "overwrite it (--overwrite)."
        )


def is_vacant(run: RunDirectory, experiment: Experiment) -> bool:
    """Returns whether another experiment stopped there before it trained anything."""
    return run.identity != experiment.identity and not run.has_trained()


def check_place(run: RunDirectory, experiment: Experiment, option: str = "") -> None:
    """Raises ValueError if a run of another experiment, finished or not, lies there.

    One that has not trained anything is in nobody's way.

    Args:
        run: Where the experiment's run would lie.
        experiment: What would be trained.
        option: What to say names another directory, such as `" (--out)"`.
    """
    if not run.info() or is_vacant(run, experiment):
        return
    if run.identity != experiment.identity:
        raise ValueError(
            f"{run.path} holds a run of another experiment: "
            f"{other_experiment(run, experiment)}. Choose another directory{option}."
        )


def other_experiment(run: RunDirectory, experiment: Experiment) -> str:
    """Returns in words how a run's experiment differs from another one."""
    there = run.info().get("experiment")
    if there is None:
        return "it was trained by a version of this library that wrote no identity"
    return "; ".join(differences(there, experiment.to_dict()))


_INDEXES: dict[str, FaceIndex] = {}  # of the last datasets, by content


def checked_faces(experiment: Experiment) -> FaceIndex:
    """Returns the faces of an experiment's dataset.

    Raises:
        ValueError: If two of its splits share a face, person or picture; only a
            `validation_split` that the recipe names may share them with the test split,
            unless the recipe's `allow_overlap` lets all of them.
    """
    index = faces_of(experiment.data.prepared)
    if experiment.recipe.data.allow_overlap:
        return index
    named = experiment.recipe.data.validation_split is not None
    allowed = ("validation", "test") if named else ()
    check_overlap(index, experiment.data.splits, allowed)
    return index


def faces_of(prepared: PreparedDataset) -> FaceIndex:
    """Returns the faces of a dataset, read once by a process."""
    content = directory_hash(prepared.directory)
    if content not in _INDEXES:
        while len(_INDEXES) > 1:
            _INDEXES.pop(next(iter(_INDEXES)))
        _INDEXES[content] = index_faces(prepared)
    return _INDEXES[content]


def truncate_history(file: Path, epochs: int) -> None:
    """Leaves the epochs that are backed up; a killed run may have logged one more."""
    if not file.is_file():
        return
    # As bytes: text would come back with other ends of lines than the rows to come.
    lines = file.read_bytes().splitlines(keepends=True)[: epochs + 1]
    if epochs == 0:
        file.unlink()
    else:
        write_bytes(file, b"".join(lines))


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()
