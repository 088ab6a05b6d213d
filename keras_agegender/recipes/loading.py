"""Loads recipes and replaces settings."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from keras_agegender.encodings.registry import ENCODINGS, has_rank_direction
from keras_agegender.errors import did_you_mean
from keras_agegender.recipes.schema import ModelSettings, Recipe, check_recipe

PREFIX = "pretraining."
MOST_AGE_GROUPS = 130  # an ordinal output for each year would be the most there can be

# What speaks of a recipe's own outputs, data or name does not reach the recipe that it
# begins with; all else does.
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
)


def apply_override(settings: dict[str, Any], override: str) -> None:
    """Puts one override into a recipe's settings; an empty value unsets the key.

    Raises:
        ValueError: If it is not of the form `section.key=value`.
    """
    key, text = split_override(override)
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


def encoding_of(settings: Mapping[str, Any]) -> Any:
    """Returns the encoding that a recipe's settings name, or the default."""
    model = settings.get("model")
    named = model if isinstance(model, Mapping) else {}
    return named.get("encoding", ModelSettings.encoding)


def follow_encoding(
    settings: dict[str, Any], before: Any, overrides: Sequence[str]
) -> None:
    """Takes away what was said of outputs that another encoding does not have.

    What an override says itself stays, right or wrong.

    Args:
        settings: A recipe's settings with overrides.
        before: Its encoding without them.
        overrides: The overrides.
    """
    keys = {split_override(override)[0] for override in overrides}
    after = encoding_of(settings)
    model: Any = settings.get("model")
    if (
        not has_rank_direction(after)
        and "model.question" not in keys
        and isinstance(model, dict)  # else told when all is read
    ):
        model.pop("question", None)
    gone = _outputs(before) - _outputs(after)
    weights: Any = settings.get("loss_weights")
    if isinstance(weights, dict) and "loss_weights" not in keys:
        said = {key.removeprefix("loss_weights.") for key in keys}
        for name in gone - said:
            weights.pop(name, None)
    changes: Any = settings.get("loss_weight_changes", ())
    if "loss_weight_changes" not in keys and _are_changes(changes):
        kept = [
            {**c, "set": {k: v for k, v in c.get("set", {}).items() if k not in gone}}
            for c in changes
        ]
        settings["loss_weight_changes"] = [change for change in kept if change["set"]]
    settings.pop("published", None)  # of another model


def _are_changes(changes: Any) -> bool:
    """Returns whether changes are tables of tables; others are told later."""
    return isinstance(changes, (list, tuple)) and all(
        isinstance(change, dict) and isinstance(change.get("set", {}), dict)
        for change in changes
    )


def _outputs(encoding: Any) -> set[str]:
    """Returns the names of an encoding's outputs, whatever the age groups."""
    if not isinstance(encoding, str) or encoding not in ENCODINGS:
        return set()  # told by `check_recipe`
    heads = ENCODINGS[encoding](MOST_AGE_GROUPS)
    return {name for head in heads for name in head.output_names}


def split_override(override: str) -> tuple[str, str]:
    """Returns an override's key and the text of its value."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(
            f"Invalid override. Expected 'section.key=value'. Received: {override!r}."
        )
    return key.strip(), text.strip()


def for_pretraining(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that hold for the recipe that a recipe begins with.

    Those of the network, the batches and the optimizer do, as `training.epochs=3`;
    those of a recipe's own outputs, data or name (`OWN_KEYS`) do not.
    `pretraining.KEY=VALUE` holds for that recipe alone, and over the others.

    Example:
    >>> for_pretraining(["training.epochs=3", "model.encoding=joint"])
    ['training.epochs=3']
    >>> for_pretraining(["pretraining.training.epochs=1", "training.epochs=3"])
    ['training.epochs=3', 'training.epochs=1']
    """
    shared, alone = [], []
    for override in overrides:
        key, _ = split_override(override)
        if key.startswith(PREFIX):
            alone.append(override.strip().removeprefix(PREFIX))
        elif not any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS):
            shared.append(override)
    return [*shared, *alone]


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
            is TOML, a bare word counts as a string, and no value unsets the key. With
            another `model.encoding`, the question and loss weights of outputs that
            there are no more go, and so do the published scores. Those
            of the network, the batches and the optimizer hold for the recipe that this
            one begins with as well; `"pretraining.section.key=value"` is for that one
            alone.

    Raises:
        ValueError: If there is no such recipe, or it holds an unknown key, a value of
            another kind or one out of range; the message names file, key and value.

    Example:
    >>> load_recipe("quickstart", ["training.epochs=1"]).training.epochs
    1
    """
    settings, source = _read(str(name))
    settings.setdefault("name", Path(source).stem)
    return _overridden(settings, overrides, source)


def override_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Returns a recipe with other settings; takes the overrides of `load_recipe`."""
    if not overrides:
        check_recipe(recipe, recipe.name)
        return recipe
    return _overridden(recipe.to_dict(), overrides, recipe.name)


