"""Adience's fold files of strangers: every line is counted, or one is named."""

from __future__ import annotations

import re

import pytest
from fuzz_cases import cases, declared
from fuzz_tables import CELLS, encoded, mutated
from hypothesis import given, strategies as st
from sample_data import adience_row, write_adience

from keras_agegender.datasets.readers.adience import COLUMNS, read_adience
from keras_agegender.labels import AGE_GROUPS

ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis", "utf-7")
# What a row may really say, what it may say by mistake, and whatever else.
AGES = st.sampled_from(
    [
        *("(0, 2)", "(25, 32)", "(25, 32)", "(60, 100)", "(38, 43)", "35"),
        *("(25, 23)", "(38, 42)", "None"),
    ]
)
FIELDS = st.one_of(
    AGES,
    CELLS,
    st.sampled_from(
        [
            *("m", "f", "u", "", "nan", "(32, 25)", "(8, 23)", "(25,32)", "( 25, 32)"),
            *("1" * 400, "9" * 5000, "-1e308", "1e999", "NaN", "inf", "0x1F", "1_000"),
            *("..", ".", "a/b", "a\\b", "x" * 300 + ".jpg", "\x7f", "a{0}", "%s", "~"),
            *('"(25, 32)"', "a\u2028b", "a\x85b", "a\x1cb", "a\nb"),
            *("a\rb", "a\tb", "\ufeff"),
        ]
    ),
)  # fmt: skip
SANE = {
    "age": AGES,
    "gender": st.sampled_from("mffmu"),
    "tilt_ang": FIELDS.filter(lambda text: not set(text) & set("\t\n\r")),
}
# What is wrong with a file, most often nothing; its encoding is drawn for all.
FAULTS = st.sampled_from([*("",) * 6, "columns", "row", "cell", "separator", "end"])


@pytest.fixture(scope="module")
def adience(tmp_path_factory):
    rows = {fold: [adience_row(n, fold) for n in range(3)] for fold in range(5)}
    folder = write_adience(tmp_path_factory.mktemp("adience") / "labels", rows)
    files = sorted(folder.glob("fold_*_data.txt"))
    return folder, [(file, file.read_bytes()) for file in files]


@st.composite
def wrong_columns(draw):
    """Returns names of columns that are not the right ones."""
    names = list(COLUMNS)
    way = draw(st.sampled_from(["drop", "add", "twice", "order", "case"]))
    place = draw(st.integers(0, len(names) - 1))
    if way == "drop":
        del names[place]
    elif way == "add":
        names.insert(place, draw(FIELDS))
    elif way == "twice":
        names.insert(place, names[place])
    elif way == "order":
        names = draw(st.permutations(names))
    elif way == "case":
        names[place] = f"{names[place].upper()} "
    return names


@st.composite
def cells_of(draw, fold, fault):
    """Returns the cells of a row."""
    row = adience_row(draw(st.integers(0, 2)), fold)
    changed = dict.fromkeys(COLUMNS, FIELDS) if fault == "cell" else SANE
    for column in draw(st.lists(st.sampled_from(sorted(changed)), max_size=4)):
        row[column] = draw(changed[column])
    cells = list(row.values())
    if fault != "row":
        return cells
    way = draw(st.sampled_from(["right", "short", "long", "blank"]))
    if way == "short":
        return cells[: draw(st.integers(0, len(cells) - 1))]
    if way == "long":
        return cells + draw(st.lists(FIELDS, min_size=1, max_size=3))
    return draw(st.sampled_from([[""], [" "], [""] * 12])) if way == "blank" else cells


@st.composite
def fold_files(draw, fold):
    """Returns a fold file as text."""
    fault = draw(FAULTS)
    columns = draw(wrong_columns()) if fault == "columns" else COLUMNS
    rows = [columns, *draw(st.lists(cells_of(fold, fault), max_size=5))]
    separator = draw(st.sampled_from(",; ")) if fault == "separator" else "\t"
    ends = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = ends.join(separator.join(row) for row in rows)
    if fault == "end":
        return text + draw(st.sampled_from([ends * 2, "\x00", "\x1a", "\t", "\ufeff"]))
    return text + draw(st.sampled_from([ends, ""]))


def data_lines(content):
    """Returns how many lines a file of bytes has behind its header."""
    found = re.split("\r\n|\r|\n", content.decode("utf-8-sig"))
    return len(found) - (found[-1] == "") - 1


def check(folder, files, **options):
    with declared("fold file", ValueError):
        try:
            manifest, report = read_adience(folder, folder, **options)
        except ValueError as error:
            text = str(error)
            assert str(folder) in text or "two folds" in text or "split" in text, text
            assert "\n" not in text, text
            raise
        expected = sum(data_lines(file.read_bytes()) for file, _ in files)
        assert report.rows_read == expected
        assert len(manifest) + sum(report.dropped.values()) == expected
        assert manifest["key"].is_unique
        assert manifest["age_group"].between(-1, len(AGE_GROUPS) - 1).all()
        assert manifest["gender"].isin([-1, 0, 1]).all()
        assert str(report)


OPTIONS = st.fixed_dictionaries(
    {
        "require_labels": st.sampled_from(("both", "any")),
        "strict": st.booleans(),
        "shared_subjects": st.booleans(),
    }
)


@cases()
@given(st.data())
def test_any_fold_file(adience, data):
    """One to all of the five are written anew."""
    folder, files = adience
    anew = data.draw(st.integers(1, 2) | st.just(5))
    usual = data.draw(st.integers(0, 3))
    encoding = data.draw(
        st.sampled_from(("utf-8", "utf-8-sig") if usual else ENCODINGS)
    )
    for number, (file, before) in enumerate(files):
        text = data.draw(fold_files(number)) if number < anew else None
        file.write_bytes(before if text is None else encoded(text, encoding))
    check(folder, files, **data.draw(OPTIONS))


@cases()
@given(st.data())
def test_damaged_fold_file(adience, data):
    folder, files = adience
    for number, (file, before) in enumerate(files):
        file.write_bytes(before if number else mutated(data.draw, before))
    check(folder, files, **data.draw(OPTIONS))
