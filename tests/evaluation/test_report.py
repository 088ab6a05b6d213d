"""Reports: complete, true to metrics.json, and safe to open."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sample_data import EXTRA_HEADS, make_prepared

from keras_agegender.cli import main as cli
from keras_agegender.evaluation.evaluate import calibrate, evaluate
from keras_agegender.evaluation.report import write_report
from keras_agegender.files import write_json
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.train import train

SETTINGS = (
    "model.backbone=sample_data:small_backbone",
    "model.image_size=[32, 32]",
    "model.encoding=categorical",
    "model.question=",
    "data.pipeline=resnet",
    "data.batch_size=8",
    "training.epochs=1",
)
VOID = {"meta", "img", "br", "link", "hr", "input"}


def write_pixel(figure, path, **options):
    Image.new("RGB", (1, 1)).save(path)


class Page(HTMLParser):
    """Elements, tables by heading, and text of a page; every tag must be closed."""

    def __init__(self, file):
        super().__init__()
        self.open, self.images, self.links, self.tables = [], [], [], []
        self.text = ""
        self.feed(file.read_text("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [v for k, v in attributes if k in ("src", "href", "srcset")]
        if tag == "img":
            self.images.append(values)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += f"{data} "

    def table(self, heading):
        """Rows of cells' words, below the table whose first row begins so."""
        (found,) = [t for t in self.tables if t[0][0].strip() == heading]
        return [[cell.split() for cell in row] for row in found[1:]]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    heads = {"colour": {**EXTRA_HEADS["colour"], "classes": ["red", "<b>", "blue"]}}
    data = make_prepared(tmp_path_factory.mktemp("data"), extra_heads=heads)
    run = train(
        "quickstart",
        data,
        tmp_path_factory.mktemp("runs") / "run",
        overrides=SETTINGS,
        verbose=0,
    )
    calibrate(run, alpha=0.4)
    evaluate(run, by="colour")
    return run


