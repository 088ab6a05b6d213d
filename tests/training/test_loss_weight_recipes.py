"""What recipes say of loss weights, and that it happens."""

from __future__ import annotations

import keras
import pytest
from sample_data import make_prepared

from keras_agegender.callbacks.balancer import LossWeightBalancer
from keras_agegender.evaluation.plots import read_history
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.training.compile import loss_weight_balancers
from keras_agegender.training.train import train

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's data sets"
)
SMALL = """
loss_weights = {gender = 3.0}

[model]
backbone = "sample_data:small_backbone"
image_size = [32, 32]
encoding = "categorical"

[data]
pipeline = "resnet"
batch_size = 16

[training]
epochs = 2
checkpoint_monitor = "val_gender_loss"
"""


@pytest.fixture
def small(tmp_path):
    """The file of a small recipe."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL, "utf-8")
    return file


def balancers(file, *settings):
    recipe = load_recipe(file, settings)
    return loss_weight_balancers(recipe, recipe.make_encoding())


def test_recipes_do_not_balance_unless_they_say_so(small):
    assert load_recipe("quickstart").loss_weight_balancing is None
    assert balancers(small) == []


def test_every_key_reaches_the_callback(small):
    (balancer,) = balancers(
        small,
        "loss_weight_balancing.method=uncertainty",
        "loss_weight_balancing.temperature=3",
        "loss_weight_balancing.by=step",
        "loss_weight_balancing.momentum=0.5",
        "loss_weight_balancing.outputs=['gender', 'age']",
    )
    assert isinstance(balancer, LossWeightBalancer)
    assert balancer.method == "uncertainty"
    assert balancer.temperature == 3.0
    assert balancer.by == "step"
    assert balancer.momentum == 0.5
    assert balancer.outputs == ("gender", "age")
    assert balancer.base_weights == {"gender": 3.0, "age": 1.0}


def test_a_recipe_with_balancing_reads_back_the_same(tmp_path):
    recipe = load_recipe("quickstart", ["loss_weight_balancing.method=dwa"])
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss_weight_balancing.method=gradnorm"], "'dwa' or 'uncertainty'"),
        (["loss_weight_balancing.outputs=['gendr', 'age']"], "mean 'gender'"),
        (["loss_weight_balancing.outputs=['gender']"], "two or more"),
        (
            [
                "loss_weight_balancing.method=dwa",
                "loss_weight_changes=[{epoch=1, set={gender=0.5}}]",
            ],
            "Outputs with both: gender",
        ),
    ],
)
def test_balancing_that_contradicts_itself(small, settings, message):
    with pytest.raises(ValueError, match=message):
        balancers(small, *settings)


def test_balancing_contradicts_normalize_loss(small):
    settings = ["loss_weight_balancing.method=dwa", "training.normalize_loss=true"]
    with pytest.raises(ValueError, match="normalize_loss or loss_weight_balancing"):
        load_recipe(small, settings)


@pytest.mark.parametrize(
    "change", ["{}", "{epoch=1, step=4}", "{epoch=0, monitor='x'}"]
)
def test_a_change_has_exactly_one_condition(change):
    change = change.replace("{", "{set={gender=1.0}, ").replace(", }", "}")
    with pytest.raises(ValueError, match="exactly one of epoch, step and monitor"):
        load_recipe("quickstart", [f"loss_weight_changes=[{change}]"])


@needs_tensorflow
def test_balancing_changes_training_by_its_settings(small, tmp_path):
    data = make_prepared(tmp_path / "data")
    setting = "loss_weight_balancing.method=uncertainty"
    run = train(small, data, tmp_path / "run", overrides=[setting], verbose=0)
    history = read_history(run.history_file)
    assert history["gender_loss_weight"] == pytest.approx(
        [3.0, 3.0 / history["gender_loss"][0]], rel=1e-5
    )
    assert history["age_loss_weight"] == pytest.approx(
        [1.0, 1.0 / history["age_loss"][0]], rel=1e-5
    )
    info = run.checkpoint_info()
    assert info["monitor"] == "val_gender_loss"
    assert info["mode"] == "min"
    assert info["value"] == pytest.approx(min(history["val_gender_loss"]))
    assert history["val_gender_loss"][info["epoch"]] == pytest.approx(info["value"])
