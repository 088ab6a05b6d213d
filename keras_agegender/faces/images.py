"""Reads images of all supported formats as RGB, with Pillow.

`faces/decoding.py` does the same in TensorFlow graphs: both return the same pixels and
refuse the same files.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from keras_agegender.errors import one_line
from keras_agegender.files import read_regular

MAX_PIXELS = 200_000_000
WEBP_ANIMATION = 0x02  # a flag of a VP8X header
ORIENTATION_TAG = 0x0112
MAX_ENTRIES = 512  # of an EXIF directory
# EXIF orientation -> how Pillow makes the image upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Format(NamedTuple):
    """A file format: its name, and the bytes at `offset` that identify it."""

    name: str
    magic: bytes
    offset: int = 0
    is_read: bool = False
    limits: str = ""  # which of its files are read, if not all


FORMATS = (
    Format("JPEG", b"\xff\xd8", is_read=True),
    Format("PNG", b"\x89PNG", is_read=True),
    Format("GIF", b"GIF8", is_read=True),
    Format("WebP", b"WEBP", 8, True, "not animated"),
    Format("BMP", b"BM", 0, True, "8, 24 or 32 bits"),
    Format("TIFF", b"II*\0"),
    Format("TIFF", b"MM\0*"),
    Format("EPS", b"%!PS"),
    Format("EPS", b"\xc5\xd0\xd3\xc6"),
    Format("PDF", b"%PDF"),
    Format("AVIF", b"ftypavif", 4),
    Format("HEIC", b"ftyphei", 4),
    Format("HEIC", b"ftypmif1", 4),
    Format("JPEG XL", b"\0\0\0\x0cJXL "),
    Format("JPEG XL", b"\xff\x0a"),
    Format("JPEG 2000", b"\0\0\0\x0cjP  "),
    Format("Photoshop", b"8BPS"),
    Format("Windows icon", b"\0\0\1\0"),
    *(Format("Netpbm", b"P%d" % n) for n in range(1, 8)),
)
PILLOW_FORMATS = tuple(format.name.upper() for format in FORMATS if format.is_read)
EXPECTED = "one of " + ", ".join(
    f"{f.name} ({f.limits})" if f.limits else f.name for f in FORMATS if f.is_read
)


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
    reason = refusal(data)
    if not reason:
        try:
            with open_image(data) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width} x {image.height}"
                    raise UnreadableImageError(
                        f"{name}: {size} pixels are more than {MAX_PIXELS}."
                    )
                return _pixels(image, data)
        except UnidentifiedImageError:
            reason = f"not an image. Expected {EXPECTED}."
        except Image.DecompressionBombError as error:
            reason = str(error)
        except UnreadableImageError:
            raise
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            reason = f"damaged image ({one_line(error)})."
    raise UnreadableImageError(f"{name}: {reason}")


def refusal(data: bytes) -> str:
    """Returns why a file is not read, and what would be; empty if it is read."""
    header = data[:32].ljust(32, b"\0")
    found = (f for f in FORMATS if header.startswith(f.magic, f.offset))
    format = next(found, None)
    reason = "not an image" if format is None else ""
    if format is not None and not format.is_read:
        reason = f"{format.name} is not read"
    if header[8:16] == b"WEBPVP8X" and header[20] & WEBP_ANIMATION:
        reason = "animated WebP is not read"
    bits, is_plain = header[28], header[14] >= 40 and header[30] == 0
    if header.startswith(b"BM") and not (bits in (24, 32) or (bits == 8 and is_plain)):
        reason = "this kind of BMP is not read"
    return f"{reason}. Expected {EXPECTED}." if reason else ""


def open_image(data: bytes) -> Image.Image:
    """Opens a file with Pillow, restricted to the supported formats.

    Pillow would try all that it knows, some of which start other programs: EPS files
    are PostScript, which Ghostscript carries out.
    """
    return Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)


def _pixels(image: Image.Image, data: bytes) -> np.ndarray:
    """Returns the upright RGB pixels of an opened file."""
    tiles = getattr(image, "tile", None)
    frame = tiles[0][1] if image.format == "GIF" and tiles else None
    image.load()
    if frame is not None:  # of the first image, which may be smaller than the file's
        image = image.crop(frame)
    if image.mode == "CMYK":
        inks = 255 - np.asarray(image).astype("uint16")
        pixels = (inks[..., :3] * inks[..., 3:] // 255).astype("uint8")
    elif frame is not None:
        pixels = np.array(image.convert("RGB"))
        if "transparency" in image.info:  # black, as TensorFlow decodes it
            pixels[np.asarray(image) == image.info["transparency"]] = 0
    elif image.format == "BMP":
        pixels = np.asarray(image.convert("RGBA"))[..., :3]
    elif image.mode.startswith("I"):  # 16 bits of gray
        values = np.asarray(image)
        pixels = np.repeat((values >> 8).astype("uint8")[..., None], 3, axis=2)
        if "transparency" in image.info:
            pixels[values == image.info["transparency"]] = 255
    elif image.has_transparency_data:
        pixels = _on_white(np.asarray(image.convert("RGBA")))
    else:
        pixels = np.asarray(image.convert("RGB"))
    turn = UPRIGHT.get(_orientation(data, image.format or ""))
    if turn is None:
        return np.ascontiguousarray(pixels)
    return np.array(Image.fromarray(pixels).transpose(turn))


def _on_white(pixels: np.ndarray) -> np.ndarray:
    colors = pixels.astype("float32")
    alpha = colors[..., 3:] / np.float32(255)
    white = colors[..., :3] * alpha + np.float32(255) * (1 - alpha)
    return np.clip(np.rint(white), 0, 255).astype("uint8")


def _orientation(data: bytes, format: str) -> int:
    """Returns the EXIF orientation, 1 (upright) to 8; 1 if there is none."""
    start = 0
    if format == "WEBP":
        start = _find_chunk(data, 12, "<4sI", b"EXIF")
    elif format == "PNG":
        start = _find_chunk(data, 8, ">I4s", b"eXIf")
    elif format == "JPEG" or format == "MPO":
        at = 2
        while not start and at + 4 < len(data):
            marker, length = struct.unpack_from(">HH", data, at)
            if marker < 0xFF00 or marker == 0xFFDA:  # the start of the pixels
                break
            if marker == 0xFFE1 and data.startswith(b"Exif", at + 4):
                start = at + 4
            at += 2 + max(length, 2)
    return _tiff_orientation(data, start) if start else 1


def _find_chunk(data: bytes, at: int, header: str, name: bytes) -> int:
    """Returns where the content of the first chunk with a name starts, or 0."""
    is_png = header.startswith(">")
    while at + 8 < len(data):
        first, second = struct.unpack_from(header, data, at)
        found, length = (second, first) if is_png else (first, second)
        if found == name:
            return at + 8
        at += length + (12 if is_png else 8 + length % 2)
    return 0


def _tiff_orientation(data: bytes, start: int) -> int:
    start += 6 if data.startswith(b"Exif", start) else 0
    order = "<" if data.startswith(b"II", start) else ">"
    try:
        directory = start + struct.unpack_from(f"{order}I", data, start + 4)[0]
        (count,) = struct.unpack_from(f"{order}H", data, directory)
        for entry in range(min(count, MAX_ENTRIES)):
            at = directory + 2 + 12 * entry
            if struct.unpack_from(f"{order}H", data, at)[0] == ORIENTATION_TAG:
                return struct.unpack_from(f"{order}H", data, at + 8)[0]
    except struct.error:  # beyond the end of a damaged file
        pass
    return 1


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
