"""Roles of columns: people are recognized, and what is no label is not learned."""

from __future__ import annotations

import uuid

import pytest
from sample_data import write_picture

import keras_agegender as kag
from keras_agegender.cli.main import main
from keras_agegender.datasets.readers import AmbiguousColumnError
from keras_agegender.datasets.readers.columns import (
    identifier_reason,
    metadata_reason,
)
from keras_agegender.datasets.readers.csv import read_csv

# Column -> the text of row n, and what is said of it.
IDENTIFIERS = {
    "photo_number": (lambda n: str(1000 + n), "an id"),
    "row": (lambda n: str(n), "an id"),  # whole numbers from 0 on: no classes
    "person": (lambda n: f"person {n}", None),  # the subject's column
    "note": (lambda n: f"text {n}", "an id: 40 different values in 40 rows"),
    "nearly": (lambda n: str(500 + max(n, 3)), "an id: 37 different values in 40 rows"),
    "iso": (lambda n: f"2019-03-{n % 28 + 1:02d}", "a date"),
    "iso_time": (lambda n: f"2019-03-{n % 28 + 1:02d}T10:{n:02d}:00Z", "a date"),
    "american": (lambda n: f"{n % 12 + 1}/{n % 28 + 1}/2019", "a date"),
    "european": (lambda n: f"{n % 28 + 1:02d}.{n % 12 + 1:02d}.2019", "a date"),
    "compact": (lambda n: f"201903{n % 28 + 1:02d}", "a date"),
    "clock": (lambda n: f"10:{n % 7:02d}", "a time"),
    "uuid": (lambda n: str(uuid.UUID(int=n % 5 + 2**100)), "an id"),
    "hash": (lambda n: f"{n % 5 + 10**15:016d}"[:-2] + "af", "an id"),
    "mask_file": (lambda n: f"masks/{n % 5}.PNG", "file names"),
    "link": (lambda n: f"https://host/{n % 5}", "file names"),
}
# What looks similar and is an output.
OUTPUTS = {
    "grade": (lambda n: str(n % 20), "categorical"),
    "weight": (lambda n: str(50 + n / 4), "regression"),  # measurements all differ
    "height": (lambda n: str(150 + n % 30), "regression"),
    "born": (lambda n: str(1960 + n % 30), "regression"),
    "race_id": (lambda n: str(n % 5), "categorical"),
    "hair": (lambda n: ("red", "blond", "black")[n % 3], "categorical"),
    "ratio": (lambda n: f"{n % 10}.{n % 7 + 1}", "regression"),
    "hat": (lambda n: str(n % 2), "binary"),
}


