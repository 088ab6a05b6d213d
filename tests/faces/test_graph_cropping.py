"""Cropping in a graph: the same faces and the same pixels as outside of one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_agegender.faces.boxes import iou
from keras_agegender.faces.cropping import (
    CropOptions,
    crop_angle,
    crop_box,
    crop_faces,
    cut,
)
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.graph_cropping import GraphCropper
from keras_agegender.faces.images import resize_image
from keras_agegender.synthetic.drawing import draw_face

RNG = np.random.default_rng(7)
IMAGE = RNG.integers(0, 256, (60, 80, 3), "uint8")


@pytest.fixture(scope="module")
def cropper():
    return GraphCropper(CropOptions())


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.25, 1.5])
def test_cuts_the_pixels_that_numpy_cuts(square, pad, margin):
    options = CropOptions(margin=margin, square=square, pad=pad)
    cropper = GraphCropper(options)
    for _ in range(25):
        corners = RNG.uniform([-20, -20], [100, 80], (2, 2))
        box = np.concatenate([corners.min(0), corners.max(0) + 1]).astype("float32")
        expected = cut(IMAGE, crop_box(box, IMAGE.shape[:2], options))
        found = cropper.cut(tf.constant(IMAGE), tf.constant(box), tf.zeros((5, 2)))
        np.testing.assert_array_equal(found, expected)


def test_turns_as_numpy_turns():
    """Of a smooth picture: the two interpolate with different precision."""
    rows, columns = np.mgrid[:60, :80]
    image = np.stack([2 * rows, 3 * columns, rows + columns], -1).astype("uint8")
    options = CropOptions(align=True)
    cropper = GraphCropper(options)
    for degrees in (-60, -10, 5, 45, 170):
        turn = np.deg2rad(degrees)
        landmarks = np.zeros((5, 2), "float32")
        landmarks[1] = 10 * np.cos(turn), 10 * np.sin(turn)
        box = np.array([25, 18, 52, 44], "float32")
        angle = crop_angle(landmarks, options)
        expected = cut(image, crop_box(box, (60, 80), options), angle=angle)
        found = cropper.cut(
            tf.constant(image), tf.constant(box), tf.constant(landmarks)
        )
        assert np.abs(found.numpy().astype(int) - expected).max() <= 4


@pytest.mark.parametrize("size", [(200, 200), (256, 300), (640, 480), (8, 30)])
def test_finds_the_faces_that_the_detector_finds(cropper, size):
    face = draw_face(3, 4, 1).image
    side = min(size)
    image = np.full((*size, 3), 110, "uint8")
    image[:side, :side] = resize_image(face, (side, side))
    (expected,) = MtcnnDetector().detect([image])
    found = cropper.find(tf.constant(image))
    assert len(found.boxes) == len(expected) == (0 if side < 12 else 1)
    if len(expected):
        assert iou(found.boxes.numpy(), expected.boxes).min() > 0.95
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.02)
        shift = np.abs(found.landmarks.numpy() - expected.landmarks).max()
        assert shift < 0.01 * side


@pytest.mark.parametrize("keep", ["largest", "center"])
def test_picks_the_subject_that_numpy_picks(keep):
    large, small = draw_face(1, 5, 0).image, draw_face(2, 2, 1).image
    image = np.full((256, 512, 3), 100, "uint8")
    image[:, :256] = large
    image[64:192, 240:368] = resize_image(small, (128, 128))
    options = CropOptions(keep=keep)
    found = MtcnnDetector().detect([image])
    (expected,) = crop_faces([image], found, options)
    assert expected.status == "several_faces"
    crop = GraphCropper(options).subject(tf.constant(image)).numpy()
    assert abs(crop.shape[0] - expected.image.shape[0]) <= 2
    expected = resize_image(expected.image, (64, 64)).astype(int)
    assert np.abs(resize_image(crop, (64, 64)) - expected).mean() < 6


@pytest.mark.parametrize("fallback", ["center", "full"])
def test_falls_back_as_numpy_does(fallback):
    image = np.full((60, 91, 3), 90, "uint8")
    options = CropOptions(fallback=fallback)
    (expected,) = crop_faces([image], MtcnnDetector().detect([image]), options)
    crop = GraphCropper(options).subject(tf.constant(image))
    np.testing.assert_array_equal(crop, expected.image)
    with pytest.raises(ValueError, match="nothing is skipped"):
        GraphCropper(CropOptions(fallback="skip"))


def test_travels_in_a_dataset_and_in_a_saved_model(cropper, tmp_path):
    image = draw_face(3, 4, 1).image
    expected = cropper.subject(tf.constant(image)).numpy()
    dataset = tf.data.Dataset.from_tensors(image).map(cropper.subject)
    np.testing.assert_array_equal(next(iter(dataset)), expected)
    module = tf.Module()
    module.cropper = cropper
    module.crop = tf.function(
        cropper.subject, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)]
    )
    operations = {
        node.op
        for f in module.crop.get_concrete_function()
        .graph.as_graph_def()
        .library.function
        for node in f.node_def
    }
    assert operations and not [name for name in operations if "PyFunc" in name]
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.crop(tf.constant(image)), expected)
