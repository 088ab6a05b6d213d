"""Trains an experiment."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_agegender.callbacks.checkpoints import BestModelCheckpoint, RunBackup
from keras_agegender.callbacks.decoded_metrics import AgeLossLogger, DecodedAccuracy
from keras_agegender.callbacks.epoch_logger import EpochLogger
from keras_agegender.datasets.distillation import distill
from keras_agegender.datasets.pipeline import (
    make_eval_dataset,
    make_train_dataset,
    read_labels,
)
from keras_agegender.datasets.prepared import PreparedDataset, naming_damage
from keras_agegender.distribution import (
    abort_all_on_error,
    model_scope,
    no_distribution,
    num_shards,
    process_count,
    process_index,
    wait_for_all,
)
from keras_agegender.encodings.encoding import Encoding, balanced_class_weights
from keras_agegender.encodings.head import Head
from keras_agegender.evaluation.evaluate import evaluate
from keras_agegender.evaluation.plots import decoded_history, plot_history
from keras_agegender.files import now
from keras_agegender.labels import MISSING
from keras_agegender.recipes.loading import (
    check_pretraining_data,
    load_recipe,
    override_recipe,
)
from keras_agegender.recipes.schema import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.compile import (
    build_compiled_model,
    loss_weight_balancers,
    loss_weight_schedulers,
)
from keras_agegender.training.experiment import (
    Experiment,
    differences,
    load_pretrained,
    make_experiment,
    transfer,
)
from keras_agegender.training.resume import (
    check_place,
    finish_run,
    open_run,
    run_folder,
    truncate_history,
)


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
    checkpoint_monitor = settings.checkpoint_monitor
    if checkpoint_monitor == "val_mean_accuracy" and not _knows_faces(labels, encoding):
        checkpoint_monitor = "val_loss"  # outputs of the user's own alone
    callbacks: list[keras.callbacks.Callback] = [
        DecodedAccuracy(validation, labels, encoding),
        *loss_weight_schedulers(recipe),
        *loss_weight_balancers(recipe, encoding),
    ]
    ages = _age_loss_weights(encoding)
    if ages:
        callbacks.append(AgeLossLogger(ages))
    monitors = {"best": checkpoint_monitor, **settings.extra_checkpoints}
    if process_index() > 0:
        monitors = {}  # the first process writes
    for name, monitor in monitors.items():
        callbacks.append(
            BestModelCheckpoint(
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


def train(
    recipe: Recipe | str | Path,
    data: PreparedDataset | str | Path | None,
    run_directory: str | Path,
    *,
    overrides: Sequence[str] = (),
    pretraining_data: PreparedDataset | str | Path | None = None,
    pretrained: Experiment | str | Path | None = None,
    extra_heads: Sequence[Head] | str = "auto",
    splits: Mapping[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> RunDirectory:
    """Trains a recipe on a prepared dataset; evaluates the best epoch on test data.

    On TensorFlow with several GPUs it trains on all of them (MirroredStrategy), on JAX
    on all devices, of several machines too: see `keras_agegender.distribution`.

    Args:
        recipe: A recipe, its name, or the path of a TOML file.
        data: A prepared dataset or its directory.
        run_directory: Folder for everything the run leaves behind. One with an
            unfinished run of the same experiment is resumed: the same recipe, content
            of the data, splits, seed and beginning, wherever the data lies.
            One that stopped before an epoch was trained is begun anew by any.
        overrides: Settings that replace the recipe's, `"training.epochs=3"` for
            instance. Those of the network, the batches and the optimizer reach the
            recipe that it begins with; `"pretraining.training.epochs=3"` is for that
            one alone. See `load_recipe`.
        pretraining_data: Prepared dataset, or its directory, for a recipe that begins
            with another one: that one is trained first, in `pretraining/` of the run's
            folder, unless it is finished. A recipe whose own role is `"pretrain"` is
            trained on it instead of `data`.
        pretrained: A finished run, a `.keras` file, or an experiment that is trained
            first, in `pretraining/` of the run's folder, to begin with instead.
        extra_heads: Outputs for further columns of the dataset; `"auto"` (default)
            makes one for each column that the preparation declared.
        splits: `train`, `validation` and `test` as TensorFlow Datasets split
            expressions; `None` takes those the dataset declares.
        seed: Seed of weights, order and augmentation. Defaults to 0.
        overwrite: Whether a finished run in that folder may be replaced.
        callbacks: Keras callbacks of your own, `keras.callbacks.TensorBoard` for
            instance, called after those of the recipe and before the backup; not for
            what the recipe begins with. They are no part of the run's identity, so give
            them again when it is resumed. Defaults to none.
        verbose: `"auto"` (default) prints a line per epoch; 0 nothing; 1 and 2 are
            Keras' own progress, with every output's figures.

    Returns:
        The finished run.

    Raises:
        ValueError: If recipe, dataset, splits or heads contradict each other, a face,
            person or picture is in two splits, or the folder holds another run.

    Example:
    >>> run = train("resnet_se_ordinal", "data/adience", "runs/1")  # doctest: +SKIP
    """
    with abort_all_on_error():
        if isinstance(recipe, Recipe):
            recipe = override_recipe(recipe, overrides)
        else:
            recipe = load_recipe(recipe, overrides)
        check_pretraining_data(recipe, pretraining_data)
        experiment = make_experiment(
            recipe,
            data,
            pretraining_data=pretraining_data,
            pretrained=pretrained,
            extra_heads=extra_heads,
            splits=splits,
            seed=seed,
        )
        return train_experiment(
            experiment,
            run_directory,
            overwrite=overwrite,
            callbacks=callbacks,
            verbose=verbose,
        )


def train_experiment(
    experiment: Experiment,
    run_directory: str | Path,
    *,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> RunDirectory:
    """Trains what `make_experiment` made; see `train`.

    Args:
        experiment: What to train.
        run_directory: Folder for everything the run leaves behind.
        overwrite: Whether a finished run in that folder may be replaced.
        callbacks: As in `train`.
        verbose: As in `train`.

    Returns:
        The finished run.
    """
    writes = process_index() == 0
    run = RunDirectory(Path(run_directory))
    with contextlib.ExitStack() as stack:
        if writes:
            stack.enter_context(run_folder(run))
            open_run(run, experiment, overwrite)
        wait_for_all("run directory")
        weights = experiment.weights or _pretrain(experiment, run, verbose)
        with model_scope():
            _fit(experiment, run, weights, callbacks, verbose)
        if writes:
            _evaluate(experiment, run)
            finish_run(run)
            shutil.rmtree(run.backup, ignore_errors=True)
        wait_for_all("end of the run")
    return run


def train_unless_finished(
    experiment: Experiment, run_directory: str | Path, verbose: int | str = "auto"
) -> RunDirectory:
    """Returns the finished run of an experiment, trained first where it is not there.

    Raises:
        ValueError: If a run of another experiment lies there.
    """
    run = RunDirectory(Path(run_directory))
    check_place(run, experiment)
    if run.info().get("status") == "finished":
        # A process that was killed at its very end leaves it.
        shutil.rmtree(run.backup, ignore_errors=True)
        return run
    return train_experiment(experiment, run.path, verbose=verbose)


def _evaluate(experiment: Experiment, run: RunDirectory) -> None:
    if "test" not in experiment.data.splits:
        return
    for checkpoint in ("best", *experiment.recipe.training.extra_checkpoints):
        evaluate(run, experiment.data.prepared, checkpoint=checkpoint)


def _fit(
    experiment: Experiment,
    run: RunDirectory,
    pretrained: Path | None,
    own_callbacks: Sequence[keras.callbacks.Callback],
    verbose: int | str,
) -> None:
    """Trains from the beginning or from where an earlier process was stopped."""
    recipe, encoding, seed = experiment.recipe, experiment.encoding, experiment.seed
    data, steps = experiment.data, experiment.steps_per_epoch
    writes = process_index() == 0
    if writes:
        run.update_info(
            status="running",
            started=run.info().get("started", now()),
            encoding=encoding.to_dict(),
            outputs=list(encoding.output_names),
        )
    keras.utils.set_random_seed(seed)
    labels = read_labels(
        data.prepared, data.splits["validation"], columns=encoding.columns
    )
    if experiment.left_out and verbose and writes:
        names = ", ".join(experiment.left_out)
        print(f"No training face has a label for {names}: left out")
    model = build_compiled_model(recipe, encoding, steps)
    run.check_space(_needed_bytes(model, recipe))
    validation = validation_dataset(experiment)
    callbacks = make_callbacks(experiment, run, validation, labels)
    callbacks += own_callbacks
    backup = RunBackup(run.backup, callbacks, writes)
    if backup.first_epoch == 0 and pretrained is not None:
        report = transfer(model, pretrained, run)
        if verbose and writes:
            print(f"Weights from {pretrained}: {report.summary}")
            if license := run.terms().get("license"):
                print(f"License: {license}")
    if writes:
        truncate_history(run.history_file, backup.first_epoch)
    wait_for_all("backup read")
    if num_shards() > 1:
        validation = validation_dataset(experiment, process_shard())
    if verbose == "auto" and writes:
        callbacks.append(EpochLogger())
    if not backup.stopped and backup.first_epoch < recipe.training.epochs:
        epochs = range(backup.first_epoch, recipe.training.epochs)
        with naming_damage(data.prepared):
            model.fit(
                train_dataset(experiment, epochs),
                steps_per_epoch=steps,
                validation_data=validation,
                epochs=epochs.stop,
                initial_epoch=epochs.start,
                shuffle=False,  # the dataset does
                callbacks=[*callbacks, backup],
                verbose=0 if verbose == "auto" else verbose,
            )
    else:
        backup.restore(model)  # killed behind the last epoch
    if writes:
        with no_distribution():
            model.save(run.last_model)
        plot_history(
            decoded_history(run.history_file, encoding),
            run.path / "curves.png",
            outputs=encoding.output_names,
            kept_epoch=run.kept_epoch,
        )


def _pretrain(
    experiment: Experiment, run: RunDirectory, verbose: int | str
) -> Path | None:
    """Trains what an experiment begins with, unless that is done."""
    first = experiment.initialized_from
    if not isinstance(first, Experiment):
        return None
    path = run.path / "pretraining"
    info = RunDirectory(path).info()
    if info.get("status") == "finished":
        if info.get("identity") != first.identity:
            found = differences(info.get("experiment", {}), first.to_dict())
            raise ValueError(
                f"{path} holds another pretraining: {'; '.join(found)}. Choose another "
                "directory, or overwrite it (--overwrite)."
            )
        return path
    if verbose and process_index() == 0:
        print(f"Pretraining: {first.recipe.title}")
    train_experiment(first, path, verbose=verbose)
    return path


def _needed_bytes(model: keras.Model, recipe: Recipe) -> int:
    """Estimates what a run writes: models and two backups, each with Adam's moments."""
    files = 2 + len(recipe.training.extra_checkpoints) + 2
    return 3 * 4 * model.count_params() * files + 20_000_000


TENSORBOARD_FOLDER = "tensorboard"


def tensorboard_callback(run_directory: str | Path) -> keras.callbacks.Callback:
    """Returns a callback that writes a run's curves for TensorBoard.

    Look at several runs with `tensorboard --logdir runs`.

    Args:
        run_directory: Folder of the run; the events go to `tensorboard/` in it.

    Raises:
        ValueError: If TensorBoard is not installed.

    Example:
    >>> board = tensorboard_callback("runs/14")  # doctest: +SKIP
    >>> train("14", "data/adience", "runs/14", callbacks=[board])  # doctest: +SKIP
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "TensorBoard is not installed: pip install 'keras-agegender[tensorboard]'."
        )
    folder = Path(run_directory) / TENSORBOARD_FOLDER
    return keras.callbacks.TensorBoard(folder, write_graph=False)
