"""Any CSV: columns found or named, kinds that are evident, errors that say where."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sample_data import write_picture

from keras_agegender.datasets.manifest import (
    given_faces,
    read_manifest,
    write_manifest,
)
from keras_agegender.datasets.readers.csv import read_csv

HEADER = "image,age,gender,subject"


def write(directory, *lines, header=HEADER, pictures=4):
    for number in range(pictures):
        write_picture(directory / f"{number}.jpg", value=100 + number)
    file = directory / "labels.csv"
    file.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return file


ALL = {"validation": 0.0, "test": 0.0}


def roles(report):
    """Returns column -> "role: why"."""
    return {column: f"{role}: {why}" for column, role, why in report.columns}


def test_usual_names_are_found(tmp_path):
    file = write(
        tmp_path,
        "0.jpg,27,f,anna",
        '1.jpg,"(60, 100)",Male,ben',
        "2.jpg,35,WOMAN,cleo",
        "3.jpg,,unknown,dan",
    )
    manifest, report = read_csv(file, **ALL)
    assert list(manifest["age_group"]) == [4, 7, -1, -1]
    assert list(manifest["gender"]) == [0, 1, 0, -1]
    assert list(manifest["subject"]) == ["anna", "ben", "cleo", "dan"]
    assert report.rules["age between two groups", "35", "no age group"] == 1
    assert list(manifest["age_years"]) == [27, -1, 35, -1]
    assert "1 ages lie between two groups (--unmapped-ages" in str(report)
    assert report.rules["gender", "unknown", "no gender"] == 1
    assert manifest.extra_heads == {}


def test_albums_are_kept_and_are_no_output(tmp_path):
    lines = ["0.jpg,f,ann's", "1.jpg,m,ben's", "2.jpg,f,NA", "3.jpg,f,"]
    file = write(tmp_path, *lines, header="image,gender,album")
    manifest, report = read_csv(file, **ALL)
    assert list(manifest["album"]) == ["ann's", "ben's", "", ""]
    assert manifest.extra_heads == {} and roles(report)["album"] == "album: its name"
    file = write(tmp_path, *lines, header="image,gender,owner")
    manifest, _ = read_csv(file, album_column="owner", **ALL)
    assert list(manifest["album"]) == ["ann's", "ben's", "", ""]
    assert "album" not in read_csv(file, **ALL)[0]
    with pytest.raises(ValueError, match="--album-column"):
        read_csv(file, album_column="albun")


PERSON = ",person_x0,person_y0,person_x1,person_y1"


@pytest.mark.parametrize(
    ("columns", "box", "options"),
    [
        ("face_x0,face_y0,face_x1,face_y1", (2, 3, 12, 23), {}),
        ("left,top,right,bottom", (2, 3, 12, 23), {}),
        ("x,y,w,h", (2, 3, 10, 20), {}),
        ("x_1,y_1,width,height", (2, 3, 10, 20), {}),
        ("a,b,c,d", (2, 3, 12, 23), {"box_columns": [*"abcd"]}),
        ("fx,fy,fw,fh", (2, 3, 10, 20), {"box_columns": ["fx", "fy", "fw", "fh"]}),
    ],
)
def test_every_row_with_a_box_is_a_face(tmp_path, columns, box, options):
    text = ",".join(map(str, box))
    file = write(
        tmp_path,
        f"0.jpg,61,M,{text},-1,-1,-1,-1",
        "0.jpg,7,F,20,1,30,31,0,0,9,9",
        "1.jpg,9,F,-1,-1,-1,-1,0,0,9,9",
        f"2.jpg,9,F,{text},0,0,9,9",
        header=f"image,age,gender,{columns}{PERSON}",
    )
    manifest, report = read_csv(file, **options, **ALL)
    assert list(manifest["key"]) == ["0.jpg", "0.jpg#2", "2.jpg"]
    assert given_faces(manifest)[0, :4].tolist() == [2, 3, 12, 23]
    assert manifest.extra_heads == {}
    assert report.dropped == {"no face box": 1}
    assert report.totals["images with several faces, one row each"] == 1
    assert roles(report)["person_x0"] == "not used: a place in the image"
    assert "other labels" not in str(report)
    _, report = read_csv(file, validation=0.5, test=0, **options)
    assert "groups of exact duplicates, in one split each" in str(report)
    assert not any("exact duplicates" in why for _, why in report.items)


def test_landmarks_go_with_a_box(tmp_path):
    parts = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    points = ",".join(f"{part}_{axis}" for part in parts for axis in "xy")
    line = "0.jpg,f,2,3,12,23,1,2,3,4,5,6,7,8,9,10"
    file = write(tmp_path, line, header=f"image,gender,x,y,w,h,{points}")
    manifest, _ = read_csv(file, **ALL)
    assert given_faces(manifest)[0, 4:].tolist() == [*range(1, 11)]
    file = write(
        tmp_path, "0.jpg,f,1,2,3,4,5,6,7,8,9,10", header=f"image,gender,{points}"
    )
    manifest, report = read_csv(file, **ALL)
    assert manifest.extra_heads == {} and np.isnan(given_faces(manifest)).all()
    assert roles(report)["lefteye_x"] == "not used: a place in the image"


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ("9,3,2,4", {}, "line 2: expected a box of positive size.*must end with 'w'"),
        ("a,3,2,4", {}, "line 2, column 'left': expected a number of pixels.*'a'"),
        (",,,", {}, "no row has an image file and a face box"),
        ("1,2,3,4", {"box_columns": ["left", "up"]}, "--box-columns.*Expected 4 of"),
    ],
)
def test_invalid_boxes(tmp_path, cells, options, message):
    header = "image,gender,left,top,right,bottom"
    file = write(tmp_path, f"0.jpg,f,{cells}", header=header)
    with pytest.raises(ValueError, match=message):
        read_csv(file, **options, **ALL)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_and_a_byte_order_mark(tmp_path, delimiter):
    file = write(tmp_path)
    rows = [HEADER, "0.jpg,4-6,m,x"]
    text = "\n".join(rows).replace(",", delimiter)
    file.write_text(text, "utf-8-sig")
    manifest, _ = read_csv(file, **ALL)
    assert (manifest["age_group"][0], manifest["gender"][0]) == (1, 1)


def test_columns_named_and_gaps_and_gender_values(tmp_path):
    file = write(tmp_path, "0.jpg,35,0", "1.jpg,27,1", header="pic,years,g")
    with pytest.raises(ValueError, match="no column called image"):
        read_csv(file)
    manifest, _ = read_csv(
        file, image_column="pic", age_column="years", gender_column="g",
        gender_values={"0": "male", "1": "female"}, unmapped_ages="nearest", **ALL,
    )  # fmt: skip
    assert list(manifest["age_group"]) == [4, 4]
    assert list(manifest["gender"]) == [1, 0]


def test_further_columns_become_outputs(tmp_path):
    header = "image,age,glasses,celeba,colour,grade,weight,note,same,gender"
    file = write(
        tmp_path,
        *(f"{n % 4}.jpg,27,{'yes' if n % 2 else 'no'},{1 if n % 2 else -1},"
          f"{'blue' if n else 'red'},{n % 3},{n / 2},text {n},x,m" for n in range(60)),
        header=header,
    )  # fmt: skip
    manifest, report = read_csv(file, **ALL)
    heads = manifest.extra_heads
    assert {name: head["kind"] for name, head in heads.items()} == {
        "glasses": "binary",
        "celeba": "binary",
        "colour": "categorical",
        "grade": "categorical",
        "weight": "regression",
    }
    assert heads["colour"]["classes"] == ["blue", "red"]
    assert heads["grade"]["classes"] == ["0", "1", "2"]
    assert list(manifest["glasses"][:2]) == [0, 1] == list(manifest["celeba"][:2])
    assert list(manifest["colour"][:2]) == [1, 0]
    assert manifest["weight"][3] == 1.5
    told = str(report)
    assert "it looks like an id: 60 different values" in roles(report)["note"]
    assert "not used: it holds fewer than two" in roles(report)["same"]
    printed = [line.split()[0] for line in told.splitlines()[1:12]]
    assert printed == ["column", *header.split(",")]


def test_unknown_values_of_further_columns(tmp_path):
    file = write(
        tmp_path, "0.jpg,m,,red,", "1.jpg,f,1,,2.5", "2.jpg,f,0,blue,-1",
        header="image,sex,hat,colour,depth",
    )  # fmt: skip
    manifest, _ = read_csv(file, **ALL)
    assert list(manifest["hat"]) == [-1, 1, 0]
    assert list(manifest["colour"]) == [1, -1, 0]
    assert math.isnan(manifest["depth"][0])
    assert manifest["depth"][2] == -1  # a number like another


def test_kinds_can_be_declared(tmp_path):
    file = write(tmp_path, "0.jpg,m,1", "1.jpg,f,2", header="image,sex,stars")
    manifest, _ = read_csv(file, extra={"stars": "categorical"}, **ALL)
    assert manifest.extra_heads["stars"]["classes"] == ["1", "2"]
    assert list(manifest["stars"]) == [0, 1]
    manifest, _ = read_csv(file, extra=(), **ALL)
    assert "stars" not in manifest
    with pytest.raises(ValueError, match="line 3, column 'stars': expected one of"):
        read_csv(file, extra={"stars": "binary"})
    with pytest.raises(ValueError, match="Invalid type of column 'stars'"):
        read_csv(file, extra={"stars": "softmax"})
    with pytest.raises(ValueError, match="Received: 'nothing'"):
        read_csv(file, extra=["nothing"])


def test_the_order_of_classes_can_be_declared(tmp_path):
    lines = ("0.jpg,m,small", "1.jpg,f,large", "2.jpg,f,", "3.jpg,m,medium")
    file = write(tmp_path, *lines, header="image,sex,size")
    sizes = {"kind": "coral", "classes": ["small", "medium", "large"]}
    manifest, _ = read_csv(file, extra={"size": sizes}, **ALL)
    assert list(manifest["size"]) == [0, 2, -1, 1]
    assert manifest.extra_heads["size"] == sizes
    with pytest.raises(ValueError, match="line 3.*'size': expected one of small, medi"):
        few = {"classes": ["small", "medium"]}
        read_csv(file, extra={"size": few}, **ALL)
    with pytest.raises(ValueError, match="Expected none for the type 'binary'"):
        read_csv(file, extra={"size": {**sizes, "kind": "binary"}}, **ALL)


def test_a_name_that_no_layer_can_have_is_named(tmp_path):
    header = "image,sex,hair color"
    file = write(tmp_path, "0.jpg,m,red", "1.jpg,f,black", header=header)
    _, report = read_csv(file, **ALL)
    assert "'hair color' cannot name an output" in roles(report)["hair color"]
    with pytest.raises(ValueError, match="column 'hair color'.*rename the column"):
        read_csv(file, extra=["hair color"], **ALL)


@pytest.mark.parametrize(
    ("unmapped_ages", "kept", "groups"),
    [("mask", 3, [1, -1, -1]), ("nearest", 3, [1, 1, -1]), ("drop", 2, [1, -1])],
)
def test_ages_between_two_groups(tmp_path, unmapped_ages, kept, groups):
    file = write(tmp_path, "0.jpg,4", "1.jpg,7", "2.jpg,", header="image,age")
    manifest, report = read_csv(file, unmapped_ages=unmapped_ages, **ALL)
    assert report.rows_kept == len(manifest) == kept
    assert list(manifest["age_group"]) == groups  # an unknown age is in no gap
    assert report.dropped["age between two groups"] == 3 - kept


def test_ages_moved_to_the_nearer_group_are_counted(tmp_path):
    lines = ("0.jpg,4", "1.jpg,7", "2.jpg,33", "3.jpg,7.0")
    file = write(tmp_path, *lines, header="image,age")
    manifest, report = read_csv(file, unmapped_ages="nearest", **ALL)
    assert list(manifest["age_group"]) == [1, 1, 4, 1]
    assert (report.num_moved, report.num_between_groups) == (3, 0)
    assert manifest.cleaning["num_moved"] == 3
    assert "3 ages lie between two groups and were moved" in str(report)
    assert report.rules["age between two groups", "33", "25-32"] == 1
    _, report = read_csv(file, unmapped_ages="mask", **ALL)
    assert (report.num_moved, report.num_between_groups) == (0, 3)


def test_ages_in_gaps_are_one_line(tmp_path):
    gaps = (3, 7, 13, 14, 21, 33)
    lines = (f"{n % 4}.jpg,{age}" for n, age in enumerate(gaps))
    file = write(tmp_path, *lines, header="image,age")
    for way, to in (("mask", "no age group"), ("nearest", "the nearer group")):
        _, report = read_csv(file, unmapped_ages=way, **ALL)
        (line,) = (x for x in str(report).splitlines() if "age between" in x)
        assert line.split("->")[0] == "  age between two groups (3, 7, 13 and 3 more) "
        assert line.split("->")[1].split("  ")[0] == f" {to}" and line.endswith(" 6")
        assert len(report.to_frame()) == 6


def test_rows_without_a_picture_are_named(tmp_path):
    lines = ("0.jpg,4", *(f"no{n}.jpg,4" for n in range(5)))
    _, report = read_csv(write(tmp_path, *lines, header="image,age"), **ALL)
    lines = str(report).splitlines()
    assert lines[-2].split() == ["dropped:", "no", "image", "file", "5"]
    assert lines[-1] == "    no0.jpg, no1.jpg, no2.jpg and 2 more"
    text = report.items_text().splitlines()
    assert text[0] == "item,reason,left_out" and len(text) == 6
    assert text[5] == "no4.jpg,no image file,True"


def test_repeated_pictures_with_other_labels_are_named(tmp_path):
    """By path and by content; what is not known contradicts nothing."""
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.jpg", value=77)
    file = write(
        tmp_path,
        "0.jpg,27,f,yes,1.5", "0.jpg,27,m,yes,1.5",
        "1.jpg,27,f,yes,1.5", "1.jpg,,unknown,,",
        "2.jpg,25-32,f,no,1.5", "2.jpg,30,f,no,-1",
        "3.jpg,27,f,no,1.5",
        "a.jpg,27,f,yes,1.5", "b.jpg,50,f,no,1.5", "c.jpg,,f,no,1.5",
        header="image,age,gender,hat,depth",
    )  # fmt: skip
    manifest, report = read_csv(file, **ALL)
    assert report.dropped == {"copy of another image, with the same labels": 1}
    contradicted = "copies with other labels or splits, kept"
    assert report.totals[contradicted] == 3
    copy = ("1.jpg#2 (1.jpg)", "copy of another image, with the same labels")
    assert sorted(report.items, key=lambda item: item == copy) == [
        ("0.jpg, 0.jpg#2 (gender)", contradicted),
        ("2.jpg, 2.jpg#2 (depth)", contradicted),
        ("a.jpg, b.jpg, c.jpg (age_group, age_years, hat)", contradicted),
        copy,
    ]
    assert report.rows_kept == len(manifest) == 9
    assert "    0.jpg, 0.jpg#2 (gender); 2.jpg, 2.jpg#2 (depth); a" in str(report)
    assert report.items_text().endswith(",False\n")


def test_classes_that_look_ordered_are_pointed_out(tmp_path):
    lines = ("0.jpg,m,Small,red", "1.jpg,f,Large,blue", "2.jpg,f,Medium,green")
    file = write(tmp_path, *lines, header="image,sex,size,colour")
    _, report = read_csv(file, **ALL)
    said = roles(report)
    assert said["size"].endswith(
        "; if ordered: --extra size:coral:Small,Medium,Large, and other outputs "
        "behind it"
    )
    assert said["colour"] == (
        "output: categorical (blue, green, red): its 3 known values"
    )
    _, report = read_csv(file, extra={"size": "categorical"}, **ALL)
    assert roles(report)["size"].endswith(": --extra")


def test_whole_numbers_that_do_not_begin_at_0_are_a_regression(tmp_path):
    lines = (f"{n % 4}.jpg,m,{2000 + n % 20}" for n in range(60))
    manifest, _ = read_csv(write(tmp_path, *lines, header="image,sex,year"), **ALL)
    assert manifest.extra_heads["year"]["kind"] == "regression"
    assert manifest["year"][19] == 2019


@pytest.mark.parametrize(
    ("header", "options", "named"),
    [
        ("pic,sex", {}, "`image_column` (--image-column)"),
        ("image,sex", {"age_column": "years"}, "`age_column` (--age-column)"),
        ("image", {"extra": ()}, "`gender_column` (--gender-column)"),
        ("image,sex", {"images_dir": "no"}, "`images_dir` (--images)"),
        ("image,sex", {"extra": ["hat"]}, "`extra` (--extra)"),
    ],
)
def test_errors_name_argument_and_option(tmp_path, header, options, named):
    line = ",".join(("0.jpg", "m")[: header.count(",") + 1])
    with pytest.raises(ValueError) as error:
        read_csv(write(tmp_path, line, header=header), **options)
    assert named in str(error.value)


def test_unknown_ways_with_gaps(tmp_path):
    with pytest.raises(ValueError, match="unmapped_ages='omit'"):
        read_csv(tmp_path / "there_is_none.csv", unmapped_ages="omit")


@pytest.mark.parametrize("name", ["scores", "loss", "age_years", "age9", "encoding"])
def test_no_name_that_a_head_refuses_is_an_output(tmp_path, name):
    header = f"image,age,{name}"
    file = write(tmp_path, "0.jpg,27,0.5", "1.jpg,27,0.7", header=header)
    manifest, report = read_csv(file, **ALL)
    assert manifest.extra_heads == {}
    assert f"{name!r} is taken" in roles(report)[name]


def test_age_groups_that_are_numbers_are_asked_about(tmp_path):
    file = write(tmp_path, "0.jpg,4", "1.jpg,", header="image,age_group")
    with pytest.raises(ValueError, match=r"numbers 4 to 4, .*may be years or ids"):
        read_csv(file, **ALL)
    manifest, _ = read_csv(file, age_column="age_group", **ALL)
    assert list(manifest["age_group"]) == [1, -1]  # 4 years are in 4-6


def test_reserved_names_are_not_outputs(tmp_path):
    file = write(tmp_path, "0.jpg,m,1", "1.jpg,f,0", header="image,sex,age5")
    _, report = read_csv(file, **ALL)
    assert "'age5' is taken" in roles(report)["age5"]
    with pytest.raises(ValueError, match="'age5' is taken"):
        read_csv(file, extra=["age5"])


def test_own_splits(tmp_path):
    file = write(
        tmp_path, "0.jpg,m,train", "1.jpg,f,val", "2.jpg,f,Test",
        header="image,gender,split",
    )  # fmt: skip
    manifest, _ = read_csv(file)
    assert list(manifest["split"]) == ["train", "validation", "test"]


def test_a_name_longer_than_any_files_is_no_picture(tmp_path):
    file = write(
        tmp_path, "0.jpg,m", f"{'x' * 300}.jpg,f", header="image,gender", pictures=1
    )  # fmt: skip
    manifest, report = read_csv(file, validation=0, test=0)
    assert len(manifest) == 1 and report.dropped == {"no image file": 1}


def test_an_error_quotes_the_beginning_of_a_long_cell(tmp_path):
    file = write(tmp_path, f"0.jpg,{'x' * 5000}", header="image,gender", pictures=1)
    with pytest.raises(ValueError, match=r"Received: 'x{100}…'") as found:
        read_csv(file)
    assert len(str(found.value)) < 500


def test_pictures_in_another_folder_and_absent_ones(tmp_path):
    file = write(tmp_path, "0.jpg,2,m,a", "9.jpg,2,m,b", pictures=0)
    write_picture(tmp_path / "pictures" / "0.jpg")
    manifest, report = read_csv(file, images_dir=tmp_path / "pictures", **ALL)
    assert len(manifest) == 1
    assert report.items == [("9.jpg", "no image file")]
    # Without being told where: just below the file.
    found, report = read_csv(file, **ALL)
    assert found["path"].tolist() == manifest["path"].tolist()
    assert f"images found below {tmp_path / 'pictures'}" in report.totals
    (tmp_path / "pictures" / "0.jpg").unlink()
    with pytest.raises(ValueError, match="None of the 2 images"):
        read_csv(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0.jpg,old,m,a", "line 2, column 'age': expected years.*'old'"),
        ("0.jpg,131,m,a", "column 'age'"),
        ("0.jpg,30-40,m,a", "column 'age'.*'30-40'"),
        ("0.jpg,-5,m,a", "column 'age'"),
        ("0.jpg,27,1,a", "column 'gender'.*--female.*'1'"),
        ("0.jpg,27,x,a", "column 'gender'.*'x'"),
        (",27,m,a", "line 2, column 'image': expected an image file"),
        ("0.jpg,27,m", "line 2: expected 4 values separated by ',', received 3"),
    ],
)
def test_values_that_mean_nothing(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path, line))


def test_damaged_files(tmp_path):
    with pytest.raises(ValueError, match="There is no CSV file"):
        read_csv(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="is a folder"):
        read_csv(tmp_path)
    file = write(tmp_path)
    with pytest.raises(ValueError, match="has no rows"):
        read_csv(file)
    file.write_text("", "utf-8")
    with pytest.raises(ValueError, match="line 1: expected the names"):
        read_csv(file)
    file.write_text("image,image\n0.jpg,1\n", "utf-8")
    with pytest.raises(ValueError, match="'image' is there twice"):
        read_csv(file)
    file.write_bytes(b"image\n\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_csv(file)
    with pytest.raises(ValueError, match="no column 'years'"):
        read_csv(write(tmp_path, "0.jpg,1,m,a"), age_column="years")
    with pytest.raises(ValueError, match="no column to learn from"):
        read_csv(write(tmp_path, "0.jpg", header="image"), extra=())


def test_pictures_outside_of_the_folder_are_reported(tmp_path):
    """By ../, an absolute path or a link; kept, as such files may be meant."""
    folder = tmp_path / "given"
    for name in ("given/in.jpg", "up.jpg", "absolute.jpg", "target.jpg"):
        write_picture(tmp_path / name, value=len(name) * 7)
    (folder / "link.jpg").symlink_to(tmp_path / "target.jpg")
    names = ["in.jpg", "../given/in.jpg", "../up.jpg", str(tmp_path / "absolute.jpg"),
             "link.jpg"]  # fmt: skip
    rows = [f"{name},{number % 2}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["image,hat", *rows]), "utf-8")
    manifest, report = read_csv(folder / "labels.csv", validation=0, test=0)
    assert len(manifest) == 5
    assert report.totals["images outside of the folder, kept"] == 3
    outside = [item for item, why in report.items if why.startswith("images outside")]
    assert outside == ["../up.jpg", str(tmp_path / "absolute.jpg"), "link.jpg"]
    assert "images outside of the folder, kept" in str(report)


@pytest.mark.parametrize("letter", ["\n", "\r\n", "\u2028", "\x0b", "\x85"])
def test_cells_may_hold_ends_of_lines(tmp_path, letter):
    """Python's `splitlines` knows more of them than a CSV file."""
    lines = [f'{n}.jpg,27,f,"a{letter}{n}"' for n in range(2)]
    manifest, report = read_csv(write(tmp_path, *lines), **ALL)
    assert list(manifest["subject"]) == [f"a{letter}0", f"a{letter}1"]
    assert report.rows_read == 2


