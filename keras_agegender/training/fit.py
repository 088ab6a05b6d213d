"""Fits one experiment: its data, model and callbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_agegender import distribution, files
from keras_agegender.callbacks import checkpoints, decoded_metrics, epoch_logger
from keras_agegender.datasets import distillation, pipeline, prepared
from keras_agegender.encodings.encoding import Encoding, balanced_class_weights
from keras_agegender.evaluation import plots
from keras_agegender.labels import MISSING
from keras_agegender.models import weights as model_weights
from keras_agegender.recipes.schema import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training import compile, resume
from keras_agegender.training.experiment import Experiment, model_file


def fit(
    experiment: Experiment,
    run: RunDirectory,
    initial_weights: Path | None,
    own_callbacks: Sequence[keras.callbacks.Callback],
    verbose: int | str,
) -> None:
    """Fits the model of an experiment and saves `last.keras` and curves."""
    recipe, encoding, data = experiment.recipe, experiment.encoding, experiment.data
    steps, writes = experiment.steps_per_epoch, distribution.process_index() == 0
    if writes:
        run.update_info(
            status="running",
            started=run.info().get("started", files.now()),
            encoding=encoding.to_dict(),
            outputs=list(encoding.output_names),
        )
        if experiment.dropped_outputs and verbose:
            names = ", ".join(experiment.dropped_outputs)
            print(f"No training face has a label for {names}: outputs dropped")

    keras.utils.set_random_seed(experiment.seed)
    labels = pipeline.read_labels(
        data.prepared, data.splits["validation"], columns=encoding.columns
    )
    model = compile.build_compiled_model(recipe, encoding, steps)
    # Models and two backups, each with Adam's moments.
    num_files = 4 + len(recipe.training.extra_checkpoints)
    run.check_space(3 * 4 * model.count_params() * num_files + 20_000_000)

    validation = validation_dataset(experiment)
    callbacks = [*make_callbacks(experiment, run, validation, labels), *own_callbacks]
    if recipe.training.ema_momentum is not None:
        average = checkpoints.AveragedWeights()
        callbacks = [average, *callbacks, average.restore_at_epoch_end()]
    backup = checkpoints.RunBackup(run.backup, callbacks, writes)
    first_epoch, num_epochs = backup.first_epoch, recipe.training.epochs
    if first_epoch == 0 and initial_weights is not None:
        report = transfer(model, initial_weights, run)
        if verbose and writes:
            print(f"Weights from {initial_weights}: {report.summary}")
            if license := run.terms().get("license"):
                print(f"License: {license}")
    if writes:
        resume.truncate_history(run.history_file, first_epoch)
    distribution.wait_for_all("backup read")
    if verbose == "auto" and writes:
        callbacks.append(epoch_logger.EpochLogger())

    if recipe.training.initial_checkpoint:
        _initial_checkpoint(model, callbacks, validation, run, first_epoch, verbose)

    if backup.stopped or first_epoch >= num_epochs:
        backup.restore(model)  # killed after the last epoch
        model.optimizer.finalize_variable_values(model.trainable_variables)
    else:
        if (shard := _process_shard()) is not None:
            validation = validation_dataset(experiment, shard)
        with prepared.naming_damage(data.prepared):
            model.fit(
                train_dataset(experiment, range(first_epoch, num_epochs)),
                steps_per_epoch=steps,
                validation_data=validation,
                epochs=num_epochs,
                initial_epoch=first_epoch,
                shuffle=False,  # the dataset does
                callbacks=[*callbacks, backup],
                verbose=0 if verbose == "auto" else verbose,
            )
    if writes:
        with (
            distribution.no_distribution(),
            files.atomic_write(run.last_model) as partial,
        ):
            model.save(partial)
        plots.plot_history(
            plots.decoded_history(run.history_file, encoding),
            run.path / "curves.png",
            outputs=encoding.output_names,
            # Not the initial weights, which have no epoch.
            best_epoch=None if run.best_epoch == -1 else run.best_epoch,
        )


def _initial_checkpoint(
    model: keras.Model,
    callbacks: Sequence[keras.callbacks.Callback],
    validation: Any,
    run: RunDirectory,
    first_epoch: int,
    verbose: int | str,
) -> None:
    """Saves the initial weights as the first checkpoint, which epochs must beat."""
    if first_epoch == 0:
        found = model.evaluate(validation, verbose=0, return_dict=True)
        logs = {f"val_{name}": float(value) for name, value in found.items()}
        for callback in callbacks:
            if isinstance(
                callback,
                decoded_metrics.DecodedAccuracy
                | decoded_metrics.AgeLossLogger
                | checkpoints.BestModelCheckpoint,
            ):
                callback.set_model(model)
                callback.on_epoch_end(-1, logs)
        if distribution.process_index() == 0:
            run.update_info(initial={k: float(v) for k, v in logs.items()})
            if verbose:
                print(f"Initial weights: val_loss {logs['val_loss']:.3f}")
    else:
        logs = run.info().get("initial", {})
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping):
            callback.baseline = logs.get(callback.monitor)


# -- batches ---------------------------------------------------------------------------


def train_dataset(experiment: Experiment, epochs: range) -> Any:
    """Returns the training batches of an experiment."""
    recipe, data, encoding = experiment.recipe, experiment.data, experiment.encoding
    if recipe.training.class_weights is not None:
        ages = pipeline.read_labels(data.prepared, data.splits["train"])["age_group"]
        encoding = encoding.with_class_weights(
            age_group=balanced_class_weights(ages, len(encoding.age_groups))
        )
    batches = pipeline.make_train_dataset(
        data.prepared,
        encoding,
        split=data.splits["train"],
        seed=experiment.seed,
        shuffle_buffer=recipe.data.shuffle_buffer,
        balanced=recipe.data.balanced_sampling,
        augment=recipe.data_augmentation(),
        mixup=recipe.training.mixup,
        epochs=epochs,
        shard=_process_shard(),
        **_pipeline_arguments(recipe),
    )
    if recipe.distillation is None:
        return batches
    return distillation.distill(
        batches,
        [load_pretrained(teacher) for teacher in recipe.distillation.teachers],
        experiment.encoding,
        weight=recipe.distillation.weight,
        outputs=recipe.distillation.outputs,
        flip=recipe.distillation.flip,
    )


def validation_dataset(
    experiment: Experiment, shard: tuple[int, int] | None = None
) -> Any:
    """Returns the validation batches of an experiment."""
    return pipeline.make_eval_dataset(
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
        "in_memory": recipe.data.in_memory,
    }


def _process_shard() -> tuple[int, int] | None:
    """Returns this process' share of every batch; `None` on a single device."""
    return (
        (distribution.process_index(), distribution.process_count())
        if distribution.num_shards() > 1
        else None
    )


