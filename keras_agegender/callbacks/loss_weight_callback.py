"""What callbacks that change loss weights have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_agegender.callbacks.loss_weight_attachment import (
    attach_state,
    check_used,
    detach_state,
    set_compile_config,
)
from keras_agegender.callbacks.loss_weight_state import Weights


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
