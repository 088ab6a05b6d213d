"""What a server takes, and what it refuses before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from keras_agegender.faces.images import PILLOW_FORMATS, open_picture


@dataclass(frozen=True)
class ServerLimits:
    """What a server takes.

    Attributes:
        max_bytes: Bytes of a photo's file at most.
        max_pixels: Pixels of a photo at most, as its file's header says.
        max_batch: Photos answered about together at most.
        max_waiting: Photos that may wait, for each model.
        timeout: Seconds in which a photo must have come, and must be answered about.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_batch: int = 32
    max_waiting: int = 256
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(
                    f"Invalid `{name}`. Expected a positive number. Received: {value}."
                )


class RefusedError(Exception):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_photo(photo: bytes, max_pixels: int) -> None:
    """Raises `RefusedError` for what is no photo, or is too large, by its header."""
    if not photo:
        raise RefusedError(400, "The body is empty. Expected the bytes of a photo.")
    try:
        with open_picture(photo) as picture:
            width, height = picture.size
    except Image.UnidentifiedImageError:
        formats = ", ".join(PILLOW_FORMATS)
        raise RefusedError(
            415, f"This is no picture of a format that is read: {formats}."
        ) from None
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"The picture is too large: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RefusedError(400, f"The picture is damaged ({reason}).") from None
    if width * height > max_pixels:
        raise RefusedError(
            413,
            f"The picture has {width} x {height} pixels. Expected at most "
            f"{max_pixels} in all.",
        )
