"""Loss weights that change while a model trains."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Weights = Mapping[str, float]

LOG_SUFFIX = "_loss_weight"

ATTRIBUTE = "loss_weight_state"


class LossWeightState(keras.metrics.Metric):
    """The loss weights in force, as variables of the model's training state.

    Created and attached to the model by `attach_state`. As a metric it reports
    `<output>_loss_weight` for the outputs that a callback may change, in training but
    not in evaluation.

    Args:
        names: The structure of the compiled losses, with a name at each.
        loss_weights: Output name -> weight at the start.
    """

    def __init__(self, names: Any, loss_weights: Weights) -> None:
        super().__init__(name=ATTRIBUTE)
        self.loss_weights = {
            # aggregation="none": every replica holds the same value, no sum.
            name: keras.Variable(
                weight, dtype="float32", trainable=False, name=f"{name}{LOG_SUFFIX}"
            )
            for name, weight in loss_weights.items()
        }
        # Plain attributes, past the tracker, which would wrap containers.
        # `current` holds what the variables hold, to read between steps: on JAX the
        # running epoch's training state holds their values.
        object.__setattr__(self, "current", dict(loss_weights))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "replaced", {})
        self.values: list[keras.Variable] = []
        self.restored = False
        self.started = False
        self.reported: set[str] = set()
        self.reporting = True

    def add_value(self, value: Any, name: str) -> keras.Variable:
        """Returns a new variable that is saved and restored with the weights."""
        variable = keras.Variable(value, dtype="float32", trainable=False, name=name)
        self.values = [*self.values, variable]
        return variable

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
        # Adding 0 copies the value: JAX donates the variable's buffer to the next step.
        return {
            f"{name}{LOG_SUFFIX}": ops.add(variable, 0.0)
            for name, variable in self.loss_weights.items()
            if name in self.reported
        }

    def load_own_variables(self, store: Any) -> None:
        """Reads the weights from a checkpoint; one without them changes nothing.

        Raises:
            ValueError: If the checkpoint was written with other callbacks.
        """
        variables = self.variables
        if not store.keys():
            return
        if len(store.keys()) != len(variables):
            raise ValueError(
                "Invalid checkpoint. Expected the loss weights of the same callbacks "
                f"in the same order, {len(variables)} values. Received: "
                f"{len(store.keys())} values."
            )
        for index, variable in enumerate(variables):
            variable.assign(store[str(index)])
        for name, variable in self.loss_weights.items():
            # As short a decimal as was written: 0.9, not 0.8999999761581421.
            self.current[name] = float(
                str(np.float32(ops.convert_to_numpy(variable.value)))
            )
        self.restored = True

    def save_own_variables(self, store: Any) -> None:
        """Writes the weights in force and the callbacks' values to a checkpoint."""
        for index, variable in enumerate(self.variables):
            store[str(index)] = ops.convert_to_numpy(variable.value)


