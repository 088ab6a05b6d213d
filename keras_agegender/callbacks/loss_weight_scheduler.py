"""Loss weights that change by a schedule while a multi-output model trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_agegender.callbacks.loss_weight_callback import (
    LossWeightCallback,
    checked_weights,
)
from keras_agegender.callbacks.loss_weight_state import Weights

Schedule = Mapping[int, Weights] | Callable[[int, dict[str, float]], Weights | None]


class LossWeightScheduler(LossWeightCallback):
    """Changes the loss weights of a compiled model during `fit`.

    The model is compiled in the ordinary way, with floats in `loss_weights` or none at
    all. Nothing is compiled again, and the optimizer keeps its state. The weights in
    force are logged as `<output>_loss_weight`: in `history`, in the progress line, in
    TensorBoard. They survive `BackupAndRestore` and are saved with the model; after
    `fit`, an interrupted one too, they stay in force until the next `compile`.

    It works on functional, `Sequential` and subclassed models. Outputs have the names
    of the dict that the model returns or its losses are given in; otherwise the names
    of the output layers. A subclassed model that returns a list has `output_0`,
    `output_1` …, and a single unnamed output is `output`.

    `val_loss` is weighted too, so it jumps where weights change: let callbacks monitor
    a head's own metric or loss. With `steps_per_execution` above 1, steps are counted
    and weights changed between executions. Several callbacks that change weights may be
    used together: of two that set the same weight at the same moment, the later one in
    the list wins. Put callbacks that save, such as `BackupAndRestore`, behind them.

    Args:
        schedule: Either a dict, epoch (or step) -> {output: weight}, each entry in
            force from that epoch on; or a callable `(index, weights) -> weights`, asked
            at the beginning of every epoch (or step) with the weights in force, which
            returns those to change, or `None`. Epochs and steps count from 0.
            Weights are floats that are not negative.
        by: `"epoch"` or `"step"`; steps are the optimizer's iterations, so they go on
            counting over epochs and restarts. Defaults to `"epoch"`.
        verbose: 1 prints a line at every change. Defaults to 0.

    Raises:
        ValueError: If the schedule is malformed, or, when training starts, if it names
            an output that the model does not have, or the model's own `train_step`
            does not use the compiled loss.

    Example:
    >>> scheduler = LossWeightScheduler({0: {"gender": 2.0}, 5: {"gender": 0.5}})
    >>> model.fit(train_ds, epochs=10, callbacks=[scheduler])  # doctest: +SKIP

    Source: the report's Table 14 (gender starts high and is lowered once gender
    accuracy is high).
    """

    def __init__(self, schedule: Schedule, by: str = "epoch", verbose: int = 0) -> None:
        super().__init__(verbose=verbose)
        if by not in ("epoch", "step"):
            raise ValueError(
                f"Invalid `by`. Expected 'epoch' or 'step'. Received: by={by!r}."
            )
        if not callable(schedule):
            schedule = _checked_schedule(schedule)
        self.schedule = schedule
        self.by = by
        self._previous = -1
        self._first_step = 0
        self._catch_up = True

    @classmethod
    def when(
        cls,
        monitor: str,
        *,
        above: float | None = None,
        below: float | None = None,
        set: Weights,
        start: Weights | None = None,
        verbose: int = 0,
    ) -> LossWeightScheduler:
        """Returns a scheduler that changes weights once, when a metric is good enough.

        The metric is looked at after every epoch; the new weights hold from the next
        epoch on, and for good.

        Args:
            monitor: Name of a logged metric, `"val_gender_accuracy"` for instance.
            above: Threshold; changes once the metric is at least this.
            below: Threshold; changes once the metric is at most this. Give either.
            set: Output name -> weight from then on.
            start: Output name -> weight before; `None` leaves what was compiled.
            verbose: 1 prints a line at the change. Defaults to 0.

        Raises:
            ValueError: If not exactly one threshold is given.

        Example:
        >>> lower = LossWeightScheduler.when(
        ...     "val_gender_accuracy", above=0.95, set={"gender": 0.5})
        """
        return _ThresholdScheduler(
            monitor, above, below, set, start=start, verbose=verbose
        )

    def set_model(self, model: keras.Model) -> None:
        """Attaches the weights to the model; `fit` calls this before it traces."""
        super().set_model(model)
        self._catch_up = True

    def changed_outputs(self) -> set[str]:
        """Returns the outputs that the schedule names, or all for a callable."""
        if callable(self.schedule):
            return super().changed_outputs()
        return {name for weights in self.schedule.values() for name in weights}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Applies what the schedule says for this epoch."""
        if self.by == "step":
            self._first_step = int(self.model.optimizer.iterations)
        else:
            self._advance(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Applies what the schedule says for this step."""
        if self.by == "step":
            self._advance(self._first_step + batch)

    def _advance(self, index: int) -> None:
        """Applies the entries up to `index`, those before it only at the start.

        At the start of `fit` a schedule catches up with the entries it has passed,
        unless a checkpoint brought back the weights that were in force.
        """
        if callable(self.schedule):
            weights = self.schedule(index, self.loss_weights)
            self.change(weights or {}, f"{self.by} {index}")
            return
        due: dict[str, float] = {}
        previous = self._previous if not self._catch_up else -1
        if self._catch_up and self._state.restored:
            previous = index - 1
        for position, weights in self.schedule.items():
            if previous < position <= index:
                due.update(weights)
        self._catch_up = False
        self._previous = index
        self.change(due, f"{self.by} {index}")


class _ThresholdScheduler(LossWeightScheduler):
    """What `LossWeightScheduler.when` returns."""

    def __init__(
        self,
        monitor: str,
        above: float | None,
        below: float | None,
        set: Weights,
        start: Weights | None,
        verbose: int,
    ) -> None:
        if (above is None) == (below is None):
            raise ValueError(
                "Invalid threshold. Expected exactly one of `above` and `below`. "
                f"Received: above={above}, below={below}."
            )
        super().__init__({0: start} if start else {}, verbose=verbose)
        self.monitor = monitor
        self.above = above
        self.below = below
        self.set = checked_weights(set, "in `set`")

    def changed_outputs(self) -> set[str]:
        return super().changed_outputs() | set(self.set)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._fired = self._state.add_value(0.0, "fired")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the metric; changes the weights the first time it is good enough."""
        logs = logs or {}
        if float(ops.convert_to_numpy(self._fired.value)) > 0:
            return
        if self.monitor not in logs:
            raise ValueError(
                f"Invalid `monitor`. There is no metric {self.monitor!r} in the logs "
                f"of epoch {epoch}. Logged: {sorted(logs)}."
            )
        value = float(logs[self.monitor])
        if self.above is not None:
            good = value >= self.above
        else:
            good = self.below is not None and value <= self.below
        if good:
            self._fired.assign(1.0)
            self.change(self.set, f"epoch {epoch + 1}")


def _checked_schedule(schedule: Any) -> dict[int, dict[str, float]]:
    if not isinstance(schedule, Mapping):
        raise ValueError(
            "Invalid `schedule`. Expected a dict {epoch: {output: weight}} or a "
            f"callable. Received: {schedule!r}."
        )
    checked = {}
    for index, weights in schedule.items():
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ValueError(
                "Invalid `schedule`. Expected integers from 0 on as keys. "
                f"Received: {index!r}."
            )
        checked[index] = checked_weights(weights, f"at {index}")
    return dict(sorted(checked.items()))
