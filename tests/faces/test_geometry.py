"""Boxes and resampling, against values worked out by hand and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st
from sample_data import picture

from keras_agegender.faces import geometry
from keras_agegender.faces.geometry import (
    multiply,
    own_size,
    resample,
    resize,
    resize_matrix,
    turn,
)
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.faces.preprocessing_graph import PreprocessingGraph

sides = st.integers(1, 2000)
places = st.floats(-500, 2500, width=32)
lengths = st.floats(1, 1500, width=32)
face_boxes = st.builds(
    lambda x, y, w, h: np.array([x, y, x + w, y + h], "float32"),
    places, places, lengths, lengths,
)  # fmt: skip


def crop_box(box, size, options):
    """The box that the pixel graph cuts out."""
    path = Preprocessing(crop=options, detector={"detector": "none"})
    image = np.zeros((*size, 3), "uint8")
    return PreprocessingGraph(path).crop_box(image, box).numpy()


@settings(max_examples=30, deadline=None)
@given(face_boxes, sides, sides, st.floats(0, 4), st.booleans())
def test_a_crop_never_leaves_the_picture(box, height, width, margin, square):
    left, top, right, bottom = crop_box(
        box, (height, width), CropOptions(margin=margin, square=square)
    )
    assert 0 <= left <= right <= width + 1e-3
    assert 0 <= top <= bottom <= height + 1e-3


@settings(deadline=None)
@given(face_boxes)
def test_no_margin_is_the_box_itself(box):
    np.testing.assert_allclose(geometry.add_margin(box, 0.0), box, atol=1e-6)


@settings(deadline=None)
@given(face_boxes, st.floats(0, 4))
def test_margin_keeps_the_center_and_scales_the_sides(box, margin):
    grown = geometry.add_margin(box, margin).numpy()
    np.testing.assert_allclose(
        grown[:2] + grown[2:], box[:2] + box[2:], rtol=1e-4, atol=0.1
    )
    np.testing.assert_allclose(
        grown[2:] - grown[:2],
        (1 + 2 * margin) * (box[2:] - box[:2]),
        rtol=1e-3,
        atol=0.1,
    )


@settings(deadline=None)
@given(face_boxes)
def test_squares_are_square_and_hold_the_box(box):
    made = geometry.make_square(box).numpy()
    width, height = made[2:] - made[:2]
    assert width == pytest.approx(height, rel=1e-3, abs=0.05)
    assert (made[:2] <= box[:2] + 0.05).all() and (made[2:] >= box[2:] - 0.05).all()


@settings(deadline=None)
@given(face_boxes, sides, sides)
def test_a_square_that_fits_stays_one(box, height, width):
    square = geometry.make_square(box).numpy()
    inside = geometry.fit_inside(square, (height, width)).numpy()
    side = square[2] - square[0]
    if side <= min(height, width):
        np.testing.assert_allclose(inside[2:] - inside[:2], side, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(
        geometry.fit_inside(inside, (height, width)), inside, atol=1e-2
    )


def test_golden_values():
    assert geometry.center_square((30, 50)).numpy().tolist() == [10, 0, 40, 30]
    # 20 × 40 with a quarter on each side is 30 × 60, squared 60 × 60, moved inside.
    box = np.array([0, 10, 20, 50])
    assert crop_box(box, (100, 100), CropOptions(0.25)).tolist() == [0, 0, 60, 60]
    # 30 × 40 that shall be 0.3 × 0.4 of a square around (0.5, 0.4): 100 × 100.
    region = CropOptions(region=(0.5, 0.4, 0.3, 0.4, 1.0))
    box = np.array([100, 100, 130, 140])
    for found in (crop_box(box, (999, 999), region), region.crop_box(box, (999, 999))):
        np.testing.assert_allclose(found, [65, 80, 165, 180], rtol=1e-6)


def test_which_face_is_kept():
    boxes = [[0, 0, 30, 30], [40, 40, 60, 60], [70, 70, 100, 100]]
    assert geometry.select_face(boxes, (100, 100), "largest") == 0
    assert geometry.select_face(boxes, (100, 100), "center") == 1


@pytest.mark.parametrize("degrees", [0, 30, -20, 90])
def test_eye_angle(degrees):
    turn = np.deg2rad(degrees)
    landmarks = np.zeros((5, 2), "float32")
    landmarks[1] = np.cos(turn), np.sin(turn)
    assert float(geometry.eye_angle(landmarks)) == pytest.approx(degrees, abs=1e-4)


IMAGE = picture(size=(60, 80))


def test_whole_pixels_are_kept():
    found = resample(IMAGE, [20, 10, 40, 30], (20, 20))
    np.testing.assert_array_equal(found, IMAGE[10:30, 20:40])


def test_what_lies_beyond_the_picture_is_black():
    found = resample(IMAGE + 1, [-10, -10, 30, 30], (40, 40)).numpy()
    assert (found[:10] == 0).all() and (found[:, :10] == 0).all()
    np.testing.assert_array_equal(found[10:, 10:], IMAGE[:30, :30] + 1)
    assert not resample(IMAGE, [200, 200, 300, 300], (5, 5)).numpy().any()


def test_rounding_adds_no_black_line():
    found = resample(IMAGE + 1, [-1e-4, 1e-4, 80.0001, 60.0001], (60, 80))
    np.testing.assert_allclose(found, IMAGE + 1.0, atol=0.01)


def test_shrinking_averages():
    """Stripes a pixel wide become gray; without antialiasing some would win."""
    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[::2] = 255
    inner = resize(stripes, (8, 8)).numpy()[1:-1]
    np.testing.assert_allclose(inner, 127.5, atol=3)


def test_a_box_moved_a_little_gives_a_picture_changed_a_little():
    """Across whole pixels too: sides are not rounded."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), "uint8")
    for start in (9.9999, 10.0, 10.5, 10.9999):
        box = np.array([start, 5, start + 33.3, 50], "float32")
        first, second = (resample(noise, box + d, (48, 48)) for d in (0, 2e-4))
        assert np.abs(first - second).max() < 0.2


