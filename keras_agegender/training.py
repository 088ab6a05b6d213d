"""Training: a recipe and a prepared dataset become a run directory.

In: a `Recipe`, the directory of a prepared dataset, a seed. Out: a `RunDirectory` with
the resolved recipe, checkpoints, history, scores and pictures. The same command again
resumes a run that was interrupted.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_agegender.callbacks import DecodedAccuracy, EpochLines
from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.encodings import Encoding, Head, check_head_names
from keras_agegender.evaluation.evaluator import evaluate
from keras_agegender.evaluation.plots import plot_history
from keras_agegender.input_pipeline import (
    make_eval_dataset,
    make_train_dataset,
    read_labels,
)
from keras_agegender.labels import MISSING
from keras_agegender.loss_weights import LossWeightScheduler
from keras_agegender.models.builder import build_model
from keras_agegender.recipes.recipe import Recipe, load_recipe
from keras_agegender.run_directory import (
    RunDirectory,
    directory_hash,
    now,
    recipe_encoding,
    versions,
)


def train(
    recipe: Recipe | str | Path,
    data: PreparedDataset | str | Path,
    run_directory: str | Path,
    *,
    overrides: Sequence[str] = (),
    extra_heads: Sequence[Head] | str = "auto",
    splits: Mapping[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    verbose: int | str = "auto",
) -> RunDirectory:
    """Trains a recipe on a prepared dataset; evaluates the best epoch on test data.

    On TensorFlow with several GPUs it trains on all of them (MirroredStrategy).

    Args:
        recipe: A recipe, its name, or the path of a TOML file.
        data: A prepared dataset or its directory.
        run_directory: Folder for everything the run leaves behind. One with an
            unfinished run of the same recipe, data and seed is resumed.
        overrides: Settings that replace the recipe's, `"training.epochs=3"` for
            instance; for a name or a path only.
        extra_heads: Outputs for further columns of the dataset; `"auto"` (default)
            makes one for each column that the preparation declared.
        splits: `train`, `validation` and `test` as TensorFlow Datasets split
            expressions; `None` takes those the dataset declares.
        seed: Seed of weights, order and augmentation. Defaults to 0.
        overwrite: Whether a finished run in that folder may be replaced.
        verbose: `"auto"` (default) prints a line per epoch; 0 nothing; 1 and 2 are
            Keras' own progress, with every output's figures.

    Returns:
        The finished run.

    Raises:
        ValueError: If recipe, dataset, splits or heads contradict each other, or the
            folder holds another run.

    Example:
    >>> run = train("resnet_se_ordinal", "data/adience", "runs/1")  # doctest: +SKIP
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    prepared = data if isinstance(data, PreparedDataset) else load_prepared(data)
    heads = _resolve_heads(prepared, recipe, extra_heads)
    encoding = recipe_encoding(recipe, heads)
    splits = {**prepared.splits, **(splits or {})}
    run = _open_run(Path(run_directory), recipe, prepared, splits, seed, overwrite)
    run.update_info(
        status="running",
        started=run.info().get("started", now()),
        extra_heads=[_head_dict(head) for head in heads],
        outputs=list(encoding.output_names),
    )
    keras.utils.set_random_seed(seed)
    datasets = _make_datasets(recipe, prepared, encoding, splits, seed)
    labels = read_labels(prepared, splits["validation"])
    with strategy_scope():
        model = build_compiled_model(recipe, encoding, len(datasets["train"]), seed)
    callbacks = _callbacks(recipe, run, encoding, datasets["validation"], labels)
    if verbose == "auto":
        callbacks.append(EpochLines())
    model.fit(
        datasets["train"],
        validation_data=datasets["validation"],
        epochs=recipe.training.epochs,
        shuffle=False,  # the dataset does
        callbacks=callbacks,
        verbose=0 if verbose == "auto" else verbose,
    )
    model.save(run.last_model)
    plot_history(read_history(run.history_file), run.path / "curves.png")
    if "test" in splits:
        evaluate(run, prepared, split=splits["test"])
    run.update_info(status="finished", finished=now())
    shutil.rmtree(run.backup, ignore_errors=True)
    return run


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
            augment=recipe.model.augment,
            dropout_rate=recipe.model.dropout_rate,
        )
    finally:
        keras.config.set_dtype_policy(before)
    model.compile(
        optimizer=_optimizer(recipe, steps_per_epoch),
        jit_compile=recipe.training.jit_compile or "auto",
        **encoding.compile_arguments(),
    )
    return model


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


