"""Checkpoints of a run: the best model and the state to resume from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_agegender import files
from keras_agegender.distribution import no_distribution


class BestModelCheckpoint(keras.callbacks.ModelCheckpoint):
    """Saves the model of the epoch with the best value of a metric.

    In addition to Keras' `ModelCheckpoint`, it works in distributed training, replaces
    the file atomically, and writes a record next to it: `best.json` for `best.keras`,
    with `epoch` (from 0), `monitor`, `mode` and `value`.

    Args:
        filepath: The model's file, such as `"best.keras"`.
        monitor: Name of a logged metric.
        mode: `"min"` if a lower value is better, `"max"` if a higher one is.

    Example:
    >>> best = BestModelCheckpoint("best.keras", "val_gender_accuracy", mode="max")
    """

    def __init__(self, filepath: str | Path, monitor: str, mode: str) -> None:
        if mode not in ("min", "max"):
            raise ValueError(
                f"Invalid `mode`. Expected 'min' or 'max'. Received: {mode!r}."
            )
        super().__init__(str(filepath), monitor=monitor, mode=mode, save_best_only=True)
        self.filepath: str = str(filepath)
        self.mode = mode

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the model and its record if the metric has improved."""
        before: Any = self.best
        file = Path(self.filepath)
        partial = file.with_name(f".{file.stem}.{os.getpid()}.partial{file.suffix}")
        self.filepath = str(partial)
        try:
            with no_distribution():
                super().on_epoch_end(epoch, logs)
            if self.best != before:
                files.sync_to_disk(partial)
                os.replace(partial, file)
        finally:
            self.filepath = str(file)
            partial.unlink(missing_ok=True)
        if self.best != before:
            record = {
                "epoch": epoch,
                "monitor": self.monitor,
                "mode": self.mode,
                "value": float(self.best),
            }
            files.write_json(file.with_suffix(".json"), record)


