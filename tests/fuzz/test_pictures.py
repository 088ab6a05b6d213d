"""Pictures of strangers: pixels, or the reason why not, in bounded memory."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from fuzz_cases import cases, declared, peak
from hypothesis import given, strategies as st
from PIL import Image

from keras_agegender.faces.images import UnreadableImageError, read_image

RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (12, 9, 3), "uint8"))
SIXTEEN = Image.fromarray(np.arange(0, 65536, 64, dtype="uint16").reshape(32, 32))


def saved(picture, kind, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(RGB, "JPEG", exif=exif)


def samples():
    """One of every kind that a folder of photos may hold, by name."""
    found = {f"{kind}": saved(RGB, kind) for kind in ("PNG", "GIF", "BMP", "JPEG")}
    for mode in ("1", "L", "LA", "P", "RGBA"):
        found[f"PNG {mode}"] = saved(RGB.convert(mode), "PNG")
    for mode in ("L", "CMYK"):
        found[f"JPEG {mode}"] = saved(RGB.convert(mode), "JPEG")
    found["JPEG progressive"] = saved(RGB, "JPEG", progressive=True)
    found["PNG 16 bits"] = saved(SIXTEEN, "PNG")
    found["one pixel"] = saved(RGB.crop((0, 0, 1, 1)), "PNG")
    found["WebP"] = saved(RGB, "WEBP")
    frames = {"save_all": True, "append_images": [RGB.rotate(90), RGB]}
    for kind in ("GIF", "PNG", "WEBP"):
        found[f"{kind} animated"] = saved(RGB, kind, **frames)
    for kind in ("TIFF", "ICO", "PPM"):
        found[kind] = saved(RGB, kind)
    for orientation in (0, 3, 6, 8, 9):
        found[f"turned {orientation}"] = turned(orientation)
    found["EPS"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    return found


SAMPLES = samples()


@pytest.fixture(scope="module", autouse=True)
def graph():
    """Traces the graph, which takes seconds, before any case is timed."""
    read_image(SAMPLES["PNG"])


def check(kind, data):
    with declared(kind, UnreadableImageError):
        pixels = read_image(data)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert pixels.size


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name):
    check("picture samples", SAMPLES[name])


@cases()
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged(name, data):
    content = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        way = data.draw(st.sampled_from(("flip", "end", "put", "cut")))
        if way == "flip" and place < len(content):
            content[place] = data.draw(st.integers(0, 255))
        elif way == "end":
            del content[place:]
        elif way == "put":
            content[place:place] = data.draw(st.binary(max_size=8))
        elif way == "cut":
            del content[place : place + 8]
    check("picture damaged", bytes(content))


@cases(0.2)
@given(
    st.sampled_from(
        (
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"BM",
            b"RIFF\x10\x00\x00\x00WEBP",
            b"II*\x00",
            b"%!PS",
        )
    ),
    st.binary(max_size=60),
)
def test_made_up(start, rest):
    check("picture made up", start + rest)


def png_header(width, height, data=b""):
    """A PNG file that says how large it is, and holds next to nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body
        + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        png_header(30000, 30000),
        png_header(2**31 - 1, 2**31 - 1),
        png_header(0, 10),
        SAMPLES["GIF"][:6] + struct.pack("<HH", 65535, 65535) + SAMPLES["GIF"][10:],
        SAMPLES["BMP"][:18] + struct.pack("<ii", 30000, 30000) + SAMPLES["BMP"][26:],
        SAMPLES["BMP"][:18] + struct.pack("<ii", -5, -(2**31)) + SAMPLES["BMP"][26:],
    ],
    ids=["900 megapixels", "largest", "no width", "GIF", "BMP", "BMP negative"],
)
def test_bombs_are_refused_before_they_are_unpacked(data):
    before = peak()
    with pytest.raises(UnreadableImageError):
        read_image(data)
    assert peak() - before < 300  # MB


@cases(0.2)
@given(st.integers(0, 2**16), st.integers(0, 2**16), st.sampled_from(("GIF", "BMP")))
def test_sizes_that_lie(width, height, kind):
    if width * height > 20_000_000:
        width = width % 1000
    data = bytearray(SAMPLES[kind])
    if kind == "GIF":
        data[6:10] = struct.pack("<HH", width % 2**16, height % 2**16)
    else:
        data[18:26] = struct.pack("<ii", width, height)
    check("picture sizes", bytes(data))
