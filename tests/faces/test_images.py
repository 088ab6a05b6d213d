"""Pictures of every kind become upright RGB, or a one-line reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sample_data import picture

from keras_agegender.faces import images
from keras_agegender.faces.images import UnreadableImageError, encode_jpeg, read_image

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
        (b"hello", "not a picture"),
        (WHOLE[: len(WHOLE) // 2], "damaged picture"),
        (WHOLE[:100], "picture"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "picture"),
    ],
)
def test_unreadable_bytes(tmp_path, data, reason):
    file = tmp_path / "x.jpg"
    file.write_bytes(data)
    for source, name in ((file, str(file)), (data, "picture")):
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