# -- initial weights -------------------------------------------------------------------


def transfer(
    model: keras.Model, path: Path, run: RunDirectory
) -> model_weights.WeightTransfer:
    """Copies matching weights and the license from a run or file, and records both."""
    report = model_weights.transfer_weights(load_pretrained(path), model)
    files.write_text(run.path / "transfer.txt", f"from {path}\n{report}\n")
    license = RunDirectory(path).terms().get("license") if path.is_dir() else None
    if license and not run.terms_file.exists():
        files.write_json(run.terms_file, {"license": license})
    return report


def load_pretrained(path: str | Path) -> keras.Model:
    """Returns the model of a `.keras` file, or the best one of a run."""
    return model_weights.load_model(model_file(path), compile=False)


# -- callbacks -------------------------------------------------------------------------


def make_callbacks(
    experiment: Experiment,
    run: RunDirectory,
    validation: Any,
    labels: Mapping[str, Any],
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of a recipe, in the order in which `fit` calls them."""
    recipe, encoding = experiment.recipe, experiment.encoding
    settings = recipe.training
    callbacks: list[keras.callbacks.Callback] = [
        decoded_metrics.DecodedAccuracy(validation, labels, encoding),
        *compile.loss_weight_schedulers(recipe),
        *compile.loss_weight_balancers(recipe, encoding),
    ]
    age = encoding.age_head
    if age is not None and len(age.output_names) > 1:
        weights = {name: encoding.loss_weights[name] for name in age.output_names}
        callbacks.append(decoded_metrics.AgeLossLogger(weights))
    if distribution.process_index() == 0:  # the process that writes
        best = settings.checkpoint_monitor
        if best == "val_mean_accuracy" and not _has_labels(labels, encoding):
            best = "val_loss"  # extra heads only
        for name, monitor in {"best": best, **settings.extra_checkpoints}.items():
            mode = "min" if monitor.endswith("loss") else "max"
            # Keras calls the loss of a single output just `val_loss`.
            only_output = encoding.output_names == (monitor[4:-5],)
            logged = "val_loss" if only_output and mode == "min" else monitor
            callbacks.append(
                checkpoints.BestModelCheckpoint(run.model_file(name), logged, mode)
            )
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


def _has_labels(labels: Mapping[str, Any], encoding: Encoding) -> bool:
    """Returns whether validation faces have an age group or gender to score."""
    age, gender = labels["age_group"] != MISSING, labels["gender"] != MISSING
    return bool(
        (encoding.age_head is not None and age.any())
        or (encoding.gender_head is not None and gender.any())
    )
