"""Label files of strangers: read with every row counted, or refused in words."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from fuzz_cases import cases, declared
from fuzz_tables import CELLS, encoded, mutated
from hypothesis import given, strategies as st
from sample_data import write_picture

from keras_agegender.datasets.readers.csv import read_csv

NAMES = st.sampled_from(
    [
        *("image", "file", "path", "age", "age_group", "age_years", "gender", "sex"),
        *("subject", "album", "split", "glasses", "race", "colour", "weight", "key"),
        *("fold", "source", "age1", "gender_age", "faces", "boxes", "a b", "", "é"),
        *("Image", "x\ufeff", "../x", "n" * 200, "=1+1", "index"),
    ]
)  # fmt: skip
PICTURES = [f"{number}.jpg" for number in range(6)]
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    for number, name in enumerate(PICTURES):
        write_picture(folder / name, value=80 + 10 * number)
    return folder


@st.composite
def tables(draw):
    """Returns column names and rows; in most of them the pictures are there."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5))
    sane = draw(st.booleans())
    if sane:
        names = ["image", *[n for n in dict.fromkeys(names) if n.lower() != "image"]]
    rows = []
    for number in range(draw(st.integers(0, 6))):
        row = draw(st.lists(CELLS, min_size=len(names), max_size=len(names)))
        if sane and draw(st.integers(0, 5)):
            row[0] = PICTURES[number]
        rows.append(row)
    return names, rows


@cases()
@given(st.data())
def test_any_table_as_csv(folder, data):
    """Rows that are there are kept or reported, whatever stands in them."""
    names, rows = data.draw(tables())
    encoding = data.draw(st.sampled_from(ENCODINGS))
    stream = io.StringIO(newline="")
    writer = csv.writer(
        stream,
        delimiter=data.draw(st.sampled_from(",;\t|")),
        quoting=data.draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))),
        lineterminator=data.draw(st.sampled_from(("\n", "\r\n", "\r"))),
    )
    writer.writerows([names, *rows])
    file = folder / "labels.csv"
    file.write_bytes(encoded(stream.getvalue(), encoding))
    split = dict(zip(("validation", "test"), data.draw(SHARES), strict=True))
    with declared("csv table", ValueError):
        manifest, report = read_csv(file, **split)
        filled = [row for row in rows if any(cell.strip() for cell in row)]
        assert report.rows_read == len(filled)
        assert len(manifest) + sum(report.dropped.values()) == report.rows_read
        check_manifest(manifest)
        str(report)


SHARES = st.sampled_from([(0.0, 0.0), (0.1, 0.1), (0.5, 0.2)])


def check_manifest(manifest):
    assert manifest["key"].is_unique
    for name, head in manifest.extra_heads.items():
        values = manifest[name].to_numpy()
        if head["kind"] == "regression":
            assert not np.isinf(values).any()
        else:
            assert np.isfinite(values).all() and values.min() >= -1
    years = manifest.get("age_years")
    assert years is None or np.isfinite(years.to_numpy(dtype=float)).all()


VALID = (
    b"image,age,gender,subject,split,glasses,weight\n"
    b'0.jpg,27,f,a,train,1,0.5\n1.jpg,"(25, 32)",m,b,test,0,nan\n'
    b"2.jpg,60-100,f,c,validation,1,-3\n3.jpg,,,d,train,,1e3\n"
)


@cases()
@given(st.data())
def test_damaged_csv(folder, data):
    file = folder / "damaged.csv"
    file.write_bytes(mutated(data.draw, VALID))
    with declared("csv damaged", ValueError):
        manifest, report = read_csv(file)
        assert len(manifest) + sum(report.dropped.values()) == report.rows_read
        check_manifest(manifest)
