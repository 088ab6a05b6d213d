"""Suppression: what the mtcnn package keeps, for many pictures at once."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st
from mtcnn.utils.bboxes import iou as package_iou, nms as package_nms

from keras_agegender.faces import mtcnn as suppression
from keras_agegender.faces.mtcnn import suppress


def random_boxes(seed, count):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2))
    sides = rng.uniform(5, 40, (count, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype("float32")
    return boxes, rng.permutation(count).astype("float32") / count


def reference(image_index, boxes, scores, threshold, over):
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
    expected = reference(image_index, boxes, scores, threshold, over)
    assert list(kept.numpy()) == expected


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
    kept = suppress(image, boxes, scores, 0.5, tf.constant(1, tf.int64))
    assert list(kept) == [3, 5, 1]


def test_no_boxes():
    kept = suppress(
        tf.zeros(0, tf.int64), tf.zeros((0, 4)), tf.zeros(0), 0.5,
        tf.constant(3, tf.int64),
    )  # fmt: skip
    assert kept.shape == (0,)
    assert kept.dtype == tf.int32 or pytest.fail("indices are int32")
