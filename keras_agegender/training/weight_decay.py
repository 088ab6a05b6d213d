"""Weight decay in the gradient, which Keras' optimizers do not have."""

from __future__ import annotations

from typing import Any, TypeVar

import keras
from keras import ops

# Attribute of an optimizer that has the decay.
MARK = "coupled_weight_decay"

OptimizerT = TypeVar("OptimizerT", bound=keras.optimizers.Optimizer)


def add_coupled_weight_decay(optimizer: OptimizerT, weight_decay: float) -> OptimizerT:
    """Lets an optimizer add `weight_decay * weight` to every gradient that it applies.

    That is the gradient of an L2 penalty of 0.5 * weight_decay * sum(weight²), which
    stands neither in the loss nor in the validation loss. Kernels, biases and the
    scales of normalizations decay, as with PyTorch's `Adam(weight_decay=…)`; frozen
    weights do not. Gradients are clipped before it is added.

    Keras' own `weight_decay` is decoupled from the gradient: a step takes
    learning_rate * weight_decay of the weight. At 1e-4 × 1e-4 float32 rounds that away.

    A file saved with the model holds the plain optimizer, so that it loads without this
    package. Call this again when you go on training a loaded model.

    Args:
        optimizer: An optimizer without decay of its own; it is changed. Of a
            `LossScaleOptimizer` take the inner one.
        weight_decay: The factor, not negative. The report has 1e-4.

    Returns:
        The same optimizer.

    Raises:
        ValueError: If the factor is negative, or the optimizer has a decay already or
            no update step of its own.

    Example:
        >>> optimizer = keras.optimizers.SGD(learning_rate=0.5)
        >>> weight = keras.Variable([2.0])
        >>> add_coupled_weight_decay(optimizer, 0.1).apply([ops.zeros(1)], [weight])
        >>> round(float(weight[0]), 4)  # 2 - 0.5 * 0.1 * 2
        1.9
    """
    if not weight_decay >= 0:
        raise ValueError(
            "Invalid `weight_decay`. Expected a number that is not negative. "
            f"Received: weight_decay={weight_decay}."
        )
    if optimizer.weight_decay or getattr(optimizer, MARK, None) is not None:
        raise ValueError(
            "Invalid `optimizer`. Expected one without weight decay. Received: "
            f"{optimizer.name!r}, which has it."
        )
    base = keras.optimizers.Optimizer
    if type(optimizer).update_step is base.update_step:
        raise ValueError(
            "Invalid `optimizer`. Expected one that updates weights itself, not a "
            f"wrapper of others. Received: {optimizer.name!r}."
        )
    update_step = optimizer.update_step

    def decayed_update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        decay = ops.multiply(variable, ops.cast(weight_decay, variable.dtype))
        gradient = ops.add(ops.cast(gradient, variable.dtype), decay)
        update_step(gradient, variable, learning_rate)

    optimizer.update_step = decayed_update_step
    setattr(optimizer, MARK, float(weight_decay))
    return optimizer