def strategy_scope() -> Any:
    """Returns the scope to build a model in: mirrored over several GPUs, else none."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if len(tf.config.list_logical_devices("GPU")) > 1:
            return tf.distribute.MirroredStrategy().scope()
        return tf.distribute.get_strategy().scope()
    return contextlib.nullcontext()


def read_history(file: Path) -> dict[str, list[float]]:
    """Reads history.csv: name -> one value per epoch."""
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {
        name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())
    }


def _resolve_heads(
    prepared: PreparedDataset, recipe: Recipe, extra_heads: Sequence[Head] | str
) -> tuple[Head, ...]:
    if not isinstance(extra_heads, str):
        return tuple(extra_heads)
    if recipe.model.encoding in ("attributes", "gender"):
        return ()
    return prepared.extra_heads()


def _head_dict(head: Head) -> dict[str, Any]:
    return {
        "name": head.name,
        "kind": head.kind,
        "num_classes": head.num_classes,
        "loss_weight": head.loss_weight,
        "column": head.column or head.name,
    }


def _open_run(
    path: Path,
    recipe: Recipe,
    prepared: PreparedDataset,
    splits: Mapping[str, str],
    seed: int,
    overwrite: bool,
) -> RunDirectory:
    """Makes the folder, or resumes the unfinished run of the same kind in it."""
    for name in ("train", "validation"):
        if name not in splits:
            raise ValueError(
                f"There is no {name} split in {prepared.builder.data_dir}. Splits: "
                f"{dict(splits)}. Say which with `splits` (--split {name}=…)."
            )
    run = RunDirectory(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"Invalid run directory. {path} is a file.")
    if path.is_dir() and any(path.iterdir()) and not run.info():
        raise ValueError(
            f"Invalid run directory. {path} is not empty and holds no run."
        )
    identity = {
        "seed": seed,
        "data": str(prepared.builder.data_dir),
        "data_sha256": directory_hash(Path(prepared.builder.data_dir)),
        "splits": dict(splits),
    }
    info = run.info()
    if info and overwrite:
        shutil.rmtree(path)
    elif info.get("status") == "finished":
        raise ValueError(
            f"The run in {path} is finished. Choose another directory, or overwrite it."
        )
    elif info:
        same = all(info.get(key) == value for key, value in identity.items())
        if not same or run.recipe_file.read_text("utf-8") != recipe.to_toml():
            raise ValueError(
                f"{path} holds an unfinished run of another recipe, seed or dataset. "
                "Choose another directory, or overwrite it."
            )
        return run
    path.mkdir(parents=True, exist_ok=True)
    run.recipe_file.write_text(recipe.to_toml(), "utf-8")
    run.update_info(
        status="new", **identity, versions=versions(), backend=keras.backend.backend()
    )
    return run


def _make_datasets(
    recipe: Recipe,
    prepared: PreparedDataset,
    encoding: Encoding,
    splits: Mapping[str, str],
    seed: int,
) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "pipeline": recipe.data.pipeline,
        "image_size": recipe.model.image_size,
        "batch_size": recipe.data.batch_size,
        "cache": recipe.data.cache,
    }
    return {
        "train": make_train_dataset(
            prepared,
            encoding,
            split=splits["train"],
            seed=seed,
            shuffle_buffer=recipe.data.shuffle_buffer,
            **shared,
        ),
        "validation": make_eval_dataset(
            prepared, encoding, split=splits["validation"], **shared
        ),
    }


def _optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    settings = recipe.training
    rate: Any = settings.learning_rate
    if settings.cosine_decay:
        rate = keras.optimizers.schedules.CosineDecay(
            rate, decay_steps=max(1, settings.epochs * steps_per_epoch)
        )
    config = {"learning_rate": rate, "weight_decay": settings.weight_decay or None}
    try:
        optimizer = keras.optimizers.get(settings.optimizer)
    except ValueError as error:
        raise ValueError(
            "Invalid `training.optimizer`. Expected the name of a Keras optimizer, "
            f"'adam' for instance. Received: {settings.optimizer!r}."
        ) from error
    return type(optimizer)(**config)


def _callbacks(
    recipe: Recipe,
    run: RunDirectory,
    encoding: Encoding,
    validation: Any,
    labels: Mapping[str, Any],
) -> list[keras.callbacks.Callback]:
    for change in recipe.loss_weight_changes:
        check_head_names(change.set, encoding.output_names, "loss_weight_changes")
    settings = recipe.training
    keep_monitor = settings.keep_monitor
    if keep_monitor == "val_mean_accuracy" and not _knows_faces(labels, encoding):
        keep_monitor = "val_loss"  # outputs of the user's own alone
    mode = "min" if keep_monitor.endswith("loss") else "max"
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.BackupAndRestore(run.backup, delete_checkpoint=False),
        DecodedAccuracy(validation, labels, encoding),
        *loss_weight_schedulers(recipe),
        keras.callbacks.ModelCheckpoint(
            run.best_model,
            monitor=keep_monitor,
            mode=mode,
            save_best_only=True,
            initial_value_threshold=_best_so_far(run, keep_monitor, mode),
        ),
        keras.callbacks.CSVLogger(run.history_file, append=run.history_file.is_file()),
    ]
    if settings.patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=settings.stop_monitor,
                mode="min" if settings.stop_monitor.endswith("loss") else "max",
                patience=settings.patience,
            )
        )
    return callbacks


def _knows_faces(labels: Mapping[str, Any], encoding: Encoding) -> bool:
    """Returns whether validation faces have an age group or gender to score."""
    return bool(
        (encoding.age_decoder and (labels["age_group"] != MISSING).any())
        or (encoding.gender_decoder and (labels["gender"] != MISSING).any())
    )


def _best_so_far(run: RunDirectory, monitor: str, mode: str) -> float | None:
    """The best value of a run that is resumed, so that its best model is kept."""
    if not run.history_file.is_file() or not run.best_model.is_file():
        return None
    values = read_history(run.history_file).get(monitor)
    if not values:
        return None
    return min(values) if mode == "min" else max(values)
