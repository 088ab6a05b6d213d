"""Decoding inside a TensorFlow graph: a file's bytes to upright RGB.

EXIF orientation is read from JPEG and PNG files; transparency of PNG files is put on
white; gray, palette, CMYK and 16-bit pictures become RGB of 8 bits; of an animation the
first picture counts.
"""

from __future__ import annotations

import tensorflow as tf

EXIF_MARKER = 0xFFE1  # APP1
SCAN_MARKER = 0xFFDA  # where pixels begin: no marker after it is read
ORIENTATION_TAG = 0x0112
MAX_ENTRIES = 512


def decode_picture(data: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF or 24-bit BMP file; any other is an error.

    Args:
        data: The file's bytes. A string scalar.

    Returns:
        Upright RGB. Shape (height, width, 3), uint8.
    """
    is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
    is_png = tf.strings.substr(data, 0, 4) == b"\x89PNG"
    kind = tf.where(is_jpeg, 0, tf.where(is_png, 1, 2))
    image = tf.switch_case(
        kind,
        [
            lambda: make_upright(decode_jpeg(data), _jpeg_orientation(data)),
            lambda: make_upright(_decode_png(data), _png_orientation(data)),
            lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
        ],
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG file as it lies, to RGB uint8, as exactly as libjpeg can."""
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def make_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors a picture as its EXIF orientation says.

    Args:
        image: Picture. Shape (height, width, channels).
        orientation: 1 (as it is) to 8; int32.
    """

    def among(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values))

    image = tf.cond(
        orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image
    )
    image = tf.cond(among(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(among(3, 4, 7, 8), lambda: image[::-1], lambda: image)


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG file, transparency on white."""
    pixels = tf.cast(tf.io.decode_png(data, channels=4), tf.float32)
    # For opaque pictures of fewer than 8 bits, libpng fills in too small an alpha.
    header = tf.io.decode_raw(tf.strings.substr(data, 24, 1), tf.uint8)
    depth = tf.cast(header[0], tf.int32)
    top = tf.cast(tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1, tf.float32)
    alpha = pixels[..., 3:] / tf.where(tf.reduce_all(pixels[..., 3] == top), top, 255.0)
    white = pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)
    return tf.saturate_cast(tf.round(white), tf.uint8)


# -- EXIF ------------------------------------------------------------------------------


def _jpeg_orientation(data: tf.Tensor) -> tf.Tensor:
    """Walks over the segments in front of the pixels until one is EXIF."""
    content = tf.io.decode_raw(data, tf.uint8)

    def is_segment(position: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        marker = _number(content, position, 2)
        is_marker = (marker >= 0xFF00) & (marker != SCAN_MARKER)
        return (found == 0) & is_marker & (position + 4 < tf.size(content))

    def step(position: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_exif = (_number(content, position, 2) == EXIF_MARKER) & (
            _number(content, position + 4, 4) == int.from_bytes(b"Exif", "big")
        )
        length = tf.maximum(_number(content, position + 2, 2), 2)
        found = tf.where(is_exif, position + 10, 0)
        return position + 2 + length, found

    _, start = tf.while_loop(is_segment, step, (tf.constant(2), tf.constant(0)))
    return _tiff_orientation(content, start)


def _png_orientation(data: tf.Tensor) -> tf.Tensor:
    """Walks over the chunks until one is eXIf."""
    content = tf.io.decode_raw(data, tf.uint8)

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


def _tiff_orientation(content: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of the TIFF block at `start`, 1 where there is none."""
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
