"""The loss weights in force, as a metric of the model."""

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
