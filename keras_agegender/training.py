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
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_agegender.backup import RunBackup
from keras_agegender.callbacks import (
    BestModel,
    DecodedAccuracy,
    EpochLines,
    TotalAgeLoss,
)
from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.distribution import (
    model_scope,
    num_shards,
    process_count,
    process_index,
    undistributed,
    wait_for_all,
)
from keras_agegender.encodings import (
    NUM_GROUPS,
    ORDINAL_HEAD_NAMES,
    Encoding,
    Head,
    balanced_class_weights,
    check_head_names,
)
from keras_agegender.evaluation.evaluator import evaluate
from keras_agegender.evaluation.plots import plot_history
from keras_agegender.input_pipeline import (
    make_eval_dataset,
    make_train_dataset,
    read_labels,
)
from keras_agegender.labels import CELEBA_ATTRIBUTES, MISSING
from keras_agegender.loss_weights import LossWeightScheduler
from keras_agegender.models.builder import build_model
from keras_agegender.models.freezing import freeze_all_but_last
from keras_agegender.models.weights import transfer_weights
from keras_agegender.recipes.recipe import Recipe, TrainingSettings, load_recipe
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
    pretraining_data: PreparedDataset | str | Path | None = None,
    pretrained: str | Path | None = None,
    extra_heads: Sequence[Head] | str = "auto",
    splits: Mapping[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    verbose: int | str = "auto",
) -> RunDirectory:
    """Trains a recipe on a prepared dataset; evaluates the best epoch on test data.

    On TensorFlow with several GPUs it trains on all of them (MirroredStrategy), on JAX
    on all devices, of several machines too: see `keras_agegender.distribution`.

    Args:
        recipe: A recipe, its name, or the path of a TOML file.
        data: A prepared dataset or its directory.
        run_directory: Folder for everything the run leaves behind. One with an
            unfinished run of the same recipe, data and seed is resumed.
        overrides: Settings that replace the recipe's, `"training.epochs=3"` for
            instance; for a name or a path only.
        pretraining_data: Prepared dataset, or its directory, for a recipe that begins
            with another one: that one is trained first, in `pretraining/` of the run's
            folder, unless it is finished.
        pretrained: A finished run, or a `.keras` file, to begin with instead.
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
    if recipe.data.validation_split:
        parts = recipe.data.validation_split.split("+")
        splits["validation"] = "+".join(splits.get(part, part) for part in parts)
    _check_pretraining(recipe, pretraining_data, pretrained)
    writes = process_index() == 0
    run = RunDirectory(Path(run_directory))
    with contextlib.ExitStack() as stack:
        if writes:
            _make_run_directory(run)
            stack.enter_context(run.locked())
            source: Any = pretrained or pretraining_data
            begins_with = getattr(source, "directory", source)
            _open_run(run, recipe, prepared, splits, seed, begins_with, overwrite)
        wait_for_all("run directory")
        if pretraining_data is not None and recipe.pretraining and not pretrained:
            pretrained = _pretrain(recipe, run, pretraining_data, seed, verbose)
        with model_scope():
            _fit(recipe, run, prepared, encoding, splits, seed, pretrained, verbose)
        if writes and "test" in splits:
            positive = recipe.published[0].positive if recipe.published else "male"
            for checkpoint in ("best", *recipe.training.keep):
                evaluate(
                    run,
                    prepared,
                    split=splits["test"],
                    checkpoint=checkpoint,
                    positive_gender=positive,
                )
        if writes:
            run.update_info(status="finished", finished=now())
            shutil.rmtree(run.backup, ignore_errors=True)
        wait_for_all("end of the run")
    return run


def _fit(
    recipe: Recipe,
    run: RunDirectory,
    prepared: PreparedDataset,
    encoding: Encoding,
    splits: Mapping[str, str],
    seed: int,
    pretrained: str | Path | None,
    verbose: int | str,
) -> None:
    """Trains from the beginning or from where an earlier process was stopped."""
    writes = process_index() == 0
    if writes:
        columns = encoding.heads if encoding.name != "attributes" else ()
        run.update_info(
            status="running",
            started=run.info().get("started", now()),
            extra_heads=[_head_dict(head) for head in columns if head.column],
            outputs=list(encoding.output_names),
        )
    keras.utils.set_random_seed(seed)
    labels = read_labels(prepared, splits["validation"])
    steps = -(-prepared.num_faces(splits["train"]) // recipe.data.batch_size)
    model = build_compiled_model(recipe, encoding, steps, seed)
    run.check_space(_needed_bytes(model, recipe))
    validation = _validation_dataset(recipe, prepared, encoding, splits)
    callbacks = _callbacks(recipe, run, encoding, validation, labels)
    backup = RunBackup(run.backup, callbacks, writes)
    if backup.first_epoch == 0 and pretrained is not None:
        _transfer(model, pretrained, run)
    if writes:
        _truncate_history(run.history_file, backup.first_epoch)
    wait_for_all("backup read")
    if num_shards() > 1:
        validation = _validation_dataset(recipe, prepared, encoding, splits, _shard())
    if verbose == "auto" and writes:
        callbacks.append(EpochLines())
    if not backup.stopped and backup.first_epoch < recipe.training.epochs:
        model.fit(
            _train_dataset(
                recipe,
                prepared,
                encoding,
                splits,
                seed,
                range(backup.first_epoch, recipe.training.epochs),
            ),
            steps_per_epoch=steps,
            validation_data=validation,
            epochs=recipe.training.epochs,
            initial_epoch=backup.first_epoch,
            shuffle=False,  # the dataset does
            callbacks=[*callbacks, backup],
            verbose=0 if verbose == "auto" else verbose,
        )
    else:
        backup.restore(model)  # killed behind the last epoch
    if writes:
        with undistributed():
            model.save(run.last_model)
        plot_history(read_history(run.history_file), run.path / "curves.png")


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


def _shard() -> tuple[int, int] | None:
    """Returns this process' share of every batch; `None` on a single device."""
    return (process_index(), process_count()) if num_shards() > 1 else None


