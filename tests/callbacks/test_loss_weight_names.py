"""The outputs of a compiled loss by name, whatever structure it was given in."""

from __future__ import annotations

import pytest

from keras_agegender.callbacks.loss_weights import (
    flatten_weights,
    name_losses,
    pack_weights,
)


@pytest.mark.parametrize(
    ("losses", "outputs", "names"),
    [
        ("mse", ["out"], "out"),
        (["mse", None, "mae"], ["x", "y", "z"], ["x", None, "z"]),
        (["mse", "mae"], ["out"], ["out", "out"]),
        ({"b": "mse", "a": None}, ["a", "b"], {"b": "b", "a": None}),
        (
            {"a": {"x": "mse", "y": "mae"}, "b": ["mse", "mae"]},
            [],
            {"a": {"x": "a/x", "y": "a/y"}, "b": ["b", "b"]},
        ),
    ],
)
def test_names(losses, outputs, names):
    assert name_losses(losses, outputs) == names


@pytest.mark.parametrize(
    ("names", "weights", "flat", "packed"),
    [
        ("out", None, {"out": 1.0}, 1.0),
        ("out", 3, {"out": 3.0}, 3.0),
        ("out", [2.0], {"out": 2.0}, 2.0),
        (["x", None, "z"], [2.0, 7.0, 4.0], {"x": 2.0, "z": 4.0}, [2.0, 1.0, 4.0]),
        (["x", "y"], {"y": 5.0}, {"x": 1.0, "y": 5.0}, [1.0, 5.0]),
        ({"b": "b", "a": "a"}, {"a": 2.0, "b": 3.0}, {"a": 2.0, "b": 3.0}, None),
        (
            {"a": {"x": "a/x", "y": "a/y"}},
            {"a": {"x": 2.0, "y": 3.0}},
            {"a/x": 2.0, "a/y": 3.0},
            {"a": {"x": 2.0, "y": 3.0}},
        ),
    ],
)
def test_weights(names, weights, flat, packed):
    assert flatten_weights(names, weights) == flat
    assert pack_weights(names, flat) == (weights if packed is None else packed)


def test_more_weights_than_the_one_loss():
    with pytest.raises(ValueError, match=r"output 'out'.*one weight.*\[2\.0, 3\.0\]"):
        flatten_weights("out", [2.0, 3.0])


def test_a_list_of_losses_that_does_not_fit():
    with pytest.raises(ValueError, match=r"each of the outputs.*'c'.*2 losses"):
        name_losses(["mse", "mse"], ["a", "b", "c"])


def test_two_weights_of_one_output():
    with pytest.raises(ValueError, match=r"output 'a'.*1\.0 and 2\.0"):
        flatten_weights({"a": ["a", "a"]}, {"a": [1.0, 2.0]})
