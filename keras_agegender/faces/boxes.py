"""Geometry of face boxes: pure functions on `bbox_xyxy` arrays, in pixels.

A box is (left, top, right, bottom), left and top included, right and bottom not. All
functions take boxes of shape (..., 4) and return float32 of the same shape.
"""

from __future__ import annotations

import numpy as np

KEEP = ("largest", "center")


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


def add_margin(boxes: np.ndarray, margin: float) -> np.ndarray:
    """Widens boxes on every side by a share of their own width and height.

    Args:
        boxes: Boxes. Shape (..., 4).
        margin: Share added on each side, at least 0; 0 changes nothing.

    Example:
    >>> add_margin(np.array([10, 10, 20, 30]), 0.5).tolist()
    [5.0, 0.0, 25.0, 40.0]
    """
    boxes = np.asarray(boxes, "float32")
    grown = (boxes[..., 2:] - boxes[..., :2]) * margin
    return np.concatenate([boxes[..., :2] - grown, boxes[..., 2:] + grown], axis=-1)


def make_square(boxes: np.ndarray) -> np.ndarray:
    """Lengthens the shorter side of boxes about their centre.

    Example:
    >>> make_square(np.array([0, 0, 10, 20])).tolist()
    [-5.0, 0.0, 15.0, 20.0]
    """
    boxes = np.asarray(boxes, "float32")
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]).max(axis=-1, keepdims=True) / 2
    return np.concatenate([centers - half, centers + half], axis=-1)


def fit_inside(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Shifts boxes into the picture; what is larger than the picture is cut to it.

    A square that fits stays a square: it is moved before it is cut.

    Args:
        boxes: Boxes. Shape (..., 4).
        image_size: (height, width) of the picture.

    Example:
    >>> fit_inside(np.array([-5, 10, 15, 30]), (100, 100)).tolist()
    [0.0, 10.0, 20.0, 30.0]
    """
    boxes = np.asarray(boxes, "float32")
    limits = np.array([image_size[1], image_size[0]], "float32")
    sides = np.minimum(boxes[..., 2:] - boxes[..., :2], limits)
    start = np.clip(boxes[..., :2], 0, limits - sides)
    return np.concatenate([start, start + sides], axis=-1)


def center_square(image_size: tuple[int, int]) -> np.ndarray:
    """Returns the largest square in the middle of a picture of (height, width)."""
    height, width = image_size
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return np.array([left, top, left + side, top + side], "float32")


def select_face(
    boxes: np.ndarray, image_size: tuple[int, int], keep: str = "largest"
) -> int:
    """Returns which of several faces is the subject of the picture.

    Args:
        boxes: Boxes, at least one. Shape (num_faces, 4).
        image_size: (height, width) of the picture.
        keep: `"largest"` (default) or `"center"`, the one whose centre is nearest the
            picture's.

    Returns:
        Its index; the first of equals.
    """
    boxes = np.asarray(boxes, "float32")
    if keep == "largest":
        return int(np.argmax(box_area(boxes)))
    middle = np.array([image_size[1], image_size[0]], "float32") / 2
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return int(np.argmin(np.square(centers - middle).sum(axis=1)))


def eye_angle(landmarks: np.ndarray) -> float:
    """Returns the slope of the line from the left to the right eye, in degrees.

    Positive where the right eye lies lower; turning the picture by it counter-clockwise
    makes the eyes level. Left and right are the viewer's.

    Args:
        landmarks: (x, y), the eyes first. Shape (5, 2).

    Example:
    >>> eye_angle(np.array([[0, 0], [10, 10], [5, 6], [1, 9], [9, 9]]))
    45.0
    """
    across, down = np.asarray(landmarks[1], "float64") - landmarks[0]
    return float(np.degrees(np.arctan2(down, across)))
