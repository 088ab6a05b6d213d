"""Tracking: face boxes of one picture after the other become people.

A box belongs to the person whose last box it overlaps most; all boxes of a picture are
assigned together (the Hungarian method). Nothing is predicted and nothing is learned.

Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016 (arXiv 1602.00763),
without its motion model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass
class _Track:
    """A person who may be seen again: number, last box, when it was seen."""

    number: int
    box: np.ndarray
    second: float


class FaceTracker:
    """Gives faces of consecutive pictures the numbers of people.

    Args:
        min_overlap: Least intersection over union of a face with the person's last box,
            in (0, 1]. Defaults to 0.2: faces that walk move by half their width between
            two looks.
        max_gap: Seconds after which somebody not seen is somebody new. Defaults to 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> tracker = FaceTracker()
    >>> tracker.update([(0, 0, 10, 10), (50, 0, 60, 10)], second=0.0)
    [0, 1]
    >>> tracker.update([(51, 0, 61, 10), (1, 0, 11, 10)], second=0.5)
    [1, 0]
    """

    def __init__(self, min_overlap: float = 0.2, max_gap: float = 1.0) -> None:
        if not 0 < min_overlap <= 1:
            raise ValueError(
                "Invalid `min_overlap`. Expected a float in (0, 1]. "
                f"Received: min_overlap={min_overlap}."
            )
        if not max_gap >= 0:
            raise ValueError(
                "Invalid `max_gap`. Expected a number of seconds, at least 0. "
                f"Received: max_gap={max_gap}."
            )
        self.min_overlap = min_overlap
        self.max_gap = max_gap
        self._tracks: list[_Track] = []
        self._count = 0

    def update(
        self, boxes: Sequence[Sequence[float]] | np.ndarray, second: float
    ) -> list[int]:
        """Returns the person of each face of the next picture.

        Args:
            boxes: `bbox_xyxy` in pixels. Shape (num_faces, 4); there may be none.
            second: When the picture was taken, not before the last one.

        Returns:
            A number for each box, counted from 0 in the order in which people appear.
        """
        self._tracks = [t for t in self._tracks if second - t.second <= self.max_gap]
        faces = np.asarray(boxes, "float64").reshape(-1, 4)
        people: list[_Track | None] = [None] * len(faces)
        if self._tracks and len(faces):
            overlaps = box_overlaps(np.array([t.box for t in self._tracks]), faces)
            # What is too little is nothing: else it could win over a sure pair.
            overlaps = np.where(overlaps >= self.min_overlap, overlaps, 0.0)
            for row, column in zip(
                *linear_sum_assignment(overlaps, maximize=True), strict=True
            ):
                if overlaps[row, column] > 0:
                    people[column] = self._tracks[row]
        return [
            self._follow(track, box, second)
            for track, box in zip(people, faces, strict=True)
        ]

    def _follow(self, track: _Track | None, box: np.ndarray, second: float) -> int:
        if track is None:
            track = _Track(self._count, box, second)
            self._tracks.append(track)
            self._count += 1
        track.box, track.second = box, second
        return track.number


def box_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of every pair of boxes.

    Args:
        boxes: `bbox_xyxy`. Shape (num_boxes, 4).
        others: `bbox_xyxy`. Shape (num_others, 4).

    Returns:
        Shares in [0, 1]. Shape (num_boxes, num_others).
    """
    first = np.asarray(boxes, "float64")[:, None]
    second = np.asarray(others, "float64")[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [
        np.prod(np.clip(b[..., 2:] - b[..., :2], 0, None), -1) for b in (first, second)
    ]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
