"""Decoding inside a TensorFlow graph: a file's bytes to upright RGB.

It reads the same formats as `read_image`, with the same pixels. EXIF orientation is
read from JPEG, PNG and WebP files; transparency of PNG and WebP files is put on white,
that of GIF files on their own background; gray, palette, CMYK and 16-bit images
become RGB of 8 bits; of a GIF or PNG animation the first image counts.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from keras_agegender.faces.images import (
    EXPECTED,
    FORMATS,
    MAX_ENTRIES,
    ORIENTATION_TAG,
    WEBP_ANIMATION,
)

EXIF_MARKER = 0xFFE1  # APP1
SCAN_MARKER = 0xFFDA  # where pixels begin: no marker after it is read
MAX_SCANNED = 100_000  # bytes
HEADER_SIZE = 32  # bytes that tell a file's format
WEBP_ALPHA = 0x10  # a flag of a VP8X header
LOSSLESS_ALPHA = 0x10  # in the fifth byte of a VP8L chunk


def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decodes a file to upright RGB. Shape (height, width, 3), uint8."""
    reason = refusal(data)

    def refuse() -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.Assert(False, [reason])]):
            return tf.zeros((0, 0, 3), tf.uint8)

    names = list(DECODERS)
    places = [names.index(f.name) if f.name in names else len(names) for f in FORMATS]
    place = tf.gather([*places, len(names)], _format_index(_header(data)))
    branches = [functools.partial(decode, data) for decode in DECODERS.values()]
    image = tf.switch_case(
        tf.where(reason == "", place, len(names)), [*branches, refuse]
    )
    return tf.ensure_shape(image, (None, None, 3))


def refusal(data: tf.Tensor) -> tf.Tensor:
    """Returns why a file is not read, and what would be; empty if it is read."""
    header = _header(data)
    reasons = ["" if f.name in DECODERS else f"{f.name} is not read" for f in FORMATS]
    reason = tf.gather([*reasons, "not an image"], _format_index(header))
    content = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int32)
    is_moving = (_part(header, 8, 8) == b"WEBPVP8X") & (
        content[20] & WEBP_ANIMATION > 0
    )
    reason = tf.where(is_moving, "animated WebP is not read", reason)
    bits, is_plain = content[28], (content[14] >= 40) & (content[30] == 0)
    is_known = (bits == 24) | (bits == 32) | ((bits == 8) & is_plain)
    is_odd = (_part(header, 0, 2) == b"BM") & ~is_known
    reason = tf.where(is_odd, "this kind of BMP is not read", reason)
    return tf.where(reason == "", "", reason + f". Expected {EXPECTED}.")


def _format_index(header: tf.Tensor) -> tf.Tensor:
    """Returns the index of a file's format in `FORMATS`, their number if unknown."""
    # All of them compared at once: one operation for each would take 0.1 ms.
    magic = np.zeros((len(FORMATS) + 1, HEADER_SIZE), "uint8")
    counts = np.zeros(magic.shape, bool)
    for row, format in enumerate(FORMATS):
        place = slice(format.offset, format.offset + len(format.magic))
        magic[row, place] = np.frombuffer(format.magic, "uint8")
        counts[row, place] = True
    same = (tf.io.decode_raw(header, tf.uint8) == magic) | ~counts
    matches = tf.reduce_all(same, axis=1)
    return tf.argmax(tf.cast(matches, tf.int32), output_type=tf.int32)


def _header(data: tf.Tensor) -> tf.Tensor:
    """Returns a file's first bytes, filled up with zeros."""
    start = tf.strings.substr(data, 0, HEADER_SIZE) + b"\0" * HEADER_SIZE
    return tf.strings.substr(start, 0, HEADER_SIZE)


def _part(header: tf.Tensor, offset: int, length: int) -> tf.Tensor:
    return tf.strings.substr(header, offset, length)


def decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG file to RGB uint8, without applying its EXIF orientation."""
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def make_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image by its EXIF orientation, 1 (unchanged) to 8."""

    def among(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values))

    image = tf.cond(
        orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image
    )
    image = tf.cond(among(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(among(3, 4, 7, 8), lambda: image[::-1], lambda: image)


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    pixels = tf.cast(tf.io.decode_png(data, channels=4), tf.float32)
    # For opaque images of fewer than 8 bits, libpng fills in too small an alpha.
    header = tf.io.decode_raw(tf.strings.substr(data, 24, 1), tf.uint8)
    depth = tf.cast(header[0], tf.int32)
    top = tf.cast(tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1, tf.float32)
    top = tf.where(tf.reduce_all(pixels[..., 3] == top), top, 255.0)
    content = tf.io.decode_raw(data, tf.uint8)
    return make_upright(_on_white(pixels, top), _png_orientation(content))


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    content = tf.io.decode_raw(data, tf.uint8)

    def opaque() -> tf.Tensor:
        return tf.io.decode_image(data, channels=3, expand_animations=False)

    def transparent() -> tf.Tensor:
        pixels = tf.io.decode_image(data, channels=4, expand_animations=False)
        return _on_white(tf.cast(pixels, tf.float32), 255.0)

    # TensorFlow decodes to the number of channels that a file has, and to no other.
    image = tf.cond(_webp_has_alpha(content), transparent, opaque)
    return make_upright(image, _tiff_orientation(content, _riff_chunk(content, "EXIF")))


def _decode_bmp(data: tf.Tensor) -> tf.Tensor:
    content = tf.io.decode_raw(data, tf.uint8)
    image = tf.io.decode_bmp(data)

    def colored() -> tf.Tensor:  # TensorFlow takes places in the palette for grays
        start = 14 + _number(content, tf.constant(14), 4, little=True)
        places = start + 4 * tf.cast(image, tf.int32) + tf.constant([2, 1, 0])
        return tf.gather(content, places)

    return tf.cond(tf.shape(image)[-1] == 1, colored, lambda: image[..., :3])


def _on_white(pixels: tf.Tensor, top: tf.Tensor | float) -> tf.Tensor:
    """Puts RGBA pixels, float, whose opaque alpha is `top`, on white; uint8."""
    alpha = pixels[..., 3:] / top
    white = pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)
    return tf.saturate_cast(tf.round(white), tf.uint8)


# -- EXIF ------------------------------------------------------------------------------


def _jpeg_orientation(content: tf.Tensor) -> tf.Tensor:
    """Walks over the segments before the pixels to the EXIF segment."""

    def is_segment(position: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        marker = _number(content, position, 2)
        is_marker = (marker >= 0xFF00) & (marker != SCAN_MARKER)
        return (found == 0) & is_marker & (position + 4 < tf.size(content))

    def step(position: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_exif = (_number(content, position, 2) == EXIF_MARKER) & (
            _number(content, position + 4, 4) == int.from_bytes(b"Exif", "big")
        )
        length = tf.maximum(_number(content, position + 2, 2), 2)
        found = tf.where(is_exif, position + 4, 0)
        return position + 2 + length, found

    _, start = tf.while_loop(is_segment, step, (tf.constant(2), tf.constant(0)))
    return _tiff_orientation(content, start)


def _png_orientation(content: tf.Tensor) -> tf.Tensor:
    """Walks over the chunks to the eXIf chunk."""

    def is_chunk(position: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return (found == 0) & (position + 12 < tf.size(content))

    def step(position: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.maximum(_number(content, position, 4), 0)
        is_exif = _number(content, position + 4, 4) == int.from_bytes(b"eXIf", "big")
        found = tf.where(is_exif, position + 8, 0)
        # A damaged length must not lead past what int32 holds.
        return position + 12 + tf.minimum(length, tf.size(content)), found

    _, start = tf.while_loop(is_chunk, step, (tf.constant(8), tf.constant(0)))
    return _tiff_orientation(content, start)


def _webp_has_alpha(content: tf.Tensor) -> tf.Tensor:
    """Returns whether a still WebP image has an alpha channel, as libwebp does."""
    lossless = _riff_chunk(content, "VP8L")
    of_lossless = _number(content, lossless + 4, 1) & LOSSLESS_ALPHA > 0
    flags = tf.where(
        _riff_chunk(content, "VP8X") > 0, _number(content, tf.constant(20), 1), 0
    )
    of_lossy = (flags & WEBP_ALPHA > 0) | (_riff_chunk(content, "ALPH") > 0)
    return tf.where(lossless > 0, of_lossless, of_lossy)


def _riff_chunk(content: tf.Tensor, name: str) -> tf.Tensor:
    """Returns where the content of a WebP file's first chunk `name` starts, or 0."""
    wanted = int.from_bytes(name.encode().ljust(4), "little")

    def is_chunk(position: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return (found == 0) & (position + 8 < tf.size(content))

    def step(position: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.maximum(_number(content, position + 4, 4, little=True), 0)
        length = tf.minimum(length, tf.size(content))  # see `_png_orientation`
        is_it = _number(content, position, 4, little=True) == wanted
        return position + 8 + length + length % 2, tf.where(is_it, position + 8, 0)

    _, start = tf.while_loop(is_chunk, step, (tf.constant(12), tf.constant(0)))
    return start


def _tiff_orientation(content: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of the EXIF block at `start`, 1 if there is none."""
    # JPEG files name the block once more, and some programs do so in others.
    is_named = _number(content, start, 4) == int.from_bytes(b"Exif", "big")
    start = tf.where(is_named, start + 6, start)
    little = _number(content, start, 2) == int.from_bytes(b"II", "big")

    def number(position: tf.Tensor, count: int) -> tf.Tensor:
        return tf.where(
            little,
            _number(content, position, count, little=True),
            _number(content, position, count),
        )

    directory = start + number(start + 4, 4)
    count = tf.clip_by_value(number(directory, 2), 0, MAX_ENTRIES)
    entries = directory + 2 + 12 * tf.range(count)
    is_orientation = number(entries, 2) == ORIENTATION_TAG
    values = number(tf.boolean_mask(entries, is_orientation) + 8, 2)
    value = tf.concat([values, [1]], axis=0)[0]
    is_valid = (start > 0) & (value >= 1) & (value <= 8)
    return tf.where(is_valid, value, 1)


def _number(
    content: tf.Tensor, position: tf.Tensor, count: int, little: bool = False
) -> tf.Tensor:
    """Reads `count` bytes as an int32; beyond the end the last byte is repeated."""
    places = position[..., tf.newaxis] + tf.range(count)
    places = tf.clip_by_value(places, 0, tf.size(content) - 1)
    values = tf.cast(tf.gather(content, places), tf.int32)
    order = range(count) if little else range(count - 1, -1, -1)
    return tf.reduce_sum(values * [1 << (8 * k) for k in order], axis=-1)


# -- the formats -----------------------------------------------------------------------


def _decode_upright_jpeg(data: tf.Tensor) -> tf.Tensor:
    # Of a small file it is quicker to see that the word is nowhere than to walk.
    is_small = tf.strings.length(data) < MAX_SCANNED
    has_exif = tf.cond(
        is_small, lambda: tf.strings.regex_full_match(data, r"\C*Exif\C*"), lambda: True
    )
    image = decode_jpeg(data)

    def upright() -> tf.Tensor:
        content = tf.io.decode_raw(data, tf.uint8)
        return make_upright(image, _jpeg_orientation(content))

    return tf.cond(has_exif, upright, lambda: image)


def _decode_gif(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(data, channels=3, expand_animations=False)


# Name of a format that is read -> its decoder.
DECODERS = {
    "JPEG": _decode_upright_jpeg,
    "PNG": _decode_png,
    "GIF": _decode_gif,
    "BMP": _decode_bmp,
}
if hasattr(tf.io, "decode_webp"):  # the oldest supported versions may lack it
    DECODERS["WebP"] = _decode_webp