def test_what_csv_refuses_is_said_with_its_line(tmp_path):
    file = write(tmp_path, "0.jpg,27,f,anna", f"1.jpg,27,f,{'x' * 200_000}")
    with pytest.raises(ValueError, match="line 3: field larger than field limit"):
        read_csv(file)


def test_columns_are_kept_to_group_by_and_are_no_outputs(tmp_path):
    lines = ["0.jpg,f,a,1", "1.jpg,m,b,2", "2.jpg,f,NA,3", "3.jpg,f, 01 ,4"]
    file = write(tmp_path, *lines, header="image,gender,race,shoe")
    manifest, report = read_csv(file, extra=(), keep_columns=["race"], **ALL)
    assert list(manifest["race"]) == ["a", "b", "", "01"]
    assert "shoe" not in manifest and manifest.extra_heads == {}
    assert roles(report)["shoe"].startswith("not used: not named with --extra; --keep")
    assert "column 'race'" not in str(report)
    write_manifest(manifest, tmp_path / "manifest.csv")
    again = read_manifest(tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(again, manifest, check_dtype=False)
    assert again.keep_columns == ("race",) and again.cleaning == manifest.cleaning
    # Beside outputs that are evident, too.
    manifest, _ = read_csv(file, keep_columns=["race"], **ALL)
    assert set(manifest.extra_heads) == {"shoe"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_columns": ["rase"]}, r"keep-columns.*\['race', 'key'\].*'rase'"),
        ({"keep_columns": ["gender"]}, "without another role.*'gender'"),
        ({"keep_columns": ["key"]}, "datasets do not use themselves.*'key': rename"),
        ({"keep_columns": ["race"], "extra": ["race"]}, "--extra.*'race'"),
    ],
)
def test_columns_that_cannot_be_kept(tmp_path, options, message):
    file = write(tmp_path, "0.jpg,f,a,1", header="image,gender,race,key")
    with pytest.raises(ValueError, match=message):
        read_csv(file, **options, **ALL)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_between_quotes_are_part_of_a_name(tmp_path, delimiter):
    others = ",;|".replace(delimiter, "")
    name = f"age{others}{others} group"
    header = f'image{delimiter}"{name}"'
    file = write(tmp_path, f"0.jpg{delimiter}27", header=header)
    manifest, _ = read_csv(file, age_column=name, **ALL)
    assert list(manifest["age_years"]) == [27]


