"""Compiles the model of a recipe."""

from __future__ import annotations

from typing import Any, TypeVar

import keras
from keras import ops

from keras_agegender import callbacks
from keras_agegender.encodings.encoding import Encoding, check_output_names
from keras_agegender.errors import did_you_mean
from keras_agegender.labels import CELEBA_ATTRIBUTES
from keras_agegender.models.builder import build_model, freeze_all_but_last
from keras_agegender.recipes.schema import Recipe

# Attribute of an optimizer that has the decay.
MARK = "coupled_weight_decay"

OptimizerT = TypeVar("OptimizerT", bound=keras.optimizers.Optimizer)


def add_coupled_weight_decay(optimizer: OptimizerT, weight_decay: float) -> OptimizerT:
    """Lets an optimizer add `weight_decay * weight` to every gradient that it applies.

    That is the gradient of an L2 penalty of 0.5 * weight_decay * sum(weight²), which is
    not part of the logged losses. Kernels, biases and the scales of normalizations
    decay, as with PyTorch's `Adam(weight_decay=…)`; frozen weights do not. Gradients
    are clipped before it is added.

    Keras' own `weight_decay` is decoupled from the gradient: a step subtracts
    learning_rate * weight_decay of the weight. At 1e-4 × 1e-4 float32 rounds that away.

    A saved model contains the plain optimizer, so that it loads without this package.
    Call this again before you continue to train a loaded model.

    Args:
        optimizer: An optimizer without weight decay, which is changed; the inner one
            of a `LossScaleOptimizer`.
        weight_decay: The factor, non-negative. The report uses 1e-4.

    Returns:
        The same optimizer.

    Raises:
        ValueError: If the factor is negative, or if the optimizer already has weight
            decay or wraps another optimizer.

    Example:
        >>> optimizer = keras.optimizers.SGD(learning_rate=0.5)
        >>> weight = keras.Variable([2.0])
        >>> add_coupled_weight_decay(optimizer, 0.1).apply([ops.zeros(1)], [weight])
        >>> round(float(weight[0]), 4)  # 2 - 0.5 * 0.1 * 2
        1.9
    """
    if not weight_decay >= 0:
        raise ValueError(
            "Invalid `weight_decay`. Expected a non-negative number. "
            f"Received: weight_decay={weight_decay}."
        )
    if optimizer.weight_decay or getattr(optimizer, MARK, None) is not None:
        raise ValueError(
            "Invalid `optimizer`. Expected an optimizer without weight decay. "
            f"Received: {optimizer.name!r}, which already has weight decay."
        )
    if type(optimizer).update_step is keras.optimizers.Optimizer.update_step:
        raise ValueError(
            "Invalid `optimizer`. Expected an optimizer that does not wrap another. "
            f"Received: {optimizer.name!r}."
        )
    update_step = optimizer.update_step

    def decayed_update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        decay = ops.multiply(variable, ops.cast(weight_decay, variable.dtype))
        gradient = ops.add(ops.cast(gradient, variable.dtype), decay)
        update_step(gradient, variable, learning_rate)

    optimizer.update_step = decayed_update_step
    setattr(optimizer, MARK, float(weight_decay))
    return optimizer