def table(directory, columns, count=40):
    for number in range(count):
        write_picture(directory / f"{number}.jpg", value=5 * number, size=(8, 8))
    lines = [",".join(["image", "gender", *columns])]
    for n in range(count):
        cells = [f"{n}.jpg", "fm"[n % 2], *(text(n) for text, _ in columns.values())]
        lines.append(",".join(cells))
    (directory / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return directory / "labels.csv"


def roles(report):
    return {column: (role, why) for column, role, why in report.columns}


def test_identifiers_are_no_outputs_unless_named(tmp_path):
    file = table(tmp_path, {**IDENTIFIERS, **OUTPUTS})
    manifest, report = read_csv(file)
    heads = manifest.extra_heads
    assert {n: h["kind"] for n, h in heads.items()} == {
        name: kind for name, (_, kind) in OUTPUTS.items()
    }
    for name, (_, reason) in IDENTIFIERS.items():
        if reason is not None:
            assert name not in manifest
            role, why = roles(report)[name]
            assert role == "not used" and "--extra" in why
            assert f"it looks like {reason}" in why or why.startswith("the number of")
    named, report = read_csv(file, extra=["row", "photo_number", "iso"])
    assert {n: h["kind"] for n, h in named.extra_heads.items()} == {
        "row": "categorical",
        "photo_number": "regression",
        "iso": "categorical",
    }
    assert list(named["photo_number"]) == [1000 + n for n in range(40)]
    declared, _ = read_csv(file, extra={"compact": "regression"})
    assert declared["compact"][0] == 20190301


def test_few_rows_need_a_name_that_says_it():
    numbers = ["7", "9", "12"]
    assert identifier_reason("weight", numbers) is None
    for name in ("id", "face_id", "photoId", "photo-id", "index", "row no"):
        assert "3 different values in 3 rows" in identifier_reason(name, numbers)
    for name in ("grid", "paid", "hybrid"):
        assert identifier_reason(name, numbers) is None


# Column -> the text of row n of 30; each became an output once.
MORE_IDENTIFIERS = {
    "user_id": lambda n: f"u{n // 2}",
    "photo_no": lambda n: str(n // 2),
    "ID_2": lambda n: str(n % 15),
    "serial": lambda n: f"A{n // 3:04d}",
    "userid": lambda n: str(100 + n // 2),
    "imageid": lambda n: str(100 + n // 2),
    "PersonID": lambda n: str(7 * (n // 2)),
    "customer": lambda n: str(4711 + n // 2),
    "zip": lambda n: str(10115 + 3 * (n // 5)),
    "epoch_ms": lambda n: str(1_600_000_000_000 + 1000 * (n // 4)),
}
ATTRIBUTES = {
    "race": lambda n: ("asian", "black", "white")[n % 3],
    "hair": lambda n: ("red", "blond", "black")[n % 3],
    "size": lambda n: ("s", "m", "l", "xl")[n % 4],
    "smile": lambda n: str(n % 2),
    "weight": lambda n: str(50 + n % 25),
    "height": lambda n: str(150 + n % 25),
    "year": lambda n: str(1990 + n % 20),
    "number_of_children": lambda n: str(n % 5),
    "video": lambda n: str(20 + n % 20),
    "acid": lambda n: str(20 + n % 20),
    "grid": lambda n: str(20 + n % 20),
    "hybrid": lambda n: str(20 + n % 20),
    "humid": lambda n: str(20 + n % 20),
    "casino": lambda n: str(20 + n % 20),
    "zip": lambda n: str(n % 2),  # of a jacket
    "user": lambda n: "yn"[n % 2],
    "emotion_id": lambda n: str(n % 7),
}


@pytest.mark.parametrize("name", MORE_IDENTIFIERS)
def test_ids_of_thirty_rows(name):
    reason = identifier_reason(name, [MORE_IDENTIFIERS[name](n) for n in range(30)])
    assert reason.startswith("it looks like an id: ")


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_thirty_rows(name):
    texts = [ATTRIBUTES[name](n) for n in range(30)]
    assert identifier_reason(name, texts) is None


def test_thirty_rows_of_a_file(tmp_path):
    file = table(
        tmp_path,
        {k: (f, "") for k, f in {**ATTRIBUTES, **MORE_IDENTIFIERS}.items()},
        count=30,
    )
    with pytest.raises(AmbiguousColumnError, match="may each identify people"):
        read_csv(file)
    manifest, report = read_csv(file, subject_column="user_id")
    assert set(manifest.extra_heads) == set(ATTRIBUTES) - {"zip"}
    assert "15 different values in 30 rows" in roles(report)["userid"][1]
    named, _ = read_csv(file, extra=["userid"], subject_column="user_id")
    assert list(named.extra_heads) == ["userid"]


@pytest.mark.parametrize(
    ("values", "rows", "is_output"),
    [(11, 54, False), (11, 55, True), (10, 20, True), (12, 24, False)],
)
def test_texts_need_five_rows_per_value(values, rows, is_output):
    texts = [f"city {n % values}" for n in range(rows)]
    reason = identifier_reason("city", texts)
    told = f"too few rows per value: {values} different texts in {rows} rows"
    assert reason == (None if is_output else told)
    assert identifier_reason("floor", [t.split()[1] for t in texts]) is None


@pytest.mark.parametrize("different", [8, 9, 10])
def test_nine_in_ten_is_nearly_all(different):
    texts = [str(100 + min(n, different - 1)) for n in range(10)]
    assert (identifier_reason("weight", texts) is None) == (different < 9)


@pytest.mark.parametrize(
    "texts",
    [
        ("1.5.2", "1.6.0"),
        ("10.25", "11.50"),
        ("31.31.2019", "1.1.2019"),
        ("deadbeef", "a"),
    ],
)
def test_what_is_no_date_and_no_id(texts):
    assert identifier_reason("version", texts) is None


# -- people ----------------------------------------------------------------------------


def people(tmp_path, *names, rows_each=4, count=15, **columns):
    """A file of some people with images each; columns are functions of the row."""
    return table(
        tmp_path,
        {name: (lambda n: f"p{n // rows_each}", None) for name in names}
        | {name: (text, None) for name, text in columns.items()},
        count=rows_each * count,
    )


@pytest.mark.parametrize(
    "name",
    ["subject_id", "SubjectID", "person_no", "userid", "patient", "celebrity_name",
     "identity_id", "Person", "participant_code"],
)  # fmt: skip
def test_people_are_recognized_and_stay_in_one_split(tmp_path, name):
    manifest, report = read_csv(people(tmp_path, name))
    assert roles(report)[name][0] == "person: one split for each"
    assert manifest.groupby("subject")["split"].nunique().max() == 1
    assert set(manifest["split"]) == {"train", "validation", "test"}
    assert manifest.extra_heads == {}


@pytest.mark.parametrize("name", ["id_num", "id", "uid", "ID_2", "name", "track_id"])
def test_ids_that_may_be_of_people_are_asked_about(tmp_path, capsys, name):
    file = people(tmp_path, name)
    with pytest.raises(AmbiguousColumnError, match="may identify people") as found:
        read_csv(file)
    text = str(found.value)
    for word in (name, "15 different values in 60 rows", "--subject-column", "--yes"):
        assert word in text
    for options, is_subject in (
        ({"assume_yes": True}, True),
        ({"subject_column": name}, True),
        (found.value.accept, True),
        (found.value.decline, False),
        ({"ignore_columns": [name]}, False),
        (
            {"keep_columns": [name]} if name != "id" else {"ignore_columns": [name]},
            False,
        ),
    ):
        manifest, report = read_csv(file, **options)
        assert (manifest["subject"] != "").all() == is_subject
        assert name not in manifest.extra_heads
        if is_subject:
            assert manifest.groupby("subject")["split"].nunique().max() == 1
    # Not interactive: an error, and nothing is written.
    command = ["prepare", "csv", str(file), "--no-crop", "--size", "16", "--no-cache"]
    out = tmp_path / "out"
    assert main([*command, "--out", str(out)]) == 1
    assert "may identify people" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--out", str(out), "--yes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["column", "role", "why"]
    prepared = kag.load_prepared(out)
    where = {}
    for split in prepared.splits:
        for subject in kag.datasets.read_labels(prepared, split, ["subject"])[
            "subject"
        ]:
            where.setdefault(subject, set()).add(split)
    assert len(where) == 15 and all(len(splits) == 1 for splits in where.values())


@pytest.mark.parametrize(
    "text",
    [lambda n: str(n), lambda n: str(n % 2), lambda n: f"{n / 4}", lambda n: "x"],
)
def test_ids_that_group_nothing_are_not_people(tmp_path, text):
    manifest, _ = read_csv(people(tmp_path, count=10, id=text))
    assert (manifest["subject"] == "").all()


def test_two_columns_of_people(tmp_path):
    file = people(tmp_path, "person", client=lambda n: f"c{n // 8}")
    manifest, report = read_csv(file)  # a usual name comes first
    assert roles(report)["person"] == ("person: one split for each", "its name")
    file = people(tmp_path, "member_id", client=lambda n: f"c{n // 8}")
    with pytest.raises(AmbiguousColumnError, match="'member_id'.*'client'"):
        read_csv(file)


# -- no labels of a face ---------------------------------------------------------------

NO_LABELS = {
    "age_diff": "computed from ages",
    "picture_num": "the number of an image",
    "num_ratings": "a number of ratings",
    "votes": "a number of ratings",
    "apparent_age_std": "a spread of ratings",
    "gender_variance": "a spread of ratings",
    "real_age": "another age",
    "face_score": "the confidence of a detector",
    "second_face_score": "the confidence of a detector",
    "confidence": "the confidence of a detector",
    "service_test": "a use of the data, not of a face",
    "is_train": "a use of the data, not of a face",
    "fold": "a use of the data, not of a face",
    "dob": "a date",
    "photo_taken": "a date",
    "img_width": "the size of an image",
    "source": "a fact about the file",
}
LABELS = ("smile", "beauty_score", "number_of_children", "race", "height", "glasses",
          "hair_colour", "quality", "weight", "page", "image_quality")  # fmt: skip


@pytest.mark.parametrize("name", NO_LABELS)
def test_what_is_no_label_of_a_face(name):
    texts = ["1", "2", "3"]
    assert metadata_reason(name, texts, [name, "img_height"], {}) == NO_LABELS[name]


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_faces(name):
    assert metadata_reason(name, ["1", "2", "3"], [name], {}) is None


def test_a_second_column_of_genders_is_not_learned(tmp_path):
    file = people(tmp_path, "person", sex2=lambda n: ("Female", "Male")[n % 2])
    manifest, report = read_csv(file)
    assert roles(report)["sex2"][1].startswith("another gender")
    assert manifest.extra_heads == {}


def test_morph_as_any_csv_file(tmp_path):
    """35 of 60 people were in two splits, and three columns were learned."""
    file = people(
        tmp_path,
        "id_num",
        picture_num=lambda n: str(n % 4),
        dob=lambda n: f"1/{1 + n % 28}/1970",
        doa=lambda n: f"2/{1 + n % 4}/2003",
        race=lambda n: "BWH"[n % 3],
        facial_hair=lambda n: "NULL",
        age=lambda n: str(20 + n % 40),
        age_diff=lambda n: str(n % 4 * 365),
        photo=lambda n: f"{n}.jpg",
    )
    manifest, report = read_csv(file, assume_yes=True)
    assert set(manifest.extra_heads) == {"race"}
    assert manifest.groupby("subject")["split"].nunique().max() == 1
    assert [column for column, *_ in report.columns][:3] == [
        "image",
        "gender",
        "id_num",
    ]


# -- few integers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "classes"),
    [
        ((0, 1, 2, 3), "0123"),
        ((0, 1, 3), "0123"),
        ((1, 2, 3), "123"),
        ((0, 3), "0123"),
        ((1, 5), "12345"),
    ],
)
def test_a_missing_id_changes_nothing(tmp_path, ids, classes):
    file = people(tmp_path, "person", race=lambda n: str(ids[n % len(ids)]))
    manifest, _ = read_csv(file)
    head = manifest.extra_heads["race"]
    assert head == {"kind": "categorical", "classes": list(classes)}
    assert set(manifest["race"]) == {classes.index(str(i)) for i in ids}


@pytest.mark.parametrize("numbers", [(150, 151, 160), (0, 100), (1990, 1991)])
def test_other_whole_numbers_are_amounts(tmp_path, numbers):
    file = people(tmp_path, "person", x=lambda n: str(numbers[n % len(numbers)]))
    assert read_csv(file)[0].extra_heads["x"]["kind"] == "regression"