# -- label files as they are found -----------------------------------------------------


def test_groups_that_a_spreadsheet_turned_into_dates(tmp_path):
    texts = ("03-Sep", "9-Mar", "Oct-19", "2024-09-03", "3. Sep", "20-29")
    lines = [f"{n}.jpg,{text}" for n, text in enumerate(texts)]
    file = write(tmp_path, *lines, header="image,age", pictures=6)
    manifest, report = read_csv(file, age_groups="fairface", **ALL)
    names = [manifest.age_groups.names[k] for k in manifest["age_group"]]
    assert names == ["3-9", "3-9", "10-19", "3-9", "3-9", "20-29"]
    assert report.rules["age, which a spreadsheet turned into a date", "9-Mar", "3-9"]
    # No group is meant: the spreadsheet is named.
    with pytest.raises(ValueError, match="dates that a spreadsheet made of groups"):
        read_csv(write(tmp_path, "0.jpg,May-07", header="image,age"), **ALL)


@pytest.mark.parametrize(
    ("ages", "hint"),
    [
        (("3-9", "more than 70"), "All ages fit `age_groups='fairface'`"),
        (("20-29", "80-89"), "--age-groups decades"),
        (("YOUNG", "MIDDLE", "OLD"), "--extra life_stage:coral:YOUNG,MIDDLE,OLD"),
        (("20-24", "70-80"), "a preset .*0-17,18-64,65"),
    ],
)
def test_an_error_about_groups_says_which_fit(tmp_path, ages, hint):
    file = write(tmp_path, *(f"{n}.jpg,{a}" for n, a in enumerate(ages)),
                 header="image,age")  # fmt: skip
    with pytest.raises(ValueError, match=hint):
        read_csv(file, **ALL)


