"""The outputs of a compiled loss by name, in the structure that `compile` was given.

In: what `compile(loss=…, loss_weights=…)` received. Out: the same structure with a name
at every loss, and name -> weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def name_losses(losses: Any, output_names: Sequence[str]) -> Any:
    """Returns the structure of `losses` with the output's name at every loss.

    A key of a dict is a name, keys of nested dicts are joined by `/`. Several losses of
    one output share its name. `None` stays: that output has no loss.

    Args:
        losses: The `loss` of `compile`.
        output_names: The model's outputs in order.

    Raises:
        ValueError: If a list of losses does not match the outputs.

    Example:
    >>> name_losses(["mse", None, "mse"], ["a", "b", "c"])
    ['a', None, 'c']
    """
    if isinstance(losses, Mapping):
        return {key: _named(value, str(key)) for key, value in losses.items()}
    if not isinstance(losses, (list, tuple)):
        return _named(losses, output_names[0])
    names = list(output_names)
    if len(names) == 1:
        names *= len(losses)
    if len(names) != len(losses):
        raise ValueError(
            f"Invalid `loss` of the model. Expected one loss for each of the outputs "
            f"{names}. Received: {len(losses)} losses."
        )
    return [_named(loss, name) for loss, name in zip(losses, names, strict=True)]


def _named(losses: Any, name: str) -> Any:
    if losses is None:
        return None
    if isinstance(losses, Mapping):
        return {key: _named(value, f"{name}/{key}") for key, value in losses.items()}
    if isinstance(losses, (list, tuple)):
        return [_named(loss, name) for loss in losses]
    return name


def pack_weights(names: Any, weights: Mapping[str, Any]) -> Any:
    """Returns the structure of `names` with each name's weight; 1.0 without a loss.

    Example:
    >>> pack_weights(["a", None], {"a": 2.0})
    [2.0, 1.0]
    """
    if isinstance(names, Mapping):
        return {key: pack_weights(value, weights) for key, value in names.items()}
    if isinstance(names, list):
        return [pack_weights(value, weights) for value in names]
    return 1.0 if names is None else weights[names]


def flatten_weights(names: Any, weights: Any) -> dict[str, float]:
    """Returns name -> weight, 1.0 where `compile` was given none.

    Args:
        names: What `name_losses` returned.
        weights: The `loss_weights` of `compile`: `None`, a number, a list or a dict.

    Raises:
        ValueError: If several losses of one output have different weights.

    Example:
    >>> flatten_weights({"a": "a", "b": "b"}, {"b": 3})
    {'a': 1.0, 'b': 3.0}
    """
    found: dict[str, float] = {}
    for name, weight in _pairs(names, weights):
        if found.setdefault(name, weight) != weight:
            raise ValueError(
                f"Invalid `loss_weights` of output {name!r}. Expected the same weight "
                f"for all losses of an output. Received: {found[name]} and {weight}."
            )
    return found


def _pairs(names: Any, weights: Any) -> list[tuple[str, float]]:
    if names is None:
        return []
    if isinstance(names, str):
        if isinstance(weights, Mapping):  # a list of losses with a dict of weights
            weights = weights.get(names)
        elif isinstance(weights, (list, tuple)):  # one loss with a list of its weight
            if len(weights) != 1:
                raise ValueError(
                    f"Invalid `loss_weights` of output {names!r}. Expected one weight "
                    f"for its loss. Received: {weights!r}."
                )
            weights = weights[0]
        return [(names, 1.0 if weights is None else float(weights))]
    keys = list(names) if isinstance(names, Mapping) else list(range(len(names)))
    pairs = []
    for key in keys:
        inner = weights
        if isinstance(names, Mapping) and isinstance(weights, Mapping):
            inner = weights.get(key)
        elif isinstance(weights, (list, tuple)):
            inner = weights[keys.index(key)]
        pairs += _pairs(names[key], inner)
    return pairs
