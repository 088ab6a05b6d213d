"""Box geometry: properties that hold for every box and picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from keras_agegender.faces import geometry
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
    assert geometry.iou([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(50 / 150)
    assert geometry.iou([0, 0, 1, 1], [2, 2, 3, 3]) == 0
    assert geometry.iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0
    assert geometry.box_area([[0, 0, 3, 4], [5, 5, 4, 9]]).tolist() == [12, 0]
    assert geometry.center_square((30, 50)).numpy().tolist() == [10, 0, 40, 30]
    # 20 × 40 with a quarter on each side is 30 × 60, squared 60 × 60, moved inside.
    box = np.array([0, 10, 20, 50])
    assert crop_box(box, (100, 100), CropOptions(0.25)).tolist() == [0, 0, 60, 60]


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