def build_compiled_model(
    recipe: Recipe, encoding: Encoding, steps_per_epoch: int = 1
) -> keras.Model:
    """Returns the recipe's model, compiled; Keras' global seed determines weights."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.training.dtype_policy)
    try:
        model = build_model(
            recipe.model.backbone,
            encoding=encoding,
            image_size=recipe.model.image_size,
            augment=recipe.model_augmentation(),
            dropout_rate=recipe.model.dropout_rate,
            width=recipe.model.width,
            input_scaling=recipe.model.input_scaling,
            backbone_weights=recipe.model.backbone_weights,
            attribute_features=recipe.model.attribute_features,
        )
    finally:
        keras.config.set_dtype_policy(before)
    if recipe.model.trainable_layers is not None:
        layers = recipe.model.trainable_layers
        outputs = set(encoding.output_names)
        if recipe.model.attribute_features:
            # As in the report, the 40 attributes are one layer, the last before them.
            layers = max(layers - 1, 0)
            outputs |= {*CELEBA_ATTRIBUTES, "attributes"}
        freeze_all_but_last(model, layers, outputs)
    frozen = recipe.model.frozen_outputs
    check_output_names(frozen, encoding.output_names, "model.frozen_outputs")
    for head in encoding.heads:
        for layer in model.layers if set(head.output_names) & set(frozen) else ():
            if head.has_layer(layer.name):
                layer.trainable = False
    arguments = encoding.compile_arguments()
    if recipe.training.normalize_loss:
        weights = arguments["loss_weights"]
        total = sum(weights.values())
        arguments["loss_weights"] = {name: w / total for name, w in weights.items()}
    model.compile(
        optimizer=make_optimizer(recipe, steps_per_epoch),
        jit_compile="auto" if (jit := recipe.training.jit_compile) is None else jit,
        **arguments,
    )
    return model


def loss_weight_schedulers(recipe: Recipe) -> list[callbacks.LossWeightScheduler]:
    """Returns one scheduler per `[[loss_weight_changes]]` of a recipe."""
    scheduler, schedulers = callbacks.LossWeightScheduler, []
    for change in recipe.loss_weight_changes:
        if change.monitor is not None:
            limits: Any = {"above": change.above, "below": change.below}
            schedulers.append(scheduler.when(change.monitor, **limits, set=change.set))
        elif change.epoch is not None:
            schedulers.append(scheduler({change.epoch: change.set}))
        else:
            schedulers.append(scheduler({change.step or 0: change.set}, by="step"))
    return schedulers


def loss_weight_balancers(
    recipe: Recipe, encoding: Encoding
) -> list[callbacks.LossWeightBalancer]:
    """Returns the balancer of a recipe's `[loss_weight_balancing]`, if it has one."""
    settings = recipe.loss_weight_balancing
    if settings is None:
        return []
    names = settings.outputs or encoding.output_names
    check_output_names(
        dict.fromkeys(names), encoding.output_names, "loss_weight_balancing"
    )
    changed = {name for change in recipe.loss_weight_changes for name in change.set}
    if both := sorted(changed & set(names)):
        raise ValueError(
            f"Invalid recipe {recipe.name!r}. An output can have either "
            "loss_weight_changes or loss_weight_balancing. Outputs with both: "
            f"{', '.join(both)}."
        )
    balancer = callbacks.LossWeightBalancer(
        settings.method,
        outputs=names,
        temperature=settings.temperature,
        by=settings.by,
        momentum=settings.momentum,
        base_weights={name: encoding.loss_weights[name] for name in names},
    )
    return [balancer]


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Returns a recipe's optimizer, with its learning rate, decay and averaging."""
    settings = recipe.training
    rate: Any = settings.learning_rate
    if settings.cosine_decay:
        rate = keras.optimizers.schedules.CosineDecay(
            rate, decay_steps=max(1, settings.epochs * steps_per_epoch)
        )
    if settings.learning_rate_changes:
        changes = {int(k): v for k, v in settings.learning_rate_changes.items()}
        steps = sorted(changes)
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            # In Keras a boundary still has the rate before it, here the one after it.
            [step - 1 for step in steps],
            [settings.learning_rate, *(changes[step] for step in steps)],
        )
    optimizer = get_optimizer(settings.optimizer)
    decay = settings.weight_decay or None
    average: dict[str, Any] = {}
    if settings.ema_momentum is not None:
        average = {"use_ema": True, "ema_momentum": settings.ema_momentum}
    if isinstance(optimizer, keras.optimizers.AdamW):
        return type(optimizer)(learning_rate=rate, weight_decay=decay, **average)
    optimizer = type(optimizer)(learning_rate=rate, weight_decay=None, **average)
    return add_coupled_weight_decay(optimizer, decay) if decay else optimizer


def get_optimizer(name: str) -> keras.optimizers.Optimizer:
    """Returns the Keras optimizer that a recipe names."""
    try:
        return keras.optimizers.get(name)
    except ValueError:
        classes = [n for n, v in vars(keras.optimizers).items() if isinstance(v, type)]
        hint = did_you_mean(name.lower(), [known.lower() for known in classes])
        raise ValueError(
            "Invalid `training.optimizer`. Expected the name of a Keras optimizer, "
            f"such as 'adam'. Received: {name!r}.{hint}"
        ) from None
