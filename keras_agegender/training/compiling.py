"""Training: a recipe and a prepared dataset become a run directory."""

from __future__ import annotations

from typing import Any

import keras

from keras_agegender.callbacks.loss_weight_scheduler import LossWeightScheduler
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.labels import CELEBA_ATTRIBUTES
from keras_agegender.models.builder import build_model
from keras_agegender.models.freezing import freeze_all_but_last
from keras_agegender.recipes.recipe import Recipe, TrainingSettings


def build_compiled_model(
    recipe: Recipe,
    encoding: Encoding,
    steps_per_epoch: int = 1,
    seed: int | None = None,
) -> keras.Model:
    """Returns the recipe's model, compiled with its optimizer, losses and metrics.

    Args:
        recipe: What to build.
        encoding: Its outputs, extra heads included.
        steps_per_epoch: Steps of an epoch, for a learning rate that decays.
        seed: Seed of the augmentation layers.
    """
    policy = "mixed_float16" if recipe.training.mixed_precision else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_model(
            recipe.model.name,
            encoding=encoding,
            image_size=recipe.model.image_size,
            augment=recipe.model_augmentation(),
            dropout_rate=recipe.model.dropout_rate,
            attribute_features=recipe.model.attribute_features,
        )
    finally:
        keras.config.set_dtype_policy(before)
    if recipe.model.trainable_layers >= 0:
        layers = recipe.model.trainable_layers
        outputs = set(encoding.output_names)
        if recipe.model.attribute_features:
            # As in the report, the 40 attributes are one layer, the last before them.
            layers = max(layers - 1, 0)
            outputs |= {*CELEBA_ATTRIBUTES, "attributes"}
        freeze_all_but_last(model, layers, outputs)
    model.compile(
        optimizer=_optimizer(recipe, steps_per_epoch),
        jit_compile=recipe.training.jit_compile or "auto",
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
    if recipe.loss_weight_changes:
        raise ValueError(
            f"Invalid recipe {recipe.name!r}. Expected normalize_loss or "
            "loss_weight_changes, not both: what a change divides by is not said."
        )
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def loss_weight_schedulers(recipe: Recipe) -> list[LossWeightScheduler]:
    """Returns one scheduler per `[[loss_weight_changes]]` of a recipe.

    Raises:
        ValueError: If a change does not say when, or says it twice.
    """
    schedulers = []
    for change in recipe.loss_weight_changes:
        given = [change.epoch >= 0, change.step >= 0, bool(change.monitor)]
        if sum(given) != 1:
            raise ValueError(
                f"Invalid loss_weight_changes of recipe {recipe.name!r}. Expected "
                f"exactly one of epoch, step and monitor. Received: {change}."
            )
        if change.monitor:
            made = LossWeightScheduler.when(
                change.monitor, above=change.above, below=change.below, set=change.set
            )
        elif change.epoch >= 0:
            made = LossWeightScheduler({change.epoch: change.set})
        else:
            made = LossWeightScheduler({change.step: change.set}, by="step")
        schedulers.append(made)
    return schedulers


def _optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    settings = recipe.training
    rate: Any = settings.learning_rate
    if settings.cosine_decay:
        rate = keras.optimizers.schedules.CosineDecay(
            rate, decay_steps=max(1, settings.epochs * steps_per_epoch)
        )
    if settings.learning_rate_changes:
        rate = _stepwise(settings)
    config = {"learning_rate": rate, "weight_decay": settings.weight_decay or None}
    try:
        optimizer = keras.optimizers.get(settings.optimizer)
    except ValueError as error:
        raise ValueError(
            "Invalid `training.optimizer`. Expected the name of a Keras optimizer, "
            f"'adam' for instance. Received: {settings.optimizer!r}."
        ) from error
    return type(optimizer)(**config)


def _stepwise(settings: TrainingSettings) -> Any:
    """Returns the learning rate that changes at given optimizer steps."""
    try:
        changes = {int(k): v for k, v in settings.learning_rate_changes.items()}
    except ValueError as error:
        raise ValueError(
            "Invalid `training.learning_rate_changes`. Expected optimizer steps as "
            f"keys. Received: {settings.learning_rate_changes}."
        ) from error
    if settings.cosine_decay:
        raise ValueError(
            "Invalid `training`. Expected learning_rate_changes or cosine_decay, not "
            "both."
        )
    steps = sorted(changes)
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        # A boundary belongs to the rate before it there, to the one behind it here.
        [step - 1 for step in steps],
        [settings.learning_rate, *(changes[step] for step in steps)],
    )
