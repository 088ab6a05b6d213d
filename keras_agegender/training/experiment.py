"""An experiment: recipe, dataset, encoding and initial weights, with one identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_agegender.datasets import prepared as datasets
from keras_agegender.encodings.encoding import Encoding, Head, check_output_names
from keras_agegender.encodings.registry import predicts_age
from keras_agegender.errors import did_you_mean
from keras_agegender.files import file_hash
from keras_agegender.recipes.loading import check_initial_weights, training_data
from keras_agegender.run_directory import RunDirectory

if TYPE_CHECKING:
    from keras_agegender.recipes.schema import Recipe

# Recipe settings that training does not depend on.
NOT_TRAINING = (
    "name", "title", "evaluation", "published", "cost", "pretraining_overrides",
)  # fmt: skip


@dataclass(frozen=True)
class ExperimentData:
    """The dataset of an experiment.

    Attributes:
        role: `"target"`, or `"pretrain"` for the dataset of a pretraining recipe.
        prepared: The dataset on disk. Its location is not compared.
        splits: `train`, `validation`, `test` -> resolved split expression.
        sha256: Hash of its content.
        pixels: Preprocessing of its images, as recorded by `prepare`.
    """

    role: str
    prepared: datasets.PreparedDataset = field(compare=False, repr=False)
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


@dataclass(frozen=True)
class InitialWeights:
    """Existing weights, of a finished run or in a `.keras` file.

    Attributes:
        path: The run directory or the file.
        description: `to_dict()` of the run's experiment, or the file's hash.
    """

    path: Path
    description: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns what the identity covers, as plain values."""
        return dict(self.description)


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that training depends on; equal experiments train equal models.

    Create one with `make_experiment`.

    Attributes:
        recipe: The recipe, overrides included.
        data: The dataset to train and evaluate on.
        encoding: The model's outputs, those of extra columns included.
        seed: Seed of weights, order and augmentation.
        steps_per_epoch: Optimizer steps per epoch.
        initialized_from: The experiment that is trained first and whose best model
            provides the initial weights; or existing weights; or `None` for random
            weights.
        file_hashes: Recipe key -> SHA-256 of the file it names, so that backbone
            weights and teachers are compared by their content.
        dropped_outputs: Outputs of the recipe without a label in the training split.
    """

    recipe: Recipe
    data: ExperimentData
    encoding: Encoding
    seed: int
    steps_per_epoch: int
    initialized_from: Experiment | InitialWeights | None = None
    file_hashes: Mapping[str, Any] = field(default_factory=dict)
    dropped_outputs: tuple[str, ...] = ()

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
        recipe = self.recipe.to_dict()
        for key in (*NOT_TRAINING, "pretraining"):  # that is in `initialized_from`
            recipe.pop(key, None)
        for key, sha256 in self.file_hashes.items():
            section, name = key.split(".")
            recipe[section][name] = sha256
        first = self.initialized_from
        description = {
            "recipe": recipe,
            "data": self.data.to_dict(),
            "encoding": self.encoding.to_dict(),
            "seed": self.seed,
            "steps_per_epoch": self.steps_per_epoch,
            "initialized_from": None if first is None else first.to_dict(),
        }
        return json.loads(json.dumps(description))  # as read from run.json


def identity_of(description: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of plain values, independent of the order of their keys."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# Explanations of different hashes.
MEANINGS = {
    "data.sha256": " (other faces, labels or pixels)",
    "file_sha256": " (other weights)",
}


def differences(
    existing: Mapping[str, Any],
    wanted: Mapping[str, Any],
    places: tuple[str, str] = ("in the existing run", "in this one"),
) -> list[str]:
    """Returns one line per difference between two experiments."""
    both = [dict(existing), dict(wanted)]
    origins = [description.get("initialized_from") for description in both]
    if origins[0] != origins[1] and None in origins:
        # One line instead of one for each setting of the pretraining.
        for description, first in zip(both, origins, strict=True):
            text = "random weights" if first is None else "other weights"
            description["initialized_from"] = text
    flat = [flatten(description) for description in both]
    lines = []
    for key in sorted({*flat[0], *flat[1]}):
        first, second = (values.get(key, "not set") for values in flat)
        if first != second:
            if str(key).endswith(("sha256", "identity")):
                first, second = str(first)[:12], str(second)[:12]
            meaning = MEANINGS.get(key.removeprefix("initialized_from."), "")
            lines.append(
                f"{key} is {first!r} {places[0]} and {second!r} {places[1]}{meaning}"
            )
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


def make_experiment(
    recipe: Recipe,
    data: datasets.PreparedDataset | str | Path | None = None,
    *,
    pretraining_data: datasets.PreparedDataset | str | Path | None = None,
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
        pretraining_data: The dataset for the pretraining recipe. A recipe of role
            `"pretrain"` trains on it instead of `data`.
        pretrained: A finished run, a `.keras` file, or an experiment that `train`
            trains first, to initialize weights from instead.
        extra_heads: Outputs for extra columns of the dataset; `"auto"` (default) makes
            one for each column that `prepare` declared.
        splits: `train`, `validation` and `test` as split expressions. Defaults to
            `None`: those the dataset declares.
        pretraining_splits: The same for the pretraining data.
        seed: Seed of weights, order and augmentation. Defaults to 0.

    Returns:
        The experiment, not yet trained.

    Raises:
        ValueError: If recipe, dataset, splits and heads contradict each other.

    Example:
    >>> make_experiment(load_recipe("1"), "data/adience").identity  # doctest: +SKIP
    """
    # Cheap checks first: they need neither TensorFlow nor Keras.
    given = training_data(recipe, data, pretraining_data)
    check_initial_weights(recipe, pretraining_data, pretrained)
    for dataset in (given, pretraining_data):
        if isinstance(dataset, (str, Path)):
            datasets.check_prepared(dataset)
    if isinstance(pretrained, (str, Path)):
        model_file(pretrained)

    from keras_agegender.datasets.pipeline import read_labels
    from keras_agegender.models.registry import NETWORKS, resolve_backbone
    from keras_agegender.training.compile import get_optimizer

    get_optimizer(recipe.training.optimizer)
    model = recipe.model
    if model.backbone in NETWORKS:  # others are checked when they are built
        resolve_backbone(model.backbone, model.image_size, width=model.width)
    prepared = given
    if not isinstance(given, datasets.PreparedDataset):
        prepared = datasets.load_prepared(given)
    check_pixels(recipe, prepared)
    heads: Sequence[Head] = ()
    if not isinstance(extra_heads, str):
        heads = extra_heads
    elif predicts_age(model.encoding):
        heads = prepared.extra_heads()
    requested = recipe.make_encoding(heads, prepared.age_groups)
    prepared.check_encoding(requested)
    splits = resolve_splits(recipe, prepared, splits)
    encoding = _with_labels(requested, prepared, splits["train"])
    recipe = _without_dropped_outputs(recipe, requested, encoding)
    for change in recipe.loss_weight_changes:
        check_output_names(change.set, encoding.output_names, "loss_weight_changes")
    check_monitors(recipe, encoding)
    columns = [h.columns[0] for h in encoding.heads if h.spec.standardized]
    if columns:
        training_labels = read_labels(prepared, splits["train"], columns)
        encoding = encoding.with_statistics(training_labels)
    faces = prepared.num_faces(splits["train"])
    return Experiment(
        recipe=recipe,
        data=ExperimentData(
            recipe.data.role, prepared, splits, prepared.data_sha256, _pixels(prepared)
        ),
        encoding=encoding,
        seed=seed,
        steps_per_epoch=-(-faces // recipe.data.batch_size),
        initialized_from=_initialized_from(
            recipe, pretraining_data, pretrained, pretraining_splits, seed
        ),
        file_hashes=_file_hashes(recipe),
        dropped_outputs=tuple(
            name for name in requested.output_names if name not in encoding.output_names
        ),
    )


def resolve_splits(
    recipe: Recipe, prepared: Any, splits: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns split expressions: the dataset's, then `splits`, then the recipe's."""
    found = dict(prepared.splits)
    for name, expression in (splits or {}).items():
        found[name] = _expanded(expression, prepared.splits)
    if recipe.data.validation_split is not None:
        found["validation"] = _expanded(recipe.data.validation_split, found)
    for name in ("train", "validation"):
        if name not in found:
            raise ValueError(
                f"{prepared.directory} has no {name} split. Splits: {found}. "
                f"Specify it with `splits` (--split {name}=…)."
            )
    names = [name for name in ("train", "validation", "test") if name in found]
    for name in names:
        prepared.num_faces(found[name])
    return {name: found[name] for name in names}


def _expanded(expression: str, named: Mapping[str, str]) -> str:
    """Replaces `train`, `validation` and `test` in an expression."""
    return "+".join(named.get(part, part) for part in expression.split("+"))


def logged_names(encoding: Encoding) -> list[str]:
    """Returns the names of the metrics that training with an encoding logs."""
    names = ["loss", "mean_accuracy"]
    if encoding.gender_head is not None:
        names.append("gender_accuracy")
    if encoding.age_head is not None:
        names += ["age_accuracy", "age_mean_absolute_error"]
        if encoding.question is not None:
            names += ["age_all_heads_accuracy", "age_loss"]
    for output, metrics in encoding.metrics().items():
        names.append(f"{output}_loss")
        # Keras prefixes a metric with its output's name unless there is only one.
        prefix = f"{output}_" if len(encoding.output_names) > 1 else ""
        names += [f"{prefix}{getattr(m, 'name', None) or m}" for m in metrics]
    names = [*dict.fromkeys(names)]
    return names + [f"val_{name}" for name in names]


def check_monitors(recipe: Recipe, encoding: Encoding) -> None:
    """Checks that monitored metrics are logged; Keras only warns after an epoch."""
    training = recipe.training
    monitors = {"training.checkpoint_monitor": training.checkpoint_monitor}
    for name, monitor in training.extra_checkpoints.items():
        monitors[f"training.extra_checkpoints.{name}"] = monitor
    if training.patience is not None:
        monitors["training.stop_monitor"] = training.stop_monitor
    for number, change in enumerate(recipe.loss_weight_changes):
        if change.monitor is not None:
            monitors[f"loss_weight_changes[{number}].monitor"] = change.monitor
    known = logged_names(encoding)
    for key, monitor in monitors.items():
        if monitor not in known:
            hint = did_you_mean(monitor, known)
            raise ValueError(
                f"Invalid `{key}` of recipe {recipe.name!r}. Expected one of {known}. "
                f"Received: {monitor!r}.{hint}"
            )


def _with_labels(
    encoding: Encoding, prepared: datasets.PreparedDataset, train_split: str
) -> Encoding:
    """Returns the encoding without heads for which no training face has a label."""
    from keras_agegender.datasets.pipeline import columns_without_labels

    missing = columns_without_labels(prepared, train_split, encoding.columns)
    remaining = encoding.without_columns(missing)
    if not remaining.heads:
        raise ValueError(
            f"Invalid dataset. Expected labels of {' or '.join(encoding.columns)} in "
            f"the split {train_split!r} of {prepared.directory}, for at least one "
            f"output of the encoding {encoding.name!r}. "
            f"Received: no labels of {', '.join(sorted(missing))}."
        )
    return remaining


def _without_dropped_outputs(
    recipe: Recipe, requested: Encoding, encoding: Encoding
) -> Recipe:
    """Returns a recipe without the settings of outputs that were dropped."""
    dropped = set(requested.output_names) - set(encoding.output_names)
    if not dropped:
        return recipe
    unlogged = set(logged_names(requested)) - set(logged_names(encoding))
    changes = [
        (change, {n: w for n, w in change.set.items() if n not in dropped})
        for change in recipe.loss_weight_changes
        if change.monitor not in unlogged
    ]
    checkpoints = recipe.training.extra_checkpoints.items()
    return replace(
        recipe,
        loss_weights={n: w for n, w in recipe.loss_weights.items() if n not in dropped},
        loss_weight_changes=tuple(replace(c, set=new) for c, new in changes if new),
        training=replace(
            recipe.training,
            extra_checkpoints={n: m for n, m in checkpoints if m not in unlogged},
        ),
    )


CONTENT = {"whole": "whole images", "cropped": "face crops"}
HINTS = {
    "whole": "Prepare whole images with `agegender prepare … --no-crop`.",
    "cropped": "Prepare face crops with `agegender prepare …`, without --no-crop.",
}


def check_pixels(recipe: Recipe, prepared: datasets.PreparedDataset) -> None:
    """Checks that a dataset has the face crops or whole images that a recipe needs."""
    needed, held = recipe.data.faces, _content(prepared)
    if needed in ("any", held):
        return
    found = f"has {CONTENT[held]}" if held else "does not record what its images are"
    raise ValueError(
        f"Recipe {recipe.name!r} trains on {CONTENT[needed]} (data.faces = "
        f"{needed!r}), but the dataset in {prepared.directory} {found}. "
        f"{HINTS[needed]} To train on it anyway, use --set data.faces=any."
    )


def select_prepared(
    recipe: Recipe, several: Sequence[datasets.PreparedDataset]
) -> datasets.PreparedDataset | None:
    """Returns the first dataset with the images that a recipe needs, else the first."""
    for prepared in several:
        if recipe.data.faces in ("any", _content(prepared)):
            return prepared
    return several[0] if several else None


def _content(prepared: datasets.PreparedDataset) -> str | None:
    return prepared.pixels.faces if prepared.pixels else None


def _pixels(prepared: datasets.PreparedDataset) -> dict[str, Any]:
    """Returns the preprocessing of a dataset's images, as recorded by `prepare`."""
    info = prepared.info
    if "pixels" in info:
        return {"pixels": info["pixels"]}
    return {k: info[k] for k in ("crop", "detector", "output_size") if k in info}


def model_file(path: str | Path) -> Path:
    """Returns the `.keras` file itself, or the best model of a run."""
    path = Path(path)
    file = path if path.suffix == ".keras" else RunDirectory.open(path).best_model
    if not file.is_file():
        raise ValueError(f"Model file not found: {file}.")
    return file


def _initialized_from(
    recipe: Recipe,
    data: datasets.PreparedDataset | str | Path | None,
    pretrained: Experiment | str | Path | None,
    splits: Mapping[str, str] | None,
    seed: int,
) -> Experiment | InitialWeights | None:
    """Returns where the initial weights come from: `pretrained` replaces the recipe."""
    if isinstance(pretrained, Experiment):
        return pretrained
    if pretrained is not None:
        file, path = model_file(pretrained), Path(pretrained)
        described = None
        if file != path:
            described = RunDirectory(path).info().get("experiment")
        return InitialWeights(path, described or {"file_sha256": file_hash(file)})
    first = recipe.pretraining_recipe
    if first is None:
        return None
    return make_experiment(first, data, pretraining_data=data, splits=splits, seed=seed)


def _file_hashes(recipe: Recipe) -> dict[str, Any]:
    """Returns the hashes of files that a recipe names."""
    hashes: dict[str, Any] = {}
    weights = recipe.model.backbone_weights
    if weights is not None and Path(weights).is_file():
        hashes["model.backbone_weights"] = file_hash(Path(weights))
    if recipe.distillation is not None:
        teachers = [model_file(path) for path in recipe.distillation.teachers]
        hashes["distillation.teachers"] = [file_hash(file) for file in teachers]
    return hashes
