"""Preprocessing as a value: equality, files, words, and what it refuses."""

from __future__ import annotations

import json
import pickle

import pytest

from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing

FULL = Preprocessing(
    crop=CropOptions(0.4, False, "center", "skip", align=True, pad=True),
    detector=MtcnnDetector(min_face_size=0.2).settings(),
    stored_size=(128, 96),
    jpeg_quality=80,
    image_size=(64, 48),
    enlarge=1.25,
)


def test_survives_files():
    again = Preprocessing.from_dict(json.loads(json.dumps(FULL.to_dict())))
    assert again == FULL and hash(again) == hash(FULL)
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert Preprocessing.from_dict(Preprocessing().to_dict()) == Preprocessing()


@pytest.mark.parametrize(
    "change",
    [
        {"crop": CropOptions()},
        {"detector": MtcnnDetector().settings()},
        {"stored_size": None},
        {"jpeg_quality": None},
        {"image_size": None},
        {"enlarge": 1.0},
    ],
)
def test_every_setting_counts(change):
    (name,) = change
    other = Preprocessing.from_dict({**FULL.to_dict(), **Preprocessing(**{
        "crop": FULL.crop, "detector": FULL.detector, **change
    }).to_dict(), **{
        key: value for key, value in FULL.to_dict().items() if key != name
    }})  # fmt: skip
    assert other != FULL and hash(other) != hash(FULL)
    assert FULL.differences(other) == [name]


def test_defaults_are_those_of_prepare():
    path = Preprocessing(crop=CropOptions())
    assert path.detector == MtcnnDetector().settings() and path.uses_mtcnn
    assert path.faces == "cropped"
    assert Preprocessing(detector={"detector": "mtcnn"}).detector is None
    assert Preprocessing().faces == "whole" and not Preprocessing().uses_mtcnn


def test_the_input_is_a_part_of_its_own():
    assert FULL.stored() == Preprocessing(
        FULL.crop, FULL.detector, FULL.stored_size, FULL.jpeg_quality
    )
    assert FULL.stored().with_input((64, 48), 1.25) == FULL


def test_what_it_says_of_itself():
    assert FULL.describe() == (
        "upright RGB; mtcnn face, margin 0.4, align, pad; 128 x 96, JPEG 80; "
        "center of 1.25 times 64 x 48 in [0, 1]"
    )
    own = Preprocessing(stored_size=None, jpeg_quality=None)
    assert own.describe() == "upright RGB; whole image"


def test_detectors_come_back_from_their_settings():
    detector = MtcnnDetector(0.3, 512, 0.6)
    again = MtcnnDetector.from_settings(detector.settings())
    assert again.settings() == detector.settings()
    with pytest.raises(ValueError, match="Invalid `settings`"):
        MtcnnDetector.from_settings({"detector": "middle"})


@pytest.mark.parametrize(
    "arguments",
    [
        {"stored_size": (0, 4)},
        {"image_size": (32,)},
        {"image_size": (32.0, 32.0)},
        {"jpeg_quality": 101},
        {"enlarge": 0.9},
    ],
)
def test_invalid_settings(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Invalid `{name}`"):
        Preprocessing(**arguments)


@pytest.mark.parametrize("change", [{"version": 0}, {"crop": ...}])
def test_paths_of_other_versions_are_refused(change):
    values = {**FULL.to_dict(), **change}
    values = {key: value for key, value in values.items() if value is not ...}
    with pytest.raises(ValueError, match="Invalid preprocessing"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize(
    "options",
    [
        {"margin": -0.1},
        {"margin": 4.1},
        {"face_selection": "best"},
        {"fallback": "none"},
    ],
)
def test_invalid_crop_options(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Invalid `{name}`"):
        CropOptions(**options)


def test_older_crop_options_are_read():
    old = {"margin": 0.4, "square": True, "keep": "largest", "fallback": "full"}
    assert CropOptions.from_dict(old) == CropOptions(0.4, fallback="full")
    central = CropOptions(face_selection="center")
    assert central.to_dict()["keep"] == "center"  # as in files written before
    assert CropOptions.from_dict(central.to_dict()) == central
