"""Every key of `[model]`, `[data]` and `[training]` arrives where it works.

A run is begun twice: with a plain recipe, and with all settings of the table changed.
Nothing trains: `fit` and what makes the batches just write down what they are given.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from sample_data import make_prepared

from keras_agegender.callbacks.checkpoints import BestModelCheckpoint
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.models.builder import build_model
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.recipes.schema import DataSettings, ModelSettings, TrainingSettings
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training import fit as fitting
from keras_agegender.training.compile import build_compiled_model
from keras_agegender.training.experiment import make_experiment
from keras_agegender.training.train import train

PLAIN = """
[model]
backbone = "sample_data:small_backbone"
image_size = [32, 32]
[training]
patience = 9
"""


def layer_names(fit):
    return {layer.name for layer in fit.model.layers}


def best_monitor(fit, name):
    files = {
        Path(c.filepath).name: c.monitor for c in of_kind(fit, BestModelCheckpoint)
    }
    return files.get(name)


def of_kind(fit, kind):
    return [callback for callback in fit.callbacks if isinstance(callback, kind)]


def stopping(fit):
    (found,) = of_kind(fit, keras.callbacks.EarlyStopping)
    return found


def both(name):
    """What the training batches are made with, and those of validation."""
    return lambda fit: (fit.train[name], fit.validation[name])


# Key, value in TOML, what to look at, what is to be seen there.
ARRIVES = [
    ("model.backbone", "'caffe_1conv'", lambda fit: fit.model.name, "caffe_1conv"),
    ("model.encoding", "'ordinal'", lambda fit: len(fit.model.output_names), 9),
    ("model.question", "'younger'",
     lambda fit: fit.experiment["encoding"]["heads"][1].get("question"), "younger"),
    ("model.image_size", "[40, 36]",
     lambda fit: (fit.model.input_shape[1:3], *both("image_size")(fit)),
     ((40, 36), (40, 36), (40, 36))),
    ("model.dropout_rate", "0.25",
     lambda fit: max(layer.rate for layer in fit.model.layers
                     if isinstance(layer, keras.layers.Dropout)), 0.25),
    ("model.input_scaling", "'-1..1'",
     lambda fit: "input_scaling" in layer_names(fit), True),
    ("model.frozen_outputs", "['gender']",
     lambda fit: fit.model.get_layer("gender").trainable, False),
    ("model.attribute_features", "true", lambda fit: "Male" in layer_names(fit), True),
    ("data.role", "'pretrain'", lambda fit: fit.experiment["data"]["role"], "pretrain"),
    ("data.pipeline", "'caffe'", both("pipeline"), ("caffe", "caffe")),
    ("data.batch_size", "6",
     lambda fit: (*both("batch_size")(fit), fit.steps_per_epoch), (6, 6, 4)),
    ("data.shuffle_buffer", "17", lambda fit: fit.train["shuffle_buffer"], 17),
    ("data.cache", "true", both("cache"), (True, True)),
    ("data.in_memory", "true", both("in_memory"), (True, True)),
    ("data.balanced_sampling", "true", lambda fit: fit.train["balanced"], True),
    ("data.validation_split", "'fold_3[:5]'",
     lambda fit: fit.validation["split"], "fold_3[:5]"),
    ("training.epochs", "3", lambda fit: fit.epochs, 3),
    ("training.optimizer", "'adamw'",
     lambda fit: type(inner_optimizer(fit)).__name__, "AdamW"),
    ("training.learning_rate", "0.5",
     lambda fit: float(inner_optimizer(fit).learning_rate), 0.5),
    ("training.weight_decay", "0.125",
     lambda fit: inner_optimizer(fit).weight_decay, 0.125),
    ("training.patience", "4", lambda fit: stopping(fit).patience, 4),
    ("training.stop_monitor", "'val_gender_accuracy'",
     lambda fit: stopping(fit).monitor, "val_gender_accuracy"),
    ("training.checkpoint_monitor", "'val_gender_loss'",
     lambda fit: best_monitor(fit, "best.keras"), "val_gender_loss"),
    ("training.extra_checkpoints", "{age = 'val_age_loss'}",
     lambda fit: best_monitor(fit, "best_age.keras"), "val_age_loss"),
    ("training.dtype_policy", "'mixed_float16'",
     lambda fit: fit.model.get_layer("conv1").compute_dtype, "float16"),
    ("training.ema_momentum", "0.75",
     lambda fit: inner_optimizer(fit).ema_momentum, 0.75),
    ("training.mixup", "0.25", lambda fit: fit.train["mixup"], 0.25),
    ("training.jit_compile", "true", lambda fit: fit.model.jit_compile, True),
]  # fmt: skip

# Key -> the test that would fail if it were ignored.
ELSEWHERE = {
    "model.augment": "recipes/test_recipe_pixels.py::"
    "test_augmentation_can_be_switched_off",
    "model.width": "training/test_every_setting.py::test_width",
    "model.backbone_weights": "training/test_every_setting.py::test_backbone_weights",
    "training.initial_checkpoint": "studies/test_finetune.py::"
    "test_the_pretrained_weights_stay_if_no_epoch_is_better",
    "model.trainable_layers": "training/test_fit.py::"
    "test_frozen_models_train_ten_layers_before_the_outputs",
    "data.faces": "recipes/test_recipe_pixels.py::"
    "test_training_rejects_the_wrong_images",
    "data.allow_overlap": "training/test_experiment.py::test_overlap_can_be_allowed",
    "training.learning_rate_changes": "training/test_fit.py::"
    "test_the_learning_rate_changes_at_that_step",
    "training.cosine_decay": "training/test_fit.py::test_a_cosine_ends_at_zero",
    "training.normalize_loss": "training/test_fit.py::"
    "test_normalized_losses_are_divided_by_the_sum_of_weights",
    "training.class_weights": "training/test_fit.py::"
    "test_class_weights_reach_the_training_batches",
}


def inner_optimizer(fit):
    """The optimizer itself, where mixed precision wraps it."""
    return getattr(fit.model.optimizer, "inner_optimizer", fit.model.optimizer)


def test_every_setting_is_covered_once():
    sections = {
        "model": ModelSettings, "data": DataSettings, "training": TrainingSettings,
    }  # fmt: skip
    there = [
        f"{section}.{field.name}"
        for section, kind in sections.items()
        for field in dataclasses.fields(kind)
    ]
    looked_at = [*(key for key, *_ in ARRIVES), *ELSEWHERE]
    assert sorted(there) == sorted(looked_at)
    for reference in ELSEWHERE.values():
        file, name = reference.split("::")
        text = (Path(__file__).parents[1] / file).read_text("utf-8")
        assert f"def {name}(" in text, reference


NO_BATCHES = tf.data.Dataset.range(0)


class FitIsCalled(Exception):
    """In place of training."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "plain.toml"
    file.write_text(PLAIN, "utf-8")
    return file


