"""An experiment: recipe, data, encoding and initial weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras

from keras_agegender.datasets.pipeline import (
    columns_without_labels,
    input_path,
    read_labels,
)
from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.encodings.encoding import Encoding, check_output_names
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import predicts_age
from keras_agegender.errors import did_you_mean
from keras_agegender.files import directory_hash, file_hash, write_json, write_text
from keras_agegender.models.registry import NETWORKS, resolve_backbone
from keras_agegender.models.weights import WeightTransfer, load_model, transfer_weights
from keras_agegender.recipes.loading import (
    check_beginning,
    training_data,
)
from keras_agegender.recipes.schema import Recipe
from keras_agegender.run_directory import RunDirectory, recipe_encoding
from keras_agegender.training.compile import get_optimizer


def resolve_splits(
    recipe: Recipe, prepared: PreparedDataset, splits: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the split expressions of a recipe on a dataset.

    Args:
        recipe: Its `data.validation_split` selects the model, if it is set.
        prepared: Declares the others.
        splits: Expressions that replace those declared.

    Raises:
        ValueError: If there is nothing to train or to validate on, or a split does not
            exist or holds no face.
    """
    found = dict(prepared.splits)
    for name, expression in (splits or {}).items():
        found[name] = _expanded(expression, prepared.splits)
    if recipe.data.validation_split is not None:
        found["validation"] = _expanded(recipe.data.validation_split, found)
    for name in ("train", "validation"):
        if name not in found:
            raise ValueError(
                f"There is no {name} split in {prepared.directory}. Splits: {found}. "
                f"Say which with `splits` (--split {name}=…)."
            )
    names = [name for name in ("train", "validation", "test") if name in found]
    for name in names:
        prepared.num_faces(found[name])
    return {name: found[name] for name in names}


def _expanded(expression: str, named: Mapping[str, str]) -> str:
    """Returns an expression with `train`, `validation` and `test` spelled out."""
    return "+".join(named.get(part, part) for part in expression.split("+"))


# What a hash says, behind it.
MEANINGS = {
    "data.sha256": " (other faces, labels or pixels)",
    "file_sha256": " (other weights)",
}


