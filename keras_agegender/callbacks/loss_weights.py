"""`LossWeightScheduler`, and the loss weights in force while a model trains.

Keras has no public way to change a loss weight inside a compiled train step: `compile`
copies the weights, a second `compile` resets metrics and retraces the step, and an
overridden `compute_loss` sees only the weighted sum. `LossWeightState` therefore uses
these private attributes of Keras, which no other module uses:

- `Model._compile_loss`, with its `_user_loss`, `_user_loss_weights` and `_flat_losses`:
  the losses and weights that the step computes.
- `Model._metrics`: metrics of the training state. A built model accepts no new ones
  through its public attributes.
- `Model._compile_config`: what a saved model is compiled with when it is loaded.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.encodings.encoding import LOSS_WEIGHT_SUFFIX

Weights = Mapping[str, float]

ATTRIBUTE = "loss_weight_state"


class LossWeightState(keras.metrics.Metric):
    """The loss weights in force, as variables that the compiled loss reads.

    It belongs to the compiled loss, so it is saved and restored with the model and a
    new `compile` discards it. As a metric of the model it is part of the training state
    on JAX, and reports `<output>_loss_weight` in training but not in evaluation.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name=ATTRIBUTE)
        names, weights = _compiled_weights(model)
        self.names = names
        self.model: Any = weakref.ref(model)
        # Every `fit` creates a new `History`, so this one tells fits apart.
        self.history = getattr(model, "history", None)
        with _variable_scope(model):
            self.loss_weights = {
                name: keras.Variable(
                    weight,
                    dtype="float32",
                    trainable=False,
                    name=f"{name}{LOSS_WEIGHT_SUFFIX}",
                )
                for name, weight in weights.items()
            }
        # The variables' values, readable between steps: on JAX the training state
        # holds the values of a running epoch.
        self.current = dict(weights)
        self.values: list[keras.Variable] = []
        self.reported: set[str] = set()
        self.reporting = False
        self.used = False  # set by the first epoch; checkpoints are restored before it
        self.restored = False

    # A method: Keras would follow an attribute, and back, when it loads weights.
    def compile_loss(self) -> Any:
        """Returns the model's compiled loss."""
        return self.model()._compile_loss

    def add_value(self, value: Any, name: str) -> keras.Variable:
        """Returns a new variable that is saved and restored with the weights."""
        with _variable_scope(self.model()):
            variable = keras.Variable(
                value, dtype="float32", trainable=False, name=name
            )
        self.values.append(variable)
        return variable

    def assign(self, weights: Weights) -> None:
        """Puts weights in force from the next step on, and in files saved from now."""
        for name, weight in weights.items():
            self.loss_weights[name].assign(weight)
            self.current[name] = weight
        config = getattr(getattr(self.model(), "_compile_config", None), "config", None)
        if config is not None and config.get("loss") is not None:
            config["loss"] = self.compile_loss()._user_loss
            config["loss_weights"] = pack_weights(self.names, self.current)

    def connect(self, weights: Mapping[str, Any]) -> None:
        """Makes the compiled loss read `weights`: variables, or floats."""
        compile_loss = self.compile_loss()
        compile_loss._user_loss_weights = pack_weights(self.names, weights)
        if compile_loss.built:  # then it no longer reads `_user_loss_weights`
            compile_loss._flat_losses = [
                entry._replace(loss_weights=weights[name])
                for entry, name in self.named_losses()
            ]

    def named_losses(self) -> list[tuple[Any, str]]:
        """Returns the losses that the step computes, each with its weight's name."""
        entries = self.compile_loss()._flat_losses
        flat = [name for name in keras.tree.flatten(self.names) if name is not None]
        if len(flat) == 1:
            flat *= len(entries)  # one loss that Keras applies to all outputs
        pairs = []
        for position, entry in enumerate(entries):
            path = [str(part) for part in entry.path]
            names = [entry.name, *("/".join(path[:n]) for n in range(len(path), 0, -1))]
            known = [name for name in names if name in self.loss_weights]
            pairs.append((entry, known[0] if known else flat[position]))
        return pairs

    def log_names(self) -> dict[str, list[str]]:
        """Returns output name -> keys of its unweighted losses in the logs."""
        found: dict[str, list[str]] = {name: [] for name in self.loss_weights}
        for entry, name in self.named_losses():
            found[name].append(f"{entry.name}_loss")
        keys = [key for several in found.values() for key in several]
        if len(keys) != len(set(keys)):
            raise ValueError(
                "Balancing requires outputs with distinct names in the logs. Return a "
                "dict from the model and compile it with a dict of losses. Received: "
                f"{sorted(keys)}."
            )
        return found

    def loss_totals(self) -> dict[str, np.ndarray]:
        """Returns output name -> sums and counts of its losses; on JAX, sync first."""
        found: dict[str, list[Any]] = {name: [] for name in self.loss_weights}
        means = self.compile_loss().metrics
        for (_, name), mean in zip(self.named_losses(), means, strict=True):
            # Adding 0 sums over replicas, each of which has its own totals.
            sums = (ops.add(variable, 0.0) for variable in (mean.total, mean.count))
            found[name].append([float(ops.convert_to_numpy(value)) for value in sums])
        return {name: np.asarray(rows) for name, rows in found.items()}

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: a batch does not change loss weights."""

    def reset_state(self) -> None:
        """Ends reporting: Keras calls this before every evaluation and epoch.

        The first one of a later `fit` detaches a state that an interrupted `fit` left.
        """
        self.reporting = False
        self.used = True
        model = self.model()
        if model is not None and getattr(model, "history", None) is not self.history:
            detach_state(model, self)
            model.make_train_function()

    def report(self) -> None:
        """Starts reporting."""
        self.reporting = True
        self.used = True

    def result(self) -> dict[str, Any]:
        """Returns the weights to log, empty during evaluation."""
        if not self.reporting:
            return {}
        # Adding 0 copies the value: JAX donates the variable's buffer to the next step.
        return {
            f"{name}{LOSS_WEIGHT_SUFFIX}": ops.add(variable, 0.0)
            for name, variable in self.loss_weights.items()
            if name in self.reported
        }

    def save_own_variables(self, store: Any) -> None:
        """Writes the weights in force and the callbacks' values to a checkpoint."""
        for index, variable in enumerate(self.variables):
            store[str(index)] = ops.convert_to_numpy(variable.value)

    def load_own_variables(self, store: Any) -> None:
        """Restores a checkpoint before the first epoch, if it contains weights."""
        if self.used or not store.keys():
            return
        if len(store.keys()) != len(self.variables):
            raise ValueError(
                "Invalid checkpoint. Expected the loss weights of the same callbacks "
                f"in the same order, {len(self.variables)} values. Received: "
                f"{len(store.keys())} values."
            )
        for index, variable in enumerate(self.variables):
            variable.assign(store[str(index)])
        for name, variable in self.loss_weights.items():
            # The shortest decimal: 0.9, not 0.8999999761581421.
            self.current[name] = float(
                str(np.float32(ops.convert_to_numpy(variable.value)))
            )
        self.restored = True


