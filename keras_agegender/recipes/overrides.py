"""Overrides: `"section.key=value"` texts that replace settings of a recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_agegender.encodings.catalogue import ENCODINGS
from keras_agegender.recipes.recipe import ModelSettings

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
        after != "ordinal"
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
