"""Whether a prepared dataset holds the pixels that a recipe is meant for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.input_pipeline.pixels import input_path
from keras_agegender.recipes.recipe import Recipe

HINTS = {
    "whole": "Make one of whole pictures with `agegender prepare … --no-crop`.",
    "cropped": "Make one of face crops with `agegender prepare …`, without --no-crop.",
}
NAMES = {"whole": "whole pictures", "cropped": "face crops"}


def check_pixels(recipe: Recipe, prepared: PreparedDataset) -> None:
    """Refuses a dataset of whole pictures where a recipe needs faces, or vice versa.

    Args:
        recipe: What is to be trained; `data.faces` says what it needs.
        prepared: What it is to be trained on.

    Raises:
        ValueError: If they do not fit, or the dataset does not say what it holds.
    """
    needed = recipe.data.faces
    if needed == "any" or _holds(prepared) == needed:
        return
    held = _holds(prepared)
    found = f"holds {NAMES[held]}" if held else "does not say what its pictures are"
    raise ValueError(
        f"Recipe {recipe.name!r} is trained on {NAMES[needed]} (data.faces = "
        f"{needed!r}), and the dataset in {prepared.directory} {found}. "
        f"{HINTS[needed]} Or train on it all the same with --set data.faces=any."
    )


def select_prepared(
    recipe: Recipe, datasets: Sequence[PreparedDataset]
) -> PreparedDataset | None:
    """Returns the first of several datasets whose pixels a recipe is meant for.

    Args:
        recipe: What is to be trained.
        datasets: Datasets of the same pictures, whole and cropped.

    Returns:
        The first if none fits, which `check_pixels` then refuses; `None` of none.
    """
    for prepared in datasets:
        if recipe.data.faces in ("any", _holds(prepared)):
            return prepared
    return datasets[0] if datasets else None


def pixels_of(prepared: PreparedDataset) -> dict[str, Any]:
    """Returns how the pictures of a dataset were made, as its preparation says."""
    info = prepared.info
    if "pixels" in info:
        return {"pixels": info["pixels"]}
    return {k: info[k] for k in ("crop", "detector", "output_size") if k in info}


def recorded_pixels(recipe: Recipe, prepared: PreparedDataset) -> dict[str, Any]:
    """Returns what run.json keeps of the dataset, so that no later one is asked.

    Returns:
        `pixels`, the path from file to input, `None` where the dataset does not say;
        and `preparation`, the dataset's preparation.json.
    """
    path = prepared.pixels
    if path is not None:
        path = input_path(path, recipe.model.image_size, recipe.data.pipeline)
    return {
        "pixels": path.to_dict() if path else None,
        "preparation": prepared.info,
    }


def _holds(prepared: PreparedDataset) -> str | None:
    return prepared.pixels.faces if prepared.pixels else None
