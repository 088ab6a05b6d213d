"""Reading: photos and videos become RGB pictures in order, or a reason why not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

import numpy as np

from keras_agegender.faces.images import UnreadableImageError, pillow_to_rgb, read_image
from keras_agegender.faces.video import VideoReader
from keras_agegender.serving.photo_sources import Source
from keras_agegender.serving.prefetching import map_ahead

READERS, READ_AHEAD = 2, 4


class Picture(NamedTuple):
    """A photo or a frame, or the end of a video.

    Attributes:
        source: What it is of.
        image: RGB, uint8; `None` if there is none, and at the end of a video.
        reason: Why there is none, or why a video ended early.
        second: When a frame is shown; at the end of a video how much was read; `None`
            of a photo.
        is_end: Whether it is the end of a video.
    """

    source: Source
    image: np.ndarray | None
    reason: str = ""
    second: float | None = None
    is_end: bool = False


def read_pictures(
    sources: Iterable[Source],
    frames_per_second: float,
    note_seconds: Callable[[float], None],
    overlap: bool,
) -> Generator[Picture]:
    """Yields the pictures of sources, in order.

    Args:
        sources: Photos and videos.
        frames_per_second: How many frames of a video to look at in a second.
        note_seconds: Is told how long each picture took.
        overlap: Whether photos are read in several threads.
    """
    for is_video, group in itertools.groupby(sources, lambda s: s.is_video):
        if is_video:
            for source in group:
                yield from _frames(source, frames_per_second, note_seconds)
            continue
        read: Iterable[tuple[Picture, float]]
        if overlap:
            read = map_ahead(_timed_read, group, READERS, READ_AHEAD)
        else:
            read = (_timed_read(source) for source in group)
        for picture, seconds in read:
            note_seconds(seconds)
            yield picture


def _frames(
    source: Source, frames_per_second: float, note_seconds: Callable[[float], None]
) -> Generator[Picture]:
    try:
        video = VideoReader(source.content, frames_per_second)
    except UnreadableImageError as error:
        yield Picture(source, None, str(error), is_end=True)
        return
    start = time.perf_counter()
    for second, image in video:
        note_seconds(time.perf_counter() - start)
        yield Picture(source, image, second=second)
        start = time.perf_counter()
    yield Picture(source, None, video.reason, video.seconds, is_end=True)


def _timed_read(source: Source) -> tuple[Picture, float]:
    start = time.perf_counter()
    pixels = _read(source.content)
    seconds = time.perf_counter() - start
    if isinstance(pixels, str):
        return Picture(source, None, pixels), seconds
    return Picture(source, pixels), seconds


def _read(photo: Any) -> np.ndarray | str:
    """Returns upright pixels, or why there are none."""
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            return (
                "picture: expected RGB pixels of shape (height, width, 3), uint8. "
                f"Received: shape {photo.shape}, {photo.dtype}."
            )
        if 0 in photo.shape:
            return f"picture: no pixels. Received: shape {photo.shape}."
        return photo
    if hasattr(photo, "getexif"):
        return _read_pillow(photo)
    if not hasattr(photo, "__fspath__") and not isinstance(photo, (str, bytes)):
        return (
            "picture: expected a file, bytes, RGB pixels or a Pillow picture. "
            f"Received: {type(photo).__name__}."
        )
    try:
        return read_image(photo)
    except UnreadableImageError as error:
        return str(error)


def _read_pillow(photo: Any) -> np.ndarray | str:
    from PIL import ImageOps

    try:
        pixels = pillow_to_rgb(ImageOps.exif_transpose(photo))
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"picture: damaged picture ({reason})."
    return pixels if pixels.size else "picture: no pixels."
