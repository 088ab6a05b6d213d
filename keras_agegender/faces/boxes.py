"""Geometry of face boxes, in a TensorFlow graph or eagerly, in pixels.

A box is (left, top, right, bottom), left and top included, right and bottom not; sides
may lie between pixels. Unless said otherwise functions take boxes of shape (..., 4) and
return float32 of the same shape. Sizes are (height, width).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf


def add_margin(boxes: Any, margin: float) -> tf.Tensor:
    """Widens boxes on every side by a share of their own width and height.

    Args:
        boxes: Boxes. Shape (..., 4).
        margin: Share added on each side, at least 0; 0 changes nothing.

    Example:
    >>> add_margin([10, 10, 20, 30], 0.5).numpy().tolist()
    [5.0, 0.0, 25.0, 40.0]
    """
    boxes = tf.cast(boxes, tf.float32)
    grown = (boxes[..., 2:] - boxes[..., :2]) * margin
    return tf.concat([boxes[..., :2] - grown, boxes[..., 2:] + grown], axis=-1)


def make_square(boxes: Any) -> tf.Tensor:
    """Lengthens the shorter side of boxes about their center.

    Example:
    >>> make_square([0, 0, 10, 20]).numpy().tolist()
    [-5.0, 0.0, 15.0, 20.0]
    """
    boxes = tf.cast(boxes, tf.float32)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    half = tf.reduce_max(sides, axis=-1, keepdims=True) / 2
    return tf.concat([centers - half, centers + half], axis=-1)


def fit_inside(boxes: Any, image_size: Any) -> tf.Tensor:
    """Shifts boxes into the picture; what is larger than the picture is cut to it.

    A square that fits stays a square: it is moved before it is cut.

    Args:
        boxes: Boxes. Shape (..., 4).
        image_size: (height, width) of the picture.

    Example:
    >>> fit_inside([-5, 10, 15, 30], (100, 100)).numpy().tolist()
    [0.0, 10.0, 20.0, 30.0]
    """
    boxes = tf.cast(boxes, tf.float32)
    limits = tf.cast(image_size, tf.float32)[::-1]
    sides = tf.minimum(boxes[..., 2:] - boxes[..., :2], limits)
    start = tf.clip_by_value(boxes[..., :2], 0.0, limits - sides)
    return tf.concat([start, start + sides], axis=-1)


def full_box(image_size: Any) -> tf.Tensor:
    """Returns the box of a whole picture of (height, width). Shape (4,)."""
    sides = tf.cast(image_size, tf.float32)[::-1]
    return tf.concat([tf.zeros_like(sides), sides], axis=0)


def center_square(image_size: Any) -> tf.Tensor:
    """Returns the largest square in the middle of a picture. Shape (4,).

    Example:
    >>> center_square((60, 80)).numpy().tolist()
    [10.0, 0.0, 70.0, 60.0]
    """
    sides = tf.cast(image_size, tf.float32)[::-1]
    side = tf.reduce_min(sides)
    start = (sides - side) / 2
    return tf.concat([start, start + side], axis=0)


def select_face(boxes: Any, image_size: Any, keep: str = "largest") -> tf.Tensor:
    """Returns which of several faces is the subject of the picture.

    Args:
        boxes: Boxes, at least one. Shape (num_faces, 4).
        image_size: (height, width) of the picture.
        keep: `"largest"` (default) or `"center"`, the one whose center is nearest the
            picture's.

    Returns:
        Its index, int64; the first of equals.
    """
    boxes = tf.cast(boxes, tf.float32)
    if keep == "largest":
        sides = tf.nn.relu(boxes[:, 2:] - boxes[:, :2])
        return tf.argmax(sides[:, 0] * sides[:, 1])
    middle = tf.cast(image_size, tf.float32)[::-1] / 2
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return tf.argmin(tf.reduce_sum(tf.square(centers - middle), axis=1))


def eye_angle(landmarks: Any) -> tf.Tensor:
    """Returns the slope of the line from the left to the right eye, in degrees.

    Positive where the right eye lies lower; turning the picture by it counter-clockwise
    makes the eyes level. Left and right are the viewer's.

    Args:
        landmarks: (x, y), the eyes first. Shape (5, 2).

    Example:
    >>> round(float(eye_angle([[0, 0], [10, 10], [5, 6], [1, 9], [9, 9]])), 4)
    45.0
    """
    landmarks = tf.cast(landmarks, tf.float32)
    across, down = tf.unstack(landmarks[1] - landmarks[0])
    return tf.atan2(down, across) * (180 / math.pi)


# -- comparing detectors: NumPy, not in any graph --------------------------------------


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Returns areas in square pixels, 0 for empty boxes. Shape (...)."""
    boxes = np.asarray(boxes, "float32")
    sides = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None)
    return sides[..., 0] * sides[..., 1]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns intersection over union of boxes, pair by pair, in [0, 1]."""
    a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
    shared = np.concatenate(
        [np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])],
        axis=-1,
    )
    overlap = box_area(shared)
    union = box_area(a) + box_area(b) - overlap
    return np.where(union > 0, overlap / np.where(union > 0, union, 1), 0.0)
