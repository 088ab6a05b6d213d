"""The announced loss-weight changes of the quickstart are those of its recipe."""

from __future__ import annotations

import pytest

from keras_agegender.recipes.loading import load_recipe
from keras_agegender.studies.quickstart import training_title

OUTPUTS = ("gender", *(f"age{k}" for k in range(1, 9)))
CHANGES = "loss_weight_changes=[{%s, set={gender=0.5, age1=2.0}}]"


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ((), "if val_gender_accuracy reaches 0.95 before the last epoch: gender 2"),
        (
            ("training.epochs=2",),
            "if val_gender_accuracy reaches 0.95 before the last epoch: gender 2",
        ),
        (("training.epochs=1",), None),
        (("loss_weight_changes=[]",), None),
        ((CHANGES % "epoch=3",), "in epoch 4: gender 0.5, age1 2"),
        ((CHANGES % "epoch=3", "training.epochs=3"), None),
        (
            (CHANGES % "monitor='val_loss', below=1.5",),
            "if val_loss falls to 1.5 before the last epoch: gender 0.5, age1 2",
        ),
        (
            (CHANGES % "step=0",),
            "at step 1, if there are as many: gender 0.5, age1 2",
        ),
    ],
)
def test_the_title_mentions_changes_of_loss_weights(settings, change):
    lines = training_title(load_recipe("quickstart", settings), OUTPUTS).splitlines()
    assert lines[0] == "Training 9 outputs (gender, age1 … age8)"
    assert lines[1:] == ([f"      loss weights change {change}"] if change else [])


def test_the_title_names_the_outputs():
    recipe = load_recipe("quickstart", ["training.epochs=1"])
    assert training_title(recipe, ["gender"]) == "Training 1 output (gender)"
    assert training_title(recipe, ["gender", "age"]) == (
        "Training 2 outputs (gender, age)"
    )
