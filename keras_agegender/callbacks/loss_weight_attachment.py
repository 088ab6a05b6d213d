"""Loss weights that a compiled train step reads from variables, for one `fit`.

In: an ordinarily compiled Keras model. Out: the same model, each step of its `fit` with
the loss weights that callbacks assign, and those weights in the logs.

Keras 3 reads `compile(loss_weights=…)` once, when the train step is traced (keras issue
20294). Putting a `keras.Variable` there works on TensorFlow, but not on JAX: a variable
that is not part of the train step's state is compiled into it as a constant. What *is*
part of that state, on every backend and under every strategy, are the variables of the
model's metrics. So the weights in force live in a metric, `LossWeightState`: the step
reads them, the logs show them, `save_weights` keeps them.

Keras calls no callback when `fit` is interrupted (Ctrl-C). So the next use of the model
outside of `fit` detaches what was left attached.

All use of Keras' internals by the loss weight callbacks is in this file.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_agegender.callbacks.loss_weight_names import (
    flatten_weights,
    name_losses,
    pack_weights,
)
from keras_agegender.callbacks.loss_weight_state import ATTRIBUTE, LossWeightState

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
