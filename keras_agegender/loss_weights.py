"""Loss weights that change while a multi-output model trains.

In: an ordinarily compiled Keras model and a schedule. Out: the same `fit`, each step of
it with the loss weights that the schedule says, and those weights in the logs.

Keras 3 reads `compile(loss_weights=…)` once, when the train step is traced (keras issue
20294). Putting a `keras.Variable` there works on TensorFlow, but not on JAX: a variable
that is not part of the train step's state is compiled into it as a constant. What *is*
part of that state, on every backend and under every strategy, are the variables of the
model's metrics. So the weights in force live in a metric, `LossWeightState`: the step
reads them, the logs show them, `save_weights` keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

Weights = Mapping[str, float]
Schedule = Mapping[int, Weights] | Callable[[int, dict[str, float]], Weights | None]

LOG_SUFFIX = "_loss_weight"
_ATTRIBUTE = "loss_weight_state"


class LossWeightState(keras.metrics.Metric):
    """The loss weights in force, as variables of the model's training state.

    Created and attached to the model by `LossWeightScheduler`. As a metric it reports
    `<output>_loss_weight` for the outputs that a scheduler may change, in training but
    not in evaluation.

    Args:
        loss_weights: Output name -> weight at the start.
    """

    def __init__(self, loss_weights: Weights) -> None:
        super().__init__(name=_ATTRIBUTE)
        self.loss_weights = {
            # aggregation="none": every replica holds the same value, no sum.
            name: keras.Variable(
                weight, dtype="float32", trainable=False, name=f"{name}{LOG_SUFFIX}"
            )
            for name, weight in loss_weights.items()
        }
        # What the variables hold, for reading between steps: on JAX their values are
        # away with the running epoch's training state.
        self.current = dict(loss_weights)
        self.fired: list[keras.Variable] = []
        self.compile_loss_id = 0
        self.schedulers = 0
        self.restored = False
        self.reported: set[str] = set()
        self.reporting = True

    def add_fired_flag(self) -> keras.Variable:
        """Returns a new 0/1 variable: whether a threshold was crossed already."""
        flag = keras.Variable(0.0, dtype="float32", trainable=False, name="fired")
        self.fired = [*self.fired, flag]
        return flag

    def assign(self, weights: Weights) -> None:
        """Puts weights in force, from the next step on."""
        for name, weight in weights.items():
            self.loss_weights[name].assign(weight)
            self.current[name] = weight

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: a batch does not change loss weights."""

    def reset_state(self) -> None:
        """Does nothing: a new epoch does not change loss weights."""

    def result(self) -> dict[str, Any]:
        """Returns the weights to log; none while the model is evaluated."""
        if not self.reporting:
            return {}
        # "+ 0" makes it a value of its own: on JAX the next step is given the buffer of
        # the variable for its own use, and the log would be a deleted array.
        return {
            f"{name}{LOG_SUFFIX}": ops.add(variable, 0.0)
            for name, variable in self.loss_weights.items()
            if name in self.reported
        }

    def load_own_variables(self, store: Any) -> None:
        """Reads the weights from a checkpoint; one without them changes nothing."""
        variables = self.variables
        if len(store.keys()) != len(variables):
            return
        for index, variable in enumerate(variables):
            variable.assign(store[str(index)])
        for name, variable in self.loss_weights.items():
            # As short a decimal as was written: 0.9, not 0.8999999761581421.
            self.current[name] = float(
                str(np.float32(ops.convert_to_numpy(variable.value)))
            )
        self.restored = True

    def save_own_variables(self, store: Any) -> None:
        """Writes the weights in force and the thresholds crossed to a checkpoint."""
        for index, variable in enumerate(self.variables):
            store[str(index)] = ops.convert_to_numpy(variable.value)


