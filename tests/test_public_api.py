"""Public names: every one is there, documented, and its Args equal its signature."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pandas as pd
import pytest

import keras_agegender as kag

PACKAGE = Path(kag.__file__).parent
CALLABLES = sorted(n for n in kag.__all__ if callable(getattr(kag, n)))
# Not for a user to make: an error is caught, a protocol is followed.
NOT_MADE = {
    name
    for name in CALLABLES
    if isinstance(getattr(kag, name), type)
    and (
        issubclass(getattr(kag, name), (Exception, pd.DataFrame))
        or getattr(getattr(kag, name), "_is_protocol", False)
    )
}


def test_the_readme_s_names_are_there():
    names = {
        "build_model", "get_encoding", "list_models", "list_encodings",
        "LossWeightScheduler", "make_train_dataset", "make_eval_dataset", "prepare",
        "read_adience", "read_celeba", "read_csv", "read_utkface", "train", "evaluate",
        "export", "Predictor", "quickstart", "load_recipe",
    }  # fmt: skip
    assert names <= set(kag.__all__)
    assert set(kag.__all__) <= set(dir(kag))
    with pytest.raises(AttributeError, match="attribute.*bulid_model"):
        kag.bulid_model  # noqa: B018


@pytest.mark.parametrize("name", CALLABLES)
def test_docstrings(name):
    thing = getattr(kag, name)
    text = inspect.getdoc(thing)
    assert text, f"{name} has no docstring"
    first = text.splitlines()[0]
    assert first.endswith((".", ":", "…")), f"{name}: {first!r}"
    if name in NOT_MADE:
        return
    section = re.search(r"^Args:\n((?:^(?: .*)?\n?)*)", text, re.MULTILINE)
    documented = re.findall(r"^    (\w+):", section[1], re.MULTILINE) if section else []
    parameters = [p for p in inspect.signature(thing).parameters if p != "self"]
    if "Attributes:" in text and not documented:
        attributes = re.findall(
            r"^    (\w+):", text.split("Attributes:")[1], re.MULTILINE
        )
        assert set(attributes) >= set(parameters)
        return
    assert documented == parameters or not section and not parameters, name


@pytest.mark.parametrize("name", sorted(set(CALLABLES) - NOT_MADE))
def test_annotations(name):
    thing = getattr(kag, name)
    signature = inspect.signature(thing)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, f"{name}({parameter})"


def test_the_stub_names_what_is_there():
    """A type checker reads the stub; it names the objects that a user gets."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    named = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(f"keras_agegender.{node.module}")
            for alias in node.names:
                assert alias.asname == alias.name  # or type checkers hide the name
                assert getattr(kag, alias.name) is getattr(module, alias.name)
                named.append(alias.name)
    assert sorted(named) == sorted(kag.__all__)


def own_symbols() -> set[str]:
    """Returns the classes and functions that the package's modules define."""
    return {
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }


def documented_names(thing) -> set[str]:
    """Returns what signature and docstrings of a public name mention."""
    members = vars(thing).items() if inspect.isclass(thing) else ()
    things = [thing, *(m for name, m in members if not name.startswith("_"))]
    names: set[str] = set()
    for part in things:
        text = inspect.getdoc(part) or ""
        names |= set(re.findall(r"`([A-Za-z_]\w*)(?:\([^`]*\))?`", text))
        names |= set(re.findall(r"^    (\w+Error):", text, re.MULTILINE))
        part = getattr(part, "fget", None) or getattr(part, "__func__", part)
        if inspect.isfunction(part):
            annotations = " ".join(map(str, part.__annotations__.values()))
            names |= set(re.findall(r"\w+", annotations))
            names -= set(part.__annotations__)  # `data` is a parameter
    return names


@pytest.mark.parametrize("name", CALLABLES)
def test_every_name_a_docstring_uses_is_public(name):
    mentioned = documented_names(getattr(kag, name)) & own_symbols()
    assert mentioned <= set(kag.__all__)