def test_ages_that_are_exactly_the_ids_of_groups_are_a_question(tmp_path):
    lines = [f"{n}.jpg,{n}" for n in range(9)]
    file = write(tmp_path, *lines, header="image,age", pictures=9)
    with pytest.raises(ValueError, match="numbers 0 to 8, which may be years or ids"):
        read_csv(file, age_groups="fairface", **ALL)
    groups = {"age_groups": "fairface", **ALL}
    ids, _ = read_csv(file, age_values="ids", **groups)
    assert list(ids["age_group"]) == list(range(9)) and "age_years" not in ids
    assert ids.equals(read_csv(file, assume_yes=True, **groups)[0])
    years, _ = read_csv(file, age_values="years", **groups)
    assert list(years["age_group"]) == [0, 0, 0] + [1] * 6
    # Twelve years are none of nine ids.
    write(tmp_path, *lines, "9.jpg,12", header="image,age", pictures=10)
    assert 12 in set(read_csv(file, **groups)[0]["age_years"])
    with pytest.raises(ValueError, match="age_values='month'"):
        read_csv(file, age_values="month")


def test_a_one_with_a_fraction_is_a_one(tmp_path):
    file = write(tmp_path, "0.jpg,1.0", "1.jpg,0.0", header="image,gender")
    for one, zero in (("1", "0"), ("1.0", "0.0")):
        genders = {one: "male", zero: "female"}
        manifest, _ = read_csv(file, gender_values=genders, **ALL)
        assert list(manifest["gender"]) == [1, 0]


