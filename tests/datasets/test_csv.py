"""Any CSV: columns found or named, kinds that are evident, errors that say where."""

from __future__ import annotations

import math

import pytest
from sample_data import write_picture

from keras_agegender.datasets.csv import read_csv

HEADER = "image,age,gender,subject"


def write(directory, *lines, header=HEADER, pictures=4):
    for number in range(pictures):
        write_picture(directory / f"{number}.jpg")
    file = directory / "labels.csv"
    file.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return file


ALL = {"validation": 0.0, "test": 0.0}


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
    assert report.rules["age", "35", "no age group (between two groups)"] == 1
    assert list(manifest["age_years"]) == [27, -1, 35, -1]
    assert "1 ages lie between two groups (--gaps" in str(report)
    assert report.rules["gender", "unknown", "no gender"] == 1
    assert manifest.attrs["extra_heads"] == {}


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
        gender_values={"0": "male", "1": "female"}, gaps="nearest", **ALL,
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
    heads = manifest.attrs["extra_heads"]
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
    assert "column 'note' not used: it looks like an id: 60 different values" in told
    assert "column 'same' not used: it holds fewer than two" in told
    assert report.totals["repeated pictures, kept"] == 56


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
    assert manifest.attrs["extra_heads"]["stars"]["classes"] == ["1", "2"]
    assert list(manifest["stars"]) == [0, 1]
    manifest, _ = read_csv(file, extra=(), **ALL)
    assert "stars" not in manifest
    with pytest.raises(ValueError, match="line 3, column 'stars': expected one of"):
        read_csv(file, extra={"stars": "binary"})
    with pytest.raises(ValueError, match="Invalid kind of column 'stars'"):
        read_csv(file, extra={"stars": "softmax"})
    with pytest.raises(ValueError, match="Received: 'nothing'"):
        read_csv(file, extra=["nothing"])


def test_the_order_of_classes_can_be_declared(tmp_path):
    lines = ("0.jpg,m,small", "1.jpg,f,large", "2.jpg,f,", "3.jpg,m,medium")
    file = write(tmp_path, *lines, header="image,sex,size")
    sizes = {"kind": "coral", "classes": ["small", "medium", "large"]}
    manifest, _ = read_csv(file, extra={"size": sizes}, **ALL)
    assert list(manifest["size"]) == [0, 2, -1, 1]
    assert manifest.attrs["extra_heads"]["size"] == sizes
    with pytest.raises(ValueError, match="line 3.*'size': expected one of small, medi"):
        few = {"classes": ["small", "medium"]}
        read_csv(file, extra={"size": few}, **ALL)
    with pytest.raises(ValueError, match="Expected none for the kind 'binary'"):
        read_csv(file, extra={"size": {**sizes, "kind": "binary"}}, **ALL)


def test_a_name_that_no_layer_can_have_is_named(tmp_path):
    header = "image,sex,hair color"
    file = write(tmp_path, "0.jpg,m,red", "1.jpg,f,black", header=header)
    _, report = read_csv(file, **ALL)
    assert any("'hair color' cannot name an output" in t for t in report.totals)
    with pytest.raises(ValueError, match="column 'hair color'.*rename the column"):
        read_csv(file, extra=["hair color"], **ALL)


@pytest.mark.parametrize(
    ("gaps", "kept", "groups"),
    [("mask", 3, [1, -1, -1]), ("nearest", 3, [1, 1, -1]), ("omit", 2, [1, -1])],
)
def test_ages_between_two_groups(tmp_path, gaps, kept, groups):
    file = write(tmp_path, "0.jpg,4", "1.jpg,7", "2.jpg,", header="image,age")
    manifest, report = read_csv(file, gaps=gaps, **ALL)
    assert report.rows_kept == len(manifest) == kept
    assert list(manifest["age_group"]) == groups  # an unknown age is in no gap
    assert report.left_out["age between two groups"] == 3 - kept


def test_unknown_ways_with_gaps(tmp_path):
    with pytest.raises(ValueError, match="gaps='drop'"):
        read_csv(tmp_path / "there_is_none.csv", gaps="drop")


@pytest.mark.parametrize("name", ["scores", "loss", "age_years", "age9", "encoding"])
def test_no_name_that_a_head_refuses_is_an_output(tmp_path, name):
    header = f"image,age,{name}"
    file = write(tmp_path, "0.jpg,27,0.5", "1.jpg,27,0.7", header=header)
    manifest, report = read_csv(file, **ALL)
    assert manifest.attrs["extra_heads"] == {}
    assert any(f"{name!r} is taken" in text for text in report.totals)


def test_age_groups_that_are_numbers_are_asked_about(tmp_path):
    file = write(tmp_path, "0.jpg,4", "1.jpg,", header="image,age_group")
    with pytest.raises(ValueError, match=r"may be ids or years.*Received: '4'"):
        read_csv(file, **ALL)
    manifest, _ = read_csv(file, age_column="age_group", **ALL)
    assert list(manifest["age_group"]) == [1, -1]  # 4 years are in 4-6


def test_reserved_names_are_not_outputs(tmp_path):
    file = write(tmp_path, "0.jpg,m,1", "1.jpg,f,0", header="image,sex,age5")
    _, report = read_csv(file, **ALL)
    assert any("'age5' is taken" in name for name in report.totals)
    with pytest.raises(ValueError, match="'age5' is taken"):
        read_csv(file, extra=["age5"])


def test_own_splits(tmp_path):
    file = write(
        tmp_path, "0.jpg,m,train", "1.jpg,f,val", "2.jpg,f,Test",
        header="image,gender,split",
    )  # fmt: skip
    manifest, _ = read_csv(file)
    assert list(manifest["split"]) == ["train", "validation", "test"]


def test_pictures_in_another_folder_and_absent_ones(tmp_path):
    file = write(tmp_path, "0.jpg,2,m,a", "9.jpg,2,m,b", pictures=0)
    write_picture(tmp_path / "pictures" / "0.jpg")
    manifest, report = read_csv(file, images_dir=tmp_path / "pictures", **ALL)
    assert len(manifest) == 1
    assert report.items == [("9.jpg", "no picture file")]
    with pytest.raises(ValueError, match="None of the 2 pictures"):
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
        (",27,m,a", "line 2, column 'image': expected a picture file"),
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