def identity_of(description: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns a line for each part in which two experiments' `to_dict()` differ."""
    both = [dict(there), dict(wanted)]
    begins = [description.get("initialized_from") for description in both]
    if begins[0] != begins[1] and None in begins:
        # One line, not one for each setting of what one of them begins with.
        for description, first in zip(both, begins, strict=True):
            description["initialized_from"] = (
                "nothing" if first is None else "other weights"
            )
    flat = [flatten(description) for description in both]
    lines = []
    for key in sorted({*flat[0], *flat[1]}):
        first, second = (values.get(key, "not set") for values in flat)
        if first != second:
            if str(key).endswith(("sha256", "identity")):
                first, second = str(first)[:12], str(second)[:12]
            meaning = MEANINGS.get(key.removeprefix("initialized_from."), "")
            lines.append(f"{key} is {first!r} there and {second!r} here{meaning}")
    return lines


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def logged_names(encoding: Encoding) -> list[str]:
    """Returns the names of the metrics that training with an encoding logs.

    Args:
        encoding: The model's outputs.
    """
    names = ["loss", *_decoded_names(encoding)]
    for output, metrics in encoding.metrics().items():
        names.append(f"{output}_loss")
        # Keras puts the output's name in front, but not where there is only one.
        prefix = f"{output}_" if len(encoding.output_names) > 1 else ""
        names += [f"{prefix}{metric_name(m)}" for m in metrics]
    if encoding.question is not None:
        names.append("age_loss")
    names = [*dict.fromkeys(names)]
    return names + [f"val_{name}" for name in names]


def _decoded_names(encoding: Encoding) -> list[str]:
    """Returns what `DecodedAccuracy` logs; `train` replaces a mean of nothing."""
    names = ["mean_accuracy"]
    if encoding.gender_head is not None:
        names.append("gender_accuracy")
    if encoding.age_head is not None:
        names += ["age_accuracy", "age_mean_absolute_error"]
        if encoding.question is not None:
            names.append("age_all_heads_accuracy")
    return names


def metric_name(metric: object) -> str:
    """Returns the name under which Keras logs a metric."""
    return getattr(metric, "name", None) or str(metric)


def check_monitors(recipe: Recipe, encoding: Encoding) -> None:
    """Raises ValueError if a recipe watches a metric that will not be logged.

    Keras warns of such a one after an epoch, and then neither stops nor keeps a model.
    """
    training = recipe.training
    watched = {
        "training.checkpoint_monitor": training.checkpoint_monitor,
        **{
            f"training.extra_checkpoints.{name}": m
            for name, m in training.extra_checkpoints.items()
        },
    }
    if training.patience is not None:
        watched["training.stop_monitor"] = training.stop_monitor
    for number, change in enumerate(recipe.loss_weight_changes):
        if change.monitor is not None:
            watched[f"loss_weight_changes[{number}].monitor"] = change.monitor
    known = logged_names(encoding)
    for key, monitor in watched.items():
        if monitor not in known:
            hint = did_you_mean(monitor, known)
            raise ValueError(
                f"Invalid `{key}` of recipe {recipe.name!r}. Expected one of {known}. "
                f"Received: {monitor!r}.{hint}"
            )


def labelled(
    encoding: Encoding, prepared: PreparedDataset, train_split: str
) -> Encoding:
    """Returns the encoding without heads that no training face has a label for.

    They would answer all the same, with what they began with.
    """
    missing = columns_without_labels(prepared, train_split, encoding.columns)
    left = encoding.without_columns(missing)
    if not left.heads:
        raise ValueError(
            f"Invalid dataset. Expected labels of {' or '.join(encoding.columns)} in "
            f"the split {train_split!r} of {prepared.directory}, all that one "
            f"output of the encoding {encoding.name!r} asks for. "
            f"Received: none of {', '.join(sorted(missing))}."
        )
    return left


def without_left_out(recipe: Recipe, asked: Encoding, encoding: Encoding) -> Recipe:
    """Returns a recipe without what it says of outputs that were left out.

    Args:
        recipe: As it was asked for.
        asked: Its encoding.
        encoding: What is left of that.
    """
    gone = set(asked.output_names) - set(encoding.output_names)
    if not gone:
        return recipe
    unlogged = set(logged_names(asked)) - set(logged_names(encoding))
    changes = [
        replace(change, set={n: w for n, w in change.set.items() if n not in gone})
        for change in recipe.loss_weight_changes
        if change.monitor not in unlogged
    ]
    keep = {
        n: m for n, m in recipe.training.extra_checkpoints.items() if m not in unlogged
    }
    return replace(
        recipe,
        loss_weights={n: w for n, w in recipe.loss_weights.items() if n not in gone},
        loss_weight_changes=tuple(change for change in changes if change.set),
        training=replace(recipe.training, extra_checkpoints=keep),
    )


def standardized(
    encoding: Encoding, prepared: PreparedDataset, train_split: str
) -> Encoding:
    """Returns the encoding with regression heads standardized by training data."""
    columns = [h.columns[0] for h in encoding.heads if h.spec.standardized]
    if not columns:
        return encoding
    return encoding.with_statistics(read_labels(prepared, train_split, columns))


HINTS = {
    "whole": "Make one of whole pictures with `agegender prepare … --no-crop`.",
    "cropped": "Make one of face crops with `agegender prepare …`, without --no-crop.",
}
NAMES = {"whole": "whole pictures", "cropped": "face crops"}


def check_pixels(recipe: Recipe, prepared: PreparedDataset) -> None:
    """Refuses a dataset of whole pictures where a recipe needs faces, or vice versa.

    Args:
        recipe: What is to be trained; `data.faces` says what it needs.
        prepared: What it is to be trained on.

    Raises:
        ValueError: If they do not fit, or the dataset does not say what it holds.
    """
    needed = recipe.data.faces
    if needed == "any" or _holds(prepared) == needed:
        return
    held = _holds(prepared)
    found = f"holds {NAMES[held]}" if held else "does not say what its pictures are"
    raise ValueError(
        f"Recipe {recipe.name!r} is trained on {NAMES[needed]} (data.faces = "
        f"{needed!r}), and the dataset in {prepared.directory} {found}. "
        f"{HINTS[needed]} Or train on it all the same with --set data.faces=any."
    )


def select_prepared(
    recipe: Recipe, datasets: Sequence[PreparedDataset]
) -> PreparedDataset | None:
    """Returns the first of several datasets whose pixels a recipe is meant for.

    Args:
        recipe: What is to be trained.
        datasets: Datasets of the same pictures, whole and cropped.

    Returns:
        The first if none fits, which `check_pixels` then refuses; `None` of none.
    """
    for prepared in datasets:
        if recipe.data.faces in ("any", _holds(prepared)):
            return prepared
    return datasets[0] if datasets else None


def pixels_of(prepared: PreparedDataset) -> dict[str, Any]:
    """Returns how the pictures of a dataset were made, as its preparation says."""
    info = prepared.info
    if "pixels" in info:
        return {"pixels": info["pixels"]}
    return {k: info[k] for k in ("crop", "detector", "output_size") if k in info}


def recorded_pixels(recipe: Recipe, prepared: PreparedDataset) -> dict[str, Any]:
    """Returns what run.json keeps of the dataset, so that no later one is asked.

    Returns:
        `pixels`, the path from file to input, `None` where the dataset does not say;
        and `preparation`, the dataset's preparation.json.
    """
    path = prepared.pixels
    if path is not None:
        path = input_path(path, recipe.model.image_size, recipe.data.pipeline)
    return {
        "pixels": path.to_dict() if path else None,
        "preparation": prepared.info,
    }


def _holds(prepared: PreparedDataset) -> str | None:
    return prepared.pixels.faces if prepared.pixels else None


def transfer(model: keras.Model, path: Path, run: RunDirectory) -> WeightTransfer:
    """Copies what fits from a pretrained model and writes down what did.

    The license of a run's weights goes along; their limits were measured on them alone.

    Raises:
        ValueError: If a frozen layer finds no weights.
    """
    report = transfer_weights(load_pretrained(path), model)
    write_text(run.path / "transfer.txt", f"from {path}\n{report}\n")
    license = RunDirectory(path).terms().get("license") if path.is_dir() else None
    if license and not run.terms_file.exists():
        write_json(run.terms_file, {"license": license})
    return report


def load_pretrained(path: str | Path) -> keras.Model:
    """Returns the model of a `.keras` file, or the best one of a run."""
    return load_model(model_file(path), compile=False)


def model_file(path: str | Path) -> Path:
    """Returns the `.keras` file itself, or that of the best model of a run.

    Raises:
        ValueError: If there is neither.
    """
    path = Path(path)
    file = path if path.suffix == ".keras" else RunDirectory.open(path).best_model
    if not file.is_file():
        raise ValueError(f"There is no model file {file}.")
    return file


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
        initialized_from: The experiment whose best model gives its weights first, or the
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
    initialized_from: Experiment | Mapping[str, Any] | None = None
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
        first = self.initialized_from
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
        recipe.pop("pretraining", None)  # `initialized_from` says it in full
        if self.backbone_weights_sha256 is not None:
            recipe["model"]["backbone_weights"] = self.backbone_weights_sha256
        if self.teacher_sha256 is not None:
            recipe["distillation"]["teacher"] = self.teacher_sha256
        first = self.initialized_from
        if isinstance(first, Experiment):
            first = first.to_dict()
        description = {
            "recipe": recipe,
            "data": self.data.to_dict(),
            "encoding": self.encoding.to_dict(),
            "seed": self.seed,
            "steps_per_epoch": self.steps_per_epoch,
            "initialized_from": dict(first) if first is not None else None,
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
    get_optimizer(recipe.training.optimizer)
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
    initialized_from, weights = _beginning(
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
        initialized_from=initialized_from,
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
    first = recipe.pretraining_recipe
    if first is None:
        return None, None
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
    if not predicts_age(recipe.model.encoding):
        return ()
    return prepared.extra_heads()
