"""predictions.csv: subjects, labels and predictions, by name and by id."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sample_data import EXTRA_HEADS, make_rows

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.evaluate import check_groupings, read_face_metadata
from keras_agegender.evaluation.predictions import (
    prediction_table,
    read_predictions,
    write_predictions,
)


def test_tables_have_names_and_ids(tmp_path):
    colour = Head("shade", "categorical", column="colour", classes=("red", "green"))
    encoding = get_encoding("categorical", heads=[colour])
    outputs = {
        "gender": np.array([[0.9], [0.2]]),
        "age": np.eye(8)[[4, 0]],
        "shade": np.array([[0.4, 0.6], [1.0, 0.0]]),
    }
    labels = {
        "key": np.array(["1.jpg", "2.jpg"]),
        "age_group": np.array([4, -1]),
        "gender": np.array([0, 1]),
    }
    described = {"subject": np.array(["7", ""])}
    table = prediction_table(outputs, labels, encoding, described)
    write_predictions(tmp_path / "p.csv", table)
    read = read_predictions(tmp_path / "p.csv")
    expected = {
        "subject": ["7", ""],
        "age_group": ["25-32", ""],
        "age_group_id": [4, -1],
        "predicted_age_group": ["25-32", "0-2"],
        "predicted_age_group_id": [4, 0],
        "gender": ["female", "male"],
        "gender_id": [0, 1],
        "predicted_gender": ["male", "female"],
        "predicted_gender_id": [1, 0],
        "predicted_shade": ["green", "red"],
        "predicted_shade_id": [1, 0],
        "output_age[4]": [1.0, 0.0],
    }
    assert {name: read[name].tolist() for name in expected} == expected
    assert read.index.tolist() == ["1.jpg", "2.jpg"]


def test_unknown_numbers_are_empty_cells(tmp_path):
    table = pd.DataFrame(
        {
            "key": ["1", "2"], "age_group": ["25-32", ""], "gender": "male",
            "age_group_id": [4, -1], "fold": [3, -1], "age_years": [27.5, -1.0],
        }
    )  # fmt: skip
    write_predictions(tmp_path / "new.csv", table)
    lines = (tmp_path / "new.csv").read_text("utf-8").splitlines()
    assert lines[1:] == ["1,25-32,male,4,3,27.5", "2,,male,-1,,"]
    table.to_csv(tmp_path / "old.csv", index=False)
    for name in ("new", "old"):
        read = read_predictions(tmp_path / f"{name}.csv")
        assert read["fold"].tolist() == [3, -1] and read["fold"].dtype == "int64"
        assert read["age_years"].tolist() == [27.5, -1.0]
    assert table["fold"].tolist() == [3, -1]  # nothing of the caller's changes
    named = table.assign(fold=["a", ""], age_years=-1.0)
    write_predictions(tmp_path / "named.csv", named)
    read = read_predictions(tmp_path / "named.csv")
    assert read["fold"].tolist() == ["a", ""]
    assert read["age_years"].tolist() == [-1, -1]


def test_metadata_of_a_dataset(tmp_path):
    """Rows 0 and 5 are in fold 0: colours 0 and 2 of red, green, blue."""
    rows = [{**row, "album": f"{row['fold']:03d}"} for row in make_rows(tmp_path, 10)]
    prepare(make_manifest(rows, EXTRA_HEADS), tmp_path / "data", progress=False)
    prepared = load_prepared(tmp_path / "data")
    found = read_face_metadata(prepared, "fold_0")
    assert found["subject"].tolist() == ["s0", "s5"]
    assert found["album"].tolist() == ["000", "000"]
    assert found["fold"].tolist() == [0, 0]
    assert found["colour"].tolist() == ["red", "blue"]
    assert found["colour_id"].tolist() == [0, 2]
    assert found["weight"].tolist() == [0.0, 2.5]
    assert "face_score" not in found and "age_group" not in found


@pytest.mark.parametrize(
    ("by", "message"),
    [("color", "Did you mean 'colour'"), ("colour,sex", "'sex' in 'colour,sex'"),
     ("predicted_gender", None), ("colour,gender", None), ("colour_id", None),
     ("predicted_years", "Received: 'predicted_years'"),
     ("subject", "at most 100 groups. Received: 101")],
)  # fmt: skip
def test_groupings_are_checked_before_predicting(by, message):
    descriptions = {
        "subject": np.array([f"s{k}" for k in range(101)]),
        "colour": np.full(101, "red"),
        "colour_id": np.zeros(101, int),
    }
    encoding = get_encoding("categorical")
    if message is None:
        check_groupings(by, descriptions, encoding)
        return
    with pytest.raises(ValueError, match=message):
        check_groupings(by, descriptions, encoding)
