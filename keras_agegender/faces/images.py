"""Reads images of all supported formats as RGB.

Files are decoded by the graph that exported models hold, so that both see the same
pixels and refuse the same files; Pillow says how large an image is and what is wrong
with a damaged one.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from keras_agegender.errors import one_line
from keras_agegender.files import read_regular

MAX_PIXELS = 200_000_000
# What Pillow calls the formats of `faces/decoding.py`.
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")


class UnreadableImageError(ValueError):
    """An image that cannot be read; the message says which and why, in one line."""


def read_image(source: str | Path | bytes) -> np.ndarray:
    """Reads a JPEG, PNG, GIF, WebP or BMP file as RGB, upright.

    EXIF orientation is applied; grayscale, palette, CMYK and 16-bit images become RGB
    of 8 bits; transparency of PNG and WebP files is put on white, that of GIF files on
    their own background; of a GIF or PNG animation the first image counts. Exported
    models see the same pixels and refuse the same files.

    Args:
        source: A file, or the bytes of one.

    Returns:
        Pixels in [0, 255]. Shape (height, width, 3), uint8.

    Raises:
        UnreadableImageError: If there is no such file, or it is empty, truncated, no
            image, of a format that is not read (TIFF, EPS, animated WebP …), or
            larger than 200 megapixels.

    Example:
    >>> read_image("photo.jpg").shape  # doctest: +SKIP
    (480, 640, 3)
    """
    data, name = _read_bytes(source)
    graph = _graph()
    problem = _problem(data, header_only=True)
    pixels = None if problem else graph.decode(data)
    if pixels is None:
        reason = graph.refusal(data) or problem or _problem(data, header_only=False)
        reason = reason or "damaged image (TensorFlow cannot decode it)."
        raise UnreadableImageError(f"{name}: {reason}")
    return pixels


def open_image(data: bytes) -> Image.Image:
    """Opens a file with Pillow, restricted to the supported formats.

    Pillow would try all that it knows, some of which start other programs: EPS files
    are PostScript, which Ghostscript carries out.
    """
    return Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)


def _problem(data: bytes, header_only: bool) -> str:
    """Returns Pillow's error about a file, or an empty string."""
    try:
        with open_image(data) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                return f"{size} pixels are more than {MAX_PIXELS}."
            if not header_only:
                image.load()
    except UnidentifiedImageError:
        return "not an image."
    except Image.DecompressionBombError as error:
        return str(error)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = one_line(error)
        return f"damaged image ({reason})."
    return ""


class _Graph(NamedTuple):
    """The decoding of exported models, for bytes."""

    refusal: Callable[[bytes], str]
    decode: Callable[[bytes], np.ndarray | None]  # `None` for a damaged file


@functools.cache
def _graph() -> _Graph:
    import tensorflow as tf

    from keras_agegender.faces.decoding import JPEG, decode_image, refusal

    @functools.cache
    def traced(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable:
        file = tf.TensorSpec((), tf.string)
        return tf.function(function, [file], autograph=False).get_concrete_function()

    def decode_or_none(data: bytes) -> np.ndarray | None:
        # What `decode_image` does with such a file; tracing it all takes a second.
        is_jpeg = data.startswith(JPEG.magic)
        decode = traced(JPEG.decode if is_jpeg else decode_image)
        try:
            return decode(tf.constant(data)).numpy()
        except (tf.errors.OpError, UnicodeDecodeError):  # the latter of a message
            return None

    return _Graph(
        lambda data: traced(refusal)(tf.constant(data)).numpy().decode(),
        decode_or_none,
    )


def _read_bytes(source: str | Path | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        data, name = source, "image"
    else:
        name = str(source)
        try:
            data = read_regular(source)
        except FileNotFoundError:
            raise UnreadableImageError(f"{name}: no such file.") from None
        except IsADirectoryError:
            raise UnreadableImageError(f"{name}: a directory, not an image.") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UnreadableImageError(f"{name}: {reason}.") from None
    if not data:
        raise UnreadableImageError(f"{name}: empty file.")
    return data, name


def pillow_to_rgb(image: Image.Image) -> np.ndarray:
    """Returns the pixels of a Pillow image of any mode as RGB, on white."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 or 32 bits of gray
        values = np.asarray(image, dtype="float64")
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0
        gray = np.clip(values * (255.0 / top), 0, 255).round().astype("uint8")
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (
        "transparency" in image.info
    ):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Returns the JPEG file of an RGB image."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"Cannot encode an image of shape {image.shape} as JPEG.")
    return data.tobytes()
