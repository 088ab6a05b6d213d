"""Recipes: one experiment as a TOML file, loaded strictly into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from keras_agegender.recipes.recipe import Recipe


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
