"""Decoding in a graph: what Pillow sees, upright, with white behind transparency."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_agegender.faces.decoding import decode_picture

RNG = np.random.default_rng(1)
COLORS = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (5, 7, 3), "uint8")).resize((32, 24))
)
PICTURE = Image.fromarray(COLORS)
DECODE = tf.function(decode_picture, input_signature=[tf.TensorSpec((), tf.string)])


def saved(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def on_white(picture):
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, picture).convert("RGB"))


def with_alpha():
    fade = np.linspace(0, 255, 32 * 24).reshape(24, 32).astype("uint8")
    return Image.fromarray(np.dstack([COLORS, fade]))


@pytest.mark.parametrize(
    "picture",
    [
        PICTURE,
        PICTURE.convert("L"),
        PICTURE.convert("1"),
        PICTURE.convert("P", palette=Image.Palette.ADAPTIVE),
        with_alpha(),
        with_alpha().convert("LA"),
    ],
    ids=lambda picture: picture.mode,
)
def test_png(picture):
    np.testing.assert_allclose(DECODE(saved(picture)), on_white(picture), atol=1)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits(bits):
    picture = PICTURE.quantize(2**bits)
    data = saved(picture, bits=bits)
    np.testing.assert_array_equal(DECODE(data), on_white(picture))


def test_a_transparent_color_of_a_palette_is_white():
    data = saved(PICTURE.quantize(8), transparency=3)
    expected = on_white(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(DECODE(data), expected)
    assert (expected == 255).all(-1).any()


def test_16_bits_become_8():
    deep = np.arange(0, 65536, 257, dtype="uint16").reshape(16, 16)
    found = DECODE(saved(Image.fromarray(deep))).numpy()
    np.testing.assert_array_equal(found[..., 0], deep // 257)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(mode):
    data = saved(PICTURE.convert(mode), "JPEG", quality=90)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_allclose(DECODE(data), expected, atol=1)


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_other_kinds(kind):
    data = saved(PICTURE, kind)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(DECODE(data), expected)


def exif(orientation, order="<", entries=3):
    """An EXIF block whose orientation is the last of its entries."""
    rows = [struct.pack(order + "HHII", 0x100 + k, 4, 1, 9) for k in range(entries - 1)]
    last = struct.pack(order + "HHIHH", 0x112, 3, 1, orientation, 0)
    mark = b"II" if order == "<" else b"MM"
    header = mark + struct.pack(order + "HI", 42, 8)
    return (
        header + struct.pack(order + "H", entries) + b"".join([*rows, last]) + bytes(4)
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation, order):
    """Both byte orders, JPEG and PNG, and as Pillow turns it."""
    block = exif(orientation, order)
    for kind, options in (("JPEG", {"quality": 95}), ("PNG", {})):
        data = saved(PICTURE, kind, exif=b"Exif\0\0" + block, **options)
        expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_allclose(DECODE(data), expected, atol=1)
        assert expected.shape == ((24, 32, 3) if orientation < 5 else (32, 24, 3))


@pytest.mark.parametrize(
    "block",
    [
        exif(9),
        exif(0),
        exif(6)[:20],
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\xf0\xff\xff\x7f",
        b"",
        b"MM\0*\0\0\0\x08\xff\xff",
    ],
)
def test_damaged_exif_is_ignored(block):
    data = saved(PICTURE, "JPEG", quality=95)
    segment = b"Exif\0\0" + block
    length = struct.pack(">H", len(segment) + 2)
    broken = data[:2] + b"\xff\xe1" + length + segment + data[2:]
    np.testing.assert_array_equal(DECODE(broken), DECODE(data))


def test_exif_behind_other_segments_is_found():
    data = saved(PICTURE, "JPEG", quality=95, exif=b"Exif\0\0" + exif(3))
    comment = b"\xff\xfe" + struct.pack(">H", 5002) + b"\xff\xe1" * 2500
    np.testing.assert_array_equal(DECODE(data[:2] + comment + data[2:]), DECODE(data))
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_allclose(DECODE(data), expected, atol=1)


@pytest.mark.parametrize("data", [b"", b"\xff", b"no picture", b"\x89PNG", b"\xff\xd8"])
def test_what_is_no_picture_is_an_error(data):
    # TensorFlow's message may hold the bytes, which are no text.
    with pytest.raises((tf.errors.InvalidArgumentError, UnicodeDecodeError)):
        DECODE(data)


def test_truncated_files_are_errors():
    for kind in ("JPEG", "PNG"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            DECODE(saved(PICTURE, kind)[:-60])
