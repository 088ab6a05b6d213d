"""The `agegender` command: parse, call one library function, print."""

from __future__ import annotations

import argparse
from typing import Any

from keras_agegender.cli.console import add_set_option, add_verb, say


def _recipes(arguments: argparse.Namespace) -> int:
    from keras_agegender.recipes.loading import list_recipes, load_recipe

    if arguments.more:
        given = [arguments.name, *arguments.more]
        raise ValueError(
            "Invalid arguments. Expected one recipe's name or number, as in "
            f"`agegender recipes {given[-1]}`. Received: {' '.join(given)!r}."
        )
    if arguments.name:
        say(load_recipe(arguments.name, arguments.set).to_toml())
        return 0
    found = list_recipes()
    width = max(map(len, found))
    say(f"{'':<{width}}  {'published':^14}")
    say(f"{'recipe':<{width}}  {'gender':>7}{'age':>7}  what")
    for name, title in found.items():
        published = load_recipe(name).published
        best = max(published, key=lambda p: p.gender_accuracy or 0.0, default=None)
        scores = [getattr(best, f"{n}_accuracy", None) for n in ("gender", "age")]
        figures = "".join(f"{'' if v is None else f'{v:.3f}':>7}" for v in scores)
        say(f"{name:<{width}}  {figures}  {title}")
    say(
        "\nPublished: the report's accuracies on Adience's fold 4 (05_caffe_celeba: on "
        "CelebA); of several models kept, the best on gender."
    )
    return 0


def add_recipes(verbs: Any) -> None:
    """Adds `agegender recipes`."""
    verb = add_verb(
        verbs, "recipes", _recipes, "list the recipes, or print one resolved"
    )
    verb.add_argument("name", nargs="?", help="a recipe's name or number, or a file")
    # Read, so that `recipes show 14` is told what to say instead.
    verb.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    add_set_option(verb)