def attach_state(model: keras.Model) -> LossWeightState:
    """Returns the model's state of this `fit`, attached by the first call."""
    for state in [m for m in model._metrics if isinstance(m, LossWeightState)]:
        current = getattr(state.compile_loss(), ATTRIBUTE, None) is state
        same_fit = not state.used and state.history is getattr(model, "history", None)
        if current and same_fit:
            return state
        detach_state(model, state)  # left by an interrupted `fit`
    state = LossWeightState(model)
    state.connect(state.loss_weights)
    setattr(state.compile_loss(), ATTRIBUTE, state)
    model._metrics.append(state)
    _forget_traces(model)
    return state


def detach_state(model: keras.Model, state: LossWeightState) -> None:
    """Makes the compiled loss read the weights in force as floats again."""
    if not any(metric is state for metric in model._metrics):
        return
    if getattr(state.compile_loss(), ATTRIBUTE, None) is state:
        state.connect(state.current)
        delattr(state.compile_loss(), ATTRIBUTE)
    model._metrics[:] = [metric for metric in model._metrics if metric is not state]
    _forget_traces(model)


def _forget_traces(model: keras.Model) -> None:
    model.train_function = None
    model.test_function = None


def _variable_scope(model: keras.Model) -> Any:
    """Returns the scope that makes variables fit the distribution strategy."""
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.scope()
    return contextlib.nullcontext()


