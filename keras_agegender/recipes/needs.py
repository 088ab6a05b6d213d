"""What a recipe needs to be trained: data of its role, and something to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_agegender.recipes.loading import pretraining_recipe
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
        ValueError: If neither data nor weights are given for it, or there is no file of
            weights that a recipe names.
    """
    given = pretraining_data is not None or pretrained is not None
    if recipe.pretraining is not None and not given:
        raise ValueError(
            f"Recipe {recipe.name!r} begins with {recipe.pretraining!r}. Say what to "
            "train that on with `pretraining_data` (--pretraining-data), or give a "
            "finished run with `pretrained` (--pretrained)."
        )
    check_weights_file(recipe, pretrained)


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


def check_weights_file(recipe: Recipe, pretrained: object = None) -> None:
    """Makes sure that the file of weights that the backbone begins with is there.

    Args:
        recipe: What would be trained.
        pretrained: What it begins with instead of the recipe it names, if anything.

    Raises:
        ValueError: If there is no such file, for the recipe or what it begins with.
    """
    trained = [recipe]
    if recipe.pretraining is not None and pretrained is None:
        trained.append(pretraining_recipe(recipe))
    for one in trained:
        file = one.model.backbone_weights
        if file not in (None, "imagenet") and not Path(str(file)).is_file():
            raise ValueError(
                f"There is no weights file {file}. Recipe {one.name!r} names it as "
                "'model.backbone_weights'."
            )
