"""Cropping: which pixels, which status, and options that survive JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sample_data import picture

from keras_agegender.faces.cropping import CropOptions, crop_faces, cut, whole_picture
from keras_agegender.faces.detector import Detections

IMAGE = picture(size=(60, 80))


def detections_of(*boxes):
    count = len(boxes)
    return Detections(
        np.array(boxes, "float32").reshape(-1, 4),
        np.linspace(0.9, 0.8, count).astype("float32"),
        np.zeros((count, 5, 2), "float32"),
    )


ONE = detections_of([20, 10, 40, 30])
TWO = detections_of([0, 0, 10, 10], [35, 25, 43, 33])


def test_identity_at_zero_margin():
    (crop,) = crop_faces([IMAGE], [ONE], CropOptions(margin=0))
    np.testing.assert_array_equal(crop.image, IMAGE[10:30, 20:40])
    assert (crop.status, crop.num_faces) == ("ok", 1)
    assert crop.score == pytest.approx(0.9)


@pytest.mark.parametrize(("keep", "left"), [("largest", 0), ("center", 35)])
def test_several_faces(keep, left):
    (crop,) = crop_faces([IMAGE], [TWO], CropOptions(margin=0, keep=keep))
    assert (crop.status, crop.num_faces, crop.box[0]) == ("several_faces", 2, left)


@pytest.mark.parametrize(
    ("fallback", "box"), [("center", [10, 0, 70, 60]), ("full", [0, 0, 80, 60])]
)
def test_no_face(fallback, box):
    options = CropOptions(fallback=fallback)
    (crop,) = crop_faces([IMAGE], [Detections.none()], options, (30, 30))
    assert (crop.status, crop.num_faces, crop.score) == ("no_face", 0, 0.0)
    assert crop.box.tolist() == box
    assert crop.image.shape == (30, 30, 3)


def test_no_face_skipped():
    (crop,) = crop_faces([IMAGE], [Detections.none()], CropOptions(fallback="skip"))
    assert crop.image is None and crop.status == "no_face"


def test_whole_pictures():
    crop = whole_picture(IMAGE)
    np.testing.assert_array_equal(crop.image, IMAGE)
    assert crop.status == "not_cropped"


def test_a_cut_has_a_pixel_at_least():
    assert cut(IMAGE, np.array([79.9, 59.9, 79.95, 59.95])).shape == (1, 1, 3)
    assert cut(IMAGE, np.array([200.0, 200, 300, 300])).shape == (1, 1, 3)


def test_options_survive_json():
    options = CropOptions(0.4, square=False, keep="center", fallback="skip")
    assert CropOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    "options",
    [{"margin": -0.1}, {"margin": 4.1}, {"keep": "best"}, {"fallback": "none"}],
)
def test_invalid_options(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Invalid `{name}`"):
        CropOptions(**options)
