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

from keras_agegender.callbacks.epoch_lines import EpochLines
from keras_agegender.callbacks.run_backup import RunBackup
from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.distribution import (
    model_scope,
    num_shards,
    process_index,
    undistributed,
    wait_for_all,
)
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.evaluation.evaluate import evaluate
from keras_agegender.evaluation.plots import plot_history
from keras_agegender.files import directory_hash, now, versions
from keras_agegender.input_pipeline.labels import read_labels
from keras_agegender.models.weights import transfer_weights
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.run_directory import RunDirectory, recipe_encoding
from keras_agegender.training.check_pixels import check_pixels, recorded_pixels
from keras_agegender.training.compiling import build_compiled_model
from keras_agegender.training.fitting import (
    make_callbacks,
    process_shard,
    train_dataset,
    validation_dataset,
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
    check_pixels(recipe, prepared)
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
    validation = validation_dataset(recipe, prepared, encoding, splits)
    callbacks = make_callbacks(recipe, run, encoding, validation, labels)
    backup = RunBackup(run.backup, callbacks, writes)
    if backup.first_epoch == 0 and pretrained is not None:
        _transfer(model, pretrained, run)
    if writes:
        _truncate_history(run.history_file, backup.first_epoch)
    wait_for_all("backup read")
    if num_shards() > 1:
        validation = validation_dataset(
            recipe, prepared, encoding, splits, process_shard()
        )
    if verbose == "auto" and writes:
        callbacks.append(EpochLines())
    if not backup.stopped and backup.first_epoch < recipe.training.epochs:
        model.fit(
            train_dataset(
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
        status="new",
        **identity,
        **recorded_pixels(recipe, prepared),
        versions=versions(),
        backend=keras.backend.backend(),
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
