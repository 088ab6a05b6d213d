"""What a reproduction's figures are of: data, folds, seeds, and all changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.overrides import PREFIX
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.studies.paired_answers import differing_settings
from keras_agegender.studies.planning import (
    QUICK_EPOCHS,
    QUICK_FACES,
    QUICK_SIZE,
    quick_overrides,
)
from keras_agegender.synthetic.faces import SOURCE as SYNTHETIC
from keras_agegender.training.resuming import faces_of


@dataclass(frozen=True)
class Conditions:
    """What holds for all runs of a reproduction.

    Attributes:
        folds: Test folds; `None` for the splits that the dataset declares.
        seeds: Seeds.
        overrides: Settings that replace those of every recipe.
        quick: Whether pictures, epochs and faces are fewer.
    """

    folds: Sequence[int] | None
    seeds: Sequence[int]
    overrides: Sequence[str]
    quick: bool


def conditions_note(
    recipes: Sequence[Recipe],
    targets: Sequence[PreparedDataset],
    firsts: Sequence[PreparedDataset],
    conditions: Conditions,
) -> str:
    """Returns the caption's account of what was done.

    Args:
        recipes: The recipes as they are trained.
        targets: What they are trained and scored on.
        firsts: What some of them begin with is trained on.
        conditions: What holds for all of them.
    """
    parts = [
        f"Measured on {_names(targets)}; "
        + (
            "the dataset's own splits"
            if conditions.folds is None
            else f"test {_listed('fold', conditions.folds)} of a cross-validation"
        )
        + f"; {_listed('seed', conditions.seeds)}."
    ]
    if any(SYNTHETIC in _sources(data) for data in (*targets, *firsts)):
        parts.append("SYNTHETIC faces, drawn by a program: no figure is one of people.")
    if firsts:
        parts.append(f"What models begin with is trained on {_names(firsts)}.")
    if conditions.quick:
        parts.append(
            f"QUICK: {QUICK_SIZE[0]} x {QUICK_SIZE[1]} pixels, {QUICK_EPOCHS} epochs, "
            f"a subset of at most {QUICK_FACES} faces a split. It shows that recipes "
            "run, not what they are worth."
        )
    if conditions.overrides:
        changed = ", ".join(conditions.overrides)
        parts.append(f"Changed in every recipe: {changed}.")
    known = [*(quick_overrides() if conditions.quick else ()), *conditions.overrides]
    for recipe in recipes:
        if own := _own_changes(recipe, known):
            parts.append(f"Changed in {recipe.name}: {own}.")
    return " ".join(parts)


def _own_changes(recipe: Recipe, overrides: Sequence[str]) -> str:
    """Returns how a recipe differs from the package's of that name, overrides apart."""
    try:
        plain = load_recipe(recipe.name)
        if plain.pretraining is None:
            overrides = [o for o in overrides if not o.strip().startswith(PREFIX)]
        package = load_recipe(recipe.name, overrides)
    except ValueError:  # a recipe of one's own: it is what it is
        return ""
    found = differing_settings(package.to_dict(), recipe.to_dict())
    return ", ".join(f"{key}={new!r}" for key, (_, new) in found.items())


def _sources(data: PreparedDataset) -> list[str]:
    name = data.info.get("name", data.builder.name)
    return [source or name for source in faces_of(data).sources]


def _names(datasets: Sequence[PreparedDataset]) -> str:
    """Returns names of datasets, and what their faces were read from."""
    texts = []
    for data in datasets:
        name = data.info.get("name", data.builder.name)
        sources = _sources(data)
        texts.append(
            name if sources == [name] else f"{name} (faces of {', '.join(sources)})"
        )
    return ", ".join(dict.fromkeys(texts))


def _listed(what: str, values: Sequence[int]) -> str:
    plural = "" if len(values) == 1 else "s"
    return f"{what}{plural} {', '.join(map(str, values))}"
