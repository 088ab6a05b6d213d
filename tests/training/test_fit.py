"""What a recipe says is what a model is compiled with and fitted on, key by key."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sample_data import make_rows

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.datasets.splits import report_splits
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.labels import CELEBA_ATTRIBUTES
from keras_agegender.models.builder import build_model
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.compile import build_compiled_model
from keras_agegender.training.experiment import make_experiment
from keras_agegender.training.fit import train_dataset, transfer, validation_dataset
from keras_agegender.training.train import train

SMALL = ("model.image_size=[32, 32]", "data.batch_size=8", "model.backbone=caffe_1conv")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """40 faces, of which every tenth is of age group 1 and all others of group 0."""
    directory = tmp_path_factory.mktemp("data")
    rows = make_rows(directory / "pictures", 40)
    for number, row in enumerate(rows):
        row["age_group"] = int(number % 8 == 0)
        row["gender"] = number % 2
        for column in ("glasses", "colour", "weight"):
            del row[column]
    prepare(make_manifest(rows), directory / "prepared", splits=report_splits(),
            output_size=(48, 48), progress=False)  # fmt: skip
    return load_prepared(directory / "prepared")


def experiment_of(prepared, name, *settings, **options):
    return make_experiment(load_recipe(name, [*SMALL, *settings]), prepared, **options)


def compiled(name, *settings):
    recipe = load_recipe(name, [*SMALL, *settings])
    encoding = get_encoding(recipe.model.encoding, question=recipe.model.question)
    encoding = encoding.with_loss_weights(recipe.loss_weights)
    return build_compiled_model(recipe, encoding, steps_per_epoch=10), encoding


def test_weights_and_augmentation_come_from_the_global_seed():
    """Two models of one seed begin and augment alike; one of another seed does not."""
    faces = np.random.default_rng(0).random((4, 32, 32, 3)).astype("float32")
    answers = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        model, _ = compiled("7", "model.backbone=resnet34", "model.width=0.125")
        augmented = keras.Model(model.input, model.get_layer("conv1").input)
        weights = model.get_layer("gender").get_weights()[0]
        answers.append((augmented(faces, training=True), weights))
    for of_first, of_same, of_other in zip(*answers, strict=True):
        np.testing.assert_array_equal(of_first, of_same)
        assert not np.array_equal(of_first, of_other)


# -- the optimizer ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1e-4), (9_999, 1e-4), (10_000, 1e-5), (10_001, 1e-5)]
)
def test_the_learning_rate_changes_at_that_step(step, rate):
    """`10000 = 1e-5`: from optimizer step 10,000 on, counted from 0, and not before."""
    model, _ = compiled("1")
    model.optimizer.iterations.assign(step)
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)


def test_without_a_change_the_rate_is_constant():
    model, _ = compiled("5")
    model.optimizer.iterations.assign(10**6)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)


def test_a_cosine_ends_at_zero():
    """Over 2 epochs of 10 steps: at the start the rate, in the middle half of it."""
    model, _ = compiled(
        "1", "training.cosine_decay=true", "training.learning_rate_changes={}",
        "training.epochs=2",
    )  # fmt: skip
    for step, rate in ((0, 1e-4), (10, 5e-5), (20, 0.0)):
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(rate, abs=1e-9)


# -- the losses ------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
def test_normalized_losses_are_divided_by_the_sum_of_weights(normalize):
    """Model 8's weights add up to 19.2."""
    model, encoding = compiled("8", f"training.normalize_loss={str(normalize).lower()}")
    images = np.random.default_rng(0).random((6, 32, 32, 3)).astype("float32")
    targets = encoding.encode(age_group=range(6), gender=[0, 1] * 3)
    found = model.evaluate(images, targets, verbose=0, return_dict=True)
    weighted = sum(w * found[f"{n}_loss"] for n, w in encoding.loss_weights.items())
    assert sum(encoding.loss_weights.values()) == pytest.approx(19.2)
    expected = weighted / 19.2 if normalize else weighted
    assert found["loss"] == pytest.approx(expected, rel=1e-3)


# -- the layers that train -------------------------------------------------------------


@pytest.mark.parametrize(("name", "trunk_layers"), [("9", 9), ("12", 10)])
def test_frozen_models_train_ten_layers_before_the_outputs(name, trunk_layers):
    """In model 9 the 40 attributes are one of them; models 10 and 12 have none."""
    recipe = load_recipe(name, ["model.image_size=[32, 32]"])
    encoding = get_encoding(recipe.model.encoding, question=recipe.model.question)
    model = build_compiled_model(recipe, encoding)
    names = {layer.name for layer in model.layers if layer.trainable}
    outputs = {*encoding.output_names, *CELEBA_ATTRIBUTES, "attributes", "encoding"}
    assert set(encoding.output_names) <= names
    assert ("Male" in names) == (trunk_layers == 9)
    assert len(names - outputs) == trunk_layers
    assert "stack4_block3_conv2" in names and "stack4_block2_conv2" not in names


