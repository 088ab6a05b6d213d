"""Readers of public datasets, each on a tiny made-up copy of its published layout."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import keras_agegender as kag
from keras_agegender.cli.main import main
from keras_agegender.datasets.readers import READERS, find_reader, locate_source

ALL = {"validation": 0.0, "test": 0.0}


def draw(folder, *names, size=(40, 32)):
    """Writes images of different content."""
    for name in names:
        seed = zlib.crc32(f"{folder.name}/{name}".encode())
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), "uint8")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(kag.faces.images.encode_jpeg(pixels))


def rows_of(manifest, *columns):
    """Returns the rows as tuples, in the order of keys."""
    ordered = manifest.sort_values("key")
    return list(zip(*(ordered[c].tolist() for c in columns), strict=True))


# -- labels in file names --------------------------------------------------------------

# Reader -> file -> (years, gender, subject); gender 0 is female, -1 unknown.
NAMED = {
    "utkface": {
        "part1/27_1_0_20170116220224657.jpg": (27, 0, ""),
        "part2/60_0_3_20170116220224658 .jpg.chip.jpg": (60, 1, ""),
    },
    "afad": {"15/111/109207-0.jpg": (15, 1, ""), "27/112/7-0.jpg": (27, 0, "")},
    "all_age_faces": {
        "original images/00000A02.jpg": (2, 0, ""),
        "original images/07380A60.jpg": (60, 0, ""),
        "original images/07381A27.jpg": (27, 1, ""),
    },
    "fgnet": {
        "images/001A02.JPG": (2, -1, "001"),
        "images/001A43a.JPG": (43, -1, "001"),
        "images/082A61.JPG": (61, -1, "082"),
    },
    "agedb": {
        "0_MariaCallas_35_f.jpg": (35, 0, "MariaCallas"),
        "10000_GlennClose_62_m.jpg": (62, 1, "GlennClose"),
    },
    "cacd": {
        "CACD2000/14_Aaron_Johnson_0001.jpg": (14, -1, "Aaron_Johnson"),
        "CACD2000/62_Robin_Williams_0010.jpg": (62, -1, "Robin_Williams"),
    },
    "morph": {
        "Album2/009055_1M54.JPG": (54, 1, "009055"),
        "Album2/009056_02F20.JPG": (20, 0, "009056"),
    },
}


@pytest.mark.parametrize("name", NAMED)
def test_labels_in_file_names(name, tmp_path):
    files = NAMED[name]
    draw(tmp_path, *files)
    assert find_reader(tmp_path).name == name
    manifest, report = kag.datasets.read_dataset(tmp_path, unmapped_ages="mask", **ALL)
    expected = [files[key] for key in sorted(files)]
    assert rows_of(manifest, "age_years", "gender", "subject") == expected
    assert report.rows_read == len(files) and not report.dropped
    assert not manifest.extra_heads


def test_versions_of_an_image_are_one_face(tmp_path):
    draw(tmp_path, "original images/00000A02.jpg", "aglined faces/00000A02.jpg")
    manifest, report = kag.datasets.read_dataset(tmp_path, **ALL)
    assert manifest["key"].tolist() == ["original images/00000A02.jpg"]
    assert report.dropped == {"another version of an image of this name": 1}


def test_malformed_names_and_impossible_ages_are_counted(tmp_path):
    draw(tmp_path, "001A02.JPG", "002A27.JPG", "cover.jpg")
    draw(tmp_path / "140" / "111", "1-0.jpg")
    _, report = kag.datasets.read_dataset(tmp_path, "fgnet", **ALL)
    assert report.dropped == {"malformed name": 2}
    draw(tmp_path / "afad" / "140" / "111", "1-0.jpg")
    draw(tmp_path / "afad" / "20" / "112", "2-0.jpg")
    _, report = kag.datasets.read_dataset(tmp_path / "afad", "afad", **ALL)
    assert report.dropped == {"impossible age": 1}


# -- CSV files of labels ---------------------------------------------------------------


def write_lines(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", "utf-8")


def test_fairface_as_a_spreadsheet_leaves_it(tmp_path):
    draw(tmp_path, "train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg")
    header = "file,age,gender,race,service_test"
    write_lines(
        tmp_path / "fairface_label_train.csv",
        header,
        "train/1.jpg,03-Sep,Male,East Asian,TRUE",
        "train/2.jpg,Oct-19,Female,Black,FALSE",
        "train/3.jpg,more than 70,Female,White,TRUE",
    )
    write_lines(
        tmp_path / "fairface_label_val.csv",
        header,
        "val/1.jpg,20-29,Male,Latino_Hispanic,FALSE",
    )
    assert find_reader(tmp_path).name == "fairface"
    manifest, _ = kag.datasets.read_dataset(tmp_path)
    names = [manifest.age_groups.names[k] for k in manifest["age_group"]]
    assert names == ["3-9", "10-19", "70+", "20-29"]
    assert manifest["gender"].tolist() == [1, 0, 0, 1]
    assert manifest["split"].tolist() == ["train"] * 3 + ["validation"]
    assert "service_test" not in manifest and not manifest.extra_heads
    assert manifest["race"].tolist()[0] == "East Asian"


def test_fairface_of_class_ids(tmp_path):
    draw(tmp_path, *(f"{k}.jpg" for k in range(9)))
    write_lines(
        tmp_path / "train.csv",
        "image,age,gender,race,service_test",
        *(f"{k}.jpg,{k},{k % 2},{k % 7},False" for k in range(9)),
    )
    manifest, _ = kag.datasets.read_dataset(tmp_path / "train.csv", **ALL)
    assert manifest["age_group"].tolist() == list(range(9))
    assert manifest["gender"].tolist() == [1, 0] * 4 + [1]  # 0 is male there
    assert "age_years" not in manifest
    assert manifest["race"].tolist()[:2] == ["East Asian", "Indian"]


def test_lagenda_has_a_box_for_each_person(tmp_path):
    draw(tmp_path, "a.jpg", "b.jpg", size=(80, 60))
    write_lines(
        tmp_path / "lagenda_annotation.csv",
        "img_name,age,gender,face_x0,face_y0,face_x1,face_y1,"
        "person_x0,person_y0,person_x1,person_y1",
        "a.jpg,61,M,2,3,30,40,0,0,40,60",
        "a.jpg,7,F,40,5,70,44,35,0,80,60",
        "a.jpg,-1,-1,-1,-1,-1,-1,1,1,9,9",
        "b.jpg,30,F,-1,-1,-1,-1,0,0,40,60",
    )
    manifest, report = kag.datasets.read_dataset(tmp_path, **ALL)
    assert manifest["key"].tolist() == ["a.jpg", "a.jpg#2"]
    assert rows_of(manifest, "age_years", "gender", "face_left", "face_bottom") == [
        (61, 1, 2, 40),
        (7, 0, 40, 44),
    ]
    assert sum(report.dropped.values()) == 2 and not manifest.extra_heads


def test_appa_real_of_apparent_or_real_ages(tmp_path):
    header = "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age"
    for split, name, row in (
        ("train", "000000.jpg", "36,4.611,1.248,4"),
        ("valid", "000001.jpg", "40,30.5,4.1,27"),
    ):
        draw(tmp_path / split, name, f"{name}_face.jpg")
        write_lines(tmp_path / f"gt_avg_{split}.csv", header, f"{name},{row}")
    manifest, _ = kag.datasets.read_dataset(tmp_path)
    assert rows_of(manifest, "age_years", "split") == [
        (4.611, "train"),
        (30.5, "validation"),
    ]
    assert not {"num_ratings", "apparent_age_std"} & set(manifest)
    manifest, _ = kag.datasets.read_dataset(tmp_path, age_label="real", crops=True)
    assert manifest["age_years"].tolist() == [4, 27]
    assert all(path.endswith("_face.jpg") for path in manifest["path"])


def test_people_of_morph_are_in_one_split(tmp_path):
    names = [f"{k:06d}_{n}M{20 + n}.JPG" for k in range(20) for n in range(3)]
    draw(tmp_path, *names)
    write_lines(
        tmp_path / "morph.csv",
        "id_num,picture_num,dob,doa,race,gender,facial_hair,age,age_diff,glasses,photo",
        *(
            f"{n[:6]},{n[7]},1/2/1970,2/3/2003,B,M,NULL,{n[9:11]},10,NULL,{n}"
            for n in names
        ),
    )
    assert find_reader(tmp_path / "morph.csv").name == "morph"
    manifest, _ = kag.datasets.read_dataset(tmp_path / "morph.csv")
    assert not manifest.extra_heads
    assert manifest.groupby("subject")["split"].nunique().max() == 1
    assert set(manifest["split"]) == {"train", "validation", "test"}


# -- others ----------------------------------------------------------------------------


def test_imdb_wiki_computes_ages_and_uses_boxes(tmp_path):
    from scipy.io import savemat

    draw(tmp_path / "01", "a.jpg", "b.jpg", "c.jpg", "d.jpg", size=(90, 80))
    day = 723671  # 1981-05-05
    savemat(
        tmp_path / "wiki.mat",
        {
            "wiki": {
                "dob": np.array([day, day, day, 0]),
                "photo_taken": np.array([2009, 2009, 2190, 2009]),
                "full_path": np.array([f"01/{n}.jpg" for n in "abcd"], dtype=object),
                "gender": np.array([1.0, 0.0, np.nan, 1.0]),
                "name": np.array(["Ann", "Ben", "Cleo", "Dan"], dtype=object),
                "face_location": np.array(
                    [[11.0, 21.0, 50.0, 60.0]] * 4 + [[0]], dtype=object
                )[:4],
                "face_score": np.array([3.0, -np.inf, 2.0, 2.0]),
                "second_face_score": np.array([np.nan, np.nan, np.nan, 1.0]),
            }
        },
    )
    assert find_reader(tmp_path).name == "imdb_wiki"
    manifest, report = kag.datasets.read_dataset(tmp_path, **ALL)
    assert rows_of(manifest, "age_years", "gender", "face_left", "face_right") == [
        (28, 1, 10, 50)
    ]
    assert report.dropped["impossible age"] == 1 and sum(report.dropped.values()) == 3


def test_lfw_by_two_lists_of_names(tmp_path):
    for person in ("Ann_Lee", "Bob_Ray", "Sam_Poe", "Kim_Oh"):
        draw(tmp_path / "lfw", f"{person}_0001.jpg")
    write_lines(tmp_path / "female_names.txt", "Ann_Lee_0001.jpg", "Sam_Poe_0001.jpg")
    write_lines(tmp_path / "male_names.txt", "Bob_Ray_0001.jpg", "Sam_Poe_0001.jpg")
    assert find_reader(tmp_path).name == "lfw"
    manifest, report = kag.datasets.read_dataset(tmp_path, **ALL)
    assert rows_of(manifest, "subject", "gender") == [("Ann_Lee", 0), ("Bob_Ray", 1)]
    assert report.dropped == {
        "in both lists of names": 1,
        "in neither list of names": 1,
    }


@pytest.mark.parametrize("layout", ["drive", "kaggle"])
def test_celeba_as_it_is_downloaded(layout, tmp_path):
    names = kag.labels.CELEBA_ATTRIBUTES
    values = ["1" if name in ("Male", "Young") else "-1" for name in names]
    images = ["000001.jpg", "000002.jpg"]
    if layout == "drive":
        draw(tmp_path / "Img" / "img_align_celeba", *images)
        write_lines(
            tmp_path / "Anno" / "list_attr_celeba.txt",
            "2",
            " ".join(names),
            *(f"{image}  {'  '.join(values)}" for image in images),
        )
        write_lines(
            tmp_path / "Eval" / "list_eval_partition.txt",
            *(f"{image} {2 * k}" for k, image in enumerate(images)),
        )
    else:
        draw(tmp_path / "img_align_celeba" / "img_align_celeba", *images)
        write_lines(
            tmp_path / "list_attr_celeba.csv",
            ",".join(["image_id", *names]),
            *(",".join([image, *values]) for image in images),
        )
        write_lines(
            tmp_path / "list_eval_partition.csv",
            "image_id,partition",
            *(f"{image},{2 * k}" for k, image in enumerate(images)),
        )
    assert find_reader(tmp_path).name == "celeba"
    manifest, _ = kag.datasets.read_dataset(tmp_path)
    assert rows_of(manifest, "split", "gender") == [("train", 1), ("test", 1)]


# -- recognition -----------------------------------------------------------------------


def test_a_folder_above_or_below_is_found(tmp_path):
    draw(tmp_path / "data" / "FGNET" / "images", "001A02.JPG", "002A27.JPG")
    reader, place = locate_source(tmp_path / "data")
    assert reader.name == "fgnet"
    assert (tmp_path / "data" / "FGNET").is_relative_to(place)
    empty = tmp_path / "nothing" / "empty"
    empty.mkdir(parents=True)
    with pytest.raises(ValueError, match="is none of the sources csv, adience"):
        locate_source(empty)


def test_prepare_says_what_it_found(tmp_path, capsys):
    draw(tmp_path / "faces", "001A02.JPG", "002A27.JPG", "003A61.JPG")
    options = ["--no-crop", "--size", "32", "--validation", "0", "--test", "0"]
    out = tmp_path / "out"
    assert main(["prepare", str(tmp_path / "faces"), "--out", str(out), *options]) == 0
    assert "FG-NET" in capsys.readouterr().out.splitlines()[0]
    assert kag.load_prepared(out).num_faces("train") == 3
    assert main(["prepare", str(tmp_path / "nowhere"), "--out", str(out)]) != 0
    assert "File or folder not found" in capsys.readouterr().err


def test_a_reader_of_ten_lines(tmp_path, monkeypatch, capsys):
    """As in docs/howto/extending.md: a layout that nobody knows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_agegender.cli.data.READERS", dict(READERS))
    (tmp_path / "my_layout.py").write_text(
        "from pathlib import Path\n"
        "from keras_agegender.datasets import LabeledFace\n"
        "def faces(folder):\n"
        "    for file in Path(folder).glob('*/*.jpg'):\n"
        "        years, gender = file.stem.split('-')\n"
        "        yield LabeledFace(file, years=int(years), gender=gender,\n"
        "                          subject=file.parent.name)\n",
        "utf-8",
    )
    for person in range(12):
        draw(
            tmp_path / "mine" / f"p{person}", f"{20 + person}-female.jpg", "27-male.jpg"
        )
    command = ["prepare", "my_layout:faces", "mine", "--out", "out", "--no-crop"]
    assert main([*command, "--size", "32"]) == 0
    prepared = kag.load_prepared("out")
    assert prepared.info["name"] == "my_layout" and prepared.num_faces("train") > 0
    assert main(["audit", "out", "--no-near"]) == 0
    with pytest.raises(ValueError, match="Invalid source 'my_layout:none'"):
        kag.datasets.readers.reader_of_function("my_layout:none")
    capsys.readouterr()
