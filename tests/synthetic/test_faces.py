"""Synthetic faces: the same bytes for a seed, looks that follow labels, the layout."""

from __future__ import annotations

import json

import numpy as np
import pytest

from keras_agegender.datasets.readers.adience import read_adience
from keras_agegender.datasets.splits import check_subject_exclusive, report_splits
from keras_agegender.faces.images import read_image
from keras_agegender.labels import AGE_GROUPS, CELEBA_ATTRIBUTES
from keras_agegender.synthetic import look as synthetic_look
from keras_agegender.synthetic.drawing import draw_face
from keras_agegender.synthetic.faces import (
    read_synthetic,
    write_synthetic_faces,
    write_synthetic_photo,
)

# Visible attributes. Attractive is not one; Male and Young follow gender and years.
DRAWN = sorted(set(CELEBA_ATTRIBUTES) - {"Attractive", "Male", "Young"})
# Attributes that are visible only without, or instead of, others.
WITH = {
    "No_Beard": {"Goatee": 0, "Mustache": 0, "5_o_Clock_Shadow": 0, "Sideburns": 0},
    "Straight_Hair": {},
    "Bald": {"Wearing_Hat": 0},
    "Bangs": {"Bald": 0, "Wearing_Hat": 0},
    "Receding_Hairline": {"Bald": 0, "Bangs": 0, "Wearing_Hat": 0},
    "Wavy_Hair": {"Bald": 0, "Wearing_Hat": 0},
    "Black_Hair": {"Bald": 0, "Gray_Hair": 0, "Brown_Hair": 0, "Blond_Hair": 0},
    "Blond_Hair": {"Bald": 0, "Gray_Hair": 0, "Brown_Hair": 0, "Black_Hair": 0},
    "Brown_Hair": {"Bald": 0, "Gray_Hair": 0, "Black_Hair": 0, "Blond_Hair": 1},
    "Gray_Hair": {"Bald": 0, "Brown_Hair": 0, "Black_Hair": 0, "Blond_Hair": 0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic") / "faces"
    return write_synthetic_faces(directory, 96, image_size=(64, 64), seed=3)


def test_all_attributes_in_celebas_order():
    assert list(draw_face(0, 3, 0).attributes) == list(CELEBA_ATTRIBUTES)


@pytest.mark.parametrize("name", [n for n in DRAWN if n != "Straight_Hair"])
def test_an_attribute_changes_the_image(name):
    """One attribute of a person is turned on; nothing random is drawn differently."""
    gender = 1 if name in ("No_Beard", "Bald", "Receding_Hairline") else 0
    changed = 0
    for seed in range(3):
        off = draw_face(seed, 4, gender, {**WITH.get(name, {}), name: 0})
        on = draw_face(seed, 4, gender, {**WITH.get(name, {}), name: 1})
        difference = np.abs(on.image.astype(int) - off.image.astype(int))
        changed += difference.max() > (5 if name == "No_Beard" else 20)  # shaved skin
    assert changed >= 2


def test_same_seed_same_pixels():
    first, second = draw_face(5, 2, 1), draw_face(5, 2, 1)
    np.testing.assert_array_equal(first.image, second.image)
    assert first.attributes == second.attributes
    assert (draw_face(6, 2, 1).image != first.image).any()


@pytest.mark.parametrize("group", range(8))
def test_labels_fit_the_years(group):
    low, high = AGE_GROUPS[group]
    for seed in range(20):
        face = draw_face(seed, group, seed % 2, image_size=(32, 32))
        assert low <= int(face.years) <= high
        assert face.attributes["Male"] == seed % 2
        assert face.attributes["Young"] == (face.years < 40)
        if face.years < 15:
            assert face.attributes["No_Beard"] and not face.attributes["Bald"]
            assert not face.attributes["Wearing_Necktie"]
        left, top, right, bottom = face.face_box
        assert 0 <= left < right <= 32 and 0 <= top < bottom <= 32


def test_skin_is_independent_of_age_and_gender():
    """A person's skin is drawn before anything is known of age and gender."""
    identity = synthetic_look.sample_identity(np.random.default_rng(1))
    looks = [
        synthetic_look.make_look(
            np.random.default_rng(0), identity, years, gender,
            dict.fromkeys(CELEBA_ATTRIBUTES, 0),
        )
        for years, gender in ((1, 0), (40, 1), (80, 0))
    ]  # fmt: skip
    for look in looks:
        np.testing.assert_array_equal(look.skin, looks[0].skin)


def test_image_size_is_height_and_width():
    assert draw_face(0, 4, 1, image_size=(48, 80)).image.shape == (48, 80, 3)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        draw_face(0, 4, 1, image_size=(31, 80))


def test_the_real_reader_reads_it(folder):
    manifest, report = read_adience(folder, folder)
    assert report.rows_read == report.rows_kept == 96
    cells = manifest.groupby(["age_group", "gender"]).size()
    assert len(cells) == 16 and cells.min() == cells.max() == 6
    assert set(manifest.groupby("fold").size()) <= {16, 32}
    check_subject_exclusive(manifest, report_splits())
    assert read_image(manifest["path"][0]).shape == (64, 64, 3)


def test_it_is_called_synthetic_everywhere(folder):
    manifest, report = read_synthetic(folder)
    assert set(manifest["source"]) == {"synthetic"} and report.source == "synthetic"
    assert "synthetic" in (folder / "README.txt").read_text("utf-8")
    assert all("synthetic" in key for key in manifest["key"])


def test_attributes_are_columns(folder):
    manifest, _ = read_synthetic(folder)
    assert list(manifest["Male"]) == list(manifest["gender"])
    assert set(np.unique(manifest[list(CELEBA_ATTRIBUTES)])) == {0, 1}


def files_of(folder):
    return {
        file.relative_to(folder): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_same_seed_same_files_also_after_an_interruption(folder, tmp_path):
    again = tmp_path / "again"
    write_synthetic_faces(again, 96, image_size=(64, 64), seed=3)
    assert files_of(again) == files_of(folder)
    (again / "synthetic.json").unlink()
    for file in sorted(again.rglob("*.jpg"))[::2]:
        file.unlink()
    with pytest.raises(ValueError, match="not a complete synthetic dataset"):
        read_synthetic(again)
    write_synthetic_faces(again, 96, image_size=(64, 64), seed=3)
    assert files_of(again) == files_of(folder)


def test_other_folders_are_not_changed(folder, tmp_path):
    with pytest.raises(ValueError, match="contains other synthetic faces"):
        write_synthetic_faces(folder, 96, image_size=(64, 64), seed=4)
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="not empty and does not contain synthetic"):
        write_synthetic_faces(tmp_path, 96)
    with pytest.raises(ValueError, match="is a file"):
        write_synthetic_faces(tmp_path / "mine.txt", 96)
    with pytest.raises(ValueError, match="at least 80"):
        write_synthetic_faces(tmp_path / "few", 79)


def test_the_marker_contains_the_arguments(folder):
    made = json.loads((folder / "synthetic.json").read_text("utf-8"))
    assert (made["seed"], made["num_faces"], made["source"]) == (3, 96, "synthetic")


def test_a_photo_of_several_people(tmp_path):
    file = write_synthetic_photo(tmp_path / "photo.jpg", [(0, 0), (7, 1)], side=64)
    assert read_image(file).shape == (64, 128, 3)