class AveragedWeights(keras.callbacks.Callback):
    """Evaluates and saves the moving average of the weights.

    For an optimizer with `use_ema=True`. The model has the averaged weights from the
    beginning of validation to the end of the epoch, for metrics and checkpoints. Place
    it first, and `restore_at_epoch_end()` after the callbacks that evaluate or save.

    `keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which rounds on
    TensorFlow, and loses the weights at the end of the last epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._swapped = False

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Swaps in the average."""
        if not self._swapped:
            self._swap()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Swaps in the average if there was no validation."""
        self.on_test_begin()

    def restore_at_epoch_end(self) -> keras.callbacks.Callback:
        """Returns a callback that restores the weights."""
        return keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: self._swap())

    def _swap(self) -> None:
        optimizer = self.model.optimizer
        # Mixed precision wraps the optimizer.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        for weight, average in zip(
            optimizer._trainable_variables,
            optimizer._model_variables_moving_average,
            strict=True,
        ):
            value = ops.convert_to_numpy(weight)
            weight.assign(ops.convert_to_numpy(average))
            average.assign(value)
        self._swapped = not self._swapped


STATE_FILE = "state.json"
STATE_KEYS = {"epoch", "weights", "sha256", "stopped", "random", "callbacks"}

# Attributes in which callbacks count from epoch to epoch.
COUNTERS: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch"),
    keras.callbacks.ModelCheckpoint: ("best",),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
}


class RunBackup(keras.callbacks.Callback):
    """Saves the training state after every epoch, to resume from it.

    Place it last: it saves and restores the counters of the callbacks before it, with
    weights, optimizer state, loss weights and the random state of layers. Pass
    `first_epoch` to `fit` as `initial_epoch`.

    Args:
        directory: Folder for the state.
        callbacks: The callbacks before it in the same `fit`, always in the same order.
        writes: Whether this process writes; only one of several may. Defaults to
            `True`.

    Example:
    >>> backup = RunBackup("backup", callbacks)  # doctest: +SKIP
    >>> model.fit(ds, epochs=9, initial_epoch=backup.first_epoch,  # doctest: +SKIP
    ...           callbacks=[*callbacks, backup])
    """

    def __init__(
        self,
        directory: str | Path,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.callbacks = list(callbacks)
        self.writes = writes
        self._state: Any = self._read_state()

    def _read_state(self) -> dict[str, Any] | None:
        """Returns the last saved state after checking its weights, or `None`."""
        file = self.directory / STATE_FILE
        if not file.is_file():
            return None
        remedy = f"Remove {self.directory} to train from the first epoch."
        state = files.read_json(file, remedy)
        if not isinstance(state, dict) or not STATE_KEYS <= set(state):
            raise ValueError(
                f"{file} is damaged. Expected the keys {sorted(STATE_KEYS)}. {remedy}"
            )
        weights = self.directory / str(state["weights"])
        if weights.parent != self.directory or not weights.is_file():
            raise ValueError(
                f"{file} refers to {weights}, which does not exist. {remedy}"
            )
        if files.file_hash(weights) != state["sha256"]:
            raise ValueError(
                f"{weights} is damaged: its checksum differs from that in "
                f"{STATE_FILE}. {remedy}"
            )
        return state

    @property
    def first_epoch(self) -> int:
        """The epoch to resume with, 0 without a saved state."""
        return self._state["epoch"] + 1 if self._state else 0

    @property
    def stopped(self) -> bool:
        """Whether the saved training had been stopped early."""
        return bool(self._state and self._state["stopped"])

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restores the saved state."""
        if self._state is None:
            return
        self.restore(self.model)
        saved = self._state["callbacks"]
        for name, callback in self._counting().items():
            for attribute, value in saved.get(name, {}).items():
                setattr(callback, attribute, value)

    def restore(self, model: keras.Model) -> None:
        """Restores weights, optimizer and random state of a compiled model."""
        if not model.optimizer.built:
            # An unbuilt optimizer silently ignores saved state, so build it first.
            model.optimizer.build(model.trainable_variables)
        model.load_weights(self.directory / self._state["weights"])
        for variable, value in zip(
            _random_state(model), self._state["random"], strict=True
        ):
            variable.assign(value)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves this epoch's state, then removes the previous one."""
        if not self.writes:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        weights = self.directory / f"epoch-{epoch:04d}.weights.h5"
        partial = self.directory / "partial.weights.h5"
        with no_distribution():
            self.model.save_weights(partial)
        # The state is flushed too, and must not refer to lost weights.
        files.sync_to_disk(partial)
        os.replace(partial, weights)
        self._state = {
            "epoch": epoch,
            "weights": weights.name,
            "sha256": files.file_hash(weights),
            "stopped": bool(self.model.stop_training),
            "random": [
                ops.convert_to_numpy(v.value).tolist()
                for v in _random_state(self.model)
            ],
            "callbacks": {
                name: {a: _plain(getattr(callback, a)) for a in _counters(callback)}
                for name, callback in self._counting().items()
            },
        }
        files.write_json(self.directory / STATE_FILE, self._state)
        for old in self.directory.glob("epoch-*.weights.h5"):
            if old != weights:
                old.unlink()

    def _counting(self) -> dict[str, keras.callbacks.Callback]:
        """Returns the callbacks with counters, by unique name."""
        named: dict[str, keras.callbacks.Callback] = {}
        for callback in self.callbacks:
            if _counters(callback):
                kind = type(callback).__name__
                number = sum(name.startswith(kind) for name in named)
                named[f"{kind}{number}"] = callback
        return named


def _counters(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    kinds = [names for kind, names in COUNTERS.items() if isinstance(callback, kind)]
    return kinds[0] if kinds else ()


def _random_state(model: keras.Model) -> list[keras.Variable]:
    """Returns the seeds of random layers, which weights files do not contain."""
    weights = {id(weight) for weight in model.weights}
    return [v for v in model.variables if id(v) not in weights]


def _plain(value: Any) -> Any:
    """Returns a plain number; Keras initializes some counters with infinity."""
    return None if value is None else float(value) if hasattr(value, "dtype") else value
