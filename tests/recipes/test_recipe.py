"""Recipes load strictly and round-trip through their own files."""

from __future__ import annotations

import pytest

from keras_agegender.recipes.loading import list_recipes, load_recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_round_trips_through_its_resolved_file(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.title
    path = tmp_path / f"{name}.toml"
    path.write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(path) == recipe


def test_a_base_is_overlaid_key_by_key():
    recipe = load_recipe("resnet_se_ordinal")
    assert recipe.model.backbone == "resnet_se"  # its own
    assert recipe.training.patience == 5  # the base's
    assert recipe.loss_weights["age5"] == 1.8


def test_overrides():
    recipe = load_recipe(
        "resnet_se_ordinal",
        [
            "training.epochs=3",
            "model.encoding=joint",
            "model.image_size=[64, 48]",
            "loss_weights.gender=7",
        ],
    )
    assert recipe.training.epochs == 3
    assert recipe.model.encoding == "joint"
    assert recipe.model.image_size == (64, 48)
    assert recipe.loss_weights["gender"] == 7.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3", r"my\.toml.*'training\.epoch'.*epochs'"),
        ("[training]\nepochs = '3'", r"my\.toml.*'training\.epochs'.*int.*'3'"),
        ("[model]\naugment = 1", r"'model\.augment'.*bool"),
        ("[model]\nimage_size = [3]", r"'model\.image_size'"),
        ("[loss_weights]\ngender = true", r"'loss_weights\.gender'.*float.*True"),
        ("model = 3", "'model'"),
        ("[model", "not valid TOML"),
        ("base = 'nowhere'", "no recipe named 'nowhere'"),
        ("base = 'my'", "its own base"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, message):
    path = tmp_path / "my.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_unknown_recipe_suggests():
    with pytest.raises(ValueError, match="Did you mean 'quickstart'"):
        load_recipe("quikstart")


@pytest.mark.parametrize("override", ["training.epochs", "=3", "title.x=3"])
def test_malformed_overrides(override):
    with pytest.raises(ValueError, match="Invalid override"):
        load_recipe("quickstart", [override])