def loss_weights_in_force(model: keras.Model) -> dict[str, float]:
    """Returns output name -> weight of its loss in the model's next step."""
    state = getattr(getattr(model, "_compile_loss", None), ATTRIBUTE, None)
    return _compiled_weights(model)[1] if state is None else dict(state.current)


def _compiled_weights(model: keras.Model) -> tuple[Any, dict[str, float]]:
    """Returns the structure of the compiled losses' names, and the weight of each."""
    if not getattr(model, "compiled", False):
        raise ValueError(
            "Changing loss weights requires a compiled model. Call compile()."
        )
    compile_loss = getattr(model, "_compile_loss", None)
    if compile_loss is None or not hasattr(compile_loss, "_user_loss_weights"):
        raise ValueError(
            "Changing loss weights requires a model compiled with `loss=` and Keras 3, "
            f"version 3.12 or later. Received: {model.name!r} with Keras "
            f"{keras.__version__}."
        )
    losses = compile_loss._user_loss
    outputs = _output_names(model)
    if not outputs:  # a subclassed model does not declare its outputs
        several = isinstance(losses, (list, tuple)) and len(losses) > 1
        outputs = [f"output_{i}" for i in range(len(losses))] if several else ["output"]
    if len(outputs) > 1 and not isinstance(losses, (Mapping, list, tuple)):
        # One loss for all outputs: give each output a weight of its own.
        losses = compile_loss._user_loss = [losses] * len(outputs)
    names = name_losses(losses, outputs)
    return names, flatten_weights(names, compile_loss._user_loss_weights)


def _output_names(model: keras.Model) -> list[str]:
    """Returns the names in the order in which Keras flattens the outputs."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    names = list(getattr(model, "output_names", None) or ())
    if names and isinstance(model.output, Mapping):
        # Keras names the losses by these keys; `output_names` are the layers' names.
        return keras.tree.flatten({key: str(key) for key in model.output})
    return names


def name_losses(losses: Any, output_names: Sequence[str]) -> Any:
    """Returns the structure of `losses` with the output's name at every loss.

    Keys of nested dicts are joined by `/`. Outputs without a loss stay `None`.
    """
    if isinstance(losses, Mapping):
        return {key: _named(value, str(key)) for key, value in losses.items()}
    if not isinstance(losses, (list, tuple)):
        return _named(losses, output_names[0])
    names = list(output_names)
    if len(names) == 1:
        names *= len(losses)
    if len(names) != len(losses):
        raise ValueError(
            "Invalid `loss` of the model. Expected one loss for each of the outputs "
            f"{names}. Received: {len(losses)} losses."
        )
    return [_named(loss, name) for loss, name in zip(losses, names, strict=True)]


def _named(losses: Any, name: str) -> Any:
    if losses is None:
        return None
    if isinstance(losses, Mapping):
        return {key: _named(value, f"{name}/{key}") for key, value in losses.items()}
    if isinstance(losses, (list, tuple)):
        return [_named(loss, name) for loss in losses]
    return name


def pack_weights(names: Any, weights: Mapping[str, Any]) -> Any:
    """Returns the structure of `names` with each name's weight; 1.0 without a loss."""
    if isinstance(names, Mapping):
        return {key: pack_weights(value, weights) for key, value in names.items()}
    if isinstance(names, list):
        return [pack_weights(value, weights) for value in names]
    return 1.0 if names is None else weights[names]


def flatten_weights(names: Any, weights: Any) -> dict[str, float]:
    """Returns name -> weight from the `loss_weights` of `compile`; 1.0 by default."""
    found: dict[str, float] = {}
    for name, weight in _pairs(names, weights):
        if found.setdefault(name, weight) != weight:
            raise ValueError(
                f"Invalid `loss_weights` of output {name!r}. Expected the same weight "
                f"for all losses of an output. Received: {found[name]} and {weight}."
            )
    return found