class LossWeightScheduler(keras.callbacks.Callback):
    """Changes the loss weights of a compiled multi-output model during `fit`.

    The model is compiled in the ordinary way, with floats in `loss_weights` or none at
    all. Nothing is compiled again, and the optimizer keeps its state. The weights in
    force are logged as `<output>_loss_weight`: in `history`, in the progress line, in
    TensorBoard. They survive `BackupAndRestore` and are saved with the model; after
    `fit` they stay in force until the next `compile`.

    `val_loss` is weighted too, so it jumps where weights change: let callbacks monitor
    a head's own metric or loss. With `steps_per_execution` above 1, steps are counted
    and weights changed between executions. Several schedulers may be used together;
    a later one in the list has the last word.

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
            an output that the model does not have.

    Example:
    >>> scheduler = LossWeightScheduler({0: {"gender": 2.0}, 5: {"gender": 0.5}})
    >>> model.fit(train_ds, epochs=10, callbacks=[scheduler])  # doctest: +SKIP

    Source: the report's Table 14 (gender starts high and is lowered once gender
    accuracy is high).
    """

    def __init__(self, schedule: Schedule, by: str = "epoch", verbose: int = 0) -> None:
        super().__init__()
        if by not in ("epoch", "step"):
            raise ValueError(
                f"Invalid `by`. Expected 'epoch' or 'step'. Received: by={by!r}."
            )
        if not callable(schedule):
            schedule = _checked_schedule(schedule)
        self.schedule = schedule
        self.by = by
        self.verbose = verbose
        self._state: Any = None  # LossWeightState while training
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

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights in force, while training; empty before."""
        return dict(self._state.current) if self._state is not None else {}

    def set_model(self, model: keras.Model) -> None:
        """Attaches the weights to the model; `fit` calls this before it traces."""
        super().set_model(model)
        self._state = _attach(model)
        self._state.schedulers += 1
        names = self._scheduled_names()
        _check_names(names, self._state.loss_weights)
        self._state.reported |= names
        self._catch_up = True

    def _scheduled_names(self) -> set[str]:
        if callable(self.schedule):
            return set(self._state.loss_weights)
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
            self._apply(self.schedule(index, dict(self._state.current)), index)
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
        self._apply(due, index)

    def _apply(self, weights: Weights | None, index: int) -> None:
        weights = _checked_weights(weights or {}, f"at {self.by} {index}")
        _check_names(weights, self._state.loss_weights)
        before = self._state.current
        changed = {n: (before[n], w) for n, w in weights.items() if w != before[n]}
        if not changed:
            return
        model = self.model  # on JAX this access puts the training state back in place
        self._state.assign(weights)
        _set_compile_config(model, self._state.current)
        if self.verbose:
            text = ", ".join(f"{n} {a:g} -> {b:g}" for n, (a, b) in changed.items())
            print(f"\nLoss weights from {self.by} {index} on: {text}")

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Keeps the weights out of the evaluation's logs."""
        self._state.reporting = False

    def on_test_end(self, logs: dict | None = None) -> None:
        """Lets the weights into the training's logs again."""
        self._state.reporting = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves an ordinary model, compiled with the weights now in force."""
        self._state.schedulers -= 1
        if self._state.schedulers == 0:
            _detach(self.model, self._state)


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
        self.set = _checked_weights(set, "in `set`")

    def _scheduled_names(self) -> set[str]:
        return super()._scheduled_names() | set(self.set)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._fired = self._state.add_fired_flag()

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
            self._apply(self.set, epoch + 1)


# -- schedules -------------------------------------------------------------------------


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
        checked[index] = _checked_weights(weights, f"at {index}")
    return dict(sorted(checked.items()))


def _checked_weights(weights: Any, where: str) -> dict[str, float]:
    if not isinstance(weights, Mapping):
        raise ValueError(
            f"Invalid loss weights {where}. Expected a dict {{output: weight}}. "
            f"Received: {weights!r}."
        )
    for name, weight in weights.items():
        try:
            valid = math.isfinite(float(weight)) and float(weight) >= 0
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(
                f"Invalid loss weight of {name!r} {where}. Expected a finite number "
                f"that is not negative. Received: {weight!r}."
            )
    return {name: float(weight) for name, weight in weights.items()}


def _check_names(names: Any, outputs: Mapping[str, Any]) -> None:
    unknown = sorted(set(names) - set(outputs))
    if unknown:
        raise ValueError(
            f"Invalid loss weights. The model has no trained output named {unknown}. "
            f"Outputs: {sorted(outputs)}."
        )


# -- attaching to a compiled model -----------------------------------------------------
# The one place that touches what Keras keeps private about `compile`. Checked with
# Keras 3.12 to 3.15; `_compile_loss_of` fails clearly should a later one differ.


def _attach(model: keras.Model) -> LossWeightState:
    """Makes the compiled loss read its weights from variables; twice is once."""
    compile_loss = _compile_loss_of(model)
    state = getattr(model, _ATTRIBUTE, None)
    if state is not None and state.compile_loss_id == id(compile_loss):
        return state
    if state is not None:  # of an earlier `compile`
        model._metrics.remove(state)
    with _variable_scope(model):
        state = LossWeightState(_compiled_weights(model, compile_loss))
    state.compile_loss_id = id(compile_loss)
    _replace_weights(compile_loss, state.loss_weights)
    # A built model refuses new tracked state, so both registrations go past its
    # tracker: `_metrics` makes it part of the training state, the attribute of the
    # checkpoints.
    model._metrics.append(state)
    object.__setattr__(model, _ATTRIBUTE, state)
    _forget_traces(model)
    return state


def _detach(model: keras.Model, state: LossWeightState) -> None:
    """Puts floats back in the variables' place."""
    _replace_weights(_compile_loss_of(model), state.current)
    model._metrics[:] = [m for m in model._metrics if m is not state]
    object.__delattr__(model, _ATTRIBUTE)
    _forget_traces(model)


