"""Training: a recipe and a prepared dataset become a run directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_agegender.callbacks.best_model import BestModel
from keras_agegender.callbacks.decoded_accuracy import DecodedAccuracy
from keras_agegender.callbacks.total_age_loss import TotalAgeLoss
from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.distribution import num_shards, process_count, process_index
from keras_agegender.encodings.class_weights import balanced_class_weights
from keras_agegender.encodings.decoding import NUM_GROUPS, ORDINAL_HEAD_NAMES
from keras_agegender.encodings.encoding import Encoding, check_head_names
from keras_agegender.input_pipeline.eval_dataset import make_eval_dataset
from keras_agegender.input_pipeline.labels import read_labels
from keras_agegender.input_pipeline.train_dataset import make_train_dataset
from keras_agegender.labels import MISSING
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.compiling import loss_weight_schedulers


def train_dataset(
    recipe: Recipe,
    prepared: PreparedDataset,
    encoding: Encoding,
    splits: Mapping[str, str],
    seed: int,
    epochs: range,
) -> Any:
    """Returns the training batches of a recipe."""
    return make_train_dataset(
        prepared,
        _weigh_classes(recipe, prepared, encoding, splits["train"]),
        split=splits["train"],
        seed=seed,
        shuffle_buffer=recipe.data.shuffle_buffer,
        balanced=recipe.data.balanced_sampling,
        augment=recipe.data_augmentation(),
        epochs=epochs,
        shard=process_shard(),
        **_pipeline_arguments(recipe),
    )


def validation_dataset(
    recipe: Recipe,
    prepared: PreparedDataset,
    encoding: Encoding,
    splits: Mapping[str, str],
    shard: tuple[int, int] | None = None,
) -> Any:
    """Returns the validation batches of a recipe."""
    arguments = _pipeline_arguments(recipe)
    return make_eval_dataset(
        prepared, encoding, split=splits["validation"], shard=shard, **arguments
    )


def _pipeline_arguments(recipe: Recipe) -> dict[str, Any]:
    return {
        "pipeline": recipe.data.pipeline,
        "image_size": recipe.model.image_size,
        "batch_size": recipe.data.batch_size,
        "cache": recipe.data.cache,
    }


def _weigh_classes(
    recipe: Recipe, prepared: PreparedDataset, encoding: Encoding, split: str
) -> Encoding:
    """Returns the encoding with class weights, for training data alone."""
    wish = recipe.training.class_weights
    if not wish:
        return encoding
    if wish != "balanced":
        raise ValueError(
            "Invalid `training.class_weights`. Expected 'balanced' or an empty text. "
            f"Received: {wish!r}."
        )
    ages = read_labels(prepared, split)["age_group"]
    return encoding.with_class_weights(
        age_group=balanced_class_weights(ages, NUM_GROUPS)
    )


def make_callbacks(
    recipe: Recipe,
    run: RunDirectory,
    encoding: Encoding,
    validation: Any,
    labels: Mapping[str, Any],
) -> list[keras.callbacks.Callback]:
    """Returns what a recipe asks for, in the order in which `fit` calls them."""
    for change in recipe.loss_weight_changes:
        check_head_names(change.set, encoding.output_names, "loss_weight_changes")
    settings = recipe.training
    keep_monitor = settings.keep_monitor
    if keep_monitor == "val_mean_accuracy" and not _knows_faces(labels, encoding):
        keep_monitor = "val_loss"  # outputs of the user's own alone
    callbacks: list[keras.callbacks.Callback] = [
        DecodedAccuracy(validation, labels, encoding),
        *loss_weight_schedulers(recipe),
    ]
    ages = {n: w for n, w in encoding.loss_weights.items() if n in ORDINAL_HEAD_NAMES}
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
                save_best_only=True,
            )
        )
    if process_index() == 0:
        append = run.history_file.is_file()
        callbacks.append(keras.callbacks.CSVLogger(run.history_file, append=append))
    if settings.patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=settings.stop_monitor,
                mode="min" if settings.stop_monitor.endswith("loss") else "max",
                patience=settings.patience,
            )
        )
    return callbacks


def _logged_name(monitor: str, encoding: Encoding) -> str:
    """Returns what Keras calls a head's loss: of a single head just `val_loss`."""
    if len(encoding.heads) == 1 and monitor == f"val_{encoding.heads[0].name}_loss":
        return "val_loss"
    return monitor


def _knows_faces(labels: Mapping[str, Any], encoding: Encoding) -> bool:
    """Returns whether validation faces have an age group or gender to score."""
    return bool(
        (encoding.age_decoder and (labels["age_group"] != MISSING).any())
        or (encoding.gender_decoder and (labels["gender"] != MISSING).any())
    )


def process_shard() -> tuple[int, int] | None:
    """Returns this process' share of every batch; `None` on a single device."""
    return (process_index(), process_count()) if num_shards() > 1 else None
