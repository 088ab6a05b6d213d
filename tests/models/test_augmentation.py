"""Layers that travel in a model: what they do, when, and how they are taken out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_agegender.models.augmentation import (
    LAYERS,
    Augmentation,
    add_augmentation,
    is_augmentation,
    strip_augmentation,
)
from keras_agegender.models.builder import build_model

# Left half 0.3, right half 0.7: a flip shows in the sign, a contrast in the size of the
# difference, which is 0.4 untouched.
HALVES = np.repeat([[[[0.3], [0.7]]]], 2, axis=2).repeat(4, axis=1).repeat(3, axis=3)


def as_numpy(tensor):
    return ops.convert_to_numpy(tensor)


def augmented_halves(seed, count=400):
    inputs = keras.Input(HALVES.shape[1:])
    model = keras.Model(inputs, add_augmentation(inputs, Augmentation(), seed))
    images = np.repeat(HALVES.astype("float32"), count, axis=0)
    outputs = as_numpy(model(images, training=True))
    difference = outputs[:, 0, -1, 0] - outputs[:, 0, 0, 0]
    return difference < 0, np.abs(difference) / 0.4


def small_resnet(encoding="gender", **kwargs):
    return build_model("resnet_se", encoding, image_size=(32, 32), **kwargs)


def images_for(model, count=4):
    shape = (count, *model.input.shape[1:])
    return np.random.default_rng(0).random(shape).astype("float32")


def test_flip_mirrors_half_of_the_images_left_and_right():
    mirrored, _ = augmented_halves(seed=3)
    assert 0.4 < mirrored.mean() < 0.6
    images = np.random.default_rng(0).random((16, 3, 5, 3)).astype("float32")
    flipped = as_numpy(Augmentation(contrast=0).layers(0)[0](images, training=True))
    for image, result in zip(images, flipped, strict=True):
        same, mirror = (
            np.array_equal(result, image),
            np.array_equal(result, image[:, ::-1]),
        )
        assert same or mirror


def test_contrast_is_lowered_as_often_as_raised():
    _, contrast = augmented_halves(seed=3)
    assert contrast.min() >= 0.8 - 1e-5 and contrast.max() <= 1.2 + 1e-5
    assert contrast.min() < 0.85 and contrast.max() > 1.15
    assert abs(contrast.mean() - 1.0) < 0.03


def test_contrast_stays_in_range():
    images = np.random.default_rng(0).integers(0, 2, (8, 4, 4, 3)).astype("float32")
    (layer,) = Augmentation(flip=False, contrast=1.0).layers(seed=0)
    outputs = as_numpy(layer(images, training=True))
    assert outputs.min() >= 0.0 and outputs.max() <= 1.0


def test_flip_and_contrast_of_one_seed_are_independent():
    mirrored, contrast = augmented_halves(seed=3)
    # Means of 200 draws from [0.8, 1.2]: standard error 0.1155 / sqrt(200) = 0.008.
    assert abs(contrast[mirrored].mean() - contrast[~mirrored].mean()) < 0.05


def test_one_seed_gives_one_augmentation():
    first, second, other = (augmented_halves(seed, 50) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[1], other[1])


def test_augmentation_acts_in_training_only():
    model = small_resnet()
    names = [x.name for x in model.layers if is_augmentation(x)]
    assert names == ["random_flip", "random_contrast"]
    head = keras.Model(model.input, model.get_layer("random_contrast").output)
    images = images_for(model)
    np.testing.assert_allclose(as_numpy(head(images, training=False)), images)
    assert not np.allclose(as_numpy(head(images, training=True)), images)


@pytest.mark.parametrize(
    ("name", "augment", "expected"),
    [
        ("resnet34", True, 2),
        ("resnet34", False, 0),
        ("caffe", True, 0),
        ("caffe", Augmentation(rotation=5), 3),
        ("resnet34", Augmentation(flip=False, contrast=0, erasing=0.5), 1),
    ],
)
def test_models_with_augmentation(name, augment, expected):
    model = build_model(name, image_size=(40, 40), augment=augment)
    assert sum(is_augmentation(x) for x in model.layers) == expected


def assert_same_predictions(found, expected, images):
    found, expected = (model(images, training=False) for model in (found, expected))
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(as_numpy(found[key]), as_numpy(value), atol=1e-6)


def test_strip_augmentation_preserves_weights_and_outputs(tmp_path):
    model = small_resnet("ordinal")
    stripped = strip_augmentation(model)
    assert stripped.name == model.name
    assert not [x for x in stripped.layers if is_augmentation(x)]
    assert len(stripped.layers) == len(model.layers) - 2
    pairs = zip(stripped.weights, model.weights, strict=True)
    assert all(ours is theirs for ours, theirs in pairs)
    images = images_for(model)
    assert_same_predictions(stripped, model, images)
    stripped.save(tmp_path / "stripped.keras")
    loaded = keras.saving.load_model(tmp_path / "stripped.keras")
    assert_same_predictions(loaded, stripped, images)


def test_every_layer_trains_saves_and_is_stripped(tmp_path):
    everything = Augmentation(
        rotation=10, zoom=0.1, shift=0.1, brightness=0.1, saturation=0.1, blur=0.5,
        erasing=0.5,
    )  # fmt: skip
    model = build_model("caffe_1conv", "gender", image_size=(32, 32),
                        augment=everything, seed=1)  # fmt: skip
    held = [x for x in model.layers if is_augmentation(x)]
    assert len(held) == len(LAYERS)
    assert len({layer.seed for layer in held}) == len(held)
    model.compile("sgd", {"gender": "binary_crossentropy"})
    images = images_for(model)
    model.fit(images, {"gender": np.ones((4, 1))}, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_predictions(loaded, model, images)
    stripped = strip_augmentation(loaded)
    assert not [x for x in stripped.layers if is_augmentation(x)]
    assert_same_predictions(stripped, model, images)


def test_strip_augmentation_reaches_into_nested_models():
    inner = small_resnet()
    picture = keras.Input((32, 32, 3))
    outer = keras.Model(picture, inner(keras.layers.Rescaling(1 / 255)(picture)))
    stripped = strip_augmentation(outer)
    layers = [*stripped.layers, *stripped.layers[-1].layers]
    assert not [x for x in layers if is_augmentation(x)]
    assert_same_predictions(stripped, outer, images_for(outer))
    assert len(inner.layers) == len(strip_augmentation(inner).layers) + 2


def test_strip_augmentation_does_not_change_other_layers():
    model = build_model("caffe_1conv", image_size=(32, 32))
    assert strip_augmentation(model) is model


def test_strip_augmentation_rebuilds_sequential_models():
    """As a whole model, and as a block of layers inside of another model."""
    layers = keras.layers
    images = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    whole = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.RandomFlip(), layers.Conv2D(2, 3)]
    )
    block = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.RandomFlip(), layers.RandomContrast(0.5)]
    )
    start = keras.Input((8, 8, 3))
    inside = keras.Model(start, whole(block(start)))
    expected = ops.convert_to_numpy(whole.layers[-1](images))
    for model in (whole, inside):
        stripped = strip_augmentation(model)
        assert not any(is_augmentation(layer) for layer in stripped.layers)
        found = ops.convert_to_numpy(stripped(images, training=True))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert strip_augmentation(whole).layers[-1] is whole.layers[-1]