@pytest.mark.parametrize(
    "name", ["27_{utk}_0_2017{n:04d}.jpg", "{word}/{n}.jpg", "{n:06d}_1{letter}27.JPG"]
)
def test_genders_that_are_coded_the_other_way_round(tmp_path, name):
    names = [
        name.format(n=n, utk=n % 2, word=("male", "female")[n % 2], letter="MF"[n % 2])
        for n in range(20)
    ]
    for n, image in enumerate(names):
        write_picture(tmp_path / image, value=60 + n)
    lines = [f"{image},{n % 2}" for n, image in enumerate(names)]
    file = write(tmp_path, *lines, header="image,gender", pictures=0)
    right = {"0": "male", "1": "female"}
    manifest, report = read_csv(file, gender_values=right, **ALL)
    assert manifest["gender"].sum() == 10 and not report.items
    wrong = {"1": "male", "0": "female"}
    with pytest.raises(ValueError, match="the other way round: names of files say"):
        read_csv(file, gender_values=wrong, **ALL)
    write(tmp_path, *lines[:-1], f"{names[-1]},0", header="image,gender", pictures=0)
    _, report = read_csv(file, gender_values=right, **ALL)
    assert report.totals["genders that names of files contradict, kept"] == 1
    assert report.items[-1][0] == names[-1]


