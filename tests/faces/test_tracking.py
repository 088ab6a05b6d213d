"""Boxes of one picture after the other become people; boxes are made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_agegender.faces.video import FaceTracker, box_overlaps


def box(left, top=0, side=10):
    return (left, top, left + side, top + side)


def test_overlaps_by_hand():
    # Half of each: 50 shared, 150 together. Beside: none. Inside: 25 of 100.
    found = box_overlaps(np.array([box(0)]), np.array([box(5), box(10), box(2, 2, 5)]))
    np.testing.assert_allclose(found, [[1 / 3, 0, 0.25]])
    assert box_overlaps(np.zeros((1, 4)), np.zeros((1, 4))) == 0  # no area


def test_people_keep_their_numbers_whatever_the_order():
    tracker = FaceTracker()
    assert tracker.update([box(0), box(30)], 0.0) == [0, 1]
    assert tracker.update([box(33), box(3)], 0.25) == [1, 0]
    assert tracker.update([box(6), box(36), box(60)], 0.5) == [0, 1, 2]


def test_all_boxes_are_assigned_together():
    """The best pair first (6 with 5) would leave the other box without anybody."""
    tracker = FaceTracker(min_overlap=0.1)
    assert tracker.update([box(0), box(5)], 0.0) == [0, 1]
    # Overlaps: box(6) with person 0 is 4/16, with person 1 9/11; box(10) with person 0
    # nothing, with person 1 5/15. Together 4/16 + 5/15 < 9/11: the sure pair stays.
    assert tracker.update([box(6), box(10)], 0.25) == [1, 2]
    # box(8) with persons 1 (at 6) and 2 (at 10) 8/12 each; box(13) with person 1 3/17,
    # with person 2 7/13: only one assignment uses both.
    assert tracker.update([box(8), box(13)], 0.5) == [1, 2]


def test_too_little_overlap_is_somebody_else():
    tracker = FaceTracker(min_overlap=0.2)
    tracker.update([box(0)], 0.0)
    assert tracker.update([box(7)], 0.25) == [1]  # 3 / 17 = 0.18
    tracker = FaceTracker(min_overlap=0.2)
    tracker.update([box(0)], 0.0)
    assert tracker.update([box(6)], 0.25) == [0]  # 4 / 16 = 0.25


def test_a_gap_is_bridged_for_a_while():
    tracker = FaceTracker(max_gap=1.0)
    assert tracker.update([box(0)], 0.0) == [0]
    assert tracker.update([], 0.5) == []
    assert tracker.update([box(1)], 1.0) == [0]
    assert tracker.update([box(1)], 2.5) == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_overlap": 0}, "min_overlap=0"),
        ({"min_overlap": 1.1}, "min_overlap=1.1"),
        ({"max_gap": -1}, "max_gap=-1"),
        ({"max_gap": float("nan")}, "max_gap=nan"),
    ],
)
def test_wrong_arguments_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        FaceTracker(**arguments)
