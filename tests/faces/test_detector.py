"""MTCNN on drawn faces: found where they are, at any scale, in any company."""

from __future__ import annotations

import numpy as np
import pytest
from sample_data import resize_image

from keras_agegender.faces.detector import Detections, MtcnnDetector
from keras_agegender.faces.video import box_overlaps
from keras_agegender.synthetic.drawing import draw_face

NUM_FACES = 240


@pytest.fixture(scope="module")
def detector():
    return MtcnnDetector()


@pytest.fixture(scope="module")
def faces():
    return [draw_face(9000 + n, n % 8, n // 8 % 2) for n in range(NUM_FACES)]


@pytest.fixture(scope="module")
def found(detector, faces):
    return detector.detect([face.image for face in faces])


def test_synthetic_faces_are_found(found):
    """Adience's reader, the crops and the quickstart rest on it."""
    assert np.mean([len(d) >= 1 for d in found]) >= 0.95
    assert np.mean([len(d) > 1 for d in found]) <= 0.02


def test_boxes_lie_on_the_faces(faces, found):
    overlaps = [
        box_overlaps(d.boxes[:1], [face.face_box]).item()
        for face, d in zip(faces, found, strict=True)
        if len(d)
    ]
    assert np.median(overlaps) > 0.6
    assert np.mean(np.array(overlaps) > 0.3) > 0.98


def test_landmarks_are_in_order(found):
    """Left and right as the viewer sees them, mouth below nose below eyes."""
    points = np.stack([d.landmarks[0] for d in found if len(d)])
    left_eye, right_eye, nose, mouth_left, mouth_right = points.transpose(1, 0, 2)
    assert (left_eye[:, 0] < right_eye[:, 0]).all()
    assert (mouth_left[:, 0] < mouth_right[:, 0]).all()
    assert np.mean(left_eye[:, 1] < nose[:, 1]) > 0.99
    assert np.mean(nose[:, 1] < mouth_left[:, 1]) > 0.99


def test_scores_are_sorted_probabilities(found):
    for detections in found:
        assert ((detections.scores >= 0.8) & (detections.scores <= 1)).all()
        assert (np.diff(detections.scores) <= 0).all()


def test_company_does_not_matter(detector, faces, found):
    """Alone, in another batch, beside pictures of other sizes: the same boxes."""
    some = [0, 17, 33]
    mixed = [faces[i].image for i in some]
    mixed.insert(1, np.full((40, 300, 3), 90, "uint8"))
    mixed.insert(2, np.zeros((5, 5, 3), "uint8"))
    again = detector.detect(mixed)
    assert len(again[1]) == len(again[2]) == 0
    for index, detections in zip(some, [again[0], *again[3:]], strict=True):
        np.testing.assert_allclose(detections.boxes, found[index].boxes, atol=0.5)


def test_scale_does_not_matter(detector, faces, found):
    """Boxes are in pixels of the picture given, whatever copy was searched."""
    index = next(i for i, d in enumerate(found) if len(d) == 1)
    large = resize_image(faces[index].image, (768, 768))
    (detections,) = detector.detect([large])
    assert box_overlaps(detections.boxes[:1] / 3, found[index].boxes[:1]) > 0.85


def test_nothing_in_nothing(detector):
    assert detector.detect([]) == []
    assert len(detector.detect([np.full((100, 100, 3), 128, "uint8")])[0]) == 0
    assert Detections.none().landmarks.shape == (0, 5, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_face_size": 0},
        {"min_face_size": 5},
        {"max_side": 10},
        {"batch_size": 0},
        {"score_threshold": 1.5},
    ],
)
def test_invalid_arguments(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        MtcnnDetector(**arguments)
