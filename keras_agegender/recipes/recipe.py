"""Recipes: one experiment as a TOML file, loaded strictly into frozen dataclasses.

In: the name of a recipe in this folder, or the path of one's own, and overrides as
`"section.key=value"`. Out: a `Recipe` in which every setting is spelled out; `to_toml`
writes it beside the checkpoints it led to.

A file may name another as its `base` and then holds just what differs.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelSettings:
    """Section `[model]`: arguments of `build_model`.

    Attributes:
        name: One of `list_models()`.
        encoding: One of `list_encodings()`.
        question: `"older"` or `"younger"` for ordinal heads; empty for the default.
        image_size: (height, width) of the input in pixels.
        augment: Whether the ResNets' random flip and contrast layers are put in.
        dropout_rate: Dropout of the Caffe networks' hidden layers, in [0, 1).
        attribute_features: Whether CelebA's 40 attributes, as outputs of a layer each,
            stand between the network and the heads.
        trainable_layers: How many layers before the outputs train; all others keep
            their pretrained weights. -1 trains all.
    """

    name: str = "resnet34"
    encoding: str = "categorical"
    question: str = ""
    image_size: tuple[int, int] = (224, 224)
    augment: bool = True
    dropout_rate: float = 0.5
    attribute_features: bool = False
    trainable_layers: int = -1


@dataclass(frozen=True)
class DataSettings:
    """Section `[data]`: arguments of `make_train_dataset`.

    Attributes:
        pipeline: `"resnet"` or `"caffe"`.
        batch_size: Faces per step, over all devices.
        shuffle_buffer: Faces shuffled together.
        cache: Whether compressed pictures stay in memory after the first epoch.
        balanced_sampling: Whether every age group is drawn equally often.
        validation_split: Split expression that selects the model; empty for the
            dataset's own validation split.
    """

    pipeline: str = "resnet"
    batch_size: int = 64
    shuffle_buffer: int = 20_000
    cache: bool = False
    balanced_sampling: bool = False
    validation_split: str = ""


@dataclass(frozen=True)
class TrainingSettings:
    """Section `[training]`: how `fit` runs.

    Attributes:
        epochs: Epochs at most.
        optimizer: `"adam"`, `"adamw"`, `"sgd"` or another of Keras' by name.
        learning_rate: Its learning rate at the start.
        learning_rate_changes: Optimizer step -> learning rate from that step on.
        weight_decay: Its decoupled weight decay; 0 for none.
        patience: Epochs without a better `stop_monitor` before training stops; 0 trains
            all epochs.
        stop_monitor: Metric that early stopping watches.
        keep_monitor: Metric whose best epoch is kept as `best.keras`.
        keep: Further models to keep: name -> metric whose best epoch is kept as
            `best_<name>.keras`, the lowest for losses.
        normalize_loss: Whether loss weights are divided by their sum.
        class_weights: `"balanced"` weighs faces of rare age groups more in every age
            head; empty weighs all alike.
        mixed_precision: Whether layers compute in 16 bits.
        jit_compile: Whether the step is compiled by XLA.
        cosine_decay: Whether the learning rate falls to 0 along a cosine over all
            epochs.
    """

    epochs: int = 20
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    learning_rate_changes: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    patience: int = 0
    stop_monitor: str = "val_loss"
    keep_monitor: str = "val_mean_accuracy"
    keep: dict[str, str] = field(default_factory=dict)
    normalize_loss: bool = False
    class_weights: str = ""
    mixed_precision: bool = False
    jit_compile: bool = False
    cosine_decay: bool = False


@dataclass(frozen=True)
class LossWeightChange:
    """One `[[loss_weight_changes]]`: other loss weights from some moment on.

    Attributes:
        set: Output name -> weight from then on.
        epoch: From this epoch on, counted from 0; -1 when not by epoch.
        step: From this optimizer step on, counted from 0; -1 when not by step.
        monitor: Once this metric …
        above: … is at least this …
        below: … or at most this.
    """

    set: dict[str, float] = field(default_factory=dict)
    epoch: int = -1
    step: int = -1
    monitor: str = ""
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Published:
    """One `[[published]]`: a row of the report's results that the recipe reproduces.

    Attributes:
        checkpoint: Which of the models kept; empty for `best.keras`.
        data: What it was measured on.
        positive: Positive class of f1, precision and recall.
        gender_accuracy: Share of genders right.
        gender_f1: F1 of gender.
        gender_precision: Precision of gender.
        gender_recall: Recall of gender.
        age_accuracy: Share of age groups right; for ordinal heads, all heads right.
    """

    checkpoint: str = ""
    data: str = "Adience fold 4"
    positive: str = "male"
    gender_accuracy: float | None = None
    gender_f1: float | None = None
    gender_precision: float | None = None
    gender_recall: float | None = None
    age_accuracy: float | None = None


@dataclass(frozen=True)
class Recipe:
    """One experiment, every setting spelled out.

    Attributes:
        name: Its file's name without the ending.
        title: What it is, in a line.
        pretraining: Recipe whose best model gives its weights first; empty for none.
        model: Section `[model]`.
        data: Section `[data]`.
        training: Section `[training]`.
        loss_weights: Output name -> weight at the start; others keep their encoding's.
        loss_weight_changes: Changes of those while training.
        published: What the report says came of it.
    """

    name: str = ""
    title: str = ""
    pretraining: str = ""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    loss_weights: dict[str, float] = field(default_factory=dict)
    loss_weight_changes: tuple[LossWeightChange, ...] = ()
    published: tuple[Published, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain dicts and lists, `None` left out."""
        return _without_none(dataclasses.asdict(self))

    def to_toml(self) -> str:
        """Returns the recipe as the text of a TOML file that `load_recipe` reads."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


def list_recipes() -> dict[str, str]:
    """Returns name -> title of the recipes that come with the library.

    Those of the report begin with the number of its model.
    """
    return {name: load_recipe(name).title for name in _names()}


def report_recipes() -> list[str]:
    """Returns the recipes of the report's models, 1 to 14, in their order."""
    return [name for name in _names() if name.partition("_")[0].isdecimal()]


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe.

    Args:
        name: One of `list_recipes()`, or the number it begins with (`"14"`), or what
            follows its number (`"resnet_se_ordinal"`), or the path of a TOML file.
        overrides: Settings that replace the file's, as `"section.key=value"`; the value
            is TOML, and a bare word counts as a string.

    Raises:
        ValueError: If there is no such recipe, or it holds an unknown key or a value of
            another kind; the message names file, key and value.

    Example:
    >>> load_recipe("quickstart", ["training.epochs=1"]).training.epochs
    1
    """
    settings, source = _read(str(name))
    for override in overrides:
        _override(settings, override)
    settings.setdefault("name", Path(source).stem)
    return _build(Recipe, settings, source, "")


def _folder() -> Any:
    return resources.files("keras_agegender.recipes")


def _names() -> list[str]:
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in _folder().iterdir()
        if entry.name.endswith(".toml") and not entry.name.startswith("base_")
    )


def _full_name(name: str) -> str:
    """Returns the recipe that a number or the part behind it stands for."""
    for full in _names():
        number, _, rest = full.partition("_")
        if number.isdecimal() and (
            rest == name or (name.isdecimal() and int(name) == int(number))
        ):
            return full
    return name


def _read(name: str, seen: tuple[str, ...] = ()) -> tuple[dict[str, Any], str]:
    """Returns a file's settings over those of its bases, and what it is called."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ValueError(f"There is no recipe file {name}.")
        text, source = path.read_text("utf-8"), str(path)
    else:
        name = _full_name(name)
        entry = _folder() / f"{name}.toml"
        if not entry.is_file():
            close = difflib.get_close_matches(name, _names(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"There is no recipe named {name!r}.{hint} Recipes: {_names()}; "
                "or give the path of a .toml file."
            )
        text, source = entry.read_text("utf-8"), f"{name}.toml"
    if source in seen:
        raise ValueError(f"Recipe {source} is its own base: {' -> '.join(seen)}.")
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"Recipe {source} is not valid TOML: {error}.") from error
    base = settings.pop("base", None)
    if base is None:
        return settings, source
    if path.suffix == ".toml" and (path.parent / f"{base}.toml").is_file():
        base = str(path.parent / f"{base}.toml")
    return _merged(_read(str(base), (*seen, source))[0], settings), source


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _override(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(
            f"Invalid override. Expected 'section.key=value'. Received: {override!r}."
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, last = key.strip().split(".")
    target = settings
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ValueError(f"Invalid override {override!r}. {section!r} has no keys.")
    target[last] = value


def _build(kind: type, settings: Mapping[str, Any], source: str, prefix: str) -> Any:
    """Fills a dataclass from a table; unknown keys and wrong types are errors."""
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(settings) - set(hints))
    if unknown:
        close = difflib.get_close_matches(unknown[0], hints, n=1)
        hint = f" Did you mean {prefix + close[0]!r}?" if close else ""
        raise ValueError(
            f"Recipe {source} has an unknown key {prefix + unknown[0]!r}.{hint}"
        )
    values = {
        key: _convert(hints[key], value, source, f"{prefix}{key}")
        for key, value in settings.items()
    }
    return kind(**values)


def _convert(hint: Any, value: Any, source: str, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # `float | None`; TOML has no null
        return _convert(arguments[0], value, source, key)
    if (
        isinstance(hint, type)
        and dataclasses.is_dataclass(hint)
        and (isinstance(value, Mapping))
    ):
        return _build(hint, value, source, f"{key}.")
    if hint is float and isinstance(value, (int, float)) and value is not True:
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    if origin is dict and isinstance(value, Mapping):
        return {
            str(k): _convert(arguments[1], v, source, f"{key}.{k}")
            for k, v in value.items()
        }
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        if len(kinds) == len(value):
            return tuple(
                _convert(kind, item, source, f"{key}[{i}]")
                for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
            )
    name = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise ValueError(
        f"Recipe {source} has an invalid value of {key!r}. Expected {name}. "
        f"Received: {value!r}."
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return value
