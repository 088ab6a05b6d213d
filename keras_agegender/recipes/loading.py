"""Loads recipes and overrides settings."""

from __future__ import annotations

import copy
import functools
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from keras_agegender.encodings.registry import ENCODINGS, has_rank_direction
from keras_agegender.errors import did_you_mean
from keras_agegender.recipes.schema import ModelSettings, Recipe

PREFIX = "pretraining."
# Where a key without a section is searched.
SECTIONS = ("training", "model", "data", "augmentation", "evaluation", "distillation")
MOST_AGE_GROUPS = 130  # an ordinal output for each year of age

# Keys that are not forwarded to the pretraining recipe.
OWN_KEYS = (
    "name",
    "title",
    "pretraining",
    "pretraining_overrides",
    "model.encoding",
    "model.question",
    "model.attribute_features",
    "model.trainable_layers",
    "data.role",
    "data.validation_split",
    "data.balanced_sampling",
    "training.class_weights",
    "training.extra_checkpoints",
    "training.checkpoint_monitor",
    "training.normalize_loss",
    "training.stop_monitor",
    "evaluation",
    "loss_weights",
    "loss_weight_changes",
    "published",
    "cost",
)


def list_recipes() -> dict[str, str]:
    """Returns name -> title of the built-in recipes.

    Those of the report start with the number of its model.
    """
    return {name: load_recipe(name).title for name in _names()}


def report_recipes() -> list[str]:
    """Returns the recipes of the report's models, 1 to 14, in order."""
    return [name for name in _names() if name.partition("_")[0].isdecimal()]


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe.

    Args:
        name: One of `list_recipes()`, the number that it starts with (`"14"`), what
            follows the number (`"resnet_se_ordinal"`), or the path of a TOML file.
        overrides: Settings that replace the file's, as `"section.key=value"`. The value
            is TOML, a bare word is a string, and an empty value unsets the key. With
            another `model.encoding`, the question, the loss weights of outputs that no
            longer exist, and the published scores are dropped. Settings of the network,
            the batches and the optimizer also apply to the pretraining recipe;
            `"pretraining.section.key=value"` applies to that recipe only.

    Raises:
        ValueError: If there is no such recipe, or it has an unknown key, a value of the
            wrong type or one out of range; the message names file, key and value.

    Example:
    >>> load_recipe("quickstart", ["training.epochs=1"]).training.epochs
    1
    """
    settings, source = _read(str(name))
    settings.setdefault("name", Path(source).stem)
    return _build(settings, overrides, source)


def override_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Returns a recipe with other settings; takes the overrides of `load_recipe`."""
    if not overrides:
        return recipe
    return _build(recipe.to_dict(), overrides, recipe.name)


def load_pretraining(recipe: Recipe) -> Recipe | None:
    """Returns the recipe that is trained first, at the image size of this one."""
    if recipe.pretraining is None:
        return None
    overrides = recipe.pretraining_overrides
    first = load_recipe(recipe.pretraining, overrides)
    size = recipe.model.image_size
    given = any(text.startswith("model.image_size") for text in overrides)
    if given and first.model.image_size != size:
        raise ValueError(
            "Invalid `pretraining.model.image_size`. Expected that of the recipe it "
            f"initializes, {list(size)}. Received: {list(first.model.image_size)}."
        )
    return replace(first, model=replace(first.model, image_size=size))


def _build(settings: dict[str, Any], overrides: Sequence[str], source: str) -> Recipe:
    """Returns the recipe of a file's settings, with overrides."""
    before = _encoding_of(settings)
    for override in overrides:
        if not override.strip().startswith(PREFIX):
            _apply_override(settings, override)
    if _encoding_of(settings) != before:
        _follow_encoding(settings, before, overrides)
    if settings.get("pretraining") is not None:
        own = settings.get("pretraining_overrides", [])
        if isinstance(own, (list, tuple)):  # other types are an error below
            forwarded = _for_pretraining(overrides)
            settings["pretraining_overrides"] = [*own, *forwarded]
    elif any(override.strip().startswith(PREFIX) for override in overrides):
        raise ValueError(
            f"Invalid override. Recipe {source} has no pretraining recipe, so "
            f"{PREFIX}… has no effect. Received: {list(overrides)}."
        )
    recipe = _validate(settings, source)
    recipe.pretraining_recipe  # noqa: B018  # its mistakes surface now
    return recipe


