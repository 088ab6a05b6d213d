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
    beyond = cut(IMAGE, np.array([200.0, 200, 300, 300]))
    assert beyond.shape == (100, 100, 3) and not beyond.any()


def test_options_survive_json():
    options = CropOptions(0.4, False, "center", "skip", align=True, pad=True)
    assert CropOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    old = {"margin": 0.4, "square": True, "keep": "largest", "fallback": "full"}
    assert CropOptions.from_dict(old) == CropOptions(0.4, fallback="full")


def test_rounding_adds_no_black_line():
    crop = cut(IMAGE + 1, np.array([-1e-4, 1e-4, 80.0001, 60.0001]))
    assert crop.shape == (60, 80, 3) and crop.min() > 0


def test_padding_keeps_the_face_in_the_middle():
    """A face in the corner, doubled: a quarter of the crop is picture."""
    face = detections_of([0, 0, 20, 20])
    (crop,) = crop_faces([IMAGE + 1], [face], CropOptions(margin=0.5, pad=True))
    assert crop.box.tolist() == [-10, -10, 30, 30]
    assert (crop.image[:10] == 0).all() and (crop.image[:, :10] == 0).all()
    np.testing.assert_array_equal(crop.image[10:, 10:], IMAGE[:30, :30] + 1)
    (inside,) = crop_faces([IMAGE], [face], CropOptions(margin=0.5))
    assert inside.box.tolist() == [0, 0, 40, 40]


@pytest.mark.parametrize("degrees", [30, -20, 90])
def test_aligned_eyes_are_level(degrees):
    """Two eyes on a turned line, drawn as dots, lie in one row of the crop."""
    image = np.zeros((200, 200, 3), "uint8")
    turn = np.deg2rad(degrees)
    offset = 30 * np.array([np.cos(turn), np.sin(turn)])
    eyes = np.array([100 - offset, 100 + offset])
    for x, y in eyes.round().astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    landmarks = np.concatenate([eyes, np.full((3, 2), 100.0)])[np.newaxis]
    box = np.array([[50, 50, 150, 150]], "float32")
    face = Detections(box, np.array([0.9], "float32"), landmarks.astype("float32"))
    (crop,) = crop_faces([image], [face], CropOptions(margin=0, align=True))
    rows, columns = np.nonzero(crop.image[..., 0] > 127)
    left, right = columns < 50, columns >= 50
    assert abs(rows[left].mean() - rows[right].mean()) < 1.5
    assert columns[right].mean() - columns[left].mean() == pytest.approx(60, abs=2)
    assert crop.image.shape == (100, 100, 3)


@pytest.mark.parametrize(
    "options",
    [{"margin": -0.1}, {"margin": 4.1}, {"keep": "best"}, {"fallback": "none"}],
)
def test_invalid_options(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Invalid `{name}`"):
        CropOptions(**options)