@pytest.fixture(scope="module")
def fits(prepared, plain, tmp_path_factory):
    """What `fit` is given by the plain recipe, and with all settings changed."""
    found = []
    for settings in ([], [f"{key}={value}" for key, value, *_ in ARRIVES]):
        seen = {}

        def fit(model, x, callbacks, seen=seen, **arguments):
            seen |= {"model": model, "callbacks": callbacks, **arguments}
            raise FitIsCalled

        def batches(name, seen=seen):
            return lambda *_, **given: seen.update({name: given}) or NO_BATCHES

        run = RunDirectory(tmp_path_factory.mktemp("runs") / "run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.Model, "fit", fit)
            patch.setattr(fitting.pipeline, "make_train_dataset", batches("train"))
            patch.setattr(fitting.pipeline, "make_eval_dataset", batches("validation"))
            with pytest.raises(FitIsCalled):
                train(plain, prepared, run.path, overrides=settings, verbose=0)
        found.append(SimpleNamespace(**seen, experiment=run.info()["experiment"]))
    return found


@pytest.mark.parametrize(
    ("look", "expected"),
    [row[2:] for row in ARRIVES],
    ids=[key for key, *_ in ARRIVES],
)
def test_a_setting_arrives(fits, look, expected):
    """And without it there is something else, so that this can fail."""
    before, after = fits
    assert look(after) == expected
    assert look(before) != expected


def test_width(plain):
    """64 channels behind the first convolution, times an eighth."""
    recipe = load_recipe(plain, ["model.backbone=resnet34", "model.width=0.125"])
    model = build_compiled_model(recipe, get_encoding("gender"))
    assert model.get_layer("conv1").filters == 8


def test_backbone_weights(plain, tmp_path):
    keras.utils.set_random_seed(5)
    source = build_model("caffe_1conv", "gender", image_size=(32, 32))
    source.save(tmp_path / "some.keras")
    recipe = load_recipe(
        plain,
        ["model.backbone=caffe_1conv", f"model.backbone_weights={tmp_path}/some.keras"],
    )
    model = build_compiled_model(recipe, get_encoding("categorical"))
    ours, theirs = (m.get_layer("conv1").get_weights()[0] for m in (model, source))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("monitor", "values", "stops"),
    [
        ("val_gender_accuracy", (0.5, 0.6, 0.7), False),
        ("val_gender_accuracy", (0.7, 0.6, 0.5), True),
        ("val_loss", (0.5, 0.6, 0.7), True),
        ("val_loss", (0.7, 0.6, 0.5), False),
    ],
)
def test_training_stops_when_it_gets_worse(
    prepared, plain, tmp_path, monitor, values, stops
):
    """A loss that rises, an accuracy that falls, for longer than one epoch."""
    settings = [f"training.stop_monitor={monitor}", "training.patience=1"]
    experiment = make_experiment(load_recipe(plain, settings), prepared)
    labels = {"age_group": np.zeros(1, int), "gender": np.zeros(1, int)}
    callbacks = fitting.make_callbacks(
        experiment, RunDirectory(tmp_path), NO_BATCHES, labels
    )
    early = stopping(SimpleNamespace(callbacks=callbacks))
    model = keras.Sequential()
    model.stop_training = False
    early.set_model(model)
    early.on_train_begin()
    for epoch, value in enumerate(values):
        early.on_epoch_end(epoch, {monitor: value})
    assert bool(model.stop_training) == stops