def test_resize_is_tensorflow_s():
    expected = tf.image.resize(IMAGE, (17, 23), antialias=True)
    np.testing.assert_allclose(resize(IMAGE, (17, 23)), expected, atol=1e-3)


@pytest.mark.parametrize("size", [(60, 80), (90, 97), (61, 80)])
def test_enlarging_is_as_resampling_the_whole(size):
    expected = resample(IMAGE, [0, 0, 80, 60], size)
    np.testing.assert_allclose(resize(IMAGE, size), expected, atol=0.01)


def test_two_matrices_resize_as_one_operation_does():
    found = multiply(tf.constant(IMAGE), resize_matrix(60, 50), resize_matrix(80, 63))
    np.testing.assert_allclose(found, resize(IMAGE, (50, 63)), atol=1e-3)


@pytest.mark.parametrize("box", [[3, 2, 41, 43], [60, 30, 90, 70], [-30, -9, 20, 30]])
def test_a_part_of_a_large_picture_is_enough(box):
    """Pixels far away are not looked at, and change nothing: not even at an edge."""
    far = np.pad(IMAGE, ((0, 200), (0, 300), (0, 0)), mode="edge")
    there = np.pad(far, ((150, 0), (120, 0), (0, 0)), mode="edge")
    moved = np.add(box, [120, 150, 120, 150])
    np.testing.assert_allclose(
        turn(IMAGE, box, 12.0), turn(there, moved, 12.0), atol=0.1
    )
    inside = [max(box[0], 3), max(box[1], 3), min(box[2], 77), min(box[3], 57)]
    moved = np.add(inside, [120, 150, 120, 150])
    np.testing.assert_allclose(
        resample(IMAGE, inside, (9, 8))[1:-1, 1:-1],
        resample(there, moved, (9, 8))[1:-1, 1:-1],
        atol=0.01,
    )


@pytest.mark.parametrize("degrees", [30, -20, 90])
def test_aligned_eyes_are_level(degrees):
    """Two eyes on a turned line, drawn as dots, lie in one row of the crop."""
    image = np.zeros((200, 200, 3), "uint8")
    angle = np.deg2rad(degrees)
    offset = 30 * np.array([np.cos(angle), np.sin(angle)])
    for x, y in np.array([100 - offset, 100 + offset]).round().astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = turn(image, [50, 50, 150, 150], degrees).numpy()
    rows, columns = np.nonzero(crop[..., 0] > 127)
    left, right = columns < 50, columns >= 50
    assert abs(rows[left].mean() - rows[right].mean()) < 1.5
    assert columns[right].mean() - columns[left].mean() == pytest.approx(60, abs=2)
    assert crop.shape == (100, 100, 3)


def test_not_turned_is_as_it_is():
    np.testing.assert_allclose(
        turn(IMAGE, [20, 10, 40, 30], 0.0), IMAGE[10:30, 20:40], atol=0.01
    )


def test_a_box_has_a_pixel_at_least():
    assert own_size([79.9, 59.9, 79.95, 59.95]).numpy().tolist() == [1, 1]
    assert own_size([0, 0, 20.4, 9.6]).numpy().tolist() == [10, 20]
