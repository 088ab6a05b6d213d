"""Checks of a recipe's values: what can be known to be wrong before any work begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain

from keras_agegender.encodings.catalogue import ENCODINGS
from keras_agegender.files import FILE_NAME_RULE, is_file_name
from keras_agegender.models.applications import APPLICATIONS, CUT, PREFIX
from keras_agegender.models.input_scaling import INPUT_SCALINGS
from keras_agegender.models.network_names import NETWORK_NAMES
from keras_agegender.recipes.recipe import LossWeightBalancing, Recipe
from keras_agegender.suggestion import did_you_mean

# By the names that `keras.optimizers.get` knows; a recipe loads without Keras.
OPTIMIZERS = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
    "lion",
    "muon",
    "nadam",
    "rmsprop",
    "schedulefreeadamw",
    "sgd",
)

APPLICATION_NAMES = [PREFIX + name for names in APPLICATIONS.values() for name in names]

# What a name that does not exist may have been meant to be.
CHOICES: dict[str, Iterable[str]] = {
    "model.backbone": (*NETWORK_NAMES, *APPLICATION_NAMES),
    "model.encoding": ENCODINGS,
    "model.input_scaling": INPUT_SCALINGS,
    "training.optimizer": OPTIMIZERS,
}

Finding = tuple[str, str, object]  # key, what is expected, what there is


def check_recipe(recipe: Recipe, source: str) -> None:
    """Raises ValueError for the first value out of range, with its key.

    Args:
        recipe: A recipe.
        source: What to call it in the message.
    """
    found = chain(
        _name(recipe), _model(recipe), _data(recipe), _training(recipe),
        _weights(recipe), _balancing(recipe), _distillation(recipe), _published(recipe),
    )  # fmt: skip
    for key, expected, received in found:
        hint = did_you_mean(received, CHOICES.get(key, ()))
        raise ValueError(
            f"Recipe {source} has an invalid value of {key!r}. Expected {expected}. "
            f"Received: {received!r}.{hint}"
        )


def _name(recipe: Recipe) -> Iterator[Finding]:
    if recipe.name and not is_file_name(
        recipe.name
    ):  # `reproduce` makes a folder of it
        yield "name", FILE_NAME_RULE, recipe.name


def _model(recipe: Recipe) -> Iterator[Finding]:
    model = recipe.model
    if min(model.image_size) < 1:
        yield "model.image_size", "positive numbers of pixels", list(model.image_size)
    is_application = model.backbone.startswith(PREFIX)
    known = APPLICATION_NAMES if is_application else NETWORK_NAMES
    name = model.backbone.partition(CUT)[0] if is_application else model.backbone
    if name not in known and (is_application or ":" not in name):
        yield (
            "model.backbone",
            f"one of {list(NETWORK_NAMES)}, a network of Keras as '{PREFIX}ResNet50', "
            "or 'module:function'",
            model.backbone,
        )
    if model.input_scaling not in (None, *INPUT_SCALINGS):
        yield (
            "model.input_scaling",
            f"one of {list(INPUT_SCALINGS)}, or no such key for the backbone's own",
            model.input_scaling,
        )
    if model.encoding not in ENCODINGS:
        yield "model.encoding", f"one of {list(ENCODINGS)}", model.encoding
    if model.question is not None and model.encoding != "ordinal":
        yield (
            "model.question",
            f"no such key for the encoding {model.encoding!r}; just the ordinal one "
            "asks",
            model.question,
        )
    if not 0 < model.width < math.inf:
        yield "model.width", "a number above 0", model.width
    if not 0 <= model.dropout_rate < 1:
        yield "model.dropout_rate", "a number in [0, 1)", model.dropout_rate
    if model.trainable_layers is not None and model.trainable_layers < 0:
        yield (
            "model.trainable_layers",
            "a number of layers, or no such key to train all",
            model.trainable_layers,
        )


def _data(recipe: Recipe) -> Iterator[Finding]:
    for key in ("batch_size", "shuffle_buffer"):
        if getattr(recipe.data, key) < 1:
            yield f"data.{key}", "a positive number", getattr(recipe.data, key)
    if recipe.data.validation_split == "":
        yield "data.validation_split", "a split, or no such key", ""


def _training(recipe: Recipe) -> Iterator[Finding]:
    training = recipe.training
    if training.epochs < 1:
        yield "training.epochs", "at least 1", training.epochs
    if training.optimizer.lower() not in OPTIMIZERS:
        yield (
            "training.optimizer",
            f"the name of a Keras optimizer, one of {list(OPTIMIZERS)}",
            training.optimizer,
        )
    if not 0 < training.learning_rate < math.inf:
        yield (
            "training.learning_rate",
            "a positive, finite number",
            training.learning_rate,
        )
    if not 0 <= training.weight_decay < math.inf:
        yield (
            "training.weight_decay",
            "a finite number that is not negative",
            training.weight_decay,
        )
    if training.patience is not None and training.patience < 1:
        yield (
            "training.patience",
            "at least 1, or no such key to train all epochs",
            training.patience,
        )
    for step, rate in training.learning_rate_changes.items():
        if not step.isdecimal() or int(step) < 1:
            yield "training.learning_rate_changes", "optimizer steps from 1 on", step
        if not 0 < rate < math.inf:
            yield (
                f"training.learning_rate_changes.{step}",
                "a positive, finite number",
                rate,
            )
    if training.learning_rate_changes and training.cosine_decay:
        yield (
            "training.cosine_decay",
            "learning_rate_changes or cosine_decay, not both",
            True,
        )
    for key in ("stop_monitor", "keep_monitor"):
        if not getattr(training, key):
            yield f"training.{key}", "the name of a logged metric", ""
    for name, monitor in training.keep.items():
        if name in ("best", "last"):
            yield "training.keep", "other names than best and last", name
        if not name.replace("_", "").isalnum() or not is_file_name(name):
            yield "training.keep", "names of at most 100 letters, digits and '_'", name
        if not monitor:
            yield f"training.keep.{name}", "the name of a logged metric", ""


def _weights(recipe: Recipe) -> Iterator[Finding]:
    for name, weight in recipe.loss_weights.items():
        if not 0 <= weight < math.inf:
            yield (
                f"loss_weights.{name}",
                "a finite number that is not negative",
                weight,
            )
    if recipe.training.normalize_loss and recipe.loss_weight_changes:
        yield (
            "training.normalize_loss",
            "normalize_loss or loss_weight_changes, not both: what a change would be "
            "divided by is not said",
            True,
        )
    if recipe.training.normalize_loss and recipe.loss_weight_balancing is not None:
        yield (
            "training.normalize_loss",
            "normalize_loss or loss_weight_balancing, not both: balanced weights "
            "have a scale already",
            True,
        )
    for number, change in enumerate(recipe.loss_weight_changes):
        key = f"loss_weight_changes[{number}]"
        given = (change.epoch, change.step, change.monitor)
        if sum(value is not None for value in given) != 1:
            yield key, "exactly one of epoch, step and monitor", change
        if min(change.epoch or 0, change.step or 0) < 0:
            yield key, "an epoch or step from 0 on", change
        limits = [v for v in (change.above, change.below) if v is not None]
        if len(limits) != (change.monitor is not None):
            yield key, "one of above and below with a monitor, none without", change
        if not change.set or not all(0 <= w < math.inf for w in change.set.values()):
            yield f"{key}.set", "output names and weights, not negative", change.set


def _balancing(recipe: Recipe) -> Iterator[Finding]:
    balancing = recipe.loss_weight_balancing or LossWeightBalancing()
    outputs, by_uncertainty = balancing.outputs, balancing.method == "uncertainty"
    if outputs is not None and not 2 <= len(outputs) == len(set(outputs)):
        yield (
            "loss_weight_balancing.outputs",
            "two or more different names, or no such key for all outputs",
            list(outputs),
        )
    if balancing.temperature is not None and not 0 < balancing.temperature < math.inf:
        yield (
            "loss_weight_balancing.temperature",
            "a positive, finite number",
            balancing.temperature,
        )
    if balancing.by == "step" and not by_uncertainty:
        yield (
            "loss_weight_balancing.by",
            "'epoch', or 'step' with method 'uncertainty'",
            balancing.by,
        )
    momentum = balancing.momentum
    if momentum is not None and not (by_uncertainty and 0 <= momentum < 1):
        yield (
            "loss_weight_balancing.momentum",
            "a number in [0, 1), with method 'uncertainty'",
            momentum,
        )


def _distillation(recipe: Recipe) -> Iterator[Finding]:
    distillation = recipe.distillation
    if distillation is None:
        return
    if not distillation.teacher:
        yield "distillation.teacher", "a run or a .keras file", distillation.teacher
    if not 0 < distillation.weight <= 1:
        yield "distillation.weight", "a number in (0, 1]", distillation.weight


def _published(recipe: Recipe) -> Iterator[Finding]:
    for number, row in enumerate(recipe.published):
        for name, value in vars(row).items():
            if isinstance(value, float) and not 0 <= value <= 1:
                yield f"published[{number}].{name}", "a share in [0, 1]", value
