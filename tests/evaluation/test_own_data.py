"""Own data: one command prepares it like the model's and matches classes by name."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sample_data import (
    EXTRA_HEADS,
    make_prepared,
    train_on_whole_images,
    write_labels,
    write_picture,
)

import keras_agegender as kag
from keras_agegender.cli import main as cli
from keras_agegender.evaluation.own_data import (
    EvaluatedModel,
    match_labels,
    open_model,
    predict_photos,
)
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.files import write_checksums
from keras_agegender.labels import get_age_groups
from keras_agegender.serving.model_format import InferenceModel


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on whole images, with three extra heads."""
    return train_on_whole_images(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def labels(tmp_path):
    return write_labels(tmp_path)


def files_of(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def outputs_of(file):
    table = pd.read_csv(file).sort_values("subject")
    names = [c for c in table if c.startswith("output_")]
    return table[[*names, "colour_id", "predicted_colour_id"]].to_numpy()


def test_label_files_are_prepared_and_scored(run, labels):
    """The same images give the same outputs, scores and class ids as in the run."""
    before = files_of(run.path)
    scores = kag.evaluate(run, labels, progress=False)
    assert scores.folder == labels.parent / "labels_run"
    assert files_of(run.path) == before
    own = json.loads((run.path / "metrics.json").read_text("utf-8"))
    assert scores.num_faces == own["num_faces"] == 8
    for name in ("gender", "age"):
        assert getattr(scores, name).confusion == own[name]["confusion"]
    assert scores.extra["colour"] == own["extra"]["colour"]
    np.testing.assert_array_equal(
        outputs_of(scores.folder / "predictions.csv"),
        outputs_of(run.path / "predictions.csv"),
    )
    assert scores.notes == []


def test_unchanged_data_is_not_prepared_again(run, labels):
    folder = kag.evaluate(run, labels, progress=False).folder
    first = files_of(folder / "prepared")
    kag.evaluate(run, labels, progress=False)
    assert files_of(folder / "prepared") == first
    text = labels.read_text("utf-8").replace("female", "male")
    labels.write_text(text, "utf-8")
    scores = kag.evaluate(run, labels, progress=False)
    assert scores.gender.confusion[0] == [0, 0]


def test_results_go_to_out(run, labels, tmp_path):
    scores = kag.evaluate(run, labels, out=tmp_path / "here", progress=False)
    assert scores.folder == tmp_path / "here"
    assert (tmp_path / "here" / "predictions.csv").is_file()
    assert not (labels.parent / "labels_run").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="contains no evaluation"):
        kag.evaluate(run, labels, out=tmp_path / "other")
    with pytest.raises(ValueError, match="the model's own folder"):
        kag.evaluate(run, labels, out=run.path)


def test_a_release_is_not_changed(run, tmp_path):
    release = tmp_path / "release"
    shutil.copytree(run.path, release)
    write_checksums(release)
    data = make_prepared(
        tmp_path, extra_heads=EXTRA_HEADS, crop_options=None, detector=None, count=30
    )
    before = files_of(release)
    scores = kag.evaluate(release, data)
    assert scores.folder == tmp_path / "prepared_release"
    assert files_of(release) == before
    assert not kag.verify(release).differences


def test_a_dataset_prepared_differently_is_prepared_again(run, tmp_path):
    data = make_prepared(
        tmp_path, extra_heads=EXTRA_HEADS, crop_options=None, detector=None,
        output_size=(56, 56),
    )  # fmt: skip
    scores = kag.evaluate(run, data, progress=False)
    assert scores.folder == tmp_path / "prepared_run" and scores.num_faces == 8
    found = kag.load_prepared(scores.folder / "prepared").pixels
    assert found == run.pixels().stored()
    scores = kag.evaluate(run, data, split="fold_3+fold_4[:2]", progress=False)
    assert scores.num_faces == 10


def test_a_model_of_whole_images_takes_no_crops(run, tmp_path):
    data = make_prepared(tmp_path, extra_heads=EXTRA_HEADS)
    with pytest.raises(ValueError, match="takes whole images.*contains face crops"):
        kag.evaluate(run, data)


def test_a_model_file_without_a_run(run, labels, tmp_path):
    """Without a record, it takes whole images of 256 pixels."""
    file = tmp_path / "elsewhere" / "model.keras"
    file.parent.mkdir()
    shutil.copy(run.best_model, file)
    scores = kag.evaluate(file, labels, progress=False)
    assert scores.folder.name == "labels_model" and scores.num_faces == 8
    assert scores.model is None and scores.num_seen_in_training is None
    assert open_model(run.last_model).checkpoint == "last"


def test_the_commands(run, labels, capsys):
    """A user scores a model on a CSV file, with age groups of their own."""
    command = ["evaluate", run.path, "--data", labels, "--by", "colour"]
    assert cli.main([str(a) for a in command]) == 0
    out = capsys.readouterr().out
    assert "over 8 labeled faces" in out and f"Results: {labels.parent}" in out
    assert "RED" in out
    target = labels.parent / "like"
    command = ["prepare", "csv", labels, "--like", run.path, "--out", target]
    assert (
        cli.main([str(a) for a in (*command, "--test", "0.3", "--validation", "0.3")])
        == 0
    )
    assert kag.load_prepared(target).pixels == run.pixels().stored()
    assert cli.main([str(a) for a in (*command, "--margin", "0.1")]) == 1
    assert "Invalid --margin. --like" in capsys.readouterr().err
    assert cli.main(["evaluate", str(run.path), "--data", "gone.csv"]) == 1
    assert "File or folder not found: gone.csv" in capsys.readouterr().err


def test_the_report_of_own_data(run, labels, tmp_path, capsys):
    """The folder of results is enough: it names the model and the images."""
    scores = kag.evaluate(run, labels, progress=False)
    assert cli.main(["report", str(scores.folder)]) == 0
    file = scores.folder / "report" / "report.html"
    assert f"Report: {file}" in capsys.readouterr().out
    page = file.read_text("utf-8")
    assert "data:image/jpeg" in page and "TOO FEW" not in page
    assert "Too few faces or people" in page
    shutil.copy(run.best_model, tmp_path / "model.keras")
    scores = kag.evaluate(tmp_path / "model.keras", labels, progress=False)
    page = kag.write_report(scores.folder, pictures=False).read_text("utf-8")
    assert "data:image/jpeg" not in page and "model.keras" in page
    with pytest.raises(ValueError, match="Expected 0 for a model without a run"):
        kag.write_report(scores.folder, explain=1)


def data_of(classes=(), age_groups=None):
    heads = {"race": {"kind": "categorical", "classes": list(classes)}}
    groups = get_age_groups(age_groups)
    return SimpleNamespace(info={"extra_heads": heads}, age_groups=groups)


def labels_of(**columns):
    count = len(next(iter(columns.values())))
    empty = np.full(count, -1)
    return {"key": np.arange(count), "age_group": empty, "gender": empty, **columns}


RACE = kag.Head("race", "categorical", classes=("white", "east asian", "other"))


def test_classes_are_matched_by_name():
    encoding = kag.get_encoding("categorical", heads=[RACE])
    data = data_of(["East_Asian", "Indian", "White"])
    labels = labels_of(race=np.array([0, 1, 2, -1, 1]))
    found, _, notes = match_labels(labels, data, encoding)
    assert found["race"].tolist() == [1, -1, 0, -1, -1]
    assert notes == ["race: Indian not among its classes: 2 faces ignored"]
    found, _, notes = match_labels(labels_of(gender=np.array([0, 1])), data, encoding)
    assert found["race"].tolist() == [-1, -1]
    assert notes == ["race: no such column in the data, not scored"]


def test_age_groups_are_matched_by_bounds():
    """Adience's 0-2, 4-6, 8-12 …: 0-1 lies in the first, 2-3 and 40-60 in none."""
    encoding = kag.get_encoding("categorical")
    data = data_of(age_groups="0-1,2-3,40-60,61-100")
    labels = labels_of(age_group=np.array([0, 1, 2, 3, -1]))
    found, same, notes = match_labels(labels, data, encoding)
    assert found["age_group"].tolist() == [0, -1, -1, 7, -1]
    assert same.age_groups == encoding.age_groups and "2 faces of no such" in notes[0]
    labels["age_years"] = np.array([1, 2, 50, 61, 9])
    found, _, _ = match_labels(labels, data, encoding)
    assert found["age_group"].tolist() == [0, 0, 6, 7, 2]
    years = kag.get_encoding("years")
    found, other, notes = match_labels(labels, data, years)
    assert other.age_groups == data.age_groups and not notes
    assert found["age_group"].tolist() == [0, 1, 2, 3, -1]


def test_a_file_that_finds_faces_predicts_the_chosen_one(tmp_path):
    """Of two faces the larger, or the one in the middle; dark photos have none."""
    boxes = np.array([[0, 0, 30, 30], [8, 8, 28, 28]], "float32")

    def predict(image):
        found = boxes if image.mean() > 50 else boxes[:0]
        return {"boxes": found, "gender": np.array([[0.2], [0.9]])[: len(found)]}

    photos = [
        str(write_picture(tmp_path / f"{value}.jpg", value, (36, 36)))
        for value in (128, 0, 140)
    ]
    inference = InferenceModel({"outputs": ["gender"]}, predict, takes_photos=True)
    for selection, expected in (("largest", 0.2), ("center", 0.9)):
        pixels = Preprocessing(crop=CropOptions(face_selection=selection))
        model = EvaluatedModel(
            tmp_path / "m.onnx", kag.get_encoding("categorical"), pixels,
            inference=inference,
        )  # fmt: skip
        outputs, found = predict_photos(model, photos)
        assert found.tolist() == [True, False, True]
        assert outputs["gender"].ravel().tolist() == [expected, expected]
    with pytest.raises(ValueError, match="found no face in 1 photo"):
        predict_photos(model, photos[1:2])


def test_released_models_have_names():
    model = open_model("utkface-compact")
    assert model.name == "utkface-compact" and model.takes_photos and model.is_release
