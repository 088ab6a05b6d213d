"""Recipes: one experiment as a TOML file, loaded strictly into frozen dataclasses."""

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

from keras_agegender.recipes.checks import check_recipe
from keras_agegender.recipes.overrides import (
    PREFIX,
    apply_override,
    encoding_of,
    follow_encoding,
    for_pretraining,
)
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.suggestion import did_you_mean


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
