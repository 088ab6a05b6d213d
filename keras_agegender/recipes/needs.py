"""What a recipe needs to be trained: data of its role, and something to begin with."""

from __future__ import annotations

from typing import Any

from keras_agegender.recipes.recipe import Recipe


def training_data(recipe: Recipe, data: Any, pretraining_data: Any) -> Any:
    """Returns which dataset a recipe is trained on.

    Args:
        recipe: One of role `"pretrain"` takes pretraining data where it is given.
        data: A prepared dataset, or its folder.
        pretraining_data: The same.

    Raises:
        ValueError: If that is none.
    """
    role = recipe.data.role
    given = data
    if role == "pretrain" and pretraining_data is not None:
        given = pretraining_data
    if given is None:
        raise ValueError(
            f"Missing `data` (--data). Recipe {recipe.name!r} is trained on {role} "
            "data: a dataset that `agegender prepare` made."
        )
    return given


def check_beginning(
    recipe: Recipe, pretraining_data: object, pretrained: object
) -> None:
    """Makes sure that what a recipe begins with is there or can be trained.

    Raises:
        ValueError: If neither data nor weights are given for it.
    """
    given = pretraining_data is not None or pretrained is not None
    if recipe.pretraining is not None and not given:
        raise ValueError(
            f"Recipe {recipe.name!r} begins with {recipe.pretraining!r}. Say what to "
            "train that on with `pretraining_data` (--pretraining-data), or give a "
            "finished run with `pretrained` (--pretrained)."
        )


def check_pretraining_data(recipe: Recipe, pretraining_data: object) -> None:
    """Makes sure that pretraining data is of use.

    Raises:
        ValueError: If it is given to a recipe that begins with no other one.
    """
    needed = recipe.pretraining is not None or recipe.data.role == "pretrain"
    if pretraining_data is not None and not needed:
        raise ValueError(
            "Invalid `pretraining_data` (--pretraining-data). Recipe "
            f"{recipe.name!r} begins with no other recipe."
        )
