"""Experiments: everything that a training depends on, with one identity.

An experiment is made before any work begins. Its identity is a hash of the resolved
recipe, the content of the datasets, their splits and pixels, the encoding, the seed and
what the weights begin with. Where a dataset or a run lies is no part of it: both may be
moved. Nor is what a recipe is called, how it is scored or what the report says of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.output_names import check_output_names
from keras_agegender.files import directory_hash, file_hash
from keras_agegender.models.backbone import resolve_backbone
from keras_agegender.models.networks import NETWORKS
from keras_agegender.recipes.checks import check_recipe
from keras_agegender.recipes.loading import pretraining_recipe
from keras_agegender.recipes.needs import check_beginning, training_data
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.run_directory import RunDirectory, recipe_encoding
from keras_agegender.training.check_pixels import check_pixels, pixels_of
from keras_agegender.training.data_encoding import (
    labelled,
    standardized,
    without_left_out,
)
from keras_agegender.training.identity import identity_of
from keras_agegender.training.monitors import check_monitors
from keras_agegender.training.pretrained import model_file
from keras_agegender.training.splits import resolve_splits

# Settings of a recipe that training does not depend on.
NOT_TRAINING = ("name", "title", "evaluation", "published", "pretraining_overrides")


@dataclass(frozen=True)
class ExperimentData:
    """The dataset of an experiment.

    Attributes:
        role: `"target"`, or `"pretrain"` for what others begin with.
        prepared: The dataset on disk; where it lies is not compared.
        splits: `train`, `validation`, `test` -> resolved split expression.
        sha256: Hash of its content.
        pixels: How its pictures were made, as its preparation says.
    """

    role: str
    prepared: PreparedDataset = field(compare=False, repr=False)
    splits: Mapping[str, str]
    sha256: str
    pixels: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns what the identity covers, as plain values."""
        return {
            "role": self.role,
            "sha256": self.sha256,
            "splits": dict(self.splits),
            "pixels": dict(self.pixels),
        }


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that a training depends on.

    Make one with `make_experiment`.

    Attributes:
        recipe: The recipe, overrides included.
        data: What it is trained and scored on.
        encoding: The model's outputs, those of further columns included.
        seed: Seed of weights, order and augmentation.
        steps_per_epoch: Optimizer steps of an epoch.
        begins_with: The experiment whose best model gives its weights first, or the
            `to_dict()` of a finished run's, or the hash of a file; `None` for random
            weights.
        weights: Finished run or `.keras` file of those weights, if it is there already.
        backbone_weights_sha256: Hash of the file that the recipe's backbone begins
            with; `None` without one.
        teacher_sha256: Hash of the model that the recipe's distillation learns from.
        left_out: Outputs of the recipe's that no training face has a label for.
    """

    recipe: Recipe
    data: ExperimentData
    encoding: Encoding
    seed: int
    steps_per_epoch: int
    begins_with: Experiment | Mapping[str, Any] | None = None
    weights: Path | None = None
    backbone_weights_sha256: str | None = None
    teacher_sha256: str | None = None
    left_out: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def datasets(self) -> dict[str, ExperimentData]:
        """The datasets by role, that of the pretraining included."""
        first = self.begins_with
        before = first.datasets if isinstance(first, Experiment) else {}
        return {**before, self.data.role: self.data}

    @cached_property
    def identity(self) -> str:
        """SHA-256 over `to_dict()` as canonical JSON."""
        return identity_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns what the identity covers, as plain values."""
        recipe = {
            key: value
            for key, value in self.recipe.to_dict().items()
            if key not in NOT_TRAINING
        }
        recipe.pop("pretraining", None)  # `begins_with` says it in full
        if self.backbone_weights_sha256 is not None:
            recipe["model"]["backbone_weights"] = self.backbone_weights_sha256
        if self.teacher_sha256 is not None:
            recipe["distillation"]["teacher"] = self.teacher_sha256
        first = self.begins_with
        if isinstance(first, Experiment):
            first = first.to_dict()
        description = {
            "recipe": recipe,
            "data": self.data.to_dict(),
            "encoding": self.encoding.to_dict(),
            "seed": self.seed,
            "steps_per_epoch": self.steps_per_epoch,
            "begins_with": dict(first) if first is not None else None,
        }
        return json.loads(json.dumps(description))  # as run.json gives it back


