"""Augmentation on the accelerator: what it keeps and what it changes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from keras_agegender import Augmentation

jax = pytest.importorskip("jax")
FILE = Path(__file__).parents[2] / "pipelines" / "augment_on_device.py"
SPEC = importlib.util.spec_from_file_location("augment_on_device", FILE)
on_device = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(on_device)
NOTHING = {"flip": False, "contrast": 0.0}
IMAGES = np.random.default_rng(0).uniform(0, 1, (8, 16, 16, 3)).astype("float32")


def changed(**settings):
    augmentation = Augmentation(**{**NOTHING, **settings})
    return np.asarray(on_device.augment_batch(IMAGES, augmentation, jax.random.key(0)))


def test_nothing_asked_changes_nothing():
    np.testing.assert_array_equal(changed(), IMAGES)


def test_a_flip_is_the_picture_or_its_mirror_image():
    kinds = {
        (np.allclose(new, old, atol=1e-5), np.allclose(new, old[:, ::-1], atol=1e-5))
        for new, old in zip(changed(flip=True), IMAGES, strict=True)
    }
    assert kinds == {(True, False), (False, True)}


@pytest.mark.parametrize(
    "setting",
    [{"rotation": 20.0}, {"saturation": 0.3},
     pytest.param({"low_resolution": 0.5}, marks=pytest.mark.slow),
     {"jpeg_quality": 20}, {"erasing": 1.0}, {"blur": 1.0}],
)  # fmt: skip
def test_changes_stay_in_range_and_keep_a_plain_picture(setting, monkeypatch):
    new = changed(**setting)
    assert new.shape == IMAGES.shape and new.min() >= 0 and new.max() <= 1
    assert np.abs(new - IMAGES).mean() > 1e-4
    if "erasing" not in setting:  # a gray picture has nothing to change, but its border
        monkeypatch.setitem(globals(), "IMAGES", np.full_like(IMAGES, 0.5))
        inner = changed(**setting)[:, 4:-4, 4:-4]
        np.testing.assert_allclose(inner, 0.5, atol=0.01)


def test_the_best_jpeg_is_nearly_the_picture():
    smooth = np.linspace(0, 1, 16, dtype="float32")
    picture = np.broadcast_to(smooth[:, None, None], (1, 16, 16, 3))
    percent = np.zeros(1, "float32")  # quality 100: steps of 1
    table = on_device.LUMINANCE
    found = on_device._round_blocks(picture[..., 0] * 255 - 128, percent, table)
    np.testing.assert_allclose(found, picture[..., 0] * 255 - 128, atol=2.0)
