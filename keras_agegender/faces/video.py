"""Videos: frames and tracks of faces."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_agegender.faces.images import UnreadableImageError

if TYPE_CHECKING:
    import cv2

# Of the frames that the header promises; it is an estimate in some formats.
SHARE_OF_WHOLE = 0.9


class VideoFrame(NamedTuple):
    """One frame.

    Attributes:
        second: Its time from the start.
        image: RGB. Shape (height, width, 3), uint8.
    """

    second: float
    image: np.ndarray


class VideoReader:
    """Reads a few frames of each second of a video, in order.

    Args:
        file: A file of a format that OpenCV reads: MP4, AVI, MOV, MKV, WebM …
        frames_per_second: Frames to read from each second, above 0; at most the frame
            rate. Defaults to 4.

    Attributes:
        frame_rate: Frames per second by the file's header, an estimate in some formats.
        seconds: How much of the video was read so far.
        reason: Why the rest of it was not read, in one line; else empty.

    Raises:
        ValueError: If `frames_per_second` is not above 0.
        UnreadableImageError: If the file does not exist or is not a video with frames.

    Example:
    >>> for frame in VideoReader("video.mp4", 2.0):  # doctest: +SKIP
    ...     print(frame.second, frame.image.shape)
    """

    def __init__(self, file: str | Path, frames_per_second: float = 4.0) -> None:
        import cv2

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
        import cv2

        with contextlib.ExitStack() as stack:
            stack.callback(self._capture.release)
            promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            index, second, due = 0, 0.0, 0.0
            first = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            while True:
                if second >= due:
                    decoded, frame = self._capture.retrieve()
                    if not decoded:
                        break
                    yield VideoFrame(second, _to_rgb(frame))
                    taken = math.floor(second * self.frames_per_second + 1e-6)
                    due = (taken + 1) / self.frames_per_second - 1e-6
                index += 1
                # The last frame is as long as the others are on average.
                self.seconds = round(second * index / max(index - 1, 1), 6)
                self.seconds = self.seconds or 1 / self.frame_rate
                if not self._capture.grab():
                    break
                # Headers of WebM files say 1000 frames per second; times are right.
                stamp = (self._capture.get(cv2.CAP_PROP_POS_MSEC) - first) / 1000
                if stamp <= 0:  # a format without time stamps
                    stamp = index / self.frame_rate
                second = max(second, round(stamp, 6))
            if self.seconds < SHARE_OF_WHOLE * promised / self.frame_rate:
                self.reason = f"ends after {index} of {promised:.0f} frames"


def check_frames_per_second(value: float) -> None:
    """Raises a `ValueError` unless the rate is positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(
            "Invalid `frames_per_second`. Expected a number above 0. "
            f"Received: frames_per_second={value}."
        )


def _open(file: Path) -> cv2.VideoCapture:
    import cv2

    # A name alone may mean a camera, an address or numbered images to OpenCV.
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
    import cv2

    if frame.ndim == 2:
        return cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


@dataclass
class _Track:
    """A person: number, last box, and when it was seen."""

    number: int
    box: np.ndarray
    second: float


class FaceTracker:
    """Gives faces of consecutive images the numbers of persons.

    Args:
        min_overlap: Minimum intersection over union of a face with the person's last
            box, in (0, 1]. Defaults to 0.2: faces of people who walk move by half their
            width between two frames.
        max_gap: Seconds after which a face that was not seen counts as a new person.
            Defaults to 1.

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
        """Returns a person's number for each face of the next image, counted from 0."""
        from scipy.optimize import linear_sum_assignment

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
    """Returns the intersection over union of every pair of boxes, in [0, 1].

    Boxes are `bbox_xyxy`. Shape (num_boxes, num_others).
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