def make_experiment(
    recipe: Recipe,
    data: PreparedDataset | str | Path | None = None,
    *,
    pretraining_data: PreparedDataset | str | Path | None = None,
    pretrained: Experiment | str | Path | None = None,
    extra_heads: Sequence[Head] | str = "auto",
    splits: Mapping[str, str] | None = None,
    pretraining_splits: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Experiment:
    """Returns the experiment that `train` would run.

    Args:
        recipe: A recipe, overrides included.
        data: A prepared dataset or its directory.
        pretraining_data: The same for what the recipe begins with. A recipe of role
            `"pretrain"` takes it instead of `data`.
        pretrained: A finished run, a `.keras` file, or an experiment that `train`
            trains first, to begin with instead.
        extra_heads: Outputs for further columns of the dataset; `"auto"` (default)
            makes one for each column that the preparation declared.
        splits: `train`, `validation` and `test` as split expressions; `None` takes
            those the dataset declares.
        pretraining_splits: The same for the pretraining data.
        seed: Seed of weights, order and augmentation. Defaults to 0.

    Returns:
        The experiment, not yet trained.

    Raises:
        ValueError: If recipe, dataset, splits and heads contradict each other.

    Example:
    >>> make_experiment(load_recipe("1"), "data/adience").identity  # doctest: +SKIP
    """
    check_recipe(recipe, recipe.name)
    if recipe.model.backbone in NETWORKS:  # of others only building them tells
        resolve_backbone(
            recipe.model.backbone, recipe.model.image_size, width=recipe.model.width
        )
    given = training_data(recipe, data, pretraining_data)
    check_beginning(recipe, pretraining_data, pretrained)
    prepared = given if isinstance(given, PreparedDataset) else load_prepared(given)
    check_pixels(recipe, prepared)
    heads = _resolve_heads(prepared, recipe, extra_heads)
    asked = recipe_encoding(recipe, heads, prepared.age_groups)
    prepared.check_encoding(asked)
    resolved = resolve_splits(recipe, prepared, splits)
    encoding = labelled(asked, prepared, resolved["train"])
    recipe = without_left_out(recipe, asked, encoding)
    for change in recipe.loss_weight_changes:
        check_output_names(change.set, encoding.output_names, "loss_weight_changes")
    check_monitors(recipe, encoding)
    encoding = standardized(encoding, prepared, resolved["train"])
    faces = prepared.num_faces(resolved["train"])
    begins_with, weights = _beginning(
        recipe, pretraining_data, pretrained, pretraining_splits, seed
    )
    return Experiment(
        recipe=recipe,
        data=ExperimentData(
            recipe.data.role,
            prepared,
            resolved,
            directory_hash(prepared.directory),
            pixels_of(prepared),
        ),
        encoding=encoding,
        seed=seed,
        steps_per_epoch=-(-faces // recipe.data.batch_size),
        begins_with=begins_with,
        weights=weights,
        backbone_weights_sha256=_weights_hash(recipe),
        teacher_sha256=_teacher_hash(recipe),
        left_out=tuple(n for n in asked.output_names if n not in encoding.output_names),
    )


def _beginning(
    recipe: Recipe,
    data: Any,
    pretrained: Experiment | str | Path | None,
    splits: Mapping[str, str] | None,
    seed: int,
) -> tuple[Experiment | dict[str, Any] | None, Path | None]:
    """Returns what an experiment begins with, and where the weights are if they are."""
    if isinstance(pretrained, Experiment):
        return pretrained, None
    if pretrained is not None:
        path = Path(pretrained)
        if path.suffix == ".keras":
            if not path.is_file():
                raise ValueError(f"There is no model file {path}.")
            return {"file_sha256": file_hash(path)}, path
        run = RunDirectory.open(path)
        experiment = run.info().get("experiment")
        if experiment is None:  # trained before runs had one
            return {"file_sha256": file_hash(run.best_model)}, path
        return experiment, path
    if recipe.pretraining is None:
        return None, None
    first = pretraining_recipe(recipe)
    experiment = make_experiment(
        first, data, pretraining_data=data, splits=splits, seed=seed
    )
    return experiment, None


def _weights_hash(recipe: Recipe) -> str | None:
    """Returns the hash of the backbone's file; `"imagenet"` names no file."""
    weights = recipe.model.backbone_weights
    if weights is None or not Path(weights).is_file():
        return None
    return file_hash(Path(weights))


def _teacher_hash(recipe: Recipe) -> str | None:
    """Returns the hash of the model that is distilled.

    Raises:
        ValueError: If there is none.
    """
    if recipe.distillation is None:
        return None
    return file_hash(model_file(recipe.distillation.teacher))


def _resolve_heads(
    prepared: PreparedDataset, recipe: Recipe, extra_heads: Sequence[Head] | str
) -> tuple[Head, ...]:
    if not isinstance(extra_heads, str):
        return tuple(extra_heads)
    if recipe.model.encoding in ("attributes", "gender"):
        return ()
    return prepared.extra_heads()
