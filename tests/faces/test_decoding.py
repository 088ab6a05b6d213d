"""Decoding in a graph: what Pillow sees, upright, with white behind transparency."""

from __future__ import annotations

import io
import itertools
import re
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_agegender.faces.decoding import DECODERS, decode_image
from keras_agegender.faces.images import EXPECTED, UnreadableImageError, read_image

RNG = np.random.default_rng(1)
COLORS = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (5, 7, 3), "uint8")).resize((32, 24))
)
PICTURE = Image.fromarray(COLORS)
HAS_WEBP = hasattr(tf.io, "decode_webp")
WEBP = pytest.mark.skipif(not HAS_WEBP, reason="this TensorFlow reads no WebP")
DECODE = tf.function(decode_image, input_signature=[tf.TensorSpec((), tf.string)])


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


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_bmp_of_8_and_32_bits(mode):
    data = saved(PICTURE.convert(mode), "BMP")
    expected = PICTURE.convert(mode).convert("RGB")
    np.testing.assert_array_equal(DECODE(data), np.array(expected))


@WEBP
def test_webp_with_alpha_is_on_white():
    """Its alpha is in another chunk where it is lossless, or has no EXIF."""
    for lossless, orientation in itertools.product((True, False), (1, 6)):
        block = {"exif": exif(orientation)} if orientation > 1 else {}
        data = saved(with_alpha(), "WEBP", lossless=lossless, **block)
        expected = on_white(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_allclose(DECODE(data), expected, atol=1)
        np.testing.assert_array_equal(read_image(data), DECODE(data))
        assert expected.shape == ((24, 32, 3) if orientation == 1 else (32, 24, 3))


REFUSED = (
    ("TIFF", "TIFF is not read", "RGB", False),
    ("EPS", "EPS is not read", "RGB", False),
    ("PPM", "Netpbm is not read", "RGB", False),
    ("TGA", "not an image", "RGB", False),
    ("BMP", "this kind of BMP is not read", "1", False),
    ("WEBP", "animated WebP is not read", "RGB", True),
    ("WEBP", "animated WebP is not read", "RGBA", True),
)


def test_other_formats_are_refused_alike():
    for kind, reason, mode, is_animated in REFUSED:
        picture = PICTURE.convert(mode)
        more = {"append_images": [picture.rotate(180)]} if is_animated else {}
        data = saved(picture, kind, save_all=is_animated, **more)
        message = f"{reason}. Expected {EXPECTED}."
        with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(message)):
            DECODE(data)
        with pytest.raises(UnreadableImageError) as caught:
            read_image(data)
        assert str(caught.value) == f"image: {message}"


def test_the_formats_that_are_read():
    assert set(DECODERS) == {"JPEG", "PNG", "GIF", "WebP", "BMP"} or not HAS_WEBP
    assert all(name in EXPECTED for name in DECODERS) and "TIFF" not in EXPECTED


def exif(orientation, order="<", entries=3):
    """An EXIF block whose orientation is the last of its entries."""
    rows = [struct.pack(order + "HHII", 0x100 + k, 4, 1, 9) for k in range(entries - 1)]
    last = struct.pack(order + "HHIHH", 0x112, 3, 1, orientation, 0)
    mark = b"II" if order == "<" else b"MM"
    header = mark + struct.pack(order + "HI", 42, 8)
    return (
        header + struct.pack(order + "H", entries) + b"".join([*rows, last]) + bytes(4)
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        pytest.param("WEBP", {"lossless": True}, marks=WEBP),
        pytest.param("WEBP", {"quality": 90}, marks=WEBP),
    ],
)
def test_orientation(kind, options):
    """Both byte orders, as Pillow turns it, and the same pixels on both ways."""
    # Not parametrised: each test's new seed makes TensorFlow prepare its graphs anew.
    for orientation, order in itertools.product(range(1, 9), "<>"):
        block = b"Exif\0\0" + exif(orientation, order)
        data = saved(PICTURE, kind, exif=block, **options)
        expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_allclose(DECODE(data), expected, atol=1)
        np.testing.assert_array_equal(read_image(data), DECODE(data))
        assert expected.shape == ((24, 32, 3) if orientation < 5 else (32, 24, 3))


@WEBP
def test_webp_whose_exif_names_itself():
    """Some programs write the six bytes that belong into JPEG files."""
    data = saved(PICTURE, "WEBP", lossless=True, exif=exif(6))
    place = data.index(b"EXIF")
    block = b"Exif\0\0" + exif(6)
    chunks = data[8:place] + b"EXIF" + struct.pack("<I", len(block)) + block
    named = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    np.testing.assert_array_equal(DECODE(named), DECODE(data))
    np.testing.assert_array_equal(DECODE(named), np.rot90(COLORS, -1))


@WEBP
def test_a_damaged_length_of_a_webp_chunk_ends():
    data = bytearray(saved(PICTURE, "WEBP", lossless=True, exif=exif(6)))
    for length in (0, 7, 2**31 - 1, 2**32 - 1):
        data[16:20] = struct.pack("<I", length)
        with pytest.raises(tf.errors.InvalidArgumentError):
            DECODE(bytes(data))


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


def variants():
    """Files of every format, mode and option, by name."""
    small = PICTURE.crop((0, 0, 31, 23))  # odd sides: chroma at half the resolution
    palette = small.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    found = {}
    for mode, quality, sampling, progressive in itertools.product(
        ("RGB", "L", "CMYK"), (60, 95), (0, 2), (False, True)
    ):
        options = {"quality": quality, "subsampling": sampling}
        data = saved(small.convert(mode), "JPEG", progressive=progressive, **options)
        found[f"JPEG {mode} {quality} {sampling} {progressive}"] = data
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        found[f"PNG {mode}"] = saved(small.convert(mode))
    alphas = bytes([0, 50, 100, 200, 255, 255, 255, 255])
    found["PNG alphas of a palette"] = saved(palette, transparency=alphas)
    found["PNG alpha"] = saved(with_alpha())
    found["PNG transparent gray"] = saved(small.convert("L"), transparency=128)
    found["GIF"] = saved(palette, "GIF")
    found["GIF transparent"] = saved(palette, "GIF", transparency=2)
    larger = bytearray(found["GIF"])
    larger[6:10] = struct.pack("<HH", 40, 50)
    found["GIF smaller than its canvas"] = bytes(larger)
    for mode in ("L", "P", "RGB", "RGBA"):
        found[f"BMP {mode}"] = saved(with_alpha().convert(mode), "BMP")
    if HAS_WEBP:
        for lossless, image in itertools.product((True, False), (small, with_alpha())):
            data = saved(image, "WEBP", lossless=lossless, quality=80)
            found[f"WebP {lossless} {image.mode}"] = data
    return found


def test_files_and_graphs_have_the_same_pixels():
    """`read_image` decodes with Pillow, exported models with TensorFlow."""
    for name, data in variants().items():
        np.testing.assert_array_equal(read_image(data), DECODE(data), err_msg=name)


def test_truncated_files_are_errors():
    for kind in ("JPEG", "PNG"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            DECODE(saved(PICTURE, kind)[:-60])
