"""Overrides: `"section.key=value"` texts that replace settings of a recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

PREFIX = "pretraining."

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
    "training.keep",
    "training.keep_monitor",
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
    target[last] = value


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