def _validate(settings: dict[str, Any], source: str) -> Recipe:
    """Returns the validated recipe; raises an error about the first mistake."""
    # JSON, like TOML, has arrays for tuples and tables for sections. A date becomes a
    # value that no setting accepts.
    text = json.dumps(settings, default=lambda date: {str(date): None})
    try:
        return TypeAdapter(Recipe).validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
    location, context = found["loc"], found.get("ctx", {})
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location)[1:]
    if found["type"] == "unexpected_keyword_argument":
        section, _, name = key.rpartition(".")
        hint = did_you_mean(name, _keys_of(section), f"{section}." * bool(section))
        for other in () if hint or section else SECTIONS:  # `epochs` of `training`
            hint = hint or did_you_mean(name, _keys_of(other), f"{other}.")
        raise ValueError(f"Recipe {source} has an unknown key {key!r}.{hint}")
    if found["type"] == "value_error":  # of `Augmentation`, which names its setting
        raise ValueError(
            f"Recipe {source} has an invalid section {key!r}. {context['error']}"
        )
    expected, received, hint = found["msg"], repr(found["input"]), ""
    if found["type"] == "setting":
        key = ".".join(filter(None, (key, context["key"])))
        expected, received = context["expected"], context["received"]
        hint = context["hint"]
    expected = (
        expected.replace("Input should be ", "")
        .replace("greater than", "a value greater than")
        .replace("less than", "a value less than")
        .replace("a valid array", "an array")
        .replace("an object", "a table")
        .replace("Field required", "a value")
    )
    raise ValueError(
        f"Recipe {source} has an invalid value of {key!r}. Expected {expected}. "
        f"Received: {received}.{hint}"
    )


def _keys_of(section: str) -> list[str]:
    """Returns the keys of a section, or of the recipe itself."""
    if not section:
        return [field.name for field in fields(Recipe)]
    hint = typing.get_type_hints(Recipe)[section.partition("[")[0]]
    kinds = (hint, *typing.get_args(hint))
    return [f.name for kind in kinds if is_dataclass(kind) for f in fields(kind)]


def _apply_override(settings: dict[str, Any], override: str) -> None:
    """Sets one key of a recipe; an empty value unsets it."""
    key, text = _split_override(override)
    value: Any
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text or None
    *sections, last = key.split(".")
    target = settings
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ValueError(f"Invalid override {override!r}. {section!r} has no keys.")
    if value is None and isinstance(target.get(last), (dict, list)):
        del target[last]  # an empty table or list is the default
    else:
        target[last] = value


def _split_override(override: str) -> tuple[str, str]:
    """Returns an override's key and the text of its value."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(
            f"Invalid override. Expected 'section.key=value'. Received: {override!r}."
        )
    return key.strip(), text.strip()


def _for_pretraining(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that apply to the pretraining recipe, its own ones last."""
    shared, own = [], []
    for override in overrides:
        key, _ = _split_override(override)
        if key.startswith(PREFIX):
            own.append(override.strip().removeprefix(PREFIX))
        elif not any(key == name or key.startswith(f"{name}.") for name in OWN_KEYS):
            shared.append(override)
    return [*shared, *own]


def _encoding_of(settings: Mapping[str, Any]) -> Any:
    """Returns the encoding that a recipe's settings name, or the default."""
    model = settings.get("model")
    named = model if isinstance(model, Mapping) else {}
    return named.get("encoding", ModelSettings.encoding)


def _follow_encoding(
    settings: dict[str, Any], before: Any, overrides: Sequence[str]
) -> None:
    """Drops the settings, not overrides, of outputs that the encoding does not have."""
    keys = {_split_override(override)[0] for override in overrides}
    after = _encoding_of(settings)
    # Values of the wrong type stay: validation reports them.
    model: Any = settings.get("model")
    if (
        not has_rank_direction(after)
        and "model.question" not in keys
        and isinstance(model, dict)
    ):
        model.pop("question", None)
    gone = _outputs(before) - _outputs(after)
    weights: Any = settings.get("loss_weights")
    if isinstance(weights, dict) and "loss_weights" not in keys:
        for name in gone - {key.removeprefix("loss_weights.") for key in keys}:
            weights.pop(name, None)
    changes: Any = settings.get("loss_weight_changes", ())
    are_changes = isinstance(changes, (list, tuple)) and all(
        isinstance(change, dict) and isinstance(change.get("set", {}), dict)
        for change in changes
    )
    if "loss_weight_changes" not in keys and are_changes:
        remaining = [
            {**c, "set": {k: v for k, v in c.get("set", {}).items() if k not in gone}}
            for c in changes
        ]
        settings["loss_weight_changes"] = [c for c in remaining if c["set"]]
    for key in ("published", "cost"):
        settings.pop(key, None)  # of another model


def _outputs(encoding: Any) -> set[str]:
    """Returns the names of an encoding's outputs, for any number of age groups."""
    if not isinstance(encoding, str) or encoding not in ENCODINGS:
        return set()  # validation reports it
    heads = ENCODINGS[encoding](MOST_AGE_GROUPS)
    return {name for head in heads for name in head.output_names}


@functools.cache
def _names() -> list[str]:
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in resources.files("keras_agegender.recipes").iterdir()
        if entry.name.endswith(".toml") and not entry.name.startswith("base_")
    )


