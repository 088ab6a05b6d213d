"""Reading videos: a file becomes RGB frames at a rate, or an error that says why."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from keras_agegender.faces.images import UnreadableImageError

# Of the frames that the header promises; it is an estimate in some formats.
SHARE_OF_WHOLE = 0.9


class VideoFrame(NamedTuple):
    """One frame that is looked at.

    Attributes:
        second: When it is shown, from the beginning.
        image: RGB. Shape (height, width, 3), uint8.
    """

    second: float
    image: np.ndarray


class VideoReader:
    """Reads a video's frames from the first to the last, a few in every second.

    Args:
        file: A file of a format that OpenCV reads: MP4, AVI, MOV, MKV, WebM …
        frames_per_second: How many frames to look at in a second, above 0; never more
            than there are. Defaults to 4.

    Attributes:
        frame_rate: Frames in a second of the video.
        seconds: How much of the video was read so far.
        reason: Why the rest of it was not read, in a line; else empty.

    Raises:
        ValueError: If `frames_per_second` is not above 0.
        UnreadableImageError: If there is no such file, or it is no video with frames.

    Example:
    >>> for frame in VideoReader("video.mp4", 2.0):  # doctest: +SKIP
    ...     print(frame.second, frame.image.shape)
    """

    def __init__(self, file: str | Path, frames_per_second: float = 4.0) -> None:
        check_frames_per_second(frames_per_second)
        self.file = Path(file)
        self.frames_per_second = frames_per_second
        self.seconds, self.reason = 0.0, ""
        self._capture = _open(self.file)
        self.frame_rate = self._capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(self.frame_rate) and self.frame_rate > 0):
            self._capture.release()
            raise UnreadableImageError(f"{file}: a video without a frame rate.")
        # The first frame is read here: an opened file may hold none.
        if not self._capture.grab():
            self._capture.release()
            raise UnreadableImageError(f"{file}: a video without a readable frame.")

    def __iter__(self) -> Iterator[VideoFrame]:
        with contextlib.ExitStack() as stack:
            stack.callback(self._capture.release)
            promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            step = max(1.0, self.frame_rate / self.frames_per_second)
            index = taken = 0
            while True:
                if index >= taken * step:
                    decoded, frame = self._capture.retrieve()
                    if not decoded:
                        break
                    yield VideoFrame(index / self.frame_rate, _to_rgb(frame))
                    taken += 1
                index += 1
                self.seconds = index / self.frame_rate
                if not self._capture.grab():
                    break
            if index < SHARE_OF_WHOLE * promised:
                self.reason = f"ends after {index} of {promised:.0f} frames"


def check_frames_per_second(value: float) -> None:
    """Raises a `ValueError` unless that many frames can be looked at in a second."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(
            "Invalid `frames_per_second`. Expected a number above 0. "
            f"Received: frames_per_second={value}."
        )


def _open(file: Path) -> cv2.VideoCapture:
    # A name alone may mean a camera, an address or numbered pictures to OpenCV.
    if file.is_dir():
        raise UnreadableImageError(f"{file}: a directory, not a video.")
    if not file.is_file():
        raise UnreadableImageError(f"{file}: no such file.")
    if not file.stat().st_size:
        raise UnreadableImageError(f"{file}: empty file.")
    # The error below is enough; FFmpeg's own lines would be on the screen before it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(file))
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise UnreadableImageError(f"{file}: not a video, or one that is damaged.")
    return capture


def _to_rgb(frame: np.ndarray) -> np.ndarray:
    if frame.ndim == 2:
        return cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
