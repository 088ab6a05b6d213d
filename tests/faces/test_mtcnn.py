"""MTCNN, against the package mtcnn."""

from __future__ import annotations

import mtcnn
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st
from mtcnn.utils.bboxes import iou as package_iou, nms as package_nms
from sample_data import resize_image

from keras_agegender.faces import mtcnn as suppression
from keras_agegender.faces.mtcnn import (
    Mtcnn,
    OutputNetwork,
    ProposalNetwork,
    RefinementNetwork,
    prelu,
    suppress,
)
from keras_agegender.faces.video import box_overlaps
from keras_agegender.synthetic.drawing import draw_face

NUM_PICTURES = 64


@pytest.fixture(scope="module")
def package():
    return mtcnn.MTCNN()


@pytest.fixture(scope="module")
def cascade():
    return tf.function(Mtcnn(), reduce_retracing=True)


def photo_of(seed, faces, height=200):
    """A photo with several drawn faces of different sizes side by side."""
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(faces):
        drawn = draw_face(100 * seed + k, int(rng.integers(8)), k % 2).image
        side = int(height * rng.uniform(0.5, 1.0))
        part = np.full((height, side, 3), 120, "uint8")
        part[height - side :] = resize_image(drawn, (side, side))
        parts.append(part)
    return np.hstack(parts)


def faces_of(result, index=0):
    rows = [value.numpy() for value in result]
    chosen = rows[0] == index
    return [row[chosen] for row in rows[1:]]


def reference(package, images):
    """The package's boxes, scores and landmarks of each of pictures of one size."""
    rows = package.detect_faces(
        list(images), box_format="xyxy", output_type="numpy", fit_to_image=False
    )
    rows = np.asarray(rows, "float64").reshape(-1, 16)
    found = []
    for index in range(len(images)):
        own = rows[rows[:, 0] == index]
        points = np.stack([own[:, 6:11], own[:, 11:16]], axis=-1)
        found.append((own[:, 1:5], own[:, 5], points))
    return found


def test_networks_equal_the_package_s(package):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 48, 48, 3)).astype("float32")
    scaled = (pixels - 127.5) / 128
    stages = {stage.name: stage.model for stage in package.stages}
    pnet, rnet, onet = (stages[f"Stage {n}"] for n in ("PNET", "RNET", "ONET"))
    for size in (48, 31, 12):
        offsets, scores = ProposalNetwork()(pixels[:, :size, :size])
        expected = pnet(scaled[:, :size, :size])
        np.testing.assert_allclose(offsets, expected[0], atol=2e-5)
        np.testing.assert_allclose(scores, expected[1][..., 1], atol=2e-5)
    offsets, scores = RefinementNetwork()(pixels[:, :24, :24])
    expected = rnet(scaled[:, :24, :24])
    np.testing.assert_allclose(offsets, expected[0], atol=2e-5)
    np.testing.assert_allclose(scores, expected[1][..., 1], atol=2e-5)
    results = OutputNetwork()(pixels)
    expected = onet(scaled)
    for value, wanted in zip(results[:2], expected[:2], strict=True):
        np.testing.assert_allclose(value, wanted, atol=2e-5)
    np.testing.assert_allclose(results[2], expected[2][..., 1], atol=2e-5)


@pytest.mark.parametrize("slope", [[-1.2, 0.3], [1.3, 0.2]])
def test_prelu(slope):
    x = np.array([[-2.0, -2.0], [3.0, 3.0]], "float32")
    slope = np.array(slope, "float32")
    np.testing.assert_allclose(
        prelu(x, slope), np.where(x > 0, x, slope * x), rtol=1e-6
    )