def _full_name(name: str) -> str:
    """Returns the full name of a recipe given by its number or short name."""
    for full in _names():
        number, _, rest = full.partition("_")
        if number.isdecimal() and (
            rest == name or (name.isdecimal() and int(name) == int(number))
        ):
            return full
    return name


def _read(name: str, seen: tuple[str, ...] = ()) -> tuple[dict[str, Any], str]:
    """Returns a file's settings merged into those of its base, and its name."""
    path = Path(name)
    if path.suffix == ".toml":
        source = str(path)
        if not path.is_file():
            raise ValueError(f"Recipe file not found: {name}.")
        try:
            settings = _parse(path.read_text("utf-8"), source)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Recipe {source} is not UTF-8 text: {error.reason}."
            ) from None
    else:
        settings, source = copy.deepcopy(_read_packaged(_full_name(name)))
    if source in seen:
        raise ValueError(f"Recipe {source} is its own base: {' -> '.join(seen)}.")
    base, unset = settings.pop("base", None), settings.pop("unset", [])
    if not isinstance(unset, list) or not all(isinstance(key, str) for key in unset):
        raise ValueError(
            f"Recipe {source} has an invalid `unset`. Expected a list of keys. "
            f"Received: {unset!r}."
        )
    if base is None:
        return settings, source
    if path.suffix == ".toml" and (path.parent / f"{base}.toml").is_file():
        base = str(path.parent / f"{base}.toml")
    inherited = _read(str(base), (*seen, source))[0]
    inherited.pop("cost", None)  # that of another training
    for key in unset:
        _unset(inherited, key, source)
    return _merged(inherited, settings), source


@functools.cache  # files of the package do not change
def _read_packaged(name: str) -> tuple[dict[str, Any], str]:
    entry = resources.files("keras_agegender.recipes") / f"{name}.toml"
    if not entry.is_file():
        raise ValueError(
            f"Unknown recipe {name!r}.{did_you_mean(name, _names())} Expected the path "
            f"of a .toml file, or a number or name: {', '.join(_names())}."
        )
    return _parse(entry.read_text("utf-8"), f"{name}.toml"), f"{name}.toml"


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"Recipe {source} is not valid TOML: {error}.") from error


def _unset(settings: dict[str, Any], key: str, source: str) -> None:
    """Removes a setting of the base."""
    *sections, last = key.split(".")
    table: Any = settings
    for section in sections:
        table = table.get(section) if isinstance(table, dict) else None
    if not isinstance(table, dict) or last not in table:
        raise ValueError(
            f"Recipe {source} has an invalid `unset`. Expected keys that its base "
            f"sets. Received: {key!r}."
        )
    del table[last]


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(base.get(key), dict) and isinstance(value, dict)
        merged[key] = _merged(base[key], value) if both else value
    return merged


def training_data(recipe: Recipe, data: Any, pretraining_data: Any) -> Any:
    """Returns the dataset a recipe trains on: `pretraining_data` by its role."""
    role = recipe.data.role
    pretrains = role == "pretrain" and pretraining_data is not None
    given = pretraining_data if pretrains else data
    if given is None:
        raise ValueError(
            f"Missing `data` (--data). Recipe {recipe.name!r} trains on {role} data. "
            "Pass a dataset prepared with `agegender prepare`."
        )
    return given


def check_pretraining_data(recipe: Recipe, pretraining_data: object) -> None:
    """Checks that the recipe uses the pretraining data."""
    needed = recipe.pretraining is not None or recipe.data.role == "pretrain"
    if pretraining_data is not None and not needed:
        raise ValueError(
            "Invalid `pretraining_data` (--pretraining-data). Recipe "
            f"{recipe.name!r} has no pretraining recipe."
        )


def check_initial_weights(
    recipe: Recipe, pretraining_data: object, pretrained: object
) -> None:
    """Checks that a recipe's initial weights exist or can be trained."""
    given = pretraining_data is not None or pretrained is not None
    if recipe.pretraining is not None and not given:
        raise ValueError(
            f"Recipe {recipe.name!r} is initialized from {recipe.pretraining!r}. Pass "
            "the dataset to train it on with `pretraining_data` (--pretraining-data), "
            "or a finished run with `pretrained` (--pretrained)."
        )
    check_weights_file(recipe, pretrained)


def check_weights_file(recipe: Recipe, pretrained: object = None) -> None:
    """Checks that files of backbone weights exist, of the pretraining recipe too."""
    trained = [recipe]
    if recipe.pretraining_recipe is not None and pretrained is None:
        trained.append(recipe.pretraining_recipe)
    for one in trained:
        file = one.model.backbone_weights
        if file not in (None, "imagenet") and not Path(str(file)).is_file():
            raise ValueError(
                f"Weights file not found: {file}. Recipe {one.name!r} names it as "
                "'model.backbone_weights'."
            )