@pytest.fixture
def run(evaluated, tmp_path, monkeypatch):
    """A copy to change; its figures are one pixel each, which is quick."""
    monkeypatch.setattr(Figure, "savefig", write_pixel)
    shutil.copytree(evaluated.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


@pytest.fixture(scope="module")
def page(evaluated, tmp_path_factory):
    """The page with everything in it."""
    file = tmp_path_factory.mktemp("page") / "all.html"
    assert write_report(evaluated, out=file, explain=2) == file
    return Page(file)


def metrics_of(run):
    return json.loads((run.path / "metrics.json").read_text("utf-8"))


def change_metrics(run, **changes):
    write_json(run.path / "metrics.json", metrics_of(run) | changes)


def three(value):
    return "–" if value is None else f"{value:.3f}"


def test_the_page_is_self_contained(page):
    assert len(page.images) > 10
    for image in page.images:
        assert image["alt"].strip()
        assert image["src"].startswith("data:image/")
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert "://" not in page.text


def test_names_are_escaped(page, run):
    text = write_report(run).read_text("utf-8")
    assert "<b>" not in text.replace('<b style="left:', "")
    assert "&lt;b&gt;" in text
    assert any(row[0][0] == "<b>" for row in page.table("colour"))


def test_groups_are_those_of_the_metrics_the_worst_first(page, evaluated):
    for columns, heading in (
        ("age_group,gender", "age group × gender"),
        ("colour", "colour"),
    ):
        groups = metrics_of(evaluated)["groups"][columns]["groups"]
        rows = page.table(heading)
        assert len(rows) == len(groups)
        for row, group in zip(rows, groups, strict=True):
            name = " ".join(str(group[c]) for c in columns.split(","))
            few = ["few"] if group["few"] else []
            assert row[0] == [*name.split(), *few]
            assert row[1] == [str(group["num_faces"])]
            assert row[2] == [str(group["num_subjects"])]
            assert row[3][0] == three(group["gender_accuracy"])
            assert row[4][0] == three(group["age_group_accuracy"])
            if group["gender_interval"]:
                low, high = map(three, group["gender_interval"])
                assert row[3][1:] == [low, "–", high]


def test_scores_are_next_to_the_majority_baseline(page, evaluated):
    metrics = metrics_of(evaluated)
    rows = page.table("task")
    gender, age = metrics["gender"], metrics["age"]
    answer = gender["majority"]["answer"]
    assert rows[0][:2] == [["gender"], ["accuracy"]]
    low, high = map(three, gender["intervals"]["accuracy"])
    assert rows[0][2:4] == [
        [three(gender["accuracy"]), low, "–", high],
        [three(gender["majority"]["accuracy"]), answer],
    ]
    first = next(place for place, row in enumerate(rows) if row[0] == ["age", "group"])
    found = {" ".join(row[1]): row[2][0] for row in rows[first:]}
    assert found["mean error in groups"] == three(age["mean_absolute_error"])
    assert found["quadratic kappa"] == three(age["quadratic_kappa"])
    assert found["−log likelihood"] == three(age["negative_log_likelihood"])
    (colour,) = [row for row in rows if row[0] == ["colour"]]
    extra = metrics["extra"]["colour"]
    assert colour[2:4] == [
        [three(extra["accuracy"])],
        [three(extra["majority_accuracy"])],
    ]


def test_the_order_of_sections(page):
    order = [
        "Who fares worse", "Scores", "Training", "Rows are true classes",
        "Reliability of probabilities", "Prediction sets are",
        "Most confident mistakes", "What the predictions depend on",
    ]  # fmt: skip
    places = [page.text.rindex(title) for title in order[:1] + order[2:]]
    assert places == sorted(places)
    for fact in ("Seed", "val_mean_accuracy", "epoch 1 of 1", "quickstart", "fold_4"):
        assert fact in page.text


def test_coverage_is_that_of_the_metrics(page, evaluated):
    found = metrics_of(evaluated)["calibration"]["sets"]
    tables = [t for t in page.tables if t[0][0].strip() == "faces of"]
    for table, sets in zip(tables, found.values(), strict=True):
        assert table[1][0].strip() == "all faces"
        assert table[1][2].strip() == three(sets["coverage"])
        assert len(table) == 2 + sum(g["num_faces"] > 0 for g in sets["groups"])


def test_plots_and_tables_are_written(run):
    file = write_report(run)
    folder = run.path / "report"
    assert file == folder / "report.html"
    names = {f.name for f in folder.iterdir()}
    assert {
        "curves_loss.png", "curves_accuracy.png", "confusion.png",
        "groups_colour_gender.png", "groups_age_group+gender_age_group.png",
        "reliability_gender.png", "reliability_age_group.png",
        "reliability_colour.png",
    } <= names  # fmt: skip
    groups = pd.read_csv(folder / "groups_colour.csv")
    first = metrics_of(run)["groups"]["colour"]["groups"][0]
    assert groups["gender_accuracy"][0] == pytest.approx(first["gender_accuracy"])
    confusion = pd.read_csv(folder / "confusion_age_group.csv", index_col=0)
    assert confusion.to_numpy().tolist() == metrics_of(run)["age"]["confusion"]
    bins = pd.read_csv(folder / "reliability.csv")
    gender = bins[bins["question"] == "gender"]
    assert gender["num_faces"].sum() == metrics_of(run)["gender"]["num_faces"]


def test_mistakes_and_keys_can_be_omitted(run):
    table = pd.read_csv(run.path / "predictions.csv", keep_default_na=False)
    shown = write_report(run).read_text("utf-8")
    mistakes = pd.read_csv(run.path / "report" / "mistakes.csv")
    hidden = write_report(run, pictures=False).read_text("utf-8")
    without = pd.read_csv(run.path / "report" / "mistakes.csv")
    pd.testing.assert_frame_equal(without, mistakes.drop(columns="key"))
    gender = mistakes[mistakes["question"] == "gender"]
    wrong = table[
        (table["gender"] != "") & (table["gender"] != table["predicted_gender"])
    ]
    assert set(gender["key"]) == set(wrong["key"]) and len(wrong)
    assert gender["probability"].is_monotonic_decreasing
    count = mistakes["key"].nunique()
    assert f"Images of {count} faces are in this file." in shown
    assert shown.count("data:image/jpeg") == len(mistakes)
    assert all(key in shown for key in mistakes["key"])
    assert "data:image/jpeg" not in hidden and "are in this file" not in hidden
    assert not any(key in hidden for key in table["key"])
    assert "omitted on request" in hidden
    assert "most confident of" in hidden


def test_faces_seen_in_training_are_mentioned_first(run):
    quiet = Page(write_report(run, pictures=False)).text
    assert "Not held out" not in quiet and "Cannot check" not in quiet
    change_metrics(run, num_seen_in_training=7, num_seen_in_validation=3)
    loud = Page(write_report(run, pictures=False)).text
    assert "Not held out: the model was trained on 7 of these 8 faces" in loud
    assert "selected on 3 of these 8" in loud
    assert loud.index("Not held out") < loud.index("Seed")
    change_metrics(run, num_seen_in_training=None)
    page = Page(write_report(run, pictures=False))
    assert "Cannot check whether" in page.text
    assert "may be the same" not in page.text
    change_metrics(run, possibly_seen_in=["validation"])
    page = Page(write_report(run, pictures=False))
    assert "The model was selected on a split of this name" in page.text


def test_predictions_changed_by_calibration_have_an_accuracy(run):
    assert "accuracy before" not in Page(write_report(run, pictures=False)).text
    found = metrics_of(run)["calibration"]
    accuracies = {"accuracy_before": 0.172, "accuracy": 0.312}
    found["answers"]["age_group"] |= {"may_change": True, **accuracies}
    found["warnings"] = ["calibration made ece worse: gender 0.1 -> 0.2"]
    change_metrics(run, calibration=found)
    page = Page(write_report(run, pictures=False))
    assert "Warning: calibration made ece worse: gender 0.1 -> 0.2." in page.text
    tables = page.tables
    (table,) = [t for t in tables if t[0][0].strip() == "calibration"]
    rows = {row[0].strip(): [cell.strip() for cell in row[-2:]] for row in table}
    assert rows["calibration"] == ["accuracy before", "after"]
    assert rows["age group"] == ["0.172", "0.312"]
    assert rows["gender"] == ["–", "–"]


def test_constant_predictions_are_mentioned_first(run):
    gender = metrics_of(run)["gender"]
    change_metrics(run, gender={**gender, "confusion": [[3, 1], [1, 3]]})
    assert "predicted as male" not in Page(write_report(run, pictures=False)).text
    change_metrics(run, gender={**gender, "confusion": [[0, 4], [0, 4]]})
    text = Page(write_report(run, pictures=False)).text
    assert text.index("Gender: (almost) every face is predicted as male") < text.index(
        "Seed"
    )


def test_missing_parts_are_omitted(run):
    (run.path / "history.csv").unlink()
    run.calibration_file.unlink()
    change_metrics(run, calibration=None, groups={}, extra={}, age=None)
    page = Page(write_report(run))
    for title in ("Training", "Prediction sets", "age group accuracy"):
        assert title not in page.text
    assert "No groups were scored" in page.text
    assert "The run was not calibrated" in page.text


def test_without_the_dataset_images_are_omitted(run):
    run.update_info(data="nowhere")
    page = Page(write_report(run))
    assert "No images of faces are available: " in page.text
    assert not any(i["src"].startswith("data:image/jpeg") for i in page.images)


def test_other_splits_have_their_own_folders(run):
    with pytest.raises(ValueError, match="no metrics_fold_3.json.*not evaluated on"):
        write_report(run, split="validation")
    evaluate(run, split="validation")
    file = write_report(run, split="validation")
    assert file == run.path / "report_fold_3" / "report.html"
    assert "selected on 8 of these 8 faces" in Page(file).text


def test_errors(run, tmp_path):
    with pytest.raises(ValueError, match=r"pictures.*explain=2, pictures=False"):
        write_report(run, pictures=False, explain=2)
    table = pd.read_csv(run.path / "predictions.csv")
    table.drop(columns="gender_id").to_csv(run.path / "predictions.csv", index=False)
    with pytest.raises(ValueError, match="'gender_id'.*agegender evaluate"):
        write_report(run)


def test_the_command(run, capsys, tmp_path):
    out = tmp_path / "new" / "folder" / "page.html"
    assert cli.main(["report", str(run.path), "--out", str(out), "--no-pictures"]) == 0
    assert capsys.readouterr().out == f"Report: {out}\n"
    assert "Who fares worse" in Page(out).text
    (run.path / "predictions.csv").unlink()
    assert cli.main(["report", str(run.path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Run `agegender evaluate" in line


def test_the_requested_number_of_maps(page):
    maps = [i for i in page.images if i["alt"].startswith("Occlusion map")]
    assert len(maps) == 2
    assert np.unique([i["src"] for i in maps]).size == 2
