"""What a recipe needs: data of its role, and something to begin with."""

from __future__ import annotations

import pytest

from keras_agegender.recipes.loading import (
    check_initial_weights,
    check_pretraining_data,
    check_weights_file,
    load_recipe,
    training_data,
)


def test_a_recipe_takes_the_data_of_its_role():
    target, first = load_recipe("14"), load_recipe("5")
    assert target.data.role == "target" and first.data.role == "pretrain"
    assert training_data(target, "mine", "celeba") == "mine"
    assert training_data(first, "mine", "celeba") == "celeba"
    assert training_data(first, "mine", None) == "mine"
    with pytest.raises(ValueError, match=r"Missing `data` \(--data\)"):
        training_data(target, None, "celeba")


def test_initial_weights_are_required():
    check_initial_weights(load_recipe("14"), None, None)
    check_initial_weights(load_recipe("9"), "celeba", None)
    check_initial_weights(load_recipe("9"), None, "run")
    with pytest.raises(ValueError, match="initialized from 'celeba_attributes'"):
        check_initial_weights(load_recipe("9"), None, None)


def test_pretraining_data_must_be_of_use():
    for name in ("5", "9", "05_caffe_finetuned"):
        check_pretraining_data(load_recipe(name), "celeba")
    check_pretraining_data(load_recipe("14"), None)
    with pytest.raises(ValueError, match="has no pretraining recipe"):
        check_pretraining_data(load_recipe("14"), "celeba")


def test_a_weights_file_must_exist(tmp_path):
    """For what the recipe begins with too, unless that is trained already."""
    (tmp_path / "some.pth").touch()
    for there in (tmp_path / "some.pth", "imagenet", ""):
        check_weights_file(load_recipe("7", [f"model.backbone_weights={there}"]))
    missing = load_recipe("7", ["model.backbone_weights=no.pth"])
    with pytest.raises(ValueError, match=r"file not found: no\.pth\. Recipe '07_"):
        check_weights_file(missing)
    first = load_recipe("9", ["pretraining.model.backbone_weights=no.pth"])
    check_weights_file(first, "run")
    with pytest.raises(ValueError, match=r"file not found: no\.pth\. Recipe 'celeba_"):
        check_weights_file(first)