def _check_pretraining(recipe: Recipe, data: Any, pretrained: Any) -> None:
    if recipe.pretraining and data is None and pretrained is None:
        raise ValueError(
            f"Recipe {recipe.name!r} begins with {recipe.pretraining!r}. Say what to "
            "train that on with `pretraining_data` (--pretraining-data), or give a "
            "finished run with `pretrained` (--pretrained)."
        )


def _make_run_directory(run: RunDirectory) -> None:
    path = run.path
    if path.exists() and not path.is_dir():
        raise ValueError(f"Invalid run directory. {path} is a file.")
    if (
        path.is_dir()
        and not run.info()
        and any(file.name != ".lock" for file in path.iterdir())
    ):
        raise ValueError(
            f"Invalid run directory. {path} is not empty and holds no run."
        )
    path.mkdir(parents=True, exist_ok=True)


def _open_run(
    run: RunDirectory,
    recipe: Recipe,
    prepared: PreparedDataset,
    splits: Mapping[str, str],
    seed: int,
    begins_with: Any,
    overwrite: bool,
) -> None:
    """Begins a run in its folder, or makes sure that it is the one to be resumed."""
    for name in ("train", "validation"):
        if name not in splits:
            raise ValueError(
                f"There is no {name} split in {prepared.builder.data_dir}. Splits: "
                f"{dict(splits)}. Say which with `splits` (--split {name}=…)."
            )
    identity = {
        "seed": seed,
        "data": str(prepared.builder.data_dir),
        "data_sha256": directory_hash(Path(prepared.builder.data_dir)),
        "splits": dict(splits),
        "begins_with": str(begins_with or ""),
    }
    info = run.info()
    if info and overwrite:
        for entry in run.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()
    elif info.get("status") == "finished":
        raise ValueError(
            f"The run in {run.path} is finished. Choose another directory, or "
            "overwrite it (--overwrite)."
        )
    elif info:
        same = all(info.get(key) == value for key, value in identity.items())
        if not same or run.recipe_file.read_text("utf-8") != recipe.to_toml():
            raise ValueError(
                f"{run.path} holds an unfinished run of another recipe, seed or "
                "dataset. Choose another directory, or overwrite it."
            )
        return
    run.recipe_file.write_text(recipe.to_toml(), "utf-8")
    run.update_info(
        status="new", **identity, versions=versions(), backend=keras.backend.backend()
    )


def _pretrain(
    recipe: Recipe, run: RunDirectory, data: Any, seed: int, verbose: int | str
) -> Path:
    """Trains the recipe that this one begins with, unless that is done."""
    path = run.path / "pretraining"
    if RunDirectory(path).info().get("status") == "finished":
        return path
    first = pretraining_recipe(recipe)
    if verbose:
        print(f"Pretraining: {first.title}")
    train(first, data, path, seed=seed, verbose=verbose)
    return path


def pretraining_recipe(recipe: Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Returns the recipe that another one begins with, at that one's image size.

    Args:
        recipe: A recipe with a `pretraining`.
        overrides: Settings that replace the file's, as in `load_recipe`.
    """
    first = load_recipe(recipe.pretraining, overrides)
    size = recipe.model.image_size
    return replace(first, model=replace(first.model, image_size=size))


def _transfer(model: keras.Model, pretrained: str | Path, run: RunDirectory) -> None:
    """Copies what fits from a pretrained model and writes down what did."""
    path = Path(pretrained)
    if path.suffix == ".keras":
        if not path.is_file():
            raise ValueError(f"There is no model file {path}.")
        source = keras.saving.load_model(path)
    else:
        source = RunDirectory.open(path).load_model()
    report = transfer_weights(source, model)
    text = f"from {path}\n{report}\n"
    (run.path / "transfer.txt").write_text(text, "utf-8")


def _needed_bytes(model: keras.Model, recipe: Recipe) -> int:
    """Estimates what a run writes: models and two backups, each with Adam's moments."""
    files = 2 + len(recipe.training.keep) + 2
    return 3 * 4 * model.count_params() * files + 20_000_000


def _truncate_history(file: Path, epochs: int) -> None:
    """Leaves the epochs that are backed up; a killed run may have logged one more."""
    if not file.is_file():
        return
    lines = file.read_text("utf-8").splitlines(keepends=True)[: epochs + 1]
    if epochs == 0:
        file.unlink()
    else:
        file.write_text("".join(lines), "utf-8")


def _train_dataset(
    recipe: Recipe,
    prepared: PreparedDataset,
    encoding: Encoding,
    splits: Mapping[str, str],
    seed: int,
    epochs: range,
) -> Any:
    return make_train_dataset(
        prepared,
        _weigh_classes(recipe, prepared, encoding, splits["train"]),
        split=splits["train"],
        seed=seed,
        shuffle_buffer=recipe.data.shuffle_buffer,
        balanced=recipe.data.balanced_sampling,
        epochs=epochs,
        shard=_shard(),
        **_pipeline_arguments(recipe),
    )


def _validation_dataset(
    recipe: Recipe,
    prepared: PreparedDataset,
    encoding: Encoding,
    splits: Mapping[str, str],
    shard: tuple[int, int] | None = None,
) -> Any:
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
