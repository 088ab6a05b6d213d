"""Public names: every one is there, documented, and its Args equal its signature."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pandas as pd
import pytest
from public_names import public_names

import keras_agegender as kag

PACKAGE = Path(kag.__file__).parent
PUBLIC = public_names()
# Each object once, by its shortest name.
CALLABLES = sorted(
    {id(PUBLIC[n]): n for n in sorted(PUBLIC, key=len, reverse=True)
     if callable(PUBLIC[n])}.values()
)  # fmt: skip
# Not for a user to make: an error is caught, a protocol is followed.
NOT_MADE = {
    name
    for name in CALLABLES
    if isinstance(PUBLIC[name], type)
    and (
        issubclass(PUBLIC[name], (Exception, pd.DataFrame))
        or getattr(PUBLIC[name], "_is_protocol", False)
    )
}


def test_the_readme_s_names_exist():
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
    assert len(kag.__all__) < 50


def test_namespaces():
    """As attributes, and to import from."""
    from keras_agegender.metrics import ExactAccuracy
    from keras_agegender.plots import plot_groups

    assert kag.metrics.ExactAccuracy is ExactAccuracy
    assert kag.plots.plot_groups is plot_groups
    assert kag.datasets.read_csv is kag.read_csv
    with pytest.raises(AttributeError, match="attribute.*ExactAcuracy"):
        kag.metrics.ExactAcuracy  # noqa: B018


@pytest.mark.parametrize("name", CALLABLES)
def test_docstrings(name):
    thing = PUBLIC[name]
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
    thing = PUBLIC[name]
    signature = inspect.signature(thing)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, f"{name}({parameter})"


@pytest.mark.parametrize("stub", sorted(PACKAGE.rglob("__init__.pyi")))
def test_the_stubs_name_existing_objects(stub):
    """A type checker reads a stub; it names the objects that a user gets."""
    package = ".".join(stub.parent.relative_to(PACKAGE.parent).parts)
    namespace, named = importlib.import_module(package), []
    for node in ast.parse(stub.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(
                f"{package}.{node.module or ''}".strip(".")
            )
            for alias in node.names:
                assert alias.asname == alias.name  # or type checkers hide the name
                assert getattr(namespace, alias.name) is getattr(module, alias.name)
                named.append(alias.name)
    assert sorted(named) == sorted(namespace.__all__)


def own_symbols() -> set[str]:
    """Returns the classes and functions that the package's modules define.

    `fit` in a docstring is Keras' method.
    """
    return {
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name != "fit"
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
    mentioned = documented_names(PUBLIC[name]) & own_symbols()
    assert mentioned <= {public.rpartition(".")[2] for public in PUBLIC}
