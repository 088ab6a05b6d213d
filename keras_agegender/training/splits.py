"""Splits: which faces of a dataset a recipe trains, selects and is scored on."""

from __future__ import annotations

from collections.abc import Mapping

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.recipes.recipe import Recipe


def resolve_splits(
    recipe: Recipe, prepared: PreparedDataset, splits: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the split expressions of a recipe on a dataset.

    Args:
        recipe: Its `data.validation_split` selects the model, if it is set.
        prepared: Declares the others.
        splits: Expressions that replace those declared.

    Raises:
        ValueError: If there is nothing to train or to validate on, or a split does not
            exist or holds no face.
    """
    found = dict(prepared.splits)
    for name, expression in (splits or {}).items():
        found[name] = _expanded(expression, prepared.splits)
    if recipe.data.validation_split is not None:
        found["validation"] = _expanded(recipe.data.validation_split, found)
    for name in ("train", "validation"):
        if name not in found:
            raise ValueError(
                f"There is no {name} split in {prepared.directory}. Splits: {found}. "
                f"Say which with `splits` (--split {name}=…)."
            )
    names = [name for name in ("train", "validation", "test") if name in found]
    for name in names:
        prepared.num_faces(found[name])
    return {name: found[name] for name in names}


def _expanded(expression: str, named: Mapping[str, str]) -> str:
    """Returns an expression with `train`, `validation` and `test` spelled out."""
    return "+".join(named.get(part, part) for part in expression.split("+"))
