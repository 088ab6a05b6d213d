"""Ids, dates and file names do not become outputs by themselves."""

from __future__ import annotations

import uuid

import pytest
from sample_data import write_picture

from keras_agegender.datasets.readers.csv import identifier_reason, read_csv

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
            (told,) = [t for t in report.totals if t.startswith(f"column {name!r} not")]
            assert f"it looks like {reason}" in told and "--extra" in told
            assert report.totals[told] == 40
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
    manifest, report = read_csv(file)
    assert set(manifest.extra_heads) == set(ATTRIBUTES) - {"zip"}
    (told,) = [t for t in report.totals if t.startswith("column 'user_id' not")]
    assert "15 different values in 30 rows" in told
    assert "--subject-column user_id keeps one person in one split" in told
    named, _ = read_csv(file, extra=["user_id"])
    assert list(named.extra_heads) == ["user_id"]


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


def test_a_subject_column_is_no_hint_where_nothing_repeats():
    assert "--subject" not in identifier_reason("user_id", [f"u{n}" for n in range(30)])
    assert "--subject" not in identifier_reason("zip", ["10115", "10117", "10119"] * 9)


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
