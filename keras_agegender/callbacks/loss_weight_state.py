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

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

Weights = Mapping[str, float]


LOG_SUFFIX = "_loss_weight"


ATTRIBUTE = "loss_weight_state"


class LossWeightState(keras.metrics.Metric):
    """The loss weights in force, as variables of the model's training state.

    Created and attached to the model by `LossWeightScheduler`. As a metric it reports
    `<output>_loss_weight` for the outputs that a scheduler may change, in training but
    not in evaluation.

    Args:
        loss_weights: Output name -> weight at the start.
    """

    def __init__(self, loss_weights: Weights) -> None:
        super().__init__(name=ATTRIBUTE)
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


def attach_state(model: keras.Model) -> LossWeightState:
    """Makes the compiled loss read its weights from variables; twice is once."""
    compile_loss = _compile_loss_of(model)
    state = getattr(model, ATTRIBUTE, None)
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
    object.__setattr__(model, ATTRIBUTE, state)
    _forget_traces(model)
    return state


def detach_state(model: keras.Model, state: LossWeightState) -> None:
    """Puts floats back in the variables' place."""
    _replace_weights(_compile_loss_of(model), state.current)
    model._metrics[:] = [m for m in model._metrics if m is not state]
    object.__delattr__(model, ATTRIBUTE)
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


def set_compile_config(model: keras.Model, weights: dict[str, float]) -> None:
    """Lets a model saved from here on reload with the weights in force."""
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    if config is not None and isinstance(config.get("loss"), Mapping):
        config["loss_weights"] = dict(weights)


def _variable_scope(model: keras.Model) -> Any:
    """The scope that makes variables fit the model's distribution strategy."""
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.scope()
    return keras.name_scope("loss_weights")
