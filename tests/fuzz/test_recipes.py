"""Recipes of strangers and settings with mistakes: loaded, or refused in words."""

from __future__ import annotations

import dataclasses
import typing
from importlib import resources

import tomli_w
from fuzz_cases import cases, declared
from hypothesis import given, strategies as st

from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.schema import Recipe

FOLDER = resources.files("keras_agegender.recipes")
FILES = [f for f in FOLDER.iterdir() if f.name.endswith(".toml")]


def keys_of(kind, prefix=""):
    """Returns the dotted names of every setting there is."""
    for name, hint in typing.get_type_hints(kind).items():
        yield prefix + name
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                yield from keys_of(part, f"{prefix}{name}.")


KEYS = st.sampled_from(sorted(keys_of(Recipe))) | st.sampled_from(
    ["base", "unset", "", "x", "model.", ".model", "model..x", "pretraining.model.x"]
)
SCALARS = st.one_of(
    st.sampled_from(
        ["", "resnet34", "ordinal", "joint", "older", "../x", "a/b", "val_loss", "none"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 12),
    st.floats() | st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
)
VALUES = st.recursive(
    SCALARS,
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.sampled_from(["gender", "age", "epoch", "set", "x"]), part)
    ),
    max_leaves=4,
)


def nested(settings):
    """Returns dotted names and values as tables; a name inside a value goes."""
    root = {}
    for key, value in settings.items():
        table, *parts = root, *key.split(".")
        for part in parts[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                break
        else:
            table[parts[-1]] = value
    return root


def check(kind, name, overrides=()):
    with declared(kind, ValueError, OSError):
        recipe = load_recipe(name, overrides)
        assert isinstance(recipe.to_toml(), str)


@cases()
@given(settings=st.dictionaries(KEYS, VALUES, max_size=4), with_base=st.booleans())
def test_any_settings(tmp_path_factory, settings, with_base):
    file = tmp_path_factory.getbasetemp() / "recipe.toml"
    base = {"base": "base_resnet"} if with_base else {}
    file.write_text(tomli_w.dumps(base | nested(settings)), "utf-8")
    check("recipe settings", file)


@cases()
@given(data=st.data())
def test_damaged_files(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(FILES)).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 12))
        content[place : place + cut] = data.draw(st.binary(max_size=4))
    file = tmp_path_factory.getbasetemp() / "damaged.toml"
    file.write_bytes(content)
    check("recipe damaged", file)


@cases()
@given(
    st.sampled_from(["quickstart", "14", "8", "5", "utkface_tiny", "x"]),
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.builds(
                lambda key, value: f"{key}={value}",
                KEYS,
                st.one_of(
                    st.text(max_size=8),
                    st.integers().map(str),
                    st.floats().map(str),
                    st.sampled_from(
                        ["[]", "{}", "[1, 2]", "{a=1}", "true", "[", "1e9"]
                    ),
                    st.sampled_from(["{gender=0.5}", "[{epoch=1, set={gender=2}}]"]),
                ),
            ),
        ),
        max_size=3,
    ),
)
def test_any_overrides(name, overrides):
    check("--set", name, overrides)
