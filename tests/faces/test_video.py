"""Frames of videos, and tracks of faces."""

from __future__ import annotations

import struct
import types

import cv2
import numpy as np
import pytest
from sample_data import write_video

from keras_agegender.faces import video
from keras_agegender.faces.images import UnreadableImageError
from keras_agegender.faces.video import FaceTracker, VideoReader, box_overlaps

# Every frame has its own gray: 25 frames, 10 in a second.
FRAMES = [np.full((48, 64, 3), 10 * number, "uint8") for number in range(25)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for name in ("a.avi", "a.mp4"):
        write_video(root / name, FRAMES, frame_rate=10)
    return root


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
@pytest.mark.parametrize(
    ("rate", "expected"),
    # At 4 a second every 2.5th frame, at the next one there is.
    [(4, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23]), (1, [0, 10, 20]), (99, range(25))],
)
def test_frames_at_a_rate(folder, name, rate, expected):
    reader = VideoReader(folder / name, rate)
    frames = list(reader)
    assert [frame.second for frame in frames] == [n / 10 for n in expected]
    grays = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(grays, [10 * n for n in expected], atol=4.5)
    assert (reader.seconds, reader.reason) == (2.5, "")


def test_frames_are_chosen_by_their_times(tmp_path, monkeypatch):
    """Browsers record WebM files whose header promises 1000 frames per second."""
    file = write_video(tmp_path / "a.webm", FRAMES * 2, frame_rate=15)
    capture = cv2.VideoCapture(str(file))
    promises = {cv2.CAP_PROP_FPS: 1000.0, cv2.CAP_PROP_FRAME_COUNT: -9e18}
    fake = types.SimpleNamespace(
        get=lambda name: promises[name] if name in promises else capture.get(name),
        grab=capture.grab, retrieve=capture.retrieve, release=capture.release,
    )  # fmt: skip
    monkeypatch.setattr(video, "_open", lambda file: fake)
    reader = VideoReader(file, 4)
    seconds = [frame.second for frame in reader]
    # 50 frames are 3.3 s: at 0, 0.25, 0.5, ... the next frame of 15 per second.
    expected = [np.ceil(k / 4 * 15) / 15 for k in range(14)]
    np.testing.assert_allclose(seconds, expected, atol=2e-3)
    assert reader.seconds == pytest.approx(50 / 15, abs=0.01) and reader.reason == ""


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotated_videos_are_upright(tmp_path, degrees, turns):
    """Phones store frames as the sensor has them, and how to rotate them."""
    frame = np.zeros((48, 64, 3), "uint8")
    frame[:24, :32] = 250
    file = tmp_path / "a.mp4"
    write_video(file, [frame] * 3)
    content = bytearray(file.read_bytes())
    cos, sin = round(np.cos(np.radians(degrees))), round(np.sin(np.radians(degrees)))
    numbers = [65536 * n for n in (cos, sin, 0, -sin, cos, 0, 0, 0)]
    at = content.index(b"tkhd") + 44  # the matrix in the header of the track
    content[at : at + 36] = struct.pack(">9i", *numbers, 1 << 30)
    file.write_bytes(content)
    upright = next(iter(VideoReader(file))).image
    np.testing.assert_allclose(upright, np.rot90(frame, turns), atol=40)


def test_frames_are_rgb(tmp_path):
    red = np.zeros((48, 64, 3), "uint8")
    red[..., 0] = 200
    write_video(tmp_path / "red.avi", [red])
    (frame,) = VideoReader(tmp_path / "red.avi")
    assert frame.image[20, 20, 0] > 150 > 50 > frame.image[20, 20, 2]


def test_a_video_that_ends_early_says_so(folder, tmp_path):
    data = (folder / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    reader = VideoReader(tmp_path / "cut.avi")
    assert 0 < len(list(reader)) < 10
    assert "of 25 frames" in reader.reason


def test_unreadable_videos_say_why(folder, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 50, "utf-8")
    write_video(tmp_path / "none.avi", [], size=(48, 64))
    for name, reason in [
        ("empty.mp4", "empty file"),
        ("text.mp4", "not a video"),
        ("none.avi", "without a readable frame"),
        ("missing.mp4", "no such file"),
        ("", "a directory"),
    ]:
        with pytest.raises(UnreadableImageError, match=reason):
            VideoReader(tmp_path / name)
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="frames_per_second"):
            VideoReader(folder / "a.avi", rate)


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