def test_a_second_column_contradicts_genders(tmp_path):
    lines = [f"{n}.jpg,{n % 2},{'MF'[n % 2]}" for n in range(12)]
    file = write(tmp_path, *lines, header="image,gender,sex2", pictures=12)
    with pytest.raises(ValueError, match="column 'sex2' say the opposite for 12 of 12"):
        read_csv(file, gender_values={"1": "male", "0": "female"}, **ALL)


def test_separators_of_windows(tmp_path):
    write_picture(tmp_path / "train" / "a" / "0.jpg")
    file = write(tmp_path, r"train\a\0.jpg,m", header="image,gender", pictures=0)
    manifest, _ = read_csv(file, **ALL)
    assert list(manifest["key"]) == ["train/a/0.jpg"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("labels/images/faces", "{n}.jpg"),  # two levels below the file
        ("faces", "faces/{n}.jpg"),  # above
        ("labels", "data/old/{n}.jpg"),  # names with folders that are not there
    ],
)
def test_images_in_other_folders_are_found(tmp_path, folder, name):
    for n in range(3):
        write_picture(tmp_path / folder / f"{n}.jpg", value=90 + n)
    (tmp_path / "labels").mkdir(exist_ok=True)
    lines = [f"{name.format(n=n)},m" for n in range(3)]
    file = write(tmp_path / "labels", *lines, header="image,gender", pictures=0)
    manifest, report = read_csv(file, **ALL)
    assert len(manifest) == 3
    assert any(text.startswith("images found below ") for text in report.totals)


