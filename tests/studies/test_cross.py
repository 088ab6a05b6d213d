"""The cross-dataset table: one command, one row per dataset, three formats."""

from __future__ import annotations

from html.parser import HTMLParser

import pandas as pd
import pytest
from sample_data import train_on_whole_images, write_labels

import keras_agegender as kag
from keras_agegender.cli import main as cli


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_on_whole_images(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two label files of the same name, of folds 4 and 3."""
    folder = tmp_path_factory.mktemp("data")
    files = []
    for name, fold in (("one", 4), ("two", 3)):
        (folder / name).mkdir()
        files.append(write_labels(folder / name, fold))
    return files


def test_the_command_writes_one_table(run, data, capsys, tmp_path):
    """A row per dataset; one that cannot be read is a row with its error."""
    command = ["evaluate", run.path, "--out", tmp_path / "cross"]
    for file in (*data, "gone.csv"):
        command += ["--data", file]
    assert cli.main([str(part) for part in command]) == 1
    out = capsys.readouterr().out
    assert "run on 3 datasets" in out
    assert "gone: failed: File or folder not found: gone.csv" in out
    table = pd.read_csv(tmp_path / "cross" / "cross.csv")
    assert table["dataset"].tolist() == ["labels", "labels_2", "gone"]
    assert table["num_faces"].tolist()[:2] == [8, 8]
    own = kag.evaluate(run, data[0], out=tmp_path / "one", progress=False)
    low, high = own.gender.intervals["accuracy"]
    first = table.iloc[0]
    assert first["gender_accuracy"] == own.gender.accuracy
    assert (first["gender_accuracy_low"], first["gender_accuracy_high"]) == (low, high)
    assert first["age_loss"] == own.age.negative_log_likelihood
    assert (tmp_path / "cross" / "labels_2" / "predictions.csv").is_file()
    assert "8 faces seen in validation" in table["remarks"][1]
    latex = (tmp_path / "cross" / "cross.tex").read_text("utf-8")
    assert latex.count("\\begin{tabular}") == 2 and "labels\\_2" in latex
    page = (tmp_path / "cross" / "cross.html").read_text("utf-8")
    HTMLParser().feed(page)
    assert page.count("<tr>") == 4 and f"{own.gender.accuracy:.3f} [{low:.3f}" in page


def test_tables_go_into_the_run_and_options_to_their_readers(run, data):
    found = kag.studies.evaluate_across(
        run, data[:1], age_groups="adience", progress=False, report=lambda text: None
    )
    assert found.folder == run.path / "cross" and found.num_failed == 0
    with pytest.raises(ValueError, match="Received: strict"):
        kag.studies.evaluate_across(run, data, strict=True)