def test_models_without_that_setting_train_all():
    recipe = load_recipe("13", ["model.image_size=[32, 32]"])
    model = build_compiled_model(recipe, get_encoding("ordinal", question="older"))
    assert all(layer.trainable for layer in model.layers)


# -- the batches -----------------------------------------------------------------------


def targets_and_weights(dataset):
    batches = [(targets, weights) for _, targets, weights in dataset]
    return (
        {
            name: np.concatenate([part[k][name] for part in batches])
            for name in batches[0][k]
        }
        for k in (0, 1)
    )


def test_class_weights_reach_the_training_batches(prepared):
    """21 of 24 training faces are of group 0, 3 of group 1: N / (2 classes * n)."""
    experiment = experiment_of(prepared, "7", "training.class_weights=balanced")
    targets, weights = targets_and_weights(train_dataset(experiment, range(1)))
    ages = targets["age"].ravel()
    assert np.bincount(ages).tolist() == [21, 3]
    for group, count in enumerate((21, 3)):
        assert weights["age"][ages == group] == pytest.approx(24 / (2 * count))
    assert (weights["gender"] == 1).all()
    _, weights = targets_and_weights(validation_dataset(experiment))
    assert (weights["age"] == 1).all()
    _, weights = targets_and_weights(
        train_dataset(experiment_of(prepared, "7"), range(1))
    )
    assert (weights["age"] == 1).all()


@pytest.mark.parametrize(
    ("balanced", "low", "high"), [("true", 0.35, 0.65), ("false", 0.125, 0.125)]
)
def test_balanced_sampling_draws_groups_equally(prepared, balanced, low, high):
    """A face of eight is of group 1; drawn equally often it is every second one."""
    experiment = experiment_of(prepared, "7", f"data.balanced_sampling={balanced}")
    targets, _ = targets_and_weights(train_dataset(experiment, range(8)))
    assert len(targets["age"]) == 8 * 24
    assert low <= (targets["age"] == 1).mean() <= high


def test_the_validation_split_of_the_recipe_selects(prepared):
    """Folds 3 and 4, where the dataset says fold 3 alone."""
    sizes = [
        sum(len(images) for images, *_ in validation_dataset(experiment))
        for experiment in (
            experiment_of(prepared, "7"),
            experiment_of(prepared, "7", "data.validation_split=validation+test"),
        )
    ]
    assert sizes == [8, 16]


def test_images_have_the_recipe_s_size(prepared):
    experiment = experiment_of(prepared, "7", "model.image_size=[48, 40]")
    for dataset in (
        train_dataset(experiment, range(1)),
        validation_dataset(experiment),
    ):
        images, *_ = next(iter(dataset))
        assert images.shape == (8, 48, 40, 3)


# -- pretrained weights ----------------------------------------------------------------


def test_pretrained_weights_are_copied(tmp_path):
    """All of the network; not the head of another name."""
    keras.utils.set_random_seed(1)
    source = build_model("caffe_1conv", "gender", image_size=(32, 32))
    model = build_model("caffe_1conv", "joint", image_size=(32, 32))
    source.save(tmp_path / "first.keras")
    before = model.get_layer(model.output_names[0])
    head = [w.copy() for w in before.get_weights()]
    transfer(model, tmp_path / "first.keras", RunDirectory(tmp_path))
    copied = 0
    for layer in source.layers:
        if not layer.weights or layer.name in source.output_names:
            continue
        ours = model.get_layer(layer.name).get_weights()
        for a, b in zip(ours, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=layer.name)
            copied += 1
    assert copied >= 4
    for a, b in zip(before.get_weights(), head, strict=True):
        np.testing.assert_array_equal(a, b)
    assert "first.keras" in (tmp_path / "transfer.txt").read_text("utf-8")


def test_training_starts_from_the_pretrained_weights(prepared, tmp_path):
    """At a rate of next to nothing the last model is the first one."""
    keras.utils.set_random_seed(7)
    source = build_model("caffe_1conv", "gender", image_size=(32, 32))
    source.save(tmp_path / "first.keras")
    settings = [
        *SMALL, "training.epochs=1", "training.learning_rate=1e-12",
        "training.learning_rate_changes={}", "training.weight_decay=0.0",
    ]  # fmt: skip
    run = train("1", prepared, tmp_path / "run", overrides=settings, verbose=0,
                pretrained=tmp_path / "first.keras")  # fmt: skip
    trained = run.load_model("last")
    for a, b in zip(trained.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert run.info()["experiment"]["initialized_from"].keys() == {"file_sha256"}
