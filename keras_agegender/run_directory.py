"""The run directory: the files that a training run writes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_agegender import files
from keras_agegender.encodings.encoding import Encoding, Head
from keras_agegender.faces.preprocessing import Preprocessing

if TYPE_CHECKING:
    from keras_agegender.encodings.calibration import Calibration
    from keras_agegender.recipes.schema import Recipe

REMEDY = "Restore it, or train again (--overwrite)."


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
            which: `"best"`, or the name of a checkpoint of the recipe.

        Raises:
            ValueError: If the run has no such record; `"last"` has none, as no metric
                selects it.
        """
        file = self.model_file(which).with_suffix(".json")
        if which == "last" or not file.is_file():
            raise ValueError(
                f"The run in {self.path} has no record of a checkpoint named {which!r} "
                f"({file.name})."
            )
        return files.read_json(file)

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best model, counted from 0; `None` before there is one."""
        if not self.best_model.with_suffix(".json").is_file():
            return None
        return self.checkpoint_info()["epoch"]

    def describe_model(self, which: str = "best") -> dict[str, Any]:
        """Returns a description of a checkpoint and how it was selected.

        Args:
            which: `"best"`, `"last"`, or the name of a checkpoint of the recipe.

        Returns:
            `recipe`, `seed`, `trained_on` and `selected_on` (split expressions: the
            folds), `epoch` (counted from 1), and `monitor` and `value`, the metric that
            selected it; `None` where unknown.
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
        """Identity of the experiment; `None` before the run has started."""
        return self.info().get("identity")

    @property
    def calibration_file(self) -> Path:
        """The calibration of the best model, if `calibrate` was called."""
        return self.path / "calibration.json"

    def terms(self) -> dict[str, Any]:
        """Returns what terms.json says about the weights; empty without it.

        `license` and `limits` are text; `auxiliary_outputs` lists heads that only
        helped in training and that predictions omit by default.
        """
        return files.read_json(self.terms_file) if self.terms_file.is_file() else {}

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
            ValueError: If the folder is not a run, or has no checkpoint yet.
        """
        run = cls(Path(path))
        if not run.recipe_file.is_file():
            raise ValueError(
                f"{path} is not a run directory: recipe.toml is missing. Create one "
                "with `agegender train`."
            )
        if not run.best_model.is_file():
            raise ValueError(
                f"The run in {path} has no checkpoint yet: best.keras is missing."
            )
        return run

    def check_folder(self) -> None:
        """Checks that the folder can hold a run or already holds one."""
        # A process that was killed at once leaves only a lock file.
        files.check_output_dir(self.path, "run.json", "run", besides=(".lock",))

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
            raise ValueError(f"{self.recipe_file} is empty. {REMEDY}")
        return load_recipe(self.recipe_file)

    def info(self) -> dict[str, Any]:
        """Returns the content of run.json; empty before the run has started."""
        file = self.path / "run.json"
        return files.read_json(file, REMEDY) if file.is_file() else {}

    def update_info(self, **changes: Any) -> None:
        """Changes entries of run.json."""
        files.write_json(self.path / "run.json", {**self.info(), **changes})

    def pixels(self) -> Preprocessing | None:
        """Returns the preprocessing recorded at training time, or `None` if unknown."""
        values = self.info().get("pixels")
        return Preprocessing.from_dict(values) if values else None

    def encoding(self) -> Encoding:
        """Returns the encoding with its extra heads and loss weights."""
        info = self.info()
        if "encoding" in info:
            return Encoding.from_dict(info["encoding"])
        heads = [Head(**head) for head in info.get("extra_heads", [])]
        return self.recipe().make_encoding(heads)

    def calibration(self) -> Calibration | None:
        """Returns the calibration of the best model; `None` before `calibrate`.

        Raises:
            ValueError: If it was fitted for another model.
        """
        from keras_agegender.encodings.calibration import Calibration

        if not self.calibration_file.is_file():
            return None
        remedy = "Remove it, or calibrate again (`agegender calibrate`)."
        values = files.read_json(self.calibration_file, remedy)
        found = Calibration.from_dict(values)
        if found.fitted_on.get("model_sha256") != files.file_hash(self.best_model):
            raise ValueError(
                f"{self.calibration_file} was fitted for another model: best.keras is "
                f"newer. {remedy}"
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
            found = sorted(file.stem for file in self.path.glob("[!.]*.keras"))
            raise ValueError(
                f"The run in {self.path} has no checkpoint named {which!r}. "
                f"Checkpoints: {[name.removeprefix('best_') for name in found]}."
            )
        return load_model(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing into the folder."""
        refusal = f"Another process trains in {self.path}. Choose another directory."
        with files.exclusive_lock(self.path / ".lock", refusal):
            yield

    def check_space(self, num_bytes: int) -> None:
        """Checks that the folder is writable and has enough free space."""
        probe = self.path / ".probe"
        probe.write_bytes(bytes(4096))
        probe.unlink()
        free = shutil.disk_usage(self.path).free
        if free < num_bytes:
            raise ValueError(
                f"Not enough disk space in {self.path}. Expected about "
                f"{num_bytes / 1e6:.0f} MB. Available: {free / 1e6:.0f} MB."
            )


class Checkpoint(NamedTuple):
    """The `.keras` file of a trained model and its run; `None` outside of a run."""

    file: Path
    run: RunDirectory | None

    @property
    def is_best(self) -> bool:
        """Whether it is the run's best one, which calibration and metrics refer to."""
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
        raise ValueError(f"Model file not found: {path}.")
    run = RunDirectory(path.parent)
    return Checkpoint(path, run if run.recipe_file.is_file() else None)