def test_images_in_several_other_folders_are_a_question(tmp_path):
    for folder in ("a", "b"):
        write_picture(tmp_path / folder / "0.jpg")
    file = write(tmp_path, "0.jpg,m", header="image,gender", pictures=0)
    with pytest.raises(ValueError, match=r"several other folders: .*/a, .*/b\. Name"):
        read_csv(file, **ALL)


def test_invalid_values_are_listed_together_or_dropped(tmp_path):
    lines = ("0.jpg,27,m", "1.jpg,200,f", "2.jpg,31,x", "3.jpg,28,f", ",20,m")
    file = write(tmp_path, *lines, header="image,age,gender")
    with pytest.raises(ValueError) as found:
        read_csv(file, **ALL)
    text = str(found.value)
    assert text.startswith(f"3 rows of {file} have an invalid value.")
    for part in (
        "line 3, column 'age'",
        "line 4, column 'gender'",
        "line 6",
        "--invalid",
    ):
        assert part in text
    manifest, report = read_csv(file, invalid="drop", **ALL)
    assert list(manifest["age_years"]) == [27, 28]
    assert report.dropped == {"invalid value": 3} and report.rows_kept == 2
    assert "line 3, column 'age': expected years" in report.items[0][0]
    many = [f"{n % 4}.jpg,500,m" for n in range(50)]
    write(tmp_path, *many, header="image,age,gender")
    with pytest.raises(ValueError, match=r"^50 rows of .*And 30 more\.$"):
        read_csv(file, **ALL)
    with pytest.raises(ValueError, match="Invalid `invalid`"):
        read_csv(file, invalid="ignore")


def test_copies_are_one_row(tmp_path):
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.jpg", value=77)
    lines = ("a.jpg,27,", "b.jpg,27,f", "c.jpg,,f", "0.jpg,30,m", "0.jpg,30,m")
    file = write(tmp_path, *lines, header="image,age,gender")
    manifest, report = read_csv(file, **ALL)
    assert list(manifest["key"]) == ["b.jpg", "0.jpg"]  # the one with most labels
    copy = "copy of another image, with the same labels"
    assert report.dropped == {copy: 3}
    assert ("a.jpg (b.jpg)", copy) in report.items and copy in str(report)
    # In two splits they are not the same.
    lines = ("a.jpg,27,train", "b.jpg,27,test")
    manifest, report = read_csv(write(tmp_path, *lines, header="image,age,split"))
    assert len(manifest) == 2
    assert report.items == [("a.jpg, b.jpg (split)", "copies with other labels or "
                             "splits, kept")]  # fmt: skip