def _forget_traces(model: keras.Model) -> None:
    model.train_function = None
    model.test_function = None


def _compile_loss_of(model: keras.Model) -> Any:
    if not getattr(model, "compiled", False):
        raise ValueError("LossWeightScheduler needs a compiled model. Call compile().")
    compile_loss = getattr(model, "_compile_loss", None)
    if compile_loss is None or not hasattr(compile_loss, "_user_loss_weights"):
        raise ValueError(
            "LossWeightScheduler needs a model compiled with `loss=`, and Keras 3.12 "
            f"or later of major version 3. Received: {model.name!r} under Keras "
            f"{keras.__version__}."
        )
    return compile_loss


def _compiled_weights(model: keras.Model, compile_loss: Any) -> dict[str, float]:
    """Output name -> compiled weight, 1.0 where none was given."""
    losses = compile_loss._user_loss
    if not isinstance(losses, Mapping):
        losses = _by_output(model, losses)
    weights = compile_loss._user_loss_weights
    if weights is None:
        weights = {}
    elif not isinstance(weights, Mapping):
        weights = _by_output(model, weights)
    return {
        name: float(weights.get(name, 1.0) if weights.get(name) is not None else 1.0)
        for name, loss in losses.items()
        if loss is not None
    }


def _by_output(model: keras.Model, values: Any) -> dict[str, Any]:
    names = list(model.output_names)
    if not isinstance(values, (list, tuple)):
        values = [values] * len(names)
    return dict(zip(names, values, strict=True))


def _replace_weights(compile_loss: Any, weights: Mapping[str, Any]) -> None:
    losses = compile_loss._user_loss
    if isinstance(losses, Mapping):
        packed: Any = {name: weights.get(name, 1.0) for name in losses}
    elif isinstance(losses, (list, tuple)):
        names = iter(weights)
        packed = [None if x is None else weights[next(names)] for x in losses]
    else:
        packed = next(iter(weights.values())) if len(weights) == 1 else weights
    compile_loss._user_loss_weights = packed
    if compile_loss.built:  # then what it uses was made from those already
        flat = zip(compile_loss._flat_losses, weights.values(), strict=True)
        by_path = isinstance(losses, Mapping)
        compile_loss._flat_losses = [
            entry._replace(
                loss_weights=weights[entry.path[-1]]
                if by_path and entry.path and entry.path[-1] in weights
                else weight
            )
            for entry, weight in flat
        ]


def _set_compile_config(model: keras.Model, weights: dict[str, float]) -> None:
    """Lets a model saved from here on reload with the weights in force."""
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    if config is not None and isinstance(config.get("loss"), Mapping):
        config["loss_weights"] = dict(weights)


def _variable_scope(model: keras.Model) -> Any:
    """The scope that makes variables fit the model's distribution strategy."""
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.scope()
    return keras.name_scope("loss_weights")