def _pairs(names: Any, weights: Any) -> list[tuple[str, float]]:
    if names is None:
        return []
    if isinstance(names, str):
        if isinstance(weights, Mapping):  # a list of losses with a dict of weights
            weights = weights.get(names)
        elif isinstance(weights, (list, tuple)):  # one loss with a list of its weight
            if len(weights) != 1:
                raise ValueError(
                    f"Invalid `loss_weights` of output {names!r}. Expected one weight "
                    f"for its loss. Received: {weights!r}."
                )
            weights = weights[0]
        return [(names, 1.0 if weights is None else float(weights))]
    keys = list(names) if isinstance(names, Mapping) else list(range(len(names)))
    pairs = []
    for position, key in enumerate(keys):
        inner = weights
        if isinstance(names, Mapping) and isinstance(weights, Mapping):
            inner = weights.get(key)
        elif isinstance(weights, (list, tuple)):
            inner = weights[position]
        pairs += _pairs(names[key], inner)
    return pairs


class LossWeightCallback(keras.callbacks.Callback):
    """Base of the callbacks that change a compiled model's loss weights during `fit`.

    It attaches a `LossWeightState` before `fit` traces its step and detaches it at the
    end. Subclasses override `changed_outputs` and call `change`.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__()
        self.verbose = verbose
        self._state: Any = None  # LossWeightState, once `fit` has started

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights in force, empty before training."""
        return dict(self._state.current) if self._state is not None else {}

    def changed_outputs(self) -> set[str]:
        """Returns the outputs whose weights this callback may change."""
        return set(self._state.loss_weights)

    def set_model(self, model: keras.Model) -> None:
        """Attaches the weights to the model, before `fit` traces its step."""
        super().set_model(model)
        self._state = attach_state(model)
        names = self.changed_outputs()
        check_names(names, self._state.loss_weights)
        self._state.reported |= names

    def change(self, weights: Weights, when: str) -> None:
        """Puts weights in force from the next step on; `when` appears in messages."""
        weights = checked_weights(weights, f"at {when}")
        check_names(weights, self._state.loss_weights)
        before = self._state.current
        changed = {n: (before[n], w) for n, w in weights.items() if w != before[n]}
        if not changed:
            return
        self.sync_model()
        self._state.assign(weights)
        if self.verbose:
            text = ", ".join(f"{n} {a:g} -> {b:g}" for n, (a, b) in changed.items())
            print(f"\nLoss weights from {when} on: {text}")

    def sync_model(self) -> None:
        """Copies the running epoch's values into the model's variables (JAX only)."""
        _ = self.model  # Keras does it on this access.

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts logging the weights."""
        self._state.report()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Resumes logging, which an evaluation between two steps ends."""
        self._state.report()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Checks that the weights have an effect."""
        if not self._state.compile_loss().built:
            name = self._state.model().name
            raise ValueError(
                f"Loss weights have no effect on model {name!r}: its `train_step` or "
                "`compute_loss` does not use the loss passed to compile()."
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        """Detaches the weights; the model stays compiled with those in force."""
        detach_state(self.model, self._state)


def checked_weights(weights: Any, where: str) -> dict[str, float]:
    """Returns output name -> weight as floats, after checking them."""
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
                f"Invalid loss weight of {name!r} {where}. Expected a finite, "
                f"non-negative number. Received: {weight!r}."
            )
    return {name: float(weight) for name, weight in weights.items()}


def check_names(names: Any, outputs: Mapping[str, Any]) -> None:
    """Checks that every name is an output with a loss."""
    unknown = sorted(set(names) - set(outputs))
    if unknown:
        raise ValueError(
            f"Invalid loss weights. The model has no output with a loss named "
            f"{unknown}. Outputs: {sorted(outputs)}."
        )


Schedule = Mapping[int, Weights] | Callable[[int, dict[str, float]], Weights | None]


class LossWeightScheduler(LossWeightCallback):
    """Changes the loss weights of a compiled model during `fit`.

    Compile the model as usual, with or without floats in `loss_weights`. The model is
    not compiled again, and the optimizer keeps its state. The weights in force are
    logged as `<output>_loss_weight`: in `history`, in the progress line, in
    TensorBoard. `BackupAndRestore` restores them, and they are saved with the model.
    After `fit`, even an interrupted one, they stay in force until the next `compile`.

    It works on functional, `Sequential` and subclassed models. Outputs have the names
    of the dict that the model returns or its losses are given in, otherwise the names
    of the output layers. The outputs of a subclassed model that returns a list are
    `output_0`, `output_1` …, and a single unnamed output is `output`.

    `val_loss` changes with the weights: let callbacks monitor a metric or loss of an
    output. With `steps_per_execution` above 1, weights change between executions.
    Several callbacks that change weights can be used together: if two set the same
    weight at the same time, the later one in the list wins. Place callbacks that save,
    such as `BackupAndRestore`, after them.

    Args:
        schedule: Either a dict, epoch (or step) -> {output: weight}, each entry in
            force from that epoch on; or a callable `(index, weights) -> weights`,
            called at the beginning of every epoch (or step) with the weights in force,
            which returns those to change, or `None`. Epochs and steps count from 0.
            Weights are non-negative floats.
        by: `"epoch"` or `"step"`. Steps are the optimizer's iterations, counted across
            epochs and restarts. Defaults to `"epoch"`.
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
        self.schedule = schedule if callable(schedule) else _checked_schedule(schedule)
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

        The metric is checked after every epoch, and the weights change in the next one.

        Args:
            monitor: Name of a logged metric, such as `"val_gender_accuracy"`.
            above: Threshold; the weights change once the metric is at least this.
            below: Threshold; the weights change once the metric is at most this. Pass
                exactly one of `above` and `below`.
            set: Output name -> new weight.
            start: Output name -> weight before; by default the compiled weights.
            verbose: 1 prints a line at the change. Defaults to 0.

        Raises:
            ValueError: If both or neither threshold are passed.

        Example:
        >>> lower = LossWeightScheduler.when(
        ...     "val_gender_accuracy", above=0.95, set={"gender": 0.5})
        """
        if (above is None) == (below is None):
            raise ValueError(
                "Invalid threshold. Expected exactly one of `above` and `below`. "
                f"Received: above={above}, below={below}."
            )
        scheduler = _ThresholdScheduler({0: start} if start else {}, verbose=verbose)
        scheduler.monitor = monitor
        scheduler.low = -math.inf if above is None else above
        scheduler.high = math.inf if below is None else below
        scheduler.later = checked_weights(set, "in `set`")
        return scheduler

    def set_model(self, model: keras.Model) -> None:
        """Attaches the weights to the model."""
        super().set_model(model)
        self._catch_up = True

    def changed_outputs(self) -> set[str]:
        """Returns the outputs in the schedule, or all for a callable."""
        if callable(self.schedule):
            return super().changed_outputs()
        return {name for weights in self.schedule.values() for name in weights}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the weights of this epoch."""
        super().on_epoch_begin(epoch, logs)
        if self.by == "step":
            self._first_step = int(self.model.optimizer.iterations)
        else:
            self._advance(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sets the weights of this step."""
        super().on_train_batch_begin(batch, logs)
        if self.by == "step":
            self._advance(self._first_step + batch)

    def _advance(self, index: int) -> None:
        """Applies the entries since the last call, or since a restored checkpoint."""
        when = f"{self.by} {index}"
        if callable(self.schedule):
            self.change(self.schedule(index, self.loss_weights) or {}, when)
            return
        previous = self._previous
        if self._catch_up:
            previous = index - 1 if self._state.restored else -1
        due: dict[str, float] = {}
        for position, weights in self.schedule.items():
            if previous < position <= index:
                due.update(weights)
        self._catch_up = False
        self._previous = index
        self.change(due, when)


class _ThresholdScheduler(LossWeightScheduler):
    """What `LossWeightScheduler.when` returns: `later` once low <= metric <= high."""

    monitor: str
    low: float
    high: float
    later: dict[str, float]

    def changed_outputs(self) -> set[str]:
        return super().changed_outputs() | set(self.later)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._fired = self._state.add_value(0.0, "fired")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Changes the weights the first time the metric is good enough."""
        logs = logs or {}
        if float(ops.convert_to_numpy(self._fired.value)) > 0:
            return
        if self.monitor not in logs:
            raise ValueError(
                f"Invalid `monitor`. The metric {self.monitor!r} was not logged in "
                f"epoch {epoch}. Logged: {sorted(logs)}."
            )
        if self.low <= float(logs[self.monitor]) <= self.high:
            self._fired.assign(1.0)
            self.change(self.later, f"epoch {epoch + 1}")


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
                "Invalid `schedule`. Expected non-negative integers as keys. "
                f"Received: {index!r}."
            )
        checked[index] = checked_weights(weights, f"at {index}")
    return dict(sorted(checked.items()))
