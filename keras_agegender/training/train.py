"""`train`: trains and evaluates a recipe."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_agegender import distribution
from keras_agegender.recipes import loading
from keras_agegender.recipes.schema import Recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training import experiment as experiments, resume
from keras_agegender.training.experiment import Experiment

if TYPE_CHECKING:
    import keras

    from keras_agegender.datasets.prepared import PreparedDataset
    from keras_agegender.encodings.head import Head


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
    tensorboard: bool = False,
    verbose: int | str = "auto",
) -> RunDirectory:
    """Trains a recipe on a prepared dataset and evaluates the best epoch on test data.

    On TensorFlow with several GPUs it trains on all of them (MirroredStrategy), on JAX
    on all devices, of several machines too: see `keras_agegender.distribution`.

    Args:
        recipe: A recipe, its name, or the path of a TOML file.
        data: A prepared dataset or its directory.
        run_directory: Folder for everything that training writes. An unfinished run of
            the same experiment in it is resumed: the same recipe, content of the data,
            splits, seed and initial weights, wherever the data is. A run that stopped
            before its first epoch ended is replaced by any experiment.
        overrides: Settings that replace the recipe's, such as `"training.epochs=3"`.
            Those of the network, the batches and the optimizer also apply to the
            pretraining recipe; `"pretraining.training.epochs=3"` applies to that one
            only. See `load_recipe`.
        pretraining_data: A prepared dataset, or its directory, for a recipe with a
            pretraining recipe, which is trained first, in `pretraining/` of the run
            directory, unless it is finished. A recipe of role `"pretrain"` trains on
            it instead of `data`.
        pretrained: Initial weights instead: a finished run, a `.keras` file, or an
            experiment that is trained first, in `pretraining/` of the run directory.
        extra_heads: Outputs for extra columns of the dataset; `"auto"` (default) makes
            one for each column that `prepare` declared.
        splits: `train`, `validation` and `test` as TensorFlow Datasets split
            expressions. Defaults to `None`: those the dataset declares.
        seed: Seed of weights, order and augmentation. Defaults to 0.
        overwrite: Whether to replace a run in that folder. Defaults to `False`.
        callbacks: Keras callbacks of your own, called after those of the recipe and
            before the backup, and not in pretraining. They are not part of the run's
            identity, so pass them again to resume. Defaults to none.
        tensorboard: Whether to write `tensorboard/` in the run directory, for
            `tensorboard --logdir`. Defaults to `False`.
        verbose: `"auto"` (default) prints a line per epoch; 0 nothing; 1 and 2 are
            Keras' own progress, with the metrics of every output.

    Returns:
        The finished run.

    Raises:
        ValueError: If recipe, dataset, splits or heads contradict each other, two
            splits share a face, person or image, or the folder has another run.

    Example:
    >>> run = train("resnet_se_ordinal", "data/adience", "runs/1")  # doctest: +SKIP
    """
    distribution.initialize_processes()
    with distribution.abort_all_on_error():
        # All that can be checked without TensorFlow and Keras is checked first.
        if isinstance(recipe, Recipe):
            recipe = loading.override_recipe(recipe, overrides)
        else:
            recipe = loading.load_recipe(recipe, overrides)
        loading.check_pretraining_data(recipe, pretraining_data)
        run = RunDirectory(Path(run_directory))
        run.check_folder()
        if not overwrite:
            resume.check_unfinished(run)
        if tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "TensorBoard is not installed: "
                "pip install 'keras-agegender[tensorboard]'."
            )
        experiment = experiments.make_experiment(
            recipe,
            data,
            pretraining_data=pretraining_data,
            pretrained=pretrained,
            extra_heads=extra_heads,
            splits=splits,
            seed=seed,
        )
        if tensorboard and distribution.process_index() == 0:
            from keras.callbacks import TensorBoard

            board = TensorBoard(run.path / "tensorboard", write_graph=False)
            callbacks = [*callbacks, board]
        return train_experiment(
            experiment,
            run.path,
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
    """Trains an experiment; the arguments are those of `train`."""
    from keras_agegender.evaluation.evaluate import evaluate
    from keras_agegender.training.fit import fit

    run = RunDirectory(Path(run_directory))
    writes = distribution.process_index() == 0
    with contextlib.ExitStack() as stack:
        if writes:
            stack.enter_context(resume.run_folder(run))
            resume.open_run(run, experiment, overwrite)
        distribution.wait_for_all("run directory")
        initial_weights = _pretrain(experiment, run, verbose)
        with distribution.model_scope():
            fit(experiment, run, initial_weights, callbacks, verbose)
        if writes:
            if "test" in experiment.data.splits:
                for name in ("best", *experiment.recipe.training.extra_checkpoints):
                    evaluate(run, experiment.data.prepared, checkpoint=name)
            resume.finish_run(run)
            shutil.rmtree(run.backup, ignore_errors=True)
        distribution.wait_for_all("end of the run")
    return run


def _pretrain(experiment: Experiment, run: RunDirectory, verbose: Any) -> Path | None:
    """Returns the run or file of the initial weights, trained first if necessary."""
    first = experiment.initialized_from
    if first is None or isinstance(first, experiments.InitialWeights):
        return first.path if first else None
    pretraining = RunDirectory(run.path / "pretraining")
    info = pretraining.info()
    if info.get("status") != "finished":
        if verbose and distribution.process_index() == 0:
            print(f"Pretraining: {first.recipe.title}")
        train_experiment(first, pretraining.path, verbose=verbose)
    elif info.get("identity") != first.identity:
        found = experiments.differences(info.get("experiment", {}), first.to_dict())
        raise ValueError(
            f"{pretraining.path} contains another pretraining run: {'; '.join(found)}. "
            "Choose another directory, or overwrite it (--overwrite)."
        )
    return pretraining.path


def train_unless_finished(
    experiment: Experiment, run_directory: str | Path, verbose: int | str = "auto"
) -> RunDirectory:
    """Returns the finished run of an experiment, which is trained if necessary."""
    run = RunDirectory(Path(run_directory))
    resume.check_place(run, experiment)
    if run.info().get("status") == "finished":
        # Left over if a process was killed at its very end.
        shutil.rmtree(run.backup, ignore_errors=True)
        return run
    return train_experiment(experiment, run.path, verbose=verbose)
