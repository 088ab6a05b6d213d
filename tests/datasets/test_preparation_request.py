"""Requests of a preparation: every part of one is compared, and said in words."""

from __future__ import annotations

from copy import deepcopy

from keras_agegender.datasets.prepare import differences
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing

REQUEST = {
    "name": "csv",
    "manifest_sha256": "a" * 64,
    "splits": {"train": "train"},
    "pixels": Preprocessing(crop=CropOptions()).to_dict(),
    "block_size": 128,
}


def changed(**changes):
    """The request with other values by dotted name, dots written as two underscores."""
    request = deepcopy(REQUEST)
    for key, value in changes.items():
        *within, last = key.split("__")
        part = request
        for name in within:
            part = part[name]
        part[last] = value
    return request


def test_equal_requests_differ_in_nothing():
    assert differences(REQUEST, deepcopy(REQUEST)) == []


def test_each_part_has_its_words():
    assert differences(
        REQUEST,
        changed(
            name="utkface", manifest_sha256="b" * 64, splits={"train": "fold_0"},
            block_size=2, pixels__crop__margin=0.4, pixels__stored_size=[48, 64],
        ),
    ) == [
        "its source is csv, not utkface",
        "faces, labels, splits or age groups differ",
        "which faces train, validate and test differs",
        "the margin of its crops is 0.25, not 0.4 (--margin)",
        "its images have 256 x 256 pixels, not 48 x 64 (--size)",
        "its blocks have 128 images, not 2 (block_size)",
    ]  # fmt: skip


def test_whole_pictures_and_crops_are_one_difference():
    whole = changed(pixels=Preprocessing().to_dict())
    (words,) = differences(REQUEST, whole)
    assert words == "one has face crops, the other whole images (--no-crop)"
    assert differences(whole, REQUEST) == [words]


def test_parts_without_words_are_named():
    assert differences(REQUEST, changed(pixels__crop__keep="center")) == [
        "pixels.crop.keep is largest, not center"
    ]
    assert differences(REQUEST, changed(pixels__detector={"detector": "middle"})) == [
        "another detector found the faces"
    ]


def test_datasets_of_older_versions_have_no_pixel_path():
    made = {k: v for k, v in REQUEST.items() if k != "pixels"}
    assert differences(made, REQUEST) == [
        "images were made by another version of this library"
    ]
