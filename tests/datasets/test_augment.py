"""Augmentation: the same distributions as Keras layers and in tf.data."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_agegender.datasets.pipeline import augment_image
from keras_agegender.models.augmentation import Augmentation, add_augmentation

COUNT = 600
NOTHING = {"flip": False, "contrast": 0.0}


def in_model(image, augmentation, count=COUNT, batch=None):
    inputs = keras.Input(image.shape)
    model = keras.Model(inputs, add_augmentation(inputs, augmentation, seed=3))
    images = np.repeat(image[np.newaxis], batch or count, axis=0)
    parts = [
        ops.convert_to_numpy(model(images, training=True))
        for _ in range(count // (batch or count))
    ]
    return np.concatenate(parts)


def in_data(image, augmentation, count=COUNT, seed=7):
    dataset = tf.data.Dataset.random(seed=seed).take(count)
    dataset = dataset.map(
        lambda draw: augment_image(
            tf.constant(image), augmentation, tf.stack([draw, tf.constant(1, tf.int64)])
        )
    )
    return np.concatenate(list(dataset.batch(count).as_numpy_iterator()))


def dot(size=33):
    """A dot in the middle that falls off: where it lies and how large it is show."""
    rows, columns = np.mgrid[:size, :size] - size // 2
    bump = np.exp(-(rows**2 + columns**2) / 18)
    return np.repeat(bump[..., np.newaxis], 3, axis=2).astype("float32")


def bar(size=33):
    """A bar to the right of the middle: its angle and side show."""
    rows, columns = np.mgrid[:size, :size] - size // 2
    bump = np.exp(-(rows**2) / 4 - (columns - 7) ** 2 / 30)
    return np.repeat(bump[..., np.newaxis], 3, axis=2).astype("float32")


def places(images):
    """Center of mass, (down, right) of the middle in pixels."""
    weights = images[..., 0]
    size = weights.shape[1]
    grid = np.arange(size) - size // 2
    total = weights.sum((1, 2))
    down = (weights.sum(2) * grid).sum(1) / total
    right = (weights.sum(1) * grid).sum(1) / total
    return down, right


def red_share(images):
    """Saturation of images of one color."""
    pixel = images[:, 0, 0]
    return 1 - pixel.min(1) / pixel.max(1)


def colored():
    return np.tile(np.float32([0.6, 0.45, 0.45]), (8, 8, 1))


def halves():
    image = np.full((8, 8, 3), 0.3, "float32")
    image[:, 4:] = 0.7
    return image


def noise():
    return np.random.default_rng(0).random((16, 16, 3)).astype("float32")


# Setting -> value, picture, what is measured, its expected mean and spread.
CASES = {
    "flip": (True, bar, lambda x: np.sign(places(x)[1]), 0.0, 1.0),
    "rotation": (
        40, bar, lambda x: np.degrees(np.arctan2(*places(x))), 0.0, 40 / 3**0.5
    ),
    "zoom": (
        0.3, dot, lambda x: (x[..., 0].sum((1, 2)) / dot()[..., 0].sum()) ** -0.5,
        1.0, 0.3 / 3**0.5,
    ),
    "shift": (0.15, dot, lambda x: places(x)[0] / 33, 0.0, 0.15 / 3**0.5),
    "contrast": (
        0.4, halves, lambda x: (x[:, 0, 7, 0] - x[:, 0, 0, 0]) / 0.4, 1.0, 0.4 / 3**0.5
    ),
    "brightness": (0.2, halves, lambda x: x.mean((1, 2, 3)) - 0.5, 0.0, 0.2 / 3**0.5),
    # The odds f / (1 - f) of f uniform in [0.3, 0.7]: ln(7/3) / 0.4 - 1, and so on.
    "saturation": (0.2, colored, lambda x: red_share(x) / 0.25, 1.118, 0.549),
    "erasing": (0.4, noise, lambda x: (x == 0.5).any((1, 2, 3)), 0.4, 0.49),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_both_places_have_the_same_moments(name):
    """Mean and spread as the docstring says, within four standard errors."""
    value, picture, measure, mean, spread = CASES[name]
    augmentation = Augmentation(**{**NOTHING, name: value})
    for found in (in_model, in_data):
        measured = np.asarray(measure(found(picture(), augmentation)), "float64")
        error = 4 * spread / COUNT**0.5
        assert measured.mean() == pytest.approx(mean, abs=error), found
        assert measured.std() == pytest.approx(spread, rel=0.12, abs=0.02), found


def test_both_places_blur_alike():
    """Variance that is left of noise; a layer draws one blur for a whole batch."""
    augmentation = Augmentation(**NOTHING, blur=1.0)
    left = [
        found.std((1, 2, 3)) / noise().std()
        for found in (
            in_model(noise(), augmentation, batch=2),
            in_data(noise(), augmentation),
        )
    ]
    for share in left:
        assert 0.35 < share.min() < 0.55 and share.max() > 0.99
    assert left[0].mean() == pytest.approx(left[1].mean(), abs=0.06)


def test_shift_and_erasing_go_both_ways():
    for found in (in_model, in_data):
        down, right = places(found(dot(), Augmentation(**NOTHING, shift=0.15)))
        assert abs(np.corrcoef(down, right)[0, 1]) < 0.15, found
        erased = found(noise(), Augmentation(**NOTHING, erasing=1.0))
        share = (erased == 0.5).all(-1).mean((1, 2))
        assert 0.14 < share.mean() < 0.2, found  # of areas from 0.02 to 0.33
        middle = (erased == 0.5).all(-1).mean(0)
        assert middle[4:12, 4:12].mean() > 2 * middle[:2, :2].mean(), found


def test_changes_are_independent():
    """Mirrored pictures have the contrasts of the others."""
    both = in_data(halves(), Augmentation(contrast=0.4))
    difference = both[:, 0, 7, 0] - both[:, 0, 0, 0]
    mirrored, contrast = difference < 0, np.abs(difference)
    gap = contrast[mirrored].mean() - contrast[~mirrored].mean()
    assert abs(gap) < 4 * contrast.std() / (COUNT / 4) ** 0.5


def test_low_resolution_takes_detail_away():
    found = in_data(noise(), Augmentation(**NOTHING, low_resolution=0.8), count=100)
    spread = found.std((1, 2, 3)) / noise().std()
    assert spread.min() < 0.4 and spread.max() > 0.8
    np.testing.assert_allclose(found.mean((1, 2)), noise().mean((0, 1))[np.newaxis]
                               + np.zeros((100, 3)), atol=0.06)  # fmt: skip


def test_jpeg_leaves_its_traces():
    """The lower the quality may be, the further from the picture; drawn anew."""
    gray = np.repeat(noise()[..., :1], 3, axis=2)
    distance = {}
    for quality in (5, 60, 100):
        found = in_data(gray, Augmentation(**NOTHING, jpeg_quality=quality), count=60)
        distance[quality] = np.abs(found - gray).mean((1, 2, 3))
    assert distance[5].mean() > 1.5 * distance[60].mean()
    assert distance[60].mean() > 1.5 * distance[100].mean()
    assert distance[5].min() < 0.02 and distance[5].max() > 0.06
    assert np.ptp(distance[100]) < 1e-6


def test_one_seed_is_one_result():
    everything = Augmentation(
        rotation=20, zoom=0.1, shift=0.1, brightness=0.1, saturation=0.1, blur=0.5,
        low_resolution=0.5, jpeg_quality=40, erasing=0.5,
    )  # fmt: skip
    first, second = (in_data(noise(), everything, 20) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - in_data(noise(), everything, 20, seed=8)).mean() > 0.05
    assert first.min() >= 0 and first.max() <= 1
    eager = augment_image(tf.constant(noise()), everything, (5, 6))
    graph = tf.function(lambda x: augment_image(x, everything, (5, 6)))
    np.testing.assert_allclose(graph(noise()), eager, atol=2 / 255)


def test_nothing_asked_is_nothing_done():
    augmentation = Augmentation(**NOTHING)
    np.testing.assert_array_equal(in_data(noise(), augmentation, 3)[0], noise())
    np.testing.assert_array_equal(in_model(noise(), augmentation, 3)[0], noise())


def test_what_no_layer_does_is_refused():
    for options in ({"jpeg_quality": 50}, {"low_resolution": 0.5}):
        (name,) = options
        with pytest.raises(ValueError, match=f"No Keras layer implements {name}"):
            Augmentation(**options).layers()


@pytest.mark.parametrize(
    "options",
    [{"rotation": 181}, {"zoom": 1.0}, {"shift": -0.1}, {"contrast": 1.1},
     {"saturation": 0.5}, {"blur": 1.5}, {"jpeg_quality": 0}, {"erasing": 2}],
)  # fmt: skip
def test_invalid_settings(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Invalid `{name}`"):
        Augmentation(**options)
