"""Public names: every one is there, documented, and its Args equal its signature."""

from __future__ import annotations

import inspect
import re

import pytest

import keras_agegender as kag

CALLABLES = sorted(n for n in kag.__all__ if callable(getattr(kag, n)))


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


@pytest.mark.parametrize("name", CALLABLES)
def test_annotations(name):
    thing = getattr(kag, name)
    signature = inspect.signature(thing)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, f"{name}({parameter})"
