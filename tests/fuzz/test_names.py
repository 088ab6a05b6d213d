"""Names of strangers' files: bytes that are no text, line ends, very long ones."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest
from fuzz_cases import cases, declared
from hypothesis import given, strategies as st
from sample_data import write_picture

from keras_agegender.datasets.prepare import manifest_hash
from keras_agegender.datasets.readers.file_names import read_utkface
from keras_agegender.files import is_file_name
from keras_agegender.serving.pipeline import find_sources
from keras_agegender.serving.predictions import PredictionFile

# Whatever Linux allows as a name: bytes but "/" and NUL, as Python spells them.
PARTS = st.binary(max_size=30).map(
    lambda part: os.fsdecode(part.replace(b"/", b"").replace(b"\0", b""))
)
ODD = [
    "a\nb",
    "a\rb",
    "ü",
    os.fsdecode(b"\xff\xfe"),
    "a,b",
    'a"b',
    "\x1b[31m",
    "x" * 200,
]
METADATA = {"extra_heads": [], "age_groups": []}


@pytest.fixture
def picture(tmp_path):
    return write_picture(tmp_path / "picture.jpg")


def answer(name):
    return {"source": name, "status": "unreadable", "reason": "no", "faces": []}


def predicted(folder, form):
    """Writes an answer about each photo; returns the names that are read back."""
    sources = list(find_sources(folder))
    out = folder.parent / f"answers.{form}"
    with PredictionFile(out, sources, {}, print) as answers:
        for source in sources:
            answers.add(answer(source.name))
        again = [found["source"] for found in answers.predictions()]
        answers.finish(form, METADATA)
    assert again == [source.name for source in sources]
    text = out.read_bytes().decode()
    if form == "json":
        assert [json.loads(x)["source"] for x in text.split("\n")[:-1]] == again
    else:
        assert len(list(csv.DictReader(io.StringIO(text, newline="")))) == len(again)
    return again


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize("name", ODD)
def test_answers_about_odd_names(tmp_path, picture, form, name):
    folder = tmp_path / "photos"
    folder.mkdir()
    os.link(picture, folder / f"{name}.jpg")
    assert predicted(folder, form) == [str(folder / f"{name}.jpg")]


@pytest.mark.parametrize("name", ODD)
def test_datasets_of_odd_names(tmp_path, picture, name):
    """A name that is no text is reported; it cannot be a key of a dataset."""
    (tmp_path / "faces").mkdir()
    os.link(picture, tmp_path / "faces" / "27_0_1_1.jpg")
    odd = tmp_path / "faces" / f"28_1_2_2.{name}.jpg"
    odd.write_bytes(write_picture(tmp_path / "other.jpg", value=90).read_bytes())
    manifest, report = read_utkface(tmp_path / "faces", validation=0, test=0)
    assert len(manifest) + sum(report.dropped.values()) == report.rows_read == 2
    assert manifest_hash(manifest) and report.items_text().encode()
    is_text = "\udcff" not in name
    assert len(manifest) == 1 + is_text
    assert report.dropped["name is not UTF-8"] == (not is_text)


@cases(0.5)
@given(names=st.lists(PARTS, min_size=1, max_size=4, unique=True))
def test_any_names(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    folder = root / "27_0_1_1."
    folder.mkdir()
    source = write_picture(root / "picture.jpg")
    made = 0
    for name in names:
        os.link(source, os.path.join(folder, f"27_0_1_{len(name)}.{name}.jpg"))
        made += 1
    with declared("names", ValueError, OSError):
        assert len(predicted(folder, "json")) == made
        predicted(folder, "csv")
        manifest, report = read_utkface(folder, validation=0, test=0)
        assert report.rows_read == made
        assert len(manifest) + sum(report.dropped.values()) == made
        manifest_hash(manifest)
        str(report)


@cases()
@given(st.text(max_size=120))
def test_what_may_be_part_of_a_path_leads_nowhere(name):
    with declared("file names", ValueError):
        if is_file_name(name):
            assert os.path.basename(name) == name and name not in ("", ".", "..")
            assert "\0" not in name and "\n" not in name
