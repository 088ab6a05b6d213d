"""What to predict on: files, folders, globs and pixels become single sources."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Photo: TypeAlias = "str | Path | bytes | np.ndarray | Image.Image"

# Endings of a folder's files that are looked at. Formats that are not read are among
# them: their answer says so.
PHOTO_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .webp .bmp .tif .tiff .heic .heif .avif".split()
)
VIDEO_ENDINGS = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .3gp .mts".split()
)


class Source(NamedTuple):
    """One photo or video.

    Attributes:
        content: A file, the bytes of one, pixels, or a Pillow picture.
        name: What its prediction is called: the file, or `"picture"`.
        is_video: Whether it is the file of a video.
    """

    content: Any
    name: str
    is_video: bool = False


def find_sources(photos: Any, left_out: list[Path] | None = None) -> Iterator[Source]:
    """Yields the photos and videos that are meant, folder by folder, in order of names.

    Args:
        photos: A photo (file, bytes, RGB pixels or Pillow picture), a video file, a
            folder, a glob such as `"photos/**/*.jpg"`, a source that was found before,
            or an iterable of these. Folders are searched with those inside them, for
            the endings of photos and videos; hidden files are left out.
        left_out: Takes the files of folders that have other endings.
    """
    if isinstance(photos, Source):  # found before: by now its name may mean another
        yield photos
    elif isinstance(photos, (str, Path)):
        yield from _of_path(photos, left_out)
    elif _is_picture(photos):
        yield Source(photos, "picture")
    elif isinstance(photos, Iterable):
        for photo in photos:
            yield from find_sources(photo, left_out)
    else:
        yield Source(photos, "picture")  # its prediction says what is wrong with it


def is_glob(path: str | Path) -> bool:
    """Returns whether a path is a pattern, and not the name of something there."""
    return glob.has_magic(str(path)) and not Path(path).exists()


def _of_path(path: str | Path, left_out: list[Path] | None) -> Iterator[Source]:
    if Path(path).is_dir():
        yield from map(_file, _files_of(Path(path), left_out))
        return
    if is_glob(path):
        found = sorted(glob.glob(str(path), recursive=True))
        files = [name for name in found if not Path(name).is_dir()]
        if files:
            yield from map(_file, files)
            return
    yield _file(path)


def _files_of(folder: Path, left_out: list[Path] | None) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root, name)
            if name.startswith("."):
                continue
            if file.suffix.lower() in PHOTO_ENDINGS | VIDEO_ENDINGS:
                yield file
            elif left_out is not None:
                left_out.append(file)


def _file(path: str | Path) -> Source:
    return Source(path, str(path), Path(path).suffix.lower() in VIDEO_ENDINGS)


def _is_picture(photo: Any) -> bool:
    if isinstance(photo, bytes):
        return True
    if hasattr(photo, "ndim"):
        return photo.ndim != 4  # a batch is an iterable of pictures
    return hasattr(photo, "getexif")  # a Pillow picture, without importing Pillow
