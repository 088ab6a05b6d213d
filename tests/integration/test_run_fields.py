"""docs/reference/run_directory.md names every field of the files of a run."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from sample_data import EXTRA_HEADS, make_prepared

from keras_agegender.datasets.manifest import CleaningReport
from keras_agegender.encodings.head import Head
from keras_agegender.evaluation.evaluate import calibrate, evaluate
from keras_agegender.evaluation.report import write_report
from keras_agegender.training.train import train

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "run_directory.md"
SETTINGS = (
    "model.backbone=sample_data:small_backbone",
    "model.encoding=categorical",
    "model.image_size=[32, 32]",
    "data.pipeline=resnet",
    "data.batch_size=8",
    "training.epochs=1",
)
# Names of the data's own, not of the library's.
DATA = {"colour", "glasses", "weight", "age", "female", "male", "age_group,gender"}


def _keys(value):
    if isinstance(value, list):
        return set().union(*map(_keys, value))
    if not isinstance(value, dict):
        return set()
    return {*value}.union(*map(_keys, value.values()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    prepared = make_prepared(folder / "data", extra_heads=EXTRA_HEADS)
    run = train("quickstart", prepared, folder / "run", overrides=SETTINGS, verbose=0)
    calibrate(run)
    evaluate(run, by=["colour"])
    write_report(run, pictures=False)
    return run


@pytest.fixture(scope="module")
def named():
    return set(re.findall(r"`([^`]+)`", PAGE.read_text("utf-8")))


def test_every_file_is_named(run, named):
    files = {path.name for path in run.path.iterdir()}
    assert files - named == set()


@pytest.mark.parametrize("file", ["metrics.json", "calibration.json"])
def test_every_field_is_named(run, named, file):
    fields = _keys(json.loads((run.path / file).read_text("utf-8"))) - DATA
    questions = "|".join(["gender", "age_group", *EXTRA_HEADS])
    asked = re.compile(f"({questions})_(accuracy|interval|set)")
    assert {f for f in fields - named if not asked.fullmatch(f)} == set()


def test_every_key_of_the_run_is_named(run, named):
    info = run.info()
    assert set(info) - named == set()
    inner = {*info["preparation"], *CleaningReport("x").counts(), *info["encoding"]}
    inner |= {field.name for field in fields(Head)}
    assert inner - named == set()


def test_every_column_of_the_report_is_named(run, named):
    asked = re.compile(
        r"(gender|age_group|colour|glasses|minors|minors_14_17|adults_18_30)_(accuracy|low|high)"
    )
    files = {file.name for file in (run.path / "report").glob("*.csv")}
    assert {"scores.csv", "reliability.csv", "mistakes.csv", "coverage.csv",
            "groups_colour.csv", "confusion_gender.csv"} <= files  # fmt: skip
    for name in files:
        if not name.startswith("confusion"):
            columns = {*pd.read_csv(run.path / "report" / name, nrows=0)} - named
            assert {c for c in columns if not asked.fullmatch(c)} == set(), name


def test_every_column_is_named(run, named):
    with (run.path / "predictions.csv").open(encoding="utf-8") as stream:
        columns = set(next(csv.reader(stream))) - DATA
    own = re.compile(r"predicted_(colour|glasses|weight)(_id)?|output_.+|colour_id")
    assert {c for c in columns - named if not own.fullmatch(c)} == set()
