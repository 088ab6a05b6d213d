"""The run directory: the files that a training run writes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.files import (
    check_output_dir,
    exclusive_lock,
    file_hash,
    read_json,
    write_json,
)

if TYPE_CHECKING:
    from keras_agegender.encodings.calibration import Calibration
    from keras_agegender.encodings.encoding import Encoding
    from keras_agegender.recipes.schema import Recipe


ANEW = "Put it back, or train anew (--overwrite)."


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one training run.

    Args:
        path: The folder.

    Example:
    >>> RunDirectory(Path("runs/first")).best_model  # doctest: +SKIP
    PosixPath('runs/first/best.keras')
    """

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.toml"

    @property
    def history_file(self) -> Path:
        """Losses, metrics and loss weights of every epoch."""
        return self.path / "history.csv"

    @property
    def best_model(self) -> Path:
        """The model of the epoch with the best `checkpoint_monitor`."""
        return self.path / "best.keras"

    @property
    def last_model(self) -> Path:
        """The model of the last epoch."""
        return self.path / "last.keras"

    def model_file(self, which: str = "best") -> Path:
        """Returns the file of the `"best"`, `"last"` or a named checkpoint."""
        name = which if which in ("best", "last") else f"best_{which}"
        return self.path / f"{name}.keras"

    def checkpoint_info(self, which: str = "best") -> dict[str, Any]:
        """Returns `epoch` (from 0), `monitor`, `mode` and `value` of a checkpoint.

        Args:
            which: `"best"`, or the name of a model that the recipe keeps.

        Raises:
            ValueError: If the run has no such record; `"last"` was not chosen by a
                metric and has none.
        """
        file = self.model_file(which).with_suffix(".json")
        if which == "last" or not file.is_file():
            raise ValueError(
                f"The run in {self.path} has no record of a model named {which!r} "
                f"({file.name})."
            )
        return read_json(file)

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best model, counted from 0; `None` before there is one."""
        if not self.best_model.with_suffix(".json").is_file():
            return None
        return self.checkpoint_info()["epoch"]

    def describe_model(self, which: str = "best") -> dict[str, Any]:
        """Returns a description of a checkpoint and how it was selected.

        Args:
            which: `"best"`, `"last"`, or the name of a model that the recipe keeps.

        Returns:
            `recipe`, `seed`, `trained_on` and `selected_on` (split expressions: the
            folds), `epoch` (counted from 1), and `monitor` and `value`, the metric that
            chose it; `None` of what is not written down.
        """
        info, chosen = self.info(), {}
        if self.model_file(which).with_suffix(".json").is_file() and which != "last":
            chosen = self.checkpoint_info(which)
        epoch, splits = chosen.get("epoch"), info.get("splits", {})
        return {
            "recipe": self.recipe().name,
            "seed": info.get("seed"),
            "trained_on": splits.get("train"),
            "selected_on": splits.get("validation"),
            "checkpoint": which,
            "epoch": None if epoch is None else epoch + 1,
            "monitor": chosen.get("monitor"),
            "value": chosen.get("value"),
        }

    @property
    def faces_file(self) -> Path:
        """Key, subject and image hash of every face of its dataset."""
        return self.path / "faces.csv.gz"

    @property
    def identity(self) -> str | None:
        """Identity of the experiment; `None` before the run began."""
        return self.info().get("identity")

    @property
    def calibration_file(self) -> Path:
        """The calibration of the best model, if `calibrate` was called."""
        return self.path / "calibration.json"

    def terms(self) -> dict[str, str]:
        """Returns `license` and `limits` of the weights; empty without terms.json."""
        return read_json(self.terms_file) if self.terms_file.is_file() else {}

    @property
    def terms_file(self) -> Path:
        """The license and limits of the weights, which exports include."""
        return self.path / "terms.json"

    @property
    def backup(self) -> Path:
        """Folder of the training state; it exists until the run is finished."""
        return self.path / "backup"

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Returns the run in an existing folder.

        Raises:
            ValueError: If the folder is no run, or not a finished one.
        """
        run = cls(Path(path))
        if not run.recipe_file.is_file():
            raise ValueError(
                f"{path} is not a run directory: it holds no recipe.toml. "
                "Make one with `agegender train`."
            )
        if not run.best_model.is_file():
            raise ValueError(f"The run in {path} has no model yet (best.keras).")
        return run

    def check_folder(self) -> None:
        """Checks that the folder can hold a run or already holds one.

        Raises:
            ValueError: If it is a file, or a folder of other things.
        """
        # What a process left that was killed at once is nothing.
        check_output_dir(self.path, "run.json", "run", besides=(".lock",))

    def has_trained(self) -> bool:
        """Returns whether at least one epoch was trained, pretraining included."""
        if self.info().get("status") == "finished" or self.backup.is_dir():
            return True
        pretraining = RunDirectory(self.path / "pretraining")
        return any(self.path.glob("[!.]*.keras")) or (
            bool(pretraining.info()) and pretraining.has_trained()
        )

    def recipe(self) -> Recipe:
        """Returns the resolved recipe; an empty file is an error."""
        from keras_agegender.recipes.loading import load_recipe

        if not self.recipe_file.read_text("utf-8").strip():
            raise ValueError(f"{self.recipe_file} is empty. {ANEW}")
        return load_recipe(self.recipe_file)

    def info(self) -> dict[str, Any]:
        """Returns the content of run.json; empty before the run has started."""
        file = self.path / "run.json"
        return read_json(file, ANEW) if file.is_file() else {}

    def update_info(self, **changes: Any) -> None:
        """Writes a file atomically."""
        write_json(self.path / "run.json", {**self.info(), **changes})

    def pixels(self) -> Preprocessing | None:
        """Returns what was done to the pixels, as written down when it was trained.

        `None` where the dataset was not made by `prepare`.
        """
        values = self.info().get("pixels")
        return Preprocessing.from_dict(values) if values else None

    def encoding(self) -> Encoding:
        """Returns the encoding with its extra heads and loss weights."""
        from keras_agegender.encodings.encoding import Encoding
        from keras_agegender.encodings.head import Head

        info = self.info()
        if "encoding" in info:
            return Encoding.from_dict(info["encoding"])
        heads = [Head(**head) for head in info.get("extra_heads", [])]
        return self.recipe().make_encoding(heads)

    def calibration(self) -> Calibration | None:
        """Returns the calibration of the best model; `None` before `calibrate`.

        Raises:
            ValueError: If it was fitted on another model than the one there now.
        """
        from keras_agegender.encodings.calibration import Calibration

        if not self.calibration_file.is_file():
            return None
        remedy = "Remove it, or calibrate again (agegender calibrate)."
        values = read_json(self.calibration_file, remedy)
        found = Calibration.from_dict(values)
        if found.fitted_on.get("model_sha256") != file_hash(self.best_model):
            raise ValueError(
                f"The calibration in {self.path} belongs to another model: best.keras "
                "was written since. Calibrate again (agegender calibrate), or remove "
                f"{self.calibration_file.name}."
            )
        return found

    def load_model(self, which: str = "best") -> Any:
        """Returns a trained Keras model: `"best"`, `"last"` or a named checkpoint.

        Raises:
            ValueError: If the run has no such model.
        """
        from keras_agegender.models.weights import load_model

        path = self.model_file(which)
        if not path.is_file():
            files = sorted(file.stem for file in self.path.glob("[!.]*.keras"))
            raise ValueError(
                f"The run in {self.path} has no model named {which!r}. Models: "
                f"{[name.removeprefix('best_') for name in files]}."
            )
        return load_model(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing into the folder.

        Raises:
            ValueError: If another process does so already.
        """
        refusal = f"Another process trains in {self.path}. Choose another directory."
        with exclusive_lock(self.path / ".lock", refusal):
            yield

    def check_space(self, num_bytes: int) -> None:
        """Checks that the folder is writable and has enough free space.

        Raises:
            ValueError: If the disk has less room than that.
            OSError: If the folder cannot be written.
        """
        probe = self.path / ".probe"
        probe.write_bytes(bytes(4096))
        probe.unlink()
        free = shutil.disk_usage(self.path).free
        if free < num_bytes:
            raise ValueError(
                f"There is too little room in {self.path}: {free / 1e6:.0f} MB are "
                f"free, this run needs about {num_bytes / 1e6:.0f} MB."
            )


class Checkpoint(NamedTuple):
    """A trained model and the run that it belongs to.

    Attributes:
        file: The `.keras` file.
        run: The run that it lies in; `None` for a file of its own.
    """

    file: Path
    run: RunDirectory | None

    @property
    def is_best(self) -> bool:
        """Whether it is the run's best, which has the calibration and metrics.json."""
        return self.run is not None and self.file.name == self.run.best_model.name


def find_checkpoint(model: RunDirectory | str | Path) -> Checkpoint:
    """Returns the checkpoint at a path: a run's best one, or a `.keras` file.

    A `.keras` file in a run directory belongs to that run, with its encoding,
    preprocessing and terms. Every command that takes a model resolves it here.
    """
    path = model.path if isinstance(model, RunDirectory) else Path(model)
    if path.suffix != ".keras" or path.is_dir():
        run = RunDirectory.open(path)
        return Checkpoint(run.best_model, run)
    if not path.is_file():
        raise ValueError(f"There is no model file {path}.")
    run = RunDirectory(path.parent)
    return Checkpoint(path, run if run.recipe_file.is_file() else None)
