"""Training: a recipe and a prepared dataset become a run directory."""

from __future__ import annotations

from typing import Any

import keras

from keras_agegender.callbacks.loss_weight_balancer import LossWeightBalancer
from keras_agegender.callbacks.loss_weight_scheduler import LossWeightScheduler
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.output_names import check_output_names
from keras_agegender.labels import CELEBA_ATTRIBUTES
from keras_agegender.models.builder import build_model
from keras_agegender.models.freezing import freeze_all_but_last
from keras_agegender.recipes.recipe import Recipe, TrainingSettings
from keras_agegender.training.weight_decay import add_coupled_weight_decay


def build_compiled_model(
    recipe: Recipe,
    encoding: Encoding,
    steps_per_epoch: int = 1,
    dtype_policy: str | None = None,
) -> keras.Model:
    """Returns the recipe's model, compiled with its optimizer, losses and metrics.

    Weights and augmentation are drawn from Keras' global seed:
    `keras.utils.set_random_seed` makes them the same again.

    Args:
        recipe: What to build.
        encoding: Its outputs, extra heads included.
        steps_per_epoch: Steps of an epoch, for a learning rate that decays.
        dtype_policy: Keras' name of one, `"mixed_bfloat16"` for instance; `None` is
            what the recipe says.
    """
    policy = "mixed_float16" if recipe.training.mixed_precision else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy or policy)
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
    model.compile(
        optimizer=_optimizer(recipe, steps_per_epoch),
        jit_compile="auto" if (jit := recipe.training.jit_compile) is None else jit,
        **{
            **encoding.compile_arguments(),
            "loss_weights": _loss_weights(recipe, encoding),
        },
    )
    return model


def _loss_weights(recipe: Recipe, encoding: Encoding) -> dict[str, float]:
    weights = encoding.loss_weights
    if not recipe.training.normalize_loss:
        return weights
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def loss_weight_schedulers(recipe: Recipe) -> list[LossWeightScheduler]:
    """Returns one scheduler per `[[loss_weight_changes]]` of a recipe."""
    schedulers = []
    for change in recipe.loss_weight_changes:
        if change.monitor is not None:
            made = LossWeightScheduler.when(
                change.monitor, above=change.above, below=change.below, set=change.set
            )
        elif change.epoch is not None:
            made = LossWeightScheduler({change.epoch: change.set})
        else:
            step = change.step or 0
            made = LossWeightScheduler({step: change.set}, by="step")
        schedulers.append(made)
    return schedulers


def loss_weight_balancers(
    recipe: Recipe, encoding: Encoding
) -> list[LossWeightBalancer]:
    """Returns the balancer of a recipe's `[loss_weight_balancing]`, if it has one.

    Raises:
        ValueError: If a setting is invalid, names an unknown output, or one that
            `[[loss_weight_changes]]` sets too.
    """
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
            f"Invalid recipe {recipe.name!r}. Expected loss_weight_changes or "
            f"loss_weight_balancing of an output, not both. Received: {both}."
        )
    balancer = LossWeightBalancer(
        settings.method,
        outputs=names,
        temperature=settings.temperature,
        by=settings.by,
        momentum=settings.momentum,
        base_weights={name: encoding.loss_weights[name] for name in names},
    )
    return [balancer]


def _optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    settings = recipe.training
    rate: Any = settings.learning_rate
    if settings.cosine_decay:
        rate = keras.optimizers.schedules.CosineDecay(
            rate, decay_steps=max(1, settings.epochs * steps_per_epoch)
        )
    if settings.learning_rate_changes:
        rate = _stepwise(settings)
    try:
        optimizer = keras.optimizers.get(settings.optimizer)
    except ValueError as error:
        raise ValueError(
            "Invalid `training.optimizer`. Expected the name of a Keras optimizer, "
            f"'adam' for instance. Received: {settings.optimizer!r}."
        ) from error
    decay = settings.weight_decay or None
    if isinstance(optimizer, keras.optimizers.AdamW):
        return type(optimizer)(learning_rate=rate, weight_decay=decay)
    optimizer = type(optimizer)(learning_rate=rate, weight_decay=None)
    return add_coupled_weight_decay(optimizer, decay) if decay else optimizer


def _stepwise(settings: TrainingSettings) -> Any:
    """Returns the learning rate that changes at given optimizer steps."""
    changes = {int(k): v for k, v in settings.learning_rate_changes.items()}
    steps = sorted(changes)
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        # A boundary belongs to the rate before it there, to the one behind it here.
        [step - 1 for step in steps],
        [settings.learning_rate, *(changes[step] for step in steps)],
    )
