"""What is predicted on: folders, globs, videos and pixels, in order."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keras_agegender.serving.pipeline import find_sources


@pytest.fixture
def folder(tmp_path):
    names = ("b.jpg", "a.PNG", "c.mp4", "notes.txt", ".hidden.jpg", "scan.tiff",
             "sub/d.jpeg", "sub/deep/e.webp", ".git/f.jpg", "[x].jpg")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(found, folder):
    return [str(source.name).removeprefix(f"{folder}/") for source in found]


def test_a_folder_is_searched_in_order_of_names(folder):
    skipped = []
    found = list(find_sources(folder, skipped))
    assert names(found, folder) == [
        "[x].jpg", "a.PNG", "b.jpg", "c.mp4", "scan.tiff", "sub/d.jpeg",
        "sub/deep/e.webp",
    ]  # fmt: skip
    assert [source.is_video for source in found] == [0, 0, 0, 1, 0, 0, 0]
    assert skipped == [folder / "notes.txt"]


def test_globs(folder):
    assert names(find_sources(f"{folder}/*.jpg"), folder) == ["[x].jpg", "b.jpg"]
    found = names(find_sources(str(folder / "**" / "*.*e*g")), folder)
    assert found == ["sub/d.jpeg"]
    # A name that is there is no pattern, and a pattern without a match is a name.
    assert names(find_sources(folder / "[x].jpg"), folder) == ["[x].jpg"]
    assert names(find_sources(f"{folder}/*.bmp"), folder) == ["*.bmp"]


def test_all_else_is_one_photo_each(folder):
    pixels = np.zeros((5, 4, 3), "uint8")
    picture = Image.fromarray(pixels)
    mixed = [b"bytes", pixels, picture, [folder / "b.jpg", "missing.jpg"], 7]
    found = list(find_sources(mixed))
    assert [source.name for source in found] == [
        *["image"] * 3,
        str(folder / "b.jpg"),
        "missing.jpg",
        "image",
    ]
    assert found[1].content is pixels and found[2].content is picture
    assert len(list(find_sources(np.stack([pixels, pixels])))) == 2
    assert len(list(find_sources(pixels))) == 1


def test_sources_are_found_as_they_are_needed(folder):
    def endless():
        while True:
            yield folder / "b.jpg"

    assert next(find_sources(endless())).name == str(folder / "b.jpg")
