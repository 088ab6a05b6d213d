"""Videos become frames at a rate; one that cannot be read says why."""

from __future__ import annotations

import numpy as np
import pytest
from sample_data import write_video

from keras_agegender.faces.images import UnreadableImageError
from keras_agegender.faces.video import VideoReader

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
