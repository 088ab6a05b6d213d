"""Near duplicates: copies are found, other faces are not, and no pair is lost."""

from __future__ import annotations

import contextlib
import io
import sqlite3

import cv2
import numpy as np
import pytest
from PIL import Image

from keras_agegender.datasets.duplicates import (
    MAX_DISTANCE,
    METHOD,
    HashCache,
    check_imagehash,
    default_cache_file,
    find_near_pairs,
    hash_images,
    perceptual_hash,
    rows_of,
)
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.synthetic.drawing import draw_face


def face(number):
    rng = np.random.default_rng([9, number])
    return draw_face(rng, number % 8, number % 2, image_size=(96, 96)).image


def distance(first, second):
    a, b = (np.frombuffer(perceptual_hash(x), np.uint8) for x in (first, second))
    return int(np.unpackbits(a ^ b).sum())


def slightly_cropped(image):
    return image[1:-1, 1:-1]  # 1 % of each side


COPIES = {
    "low quality": lambda image: encode_jpeg(image, 30),
    "half size": lambda image: encode_jpeg(cv2.resize(image, (48, 48))),
    "twice the size": lambda image: encode_jpeg(cv2.resize(image, (192, 192))),
    "cropped": lambda image: encode_jpeg(slightly_cropped(image)),
    "gray": lambda image: encode_jpeg(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2)
    ),
    "PNG": lambda image: cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_look_the_same(copy):
    pytest.importorskip("imagehash")
    for number in range(4):
        image = face(number)
        assert distance(encode_jpeg(image), COPIES[copy](image)) <= MAX_DISTANCE


def test_other_faces_look_different():
    pytest.importorskip("imagehash")
    looks = rows_of(perceptual_hash(encode_jpeg(face(n))) for n in range(24))
    bits = np.unpackbits(looks, axis=1).astype(int)
    distances = np.abs(bits[:, None] - bits[None]).sum(-1)
    assert distances[np.triu_indices(24, 1)].min() > MAX_DISTANCE
    assert len(find_near_pairs(looks)[0]) == 0


def test_a_turned_copy_counts_as_what_it_shows():
    """EXIF says which side is up; pixels alone would be another picture."""
    pytest.importorskip("imagehash")
    upright = Image.fromarray(face(1))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    upright.rotate(90, expand=True).save(file, "JPEG", exif=exif, quality=95)
    assert distance(file.getvalue(), encode_jpeg(face(1))) <= 20


def test_hashes_of_pictures(tmp_path):
    pytest.importorskip("imagehash")
    one, other = encode_jpeg(face(0)), encode_jpeg(face(1))
    blank = encode_jpeg(np.full((40, 40, 3), 9, "uint8"))
    found = hash_images([one, None, other, b"no picture", one, blank])
    assert found.contents[0] == found.contents[4] != found.contents[2]
    assert found.contents[1] == ""
    assert set(found.looks) == {found.contents[0], found.contents[2]}
    assert set(found.unreadable) == {found.contents[3]}
    assert "not an image" in found.unreadable[found.contents[3]]


def test_hashes_are_kept_by_content(tmp_path, monkeypatch):
    pytest.importorskip("imagehash")
    pictures = [encode_jpeg(face(n)) for n in range(3)]
    cache = HashCache(tmp_path / "new" / "hashes.sqlite", METHOD)
    first = hash_images(pictures[:2], cache=cache)
    cache.close()
    decoded = []

    def count(picture):
        decoded.append(picture)
        return perceptual_hash(picture)

    name = "keras_agegender.datasets.duplicates.perceptual_hash"
    monkeypatch.setattr(name, count)
    cache = HashCache(tmp_path / "new" / "hashes.sqlite", METHOD)
    second = hash_images(pictures[::-1], cache=cache)
    assert decoded == [pictures[2]]
    assert {c: second.looks[c] for c in first.looks} == first.looks
    # Hashes made in another way are not taken for these.
    other = HashCache(tmp_path / "new" / "hashes.sqlite", "other")
    assert other.read(second.contents) == {}
    for opened in (cache, other):
        opened.close()


def test_a_file_that_is_no_cache_is_an_error(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("image,age\n" * 200, "utf-8")
    with pytest.raises(ValueError, match=r"Invalid hash cache .*labels\.csv.*--cache"):
        HashCache(file, METHOD)
    assert file.read_text("utf-8") == "image,age\n" * 200
    with pytest.raises(ValueError, match="Invalid hash cache"):
        HashCache(tmp_path, METHOD)


def test_the_default_cache_is_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "keras_agegender" / "picture_hashes.sqlite"
    assert default_cache_file() == file


def test_the_cache_holds_hashes_only(tmp_path):
    cache = HashCache(tmp_path / "hashes.sqlite", METHOD)
    cache.write({f"{n:064x}": bytes([n % 256] * 64) for n in range(1200)})
    assert cache.read([f"{7:064x}", "unknown"]) == {f"{7:064x}": bytes([7] * 64)}
    assert len(cache.read([f"{n:064x}" for n in range(1200)])) == 1200
    cache.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "hashes.sqlite")) as reader:
        names = reader.execute(f"SELECT * FROM {METHOD}").description
    assert [name[0] for name in names] == ["content", "hash"]


@pytest.mark.parametrize("count", [2, 3, 50, 3000])
def test_pairs_are_those_of_comparing_all(count):
    """Random hashes, and copies of some with 0 < d <= 60 bits turned over."""
    rng = np.random.default_rng(count)
    bits = rng.random((count, 512)) < 0.5
    copies = max(count // 20, 1)
    for k in range(copies):
        bits[count - 1 - k] = bits[k]
        turned = rng.choice(512, 1 + k % 60, replace=False)
        bits[count - 1 - k, turned] ^= True
    pairs, distances = find_near_pairs(np.packbits(bits, axis=1))
    assert pairs.tolist() == [[k, count - 1 - k] for k in range(copies)]
    assert distances.tolist() == [1 + k % 60 for k in range(copies)]


def test_the_largest_distance_counts():
    bits = np.zeros((3, 512), bool)
    bits[1, :MAX_DISTANCE] = True
    bits[2, : 2 * MAX_DISTANCE + 1] = True
    pairs, distances = find_near_pairs(np.packbits(bits, axis=1))
    assert pairs.tolist() == [[0, 1]] and distances.tolist() == [MAX_DISTANCE]
    assert len(find_near_pairs(np.packbits(bits, axis=1), MAX_DISTANCE - 1)[0]) == 0
    assert len(find_near_pairs(np.packbits(bits[:1], axis=1))[0]) == 0


def test_an_absent_package_names_the_extra(monkeypatch):
    name = "keras_agegender.datasets.duplicates.find_spec"
    monkeypatch.setattr(name, lambda _: None)
    with pytest.raises(ImportError, match=r"keras-agegender\[audit\]"):
        check_imagehash()
    with pytest.raises(ImportError, match="imagehash"):
        hash_images([b""])
    assert hash_images([b""], looks=False).contents[0].startswith("e3b0c442")
