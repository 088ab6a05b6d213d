"""Images of any kind: their pixels, or one line that says why there are none."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from sample_data import picture

from keras_agegender.datasets.duplicates import perceptual_hash
from keras_agegender.faces import images
from keras_agegender.faces.decoding import DECODERS
from keras_agegender.faces.images import (
    PILLOW_FORMATS,
    UnreadableImageError,
    encode_jpeg,
    open_image,
    read_image,
)

PIXELS = picture(100, (24, 16))


def saved(image, file_format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb(mode):
    image = Image.fromarray(PIXELS).convert(mode)
    pixels = read_image(saved(image))
    assert pixels.shape == (24, 16, 3) and pixels.dtype == np.uint8
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(pixels, PIXELS)
    if mode in ("L", "LA"):
        assert (np.ptp(pixels, axis=2) == 0).all()
        np.testing.assert_allclose(pixels, PIXELS, atol=1)


def test_cmyk_jpeg():
    pixels = read_image(saved(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"))
    np.testing.assert_allclose(pixels.mean(), PIXELS.mean(), atol=6)


def test_sixteen_bits():
    deep = (PIXELS[..., 0].astype("uint16") << 8) + 7
    pixels = read_image(saved(Image.fromarray(deep)))
    np.testing.assert_allclose(pixels[..., 0], PIXELS[..., 0], atol=1)


def test_transparency_is_put_on_white():
    clear = np.zeros((4, 4, 4), "uint8")
    assert (read_image(saved(Image.fromarray(clear))) == 255).all()


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (2, np.fliplr),
        (3, lambda x: np.rot90(x, 2)),
        (4, np.flipud),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_image(saved(Image.fromarray(PIXELS), exif=exif.tobytes()))
    np.testing.assert_array_equal(pixels, turn(PIXELS))


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(data), PIXELS)


WHOLE = encode_jpeg(picture(size=(200, 200)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (WHOLE[: len(WHOLE) // 2], "damaged image"),
        (WHOLE[:100], "image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "image"),
    ],
)
def test_unreadable_bytes(tmp_path, data, reason):
    file = tmp_path / "x.jpg"
    file.write_bytes(data)
    for source, name in ((file, str(file)), (data, "image")):
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            read_image(source)
        assert str(caught.value).startswith(name)
        assert "\n" not in str(caught.value)


def test_unreadable_paths(tmp_path):
    with pytest.raises(UnreadableImageError, match="no such file"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(UnreadableImageError, match="a directory"):
        read_image(tmp_path)
    with pytest.raises(UnreadableImageError):
        read_image("name\0with-zero")


def test_absurdly_large_pictures_are_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="16 x 24 pixels are more than 100"):
        read_image(saved(Image.fromarray(PIXELS)))


def test_encode():
    again = read_image(encode_jpeg(PIXELS))
    np.testing.assert_allclose(again, PIXELS, atol=8)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """The file that a Ghostscript on the path leaves when it is started."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "started"


# A DOS EPS file has a header of its own; spaces in front are no EPS.
@pytest.mark.parametrize("data", [EPS, b"\xc5\xd0\xd3\xc6" + EPS, b" \n" + EPS])
@pytest.mark.parametrize("read", [read_image, perceptual_hash, open_image])
def test_eps_files_start_no_program(read, data, ghostscript):
    with pytest.raises((UnreadableImageError, UnidentifiedImageError)):
        read(data)
    assert not ghostscript.exists()


def test_the_lists_of_formats_agree():
    assert {name.upper() for name in DECODERS} == set(PILLOW_FORMATS)
    for name in PILLOW_FORMATS:
        stream = io.BytesIO()
        Image.fromarray(picture()).save(stream, name)
        with open_image(stream.getvalue()) as image:
            assert image.size == (32, 40)
        assert read_image(stream.getvalue()).shape == (40, 32, 3)


@pytest.mark.parametrize(
    "name", ["TIFF", "PPM", "TGA", "PCX", "SGI", "ICO", "JPEG2000"]
)
def test_other_formats_are_refused_in_both_ways(name):
    stream = io.BytesIO()
    image = Image.fromarray(np.zeros((32, 32, 3), "uint8"))
    image.save(stream, name)
    with pytest.raises(UnidentifiedImageError):
        open_image(stream.getvalue())
    with pytest.raises(UnreadableImageError, match="Expected one of JPEG, PNG, GIF"):
        read_image(stream.getvalue())