@pytest.mark.parametrize("size", [(200, 200), (160, 240), (97, 113)])
def test_the_same_faces_as_the_package(package, cascade, size):
    images = np.stack(
        [
            resize_image(draw_face(n, n % 8, n // 8 % 2).image, size)
            for n in range(NUM_PICTURES)
        ]
    )
    result = cascade(tf.constant(images), tf.constant(20.0))
    same, overlaps, distances = [], [], []
    for index, (boxes, scores, points) in enumerate(reference(package, images)):
        own_boxes, own_scores, own_points = faces_of(result, index)
        same.append(len(boxes) == len(own_boxes))
        for box, score, five in zip(boxes, scores, points, strict=True):
            overlap = box_overlaps([box], own_boxes)[0]
            if not len(overlap):
                continue
            best = int(np.argmax(overlap))
            overlaps.append(overlap[best])
            distances.append(np.abs(own_points[best] - five).max())
            assert own_scores[best] == pytest.approx(score, abs=0.1)
    assert np.mean(same) >= 0.98
    assert np.mean(np.array(overlaps) >= 0.95) >= 0.98
    assert np.median(distances) < 0.01 and np.mean(np.array(distances) < 2) >= 0.98


def test_several_faces_in_a_photo(package, cascade):
    for seed in range(4):
        image = photo_of(seed, 4)
        ((boxes, _, _),) = reference(package, [image])
        own, scores, points = faces_of(cascade(image[np.newaxis], tf.constant(20.0)))
        assert len(own) == len(boxes) >= 2
        for box in boxes:
            assert box_overlaps([box], own).max() >= 0.95
        assert (np.diff(scores) <= 0).all() and points.shape == (len(own), 5, 2)


def test_large_faces_are_found_whatever_the_smallest(cascade):
    """With the package, more than 20 pixels mostly mean that nothing is found."""
    image = resize_image(draw_face(5, 4, 1).image, (400, 400))
    found = [
        faces_of(cascade(image[np.newaxis], tf.constant(least)))[0]
        for least in (12.0, 20.0, 40.0, 80.0)
    ]
    for boxes in found:
        largest = boxes[np.argmax(boxes[:, 2] - boxes[:, 0])]
        assert box_overlaps([largest], found[1][:1]) > 0.8


def test_company_does_not_matter(cascade):
    images = np.stack([draw_face(n, n, 0).image for n in range(8)])
    together = cascade(images, tf.constant(25.0))
    for index in range(8):
        alone = faces_of(cascade(images[index : index + 1], tf.constant(25.0)))
        for a, b in zip(alone, faces_of(together, index), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_nothing_to_find(cascade):
    for images in (np.zeros((2, 50, 60, 3), "uint8"), np.zeros((1, 12, 12, 3), "uint8"),
                   np.zeros((1, 8, 90, 3), "uint8")):  # fmt: skip
        result = cascade(images, tf.constant(20.0))
        assert [tuple(v.shape) for v in result] == [(0,), (0, 4), (0,), (0, 5, 2)]


def test_inside_tf_data_with_pictures_of_any_size(cascade):
    images = [draw_face(1, 4, 0).image, photo_of(2, 3), draw_face(5, 6, 1).image]
    dataset = tf.data.Dataset.from_generator(
        lambda: images, output_signature=tf.TensorSpec((None, None, 3), tf.uint8)
    )
    detect = Mtcnn()
    found = dataset.map(lambda x: detect(x[tf.newaxis], 20.0).boxes)
    for image, boxes in zip(images, found, strict=True):
        expected = faces_of(cascade(image[np.newaxis], tf.constant(20.0)))[0]
        np.testing.assert_allclose(boxes, expected, atol=1e-2)


def test_inside_a_saved_model(tmp_path, cascade):
    module = Mtcnn()
    signature = tf.TensorSpec((None, None, None, 3), tf.uint8)
    module.search = tf.function(
        lambda images: module(images, 20.0)._asdict(), input_signature=[signature]
    )
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    image = draw_face(1, 4, 0).image[np.newaxis]
    np.testing.assert_allclose(
        loaded.search(image)["boxes"],
        faces_of(cascade(image, tf.constant(20.0)))[0],
        atol=1e-3,
    )
    graph = loaded.search.concrete_functions[0].graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert not [node.op for node in nodes if "PyFunc" in node.op]


def random_boxes(seed, count):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2))
    sides = rng.uniform(5, 40, (count, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype("float32")
    return boxes, rng.permutation(count).astype("float32") / count


def package_rule(image_index, boxes, scores, threshold, over):
    """The package's rule, picture by picture."""
    kept = []
    for image in np.unique(image_index):
        own = np.flatnonzero(image_index == image)
        own = own[np.argsort(-scores[own], kind="stable")]
        overlap = package_iou(boxes[own], {"union": "union", "smaller": "min"}[over])
        kept += list(own[package_nms(overlap, threshold)])
    return kept


@given(
    st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 5),
    st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from(["union", "smaller"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_package_s_rule(seed, count, images, threshold, over):
    boxes, scores = random_boxes(seed, count)
    image_index = np.random.default_rng(seed).integers(0, images, count)
    kept = suppress(
        tf.constant(image_index), tf.constant(boxes), tf.constant(scores), threshold,
        tf.constant(images, tf.int64), over,
    )  # fmt: skip
    expected = package_rule(image_index, boxes, scores, threshold, over)
    assert list(kept.numpy()) == expected


def test_one_image_is_compared_alike():
    boxes, scores = random_boxes(2, 80)
    arguments = (tf.zeros(80, tf.int64), tf.constant(boxes), tf.constant(scores), 0.5)
    for over in ("union", "smaller"):
        grouped = suppress(*arguments, tf.constant(1, tf.int64), over)
        assert list(suppress(*arguments, None, over)) == list(grouped)
        assert 0 < len(grouped) < 80


def test_by_hand():
    """B overlaps A by 8 / 12 and goes; C overlaps B alone, and goes all the same."""
    boxes = tf.constant([[0, 0, 10, 1], [2, 0, 12, 1], [5, 0, 15, 1.0]])
    scores = tf.constant([0.9, 0.8, 0.7])
    image = tf.zeros(3, tf.int64)
    one = tf.constant(1, tf.int64)
    assert list(suppress(image, boxes, scores, 0.5, one)) == [0]
    assert list(suppress(image, boxes, scores, 0.6, one)) == [0, 2]
    assert list(suppress(image, boxes, scores, 0.99, one)) == [0, 1, 2]
    apart = tf.constant([0, 1, 0], tf.int64)
    assert list(suppress(apart, boxes, scores, 0.5, one + 1)) == [0, 2, 1]


def test_of_equal_scores_the_earlier_is_better():
    boxes = tf.constant([[0, 0, 10, 1], [1, 0, 11, 1.0]])
    image = tf.zeros(2, tf.int64)
    kept = suppress(image, boxes, tf.ones(2), 0.5, tf.constant(1, tf.int64))
    assert list(kept) == [0]


def test_little_memory_gives_the_same(monkeypatch):
    boxes, scores = random_boxes(1, 200)
    image = tf.constant(np.random.default_rng(0).integers(0, 9, 200))
    arguments = (image, boxes, tf.constant(scores), 0.5, tf.constant(9, tf.int64))
    whole = list(suppress(*arguments))
    monkeypatch.setattr(suppression, "MAX_PAIRS", 1)
    assert list(suppress(*arguments)) == whole


def test_of_very_many_the_best_are_compared(monkeypatch):
    monkeypatch.setattr(suppression, "MAX_BOXES", 3)
    boxes = tf.constant([[20.0 * k, 0, 20 * k + 9, 9] for k in range(6)])
    scores = tf.constant([0.1, 0.6, 0.3, 0.9, 0.2, 0.8])
    image = tf.zeros(6, tf.int64)
    for count in (tf.constant(1, tf.int64), None):
        assert list(suppress(image, boxes, scores, 0.5, count)) == [3, 5, 1]


def test_no_boxes():
    kept = suppress(
        tf.zeros(0, tf.int64), tf.zeros((0, 4)), tf.zeros(0), 0.5,
        tf.constant(3, tf.int64),
    )  # fmt: skip
    assert kept.shape == (0,)
    assert kept.dtype == tf.int32 or pytest.fail("indices are int32")