def pretraining_recipe(recipe: Recipe) -> Recipe:
    """Returns the recipe that another one begins with, at that one's image size.

    Args:
        recipe: A recipe with a `pretraining`.
    """
    if recipe.pretraining is None:
        raise ValueError(f"Recipe {recipe.name!r} begins with no other recipe.")
    first = load_recipe(recipe.pretraining, recipe.pretraining_overrides)
    size = recipe.model.image_size
    named = any(o.startswith("model.image_size") for o in recipe.pretraining_overrides)
    if named and first.model.image_size != size:
        raise ValueError(
            "Invalid `pretraining.model.image_size`. Expected that of the recipe it "
            f"gives its weights to, {list(size)}. Received: "
            f"{list(first.model.image_size)}."
        )
    return replace(first, model=replace(first.model, image_size=size))


def _overridden(
    settings: dict[str, Any], overrides: Sequence[str], source: str
) -> Recipe:
    before = encoding_of(settings)
    for override in overrides:
        if not override.strip().startswith(PREFIX):
            apply_override(settings, override)
    if encoding_of(settings) != before:
        follow_encoding(settings, before, overrides)
    reaching = for_pretraining(overrides)
    if settings.get("pretraining") is not None:
        before = settings.get("pretraining_overrides", [])
        if not isinstance(before, (list, tuple)):
            raise ValueError(
                f"Recipe {source} has an invalid value of 'pretraining_overrides'. "
                f"Expected a list of texts. Received: {before!r}."
            )
        settings["pretraining_overrides"] = [*before, *reaching]
    elif any(override.strip().startswith(PREFIX) for override in overrides):
        raise ValueError(
            f"Invalid override. Recipe {source} begins with no other recipe, so there "
            f"is nothing for {PREFIX}… to change. Received: {list(overrides)}."
        )
    recipe = _build(Recipe, settings, source, "")
    check_recipe(recipe, source)
    if recipe.pretraining is not None:
        pretraining_recipe(recipe)  # its mistakes surface now
    return recipe


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
        text, source = _text_of(path), str(path)
    else:
        name = _full_name(name)
        entry = _folder() / f"{name}.toml"
        if not entry.is_file():
            hint = did_you_mean(name, _names())
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
    for key in unset:
        _unset(inherited, key, source)
    return _merged(inherited, settings), source


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Recipe {file} is not UTF-8 text: {error.reason}.") from None


def _unset(settings: dict[str, Any], key: str, source: str) -> None:
    """Takes a setting of the base away."""
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
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _build(kind: type, settings: Mapping[str, Any], source: str, prefix: str) -> Any:
    """Fills a dataclass from a table; unknown keys and wrong types are errors."""
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(settings) - set(hints))
    if unknown:
        hint = did_you_mean(unknown[0], hints, prefix)
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
    if origin in (typing.Union, types.UnionType):  # `float | None`
        if value is None and type(None) in arguments:
            return None
        return _convert(arguments[0], value, source, key)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ValueError(
            f"Recipe {source} has an invalid value of {key!r}. Expected one of "
            f"{list(arguments)}, or no such key for the default. Received: {value!r}."
        )
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


def training_data(recipe: Recipe, data: Any, pretraining_data: Any) -> Any:
    """Returns which dataset a recipe is trained on.

    Args:
        recipe: One of role `"pretrain"` takes pretraining data where it is given.
        data: A prepared dataset, or its folder.
        pretraining_data: The same.

    Raises:
        ValueError: If that is none.
    """
    role = recipe.data.role
    given = data
    if role == "pretrain" and pretraining_data is not None:
        given = pretraining_data
    if given is None:
        raise ValueError(
            f"Missing `data` (--data). Recipe {recipe.name!r} is trained on {role} "
            "data: a dataset that `agegender prepare` made."
        )
    return given


def check_beginning(
    recipe: Recipe, pretraining_data: object, pretrained: object
) -> None:
    """Makes sure that what a recipe begins with is there or can be trained.

    Raises:
        ValueError: If neither data nor weights are given for it, or there is no file of
            weights that a recipe names.
    """
    given = pretraining_data is not None or pretrained is not None
    if recipe.pretraining is not None and not given:
        raise ValueError(
            f"Recipe {recipe.name!r} begins with {recipe.pretraining!r}. Say what to "
            "train that on with `pretraining_data` (--pretraining-data), or give a "
            "finished run with `pretrained` (--pretrained)."
        )
    check_weights_file(recipe, pretrained)


def check_pretraining_data(recipe: Recipe, pretraining_data: object) -> None:
    """Makes sure that pretraining data is of use.

    Raises:
        ValueError: If it is given to a recipe that begins with no other one.
    """
    needed = recipe.pretraining is not None or recipe.data.role == "pretrain"
    if pretraining_data is not None and not needed:
        raise ValueError(
            "Invalid `pretraining_data` (--pretraining-data). Recipe "
            f"{recipe.name!r} begins with no other recipe."
        )


def check_weights_file(recipe: Recipe, pretrained: object = None) -> None:
    """Makes sure that the file of weights that the backbone begins with is there.

    Args:
        recipe: What would be trained.
        pretrained: What it begins with instead of the recipe it names, if anything.

    Raises:
        ValueError: If there is no such file, for the recipe or what it begins with.
    """
    trained = [recipe]
    if recipe.pretraining is not None and pretrained is None:
        trained.append(pretraining_recipe(recipe))
    for one in trained:
        file = one.model.backbone_weights
        if file not in (None, "imagenet") and not Path(str(file)).is_file():
            raise ValueError(
                f"There is no weights file {file}. Recipe {one.name!r} names it as "
                "'model.backbone_weights'."
            )