def name_losses(losses: Any, output_names: Sequence[str]) -> Any:
    """Returns the structure of `losses` with the output's name at every loss.

    A key of a dict is a name, keys of nested dicts are joined by `/`. Several losses of
    one output share its name. `None` stays: that output has no loss.

    Args:
        losses: The `loss` of `compile`.
        output_names: The model's outputs in order.

    Raises:
        ValueError: If a list of losses does not match the outputs.

    Example:
    >>> name_losses(["mse", None, "mse"], ["a", "b", "c"])
    ['a', None, 'c']
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
            f"Invalid `loss` of the model. Expected one loss for each of the outputs "
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
    """Returns the structure of `names` with each name's weight; 1.0 without a loss.

    Example:
    >>> pack_weights(["a", None], {"a": 2.0})
    [2.0, 1.0]
    """
    if isinstance(names, Mapping):
        return {key: pack_weights(value, weights) for key, value in names.items()}
    if isinstance(names, list):
        return [pack_weights(value, weights) for value in names]
    return 1.0 if names is None else weights[names]


def flatten_weights(names: Any, weights: Any) -> dict[str, float]:
    """Returns name -> weight, 1.0 where `compile` was given none.

    Args:
        names: What `name_losses` returned.
        weights: The `loss_weights` of `compile`: `None`, a number, a list or a dict.

    Raises:
        ValueError: If several losses of one output have different weights.

    Example:
    >>> flatten_weights({"a": "a", "b": "b"}, {"b": 3})
    {'a': 1.0, 'b': 3.0}
    """
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
    for key in keys:
        inner = weights
        if isinstance(names, Mapping) and isinstance(weights, Mapping):
            inner = weights.get(key)
        elif isinstance(weights, (list, tuple)):
            inner = weights[keys.index(key)]
        pairs += _pairs(names[key], inner)
    return pairs


# Methods through which a model is trained, evaluated, saved and loaded.
ENTRY_POINTS = (
    "make_train_function",
    "make_test_function",
    "get_compile_config",
    "save_own_variables",
    "load_own_variables",
)


def attach_state(model: keras.Model) -> LossWeightState:
    """Makes the compiled loss read its weights from variables; twice is once.

    Raises:
        ValueError: If the model is not compiled with a loss.
    """
    compile_loss = _compile_loss_of(model)
    state = getattr(model, ATTRIBUTE, None)
    if state is not None:
        if state.compile_loss is compile_loss and not state.started:
            return state
        detach_state(model, state)  # of an interrupted `fit`, or an earlier `compile`
    names = _named_losses(model, compile_loss)
    with _variable_scope(model):
        weights = flatten_weights(names, compile_loss._user_loss_weights)
        state = LossWeightState(names, weights)
    object.__setattr__(state, "compile_loss", compile_loss)
    _replace_weights(state, state.loss_weights)
    # A built model refuses new tracked state, so both registrations go past its
    # tracker: `_metrics` makes it part of the training state, the attribute of the
    # checkpoints.
    model._metrics.append(state)
    object.__setattr__(model, ATTRIBUTE, state)
    if _is_fitting(model):
        _detach_when_used_outside_fit(model, state)
    _forget_traces(model)
    return state


def detach_state(model: keras.Model, state: LossWeightState) -> None:
    """Puts the weights in force back as floats; twice is once."""
    if getattr(model, ATTRIBUTE, None) is not state:
        return
    _replace_weights(state, state.current)
    model._metrics[:] = [m for m in model._metrics if m is not state]
    object.__delattr__(model, ATTRIBUTE)
    for name, original in state.replaced.items():
        object.__delattr__(model, name)
        if original is not None:
            object.__setattr__(model, name, original)
    _forget_traces(model)


def loss_weights_in_force(model: keras.Model) -> dict[str, float]:
    """Returns output name -> weight that its loss has in the model's next step.

    Raises:
        ValueError: If the model is not compiled with a loss.
    """
    state = getattr(model, ATTRIBUTE, None)
    if state is not None:
        return dict(state.current)
    compile_loss = _compile_loss_of(model)
    names = _named_losses(model, compile_loss)
    return flatten_weights(names, compile_loss._user_loss_weights)


def _detach_when_used_outside_fit(model: keras.Model, state: LossWeightState) -> None:
    """Lets the model's entry points detach a state that an interrupted fit left."""
    thread = threading.get_ident()

    def is_left_over(name: str, caller: str) -> bool:
        if threading.get_ident() != thread:
            return False  # it may write a checkpoint for the thread that trains
        if name == "make_train_function" and caller == "fit":
            # `fit` calls it once, between `set_model` and `on_train_begin`.
            before, state.started = state.started, True
            return before
        return not _is_fitting(model)

    def guarded(name: str) -> Any:
        original = getattr(model, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if is_left_over(name, sys._getframe(1).f_code.co_name):
                detach_state(model, state)
            return original(*args, **kwargs)

        return call

    for name in ENTRY_POINTS:
        state.replaced[name] = vars(model).get(name)
        object.__setattr__(model, name, guarded(name))


def _is_fitting(model: keras.Model) -> bool:
    """Returns whether this is called from within Keras' `fit` of the model."""
    frame: Any = sys._getframe()
    while frame is not None:
        if (
            frame.f_code.co_name == "fit"
            and frame.f_globals.get("__name__", "").startswith("keras.")
            and frame.f_locals.get("self") is model
        ):
            return True
        frame = frame.f_back
    return False


def _forget_traces(model: keras.Model) -> None:
    model.train_function = None
    model.test_function = None


def _compile_loss_of(model: keras.Model) -> Any:
    if not getattr(model, "compiled", False):
        raise ValueError(
            "Changing loss weights needs a compiled model. Call compile()."
        )
    compile_loss = getattr(model, "_compile_loss", None)
    if compile_loss is None or not hasattr(compile_loss, "_user_loss_weights"):
        raise ValueError(
            "Changing loss weights needs a model compiled with `loss=`, and Keras 3.12 "
            f"or later of major version 3. Received: {model.name!r} under Keras "
            f"{keras.__version__}."
        )
    return compile_loss


def _named_losses(model: keras.Model, compile_loss: Any) -> Any:
    """Returns the structure of the compiled losses, with a name at each."""
    losses = compile_loss._user_loss
    names = _output_names(model)
    if not names:  # a subclassed model does not say what it returns
        several = isinstance(losses, (list, tuple)) and len(losses) > 1
        names = [f"output_{i}" for i in range(len(losses))] if several else ["output"]
    if len(names) > 1 and not isinstance(losses, (Mapping, list, tuple)):
        # One loss for all outputs: each gets its own weight.
        losses = [losses] * len(names)
        compile_loss._user_loss = losses
    return name_losses(losses, names)


def _output_names(model: keras.Model) -> list[str]:
    """Returns the names in the order in which Keras flattens the outputs."""
    outputs = getattr(model, "_outputs_struct", None)
    if isinstance(outputs, Mapping):
        # Keras names the losses by these keys; `output_names` are the layers' names.
        return keras.tree.flatten({key: str(key) for key in outputs})
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    return list(getattr(model, "output_names", None) or ())


def _replace_weights(state: LossWeightState, weights: Mapping[str, Any]) -> None:
    compile_loss = state.compile_loss
    compile_loss._user_loss_weights = pack_weights(state.names, weights)
    if compile_loss.built:  # from the weights before, so replace those in use too
        compile_loss._flat_losses = [
            entry._replace(loss_weights=weights[name])
            for entry, name in _named_entries(state)
        ]


def _named_entries(state: LossWeightState) -> list[tuple[Any, str]]:
    """Returns what the built loss computes, each with the name of its weight."""
    entries = state.compile_loss._flat_losses
    flat = [name for name in keras.tree.flatten(state.names) if name is not None]
    if len(flat) == 1:
        flat *= len(entries)  # one loss that Keras applies to all outputs
    pairs = []
    for position, entry in enumerate(entries):
        path = [str(part) for part in entry.path]
        found = [entry.name, *("/".join(path[:n]) for n in range(len(path), 0, -1))]
        known = [name for name in found if name in state.loss_weights]
        pairs.append((entry, known[0] if known else flat[position]))
    return pairs


def check_used(model: keras.Model, state: LossWeightState) -> None:
    """Makes sure, after a train step, that the step computed the compiled loss.

    Raises:
        ValueError: If a custom `train_step` or `compute_loss` goes without it.
    """
    if not state.compile_loss.built:
        raise ValueError(
            f"Loss weights have no effect on model {model.name!r}: its own "
            "`train_step` or `compute_loss` does not use the loss given to compile()."
        )


def loss_log_names(state: LossWeightState) -> dict[str, list[str]]:
    """Returns output name -> keys of its unweighted losses in the logs.

    Raises:
        ValueError: If two outputs would be logged under one key.
    """
    found: dict[str, list[str]] = {name: [] for name in state.loss_weights}
    for entry, name in _named_entries(state):
        found[name].append(f"{entry.name}_loss")
    keys = [key for several in found.values() for key in several]
    if len(keys) != len(set(keys)):
        raise ValueError(
            "Balancing needs outputs that the logs tell apart. Let the model return a "
            f"dict, and compile it with a dict of losses. Received: {sorted(keys)}."
        )
    return found


def loss_totals(state: LossWeightState) -> dict[str, np.ndarray]:
    """Returns output name -> sums and counts of its unweighted losses this epoch.

    Shape (num_losses, 2) each. On JAX, sync the model's state before.
    """
    found: dict[str, list[Any]] = {name: [] for name in state.loss_weights}
    means = state.compile_loss.metrics
    for (_, name), mean in zip(_named_entries(state), means, strict=True):
        # Adding 0 sums over replicas, which keep totals of their own.
        sums = (keras.ops.add(v, 0.0) for v in (mean.total, mean.count))
        found[name].append([float(keras.ops.convert_to_numpy(v)) for v in sums])
    return {name: np.asarray(rows) for name, rows in found.items()}


def set_compile_config(model: keras.Model, state: LossWeightState) -> None:
    """Lets a model saved from here on reload with the weights in force."""
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    if config is not None and config.get("loss") is not None:
        config["loss"] = state.compile_loss._user_loss
        config["loss_weights"] = pack_weights(state.names, state.current)


def _variable_scope(model: keras.Model) -> Any:
    """The scope that makes variables fit the model's distribution strategy."""
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.scope()
    return keras.name_scope("loss_weights")


class LossWeightCallback(keras.callbacks.Callback):
    """Base of the callbacks that change a compiled model's loss weights during `fit`.

    It attaches a `LossWeightState` to the model before `fit` traces its step, and
    leaves an ordinary model behind. Subclasses say which outputs they may change
    (`changed_outputs`) and call `change`.

    Args:
        verbose: 1 prints a line at every change. Defaults to 0.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__()
        self.verbose = verbose
        self._state: Any = None  # LossWeightState, from the beginning of `fit` on

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights in force, empty before training."""
        return dict(self._state.current) if self._state is not None else {}

    def changed_outputs(self) -> set[str]:
        """Returns the outputs whose weights this callback may change."""
        return set(self._state.loss_weights)

    def set_model(self, model: keras.Model) -> None:
        """Attaches the weights to the model; `fit` calls this before it traces."""
        super().set_model(model)
        self._state = attach_state(model)
        names = self.changed_outputs()
        check_names(names, self._state.loss_weights)
        self._state.reported |= names

    def change(self, weights: Weights, when: str) -> None:
        """Puts weights in force from the next step on.

        Args:
            weights: Output name -> weight.
            when: For messages, `"epoch 3"` for instance.
        """
        weights = checked_weights(weights, f"at {when}")
        check_names(weights, self._state.loss_weights)
        before = self._state.current
        changed = {n: (before[n], w) for n, w in weights.items() if w != before[n]}
        if not changed:
            return
        self.sync_model()
        self._state.assign(weights)
        set_compile_config(self._model, self._state)
        if self.verbose:
            text = ", ".join(f"{n} {a:g} -> {b:g}" for n, (a, b) in changed.items())
            print(f"\nLoss weights from {when} on: {text}")

    def sync_model(self) -> None:
        """Puts the running epoch's values into the model's variables (JAX only)."""
        _ = self.model  # Keras does it on this access.

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Marks the state as one that a later `fit` must not take over."""
        self._state.started = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Makes sure that the weights have an effect."""
        check_used(self._model, self._state)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Keeps the weights out of the evaluation's logs."""
        self._state.reporting = False

    def on_test_end(self, logs: dict | None = None) -> None:
        """Lets the weights into the training's logs again."""
        self._state.reporting = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves an ordinary model, compiled with the weights now in force."""
        detach_state(self.model, self._state)


def checked_weights(weights: Any, where: str) -> dict[str, float]:
    """Returns output name -> weight as floats, if they are finite and not negative."""
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


def check_names(names: Any, outputs: Mapping[str, Any]) -> None:
    """Makes sure that every name is an output with a loss."""
    unknown = sorted(set(names) - set(outputs))
    if unknown:
        raise ValueError(
            f"Invalid loss weights. The model has no trained output named {unknown}. "
            f"Outputs: {sorted(outputs)}."
        )


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
