"""Fitting: the batches and callbacks of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_agegender.callbacks.best_model import BestModel
from keras_agegender.callbacks.decoded_accuracy import DecodedAccuracy
from keras_agegender.callbacks.total_age_loss import TotalAgeLoss
from keras_agegender.distribution import num_shards, process_count, process_index
from keras_agegender.encodings.class_weights import balanced_class_weights
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.input_pipeline.distillation import distill
from keras_agegender.input_pipeline.eval_dataset import make_eval_dataset
from keras_agegender.input_pipeline.labels import read_labels
from keras_agegender.input_pipeline.train_dataset import make_train_dataset
from keras_agegender.labels import MISSING
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.compiling import (
    loss_weight_balancers,
    loss_weight_schedulers,
)
from keras_agegender.training.experiment import Experiment
from keras_agegender.training.pretrained import load_pretrained


def train_dataset(experiment: Experiment, epochs: range) -> Any:
    """Returns the training batches of an experiment."""
    recipe, data = experiment.recipe, experiment.data
    batches = make_train_dataset(
        data.prepared,
        weigh_classes(experiment),
        split=data.splits["train"],
        seed=experiment.seed,
        shuffle_buffer=recipe.data.shuffle_buffer,
        balanced=recipe.data.balanced_sampling,
        augment=recipe.data_augmentation(),
        epochs=epochs,
        shard=process_shard(),
        **_pipeline_arguments(recipe),
    )
    if recipe.distillation is None:
        return batches
    return distill(
        batches,
        load_pretrained(recipe.distillation.teacher),
        experiment.encoding,
        weight=recipe.distillation.weight,
        outputs=recipe.distillation.outputs,
    )


def validation_dataset(
    experiment: Experiment, shard: tuple[int, int] | None = None
) -> Any:
    """Returns the validation batches of an experiment."""
    return make_eval_dataset(
        experiment.data.prepared,
        experiment.encoding,
        split=experiment.data.splits["validation"],
        shard=shard,
        **_pipeline_arguments(experiment.recipe),
    )


def _pipeline_arguments(recipe: Recipe) -> dict[str, Any]:
    return {
        "pipeline": recipe.data.pipeline,
        "image_size": recipe.model.image_size,
        "batch_size": recipe.data.batch_size,
        "cache": recipe.data.cache,
    }


def weigh_classes(experiment: Experiment) -> Encoding:
    """Returns the encoding with class weights, for training data alone."""
    if experiment.recipe.training.class_weights is None:
        return experiment.encoding
    data = experiment.data
    ages = read_labels(data.prepared, data.splits["train"])["age_group"]
    return experiment.encoding.with_class_weights(
        age_group=balanced_class_weights(ages, len(experiment.encoding.age_groups))
    )


def make_callbacks(
    experiment: Experiment,
    run: RunDirectory,
    validation: Any,
    labels: Mapping[str, Any],
) -> list[keras.callbacks.Callback]:
    """Returns what a recipe asks for, in the order in which `fit` calls them."""
    recipe, encoding = experiment.recipe, experiment.encoding
    settings = recipe.training
    keep_monitor = settings.keep_monitor
    if keep_monitor == "val_mean_accuracy" and not _knows_faces(labels, encoding):
        keep_monitor = "val_loss"  # outputs of the user's own alone
    callbacks: list[keras.callbacks.Callback] = [
        DecodedAccuracy(validation, labels, encoding),
        *loss_weight_schedulers(recipe),
        *loss_weight_balancers(recipe, encoding),
    ]
    ages = _age_loss_weights(encoding)
    if ages:
        callbacks.append(TotalAgeLoss(ages))
    kept = {"best": keep_monitor, **settings.keep}
    if process_index() > 0:
        kept = {}  # the first process writes
    for name, monitor in kept.items():
        callbacks.append(
            BestModel(
                run.model_file(name),
                monitor=_logged_name(monitor, encoding),
                mode="min" if monitor.endswith("loss") else "max",
            )
        )
    if process_index() == 0:
        append = run.history_file.is_file()
        callbacks.append(keras.callbacks.CSVLogger(run.history_file, append=append))
    if settings.patience is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=settings.stop_monitor,
                mode="min" if settings.stop_monitor.endswith("loss") else "max",
                patience=settings.patience,
            )
        )
    return callbacks


def _age_loss_weights(encoding: Encoding) -> dict[str, float]:
    """Returns the loss weights of an ordinal age head's outputs; else none."""
    age = encoding.age_head
    if age is None or len(age.output_names) == 1:
        return {}
    return {name: encoding.loss_weights[name] for name in age.output_names}


def _logged_name(monitor: str, encoding: Encoding) -> str:
    """Returns what Keras calls a head's loss: of a single head just `val_loss`."""
    if encoding.output_names == (monitor[4:-5],) and monitor.endswith("_loss"):
        return "val_loss"
    return monitor


def _knows_faces(labels: Mapping[str, Any], encoding: Encoding) -> bool:
    """Returns whether validation faces have an age group or gender to score."""
    age, gender = labels["age_group"] != MISSING, labels["gender"] != MISSING
    return bool(
        (encoding.age_head is not None and age.any())
        or (encoding.gender_head is not None and gender.any())
    )


def process_shard() -> tuple[int, int] | None:
    """Returns this process' share of every batch; `None` on a single device."""
    return (process_index(), process_count()) if num_shards() > 1 else None
