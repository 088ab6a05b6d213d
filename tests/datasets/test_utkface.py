"""UTKFace: labels in names, ages in gaps, names that are malformed."""

from __future__ import annotations

import pytest
from sample_data import write_picture

from keras_agegender.datasets.readers.file_names import read_utkface

ALL = {"validation": 0.0, "test": 0.0}
# Three names of the public files are malformed in these ways.
MALFORMED = (
    "55_0_0_20170116232725357jpg.chip.jpg",
    "61_1_20170109142408075.jpg.chip.jpg",
    "61_1_20170109150557335.jpg.chip.jpg",
)


@pytest.fixture
def folder(tmp_path):
    names = ("27_0_0_20170101000000001", "1_1_3_20170101000000002",
             "35_1_2_20170101000000003", "110_0_4_20170101000000004")  # fmt: skip
    for name in names:
        write_picture(tmp_path / f"{name}.jpg.chip.jpg")
    return tmp_path


def test_labels_are_read_off_names(folder):
    manifest, report = read_utkface(folder, **ALL)
    by_key = manifest.set_index(manifest["age_years"])
    assert list(manifest["age_years"]) == [110, 1, 27]
    assert by_key.loc[27, "gender"] == 1  # UTKFace's 0 is male
    assert by_key.loc[1, "gender"] == 0
    assert list(manifest["age_group"]) == [7, 0, 4]
    assert dict(report.dropped) == {"age between two groups": 1}
    assert report.rows_read == 4


def test_ages_in_gaps(folder):
    manifest, report = read_utkface(folder, unmapped_ages="nearest", **ALL)
    assert list(manifest["age_group"]) == [7, 0, 4, 4]
    assert report.rules["age between two groups", "35", "25-32"] == 1
    assert (report.num_moved, report.num_between_groups) == (1, 0)
    assert "1 ages lie between two groups and were moved to the nearer" in str(report)
    manifest, report = read_utkface(folder, unmapped_ages="mask", **ALL)
    assert list(manifest["age_group"]) == [7, 0, 4, -1]
    assert list(manifest["gender"]) == [1, 0, 1, 0]
    assert report.rules["age between two groups", "35", "no age group"] == 1
    assert (report.num_moved, report.num_between_groups) == (0, 1)
    with pytest.raises(ValueError, match="unmapped_ages='omit'"):
        read_utkface(folder, unmapped_ages="omit")


def test_malformed_names_are_reported_one_by_one(folder):
    for name in (*MALFORMED, "notes_0_0_1.jpg", "140_0_0_20170101000000009.jpg"):
        write_picture(folder / name)
    _, report = read_utkface(folder, **ALL)
    assert report.dropped["malformed name"] == 4
    assert report.dropped["impossible age"] == 1
    assert {item for item, why in report.items if why == "malformed name"} == {
        *MALFORMED,
        "notes_0_0_1.jpg",
    }


def test_a_blank_before_the_dot_is_no_malformed_name(folder):
    write_picture(folder / "60_0_1_20170116220224657 .jpg.chip.jpg")
    manifest, report = read_utkface(folder, **ALL)
    assert "malformed name" not in report.dropped
    assert 60 in set(manifest["age_years"])


def test_copies_and_versions_of_an_image_are_one_row(folder):
    """As on Kaggle, and the photos that chips were cut from."""
    for copy in ("crop_part1", "utkface_aligned_cropped/UTKFace"):
        write_picture(folder / copy / "27_0_0_20170101000000001.jpg.chip.jpg")
    write_picture(folder / "part1" / "1_1_3_20170101000000002.jpg", 60)
    manifest, report = read_utkface(folder, unmapped_ages="mask", **ALL)
    assert list(manifest["age_years"]) == [110, 1, 27, 35]
    assert report.dropped == {"another version of an image of this name": 3}


def test_other_files_and_folders(folder):
    (folder / "README.txt").write_text("no picture", "utf-8")
    write_picture(folder / "part2" / "60_1_0_20170101000000005.jpg")
    manifest, report = read_utkface(folder, **ALL)
    assert report.rows_read == 5
    assert "part2/60_1_0_20170101000000005.jpg" in set(manifest["key"])


def test_splits_are_drawn(tmp_path):
    for number in range(40):
        write_picture(tmp_path / f"27_{number % 2}_0_{number}.jpg", value=5 * number)
    manifest, _ = read_utkface(tmp_path, validation=0.1, test=0.2)
    assert manifest["split"].value_counts().to_dict() == {
        "train": 28,
        "test": 8,
        "validation": 4,
    }


def test_no_pictures(tmp_path):
    with pytest.raises(ValueError, match="No image of 0"):
        read_utkface(tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        read_utkface(tmp_path / "nowhere")
