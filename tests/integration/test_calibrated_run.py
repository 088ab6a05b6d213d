"""A calibrated run: what is fitted reaches scores, the SavedModel and the answers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from sample_data import MiddleDetector, make_prepared, picture

from keras_agegender.cli import main as cli
from keras_agegender.encodings.calibration import Calibration
from keras_agegender.evaluation.evaluate import calibrate, evaluate
from keras_agegender.files import file_hash, write_json
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.bundle import build_export_bundle
from keras_agegender.serving.export import export
from keras_agegender.serving.formats import model_identity
from keras_agegender.serving.predictor import Predictor
from keras_agegender.training.experiment import make_experiment
from keras_agegender.training.resume import open_run
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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = make_prepared(tmp_path_factory.mktemp("data"))
    directory = tmp_path_factory.mktemp("runs") / "run"
    run = train("quickstart", data, directory, overrides=SETTINGS, verbose=0)
    assert run.calibration() is None  # nobody asked for one
    assert evaluate(run).calibration is None
    calibrate(run, alpha=0.4)
    return run


def test_calibrating_writes_what_it_returns(run):
    found = run.calibration()
    info = run.info()
    assert set(found.temperatures) == {"gender", "age"}
    assert found.alpha == 0.4 and found.by is None
    assert found.num_faces["age_group_set"] == (8,)  # fold 3: the validation faces
    assert found.fitted_on == {
        "split": info["splits"]["validation"],
        "data_sha256": info["data_sha256"],
        "model_sha256": file_hash(run.best_model),
    }
    written = json.loads(run.calibration_file.read_text("utf-8"))
    assert Calibration.from_dict(written) == found


def test_scores_use_calibrated_predictions(run):
    scores = evaluate(run)
    metrics = json.loads((run.path / "metrics.json").read_text("utf-8"))
    assert metrics["calibration"] == scores.calibration
    age = scores.calibration["answers"]["age_group"]
    assert age["accuracy"] == pytest.approx(scores.age.accuracy)
    assert scores.calibration["sets"]["age_group"]["num_faces"] == 8
    last = evaluate(run, checkpoint="last")
    assert last.calibration is None  # it belongs to the best model


def test_exports_and_predictions_are_calibrated(run, tmp_path):
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    # Far from 1, and sets of more than one.
    calibration = Calibration(
        {"gender": 3.0, "age": 0.5},
        {"age_group": (0.3,), "gender": (1.0,)},
        fitted_on={"model_sha256": file_hash(run.best_model)},
    )
    write_json(copy.calibration_file, calibration.to_dict())
    terms = {"license": "for research", "limits": "No babies. No cats."}
    write_json(copy.terms_file, terms)
    with pytest.warns(UserWarning, match="no signature `photo`"):
        path = export(copy.best_model, tmp_path / "model")
    metadata = json.loads((path / "agegender.json").read_text("utf-8"))
    assert {name: metadata[name] for name in terms} == terms  # they travel too
    assert Calibration.from_dict(metadata["calibration"]) == calibration
    # The file and its run are one model everywhere; `last` lacks what is of the best.
    of_run = build_export_bundle(copy).metadata
    of_last = build_export_bundle(copy.last_model).metadata
    assert {**metadata, "created": ""} == {**of_run, "created": ""}
    for name in ("pixels", "encoding", "recipe", "training", *terms):
        assert of_last[name] == of_run[name]
    assert of_last["calibration"] is None and of_last["metrics"] is None
    assert model_identity(copy.best_model) == model_identity(copy.path)
    assert model_identity(copy.last_model) != model_identity(copy.path)

    faces = tf.random.stateless_uniform((4, 32, 32, 3), (1, 2))
    answers = tf.saved_model.load(str(path)).signatures["inputs"](inputs=faces)
    encoding = run.encoding()
    raw = run.load_model().predict(faces, verbose=0)
    expected = calibration.apply(raw, encoding)
    for name in encoding.output_names:
        np.testing.assert_allclose(answers[name], expected[name], atol=1e-5)
    assert np.abs(answers["age"] - raw["age"]).max() > 1e-3
    decoded = encoding.decode(expected)
    np.testing.assert_allclose(
        answers["age_group_probabilities"], decoded.age_probabilities, atol=1e-5
    )
    sets = calibration.sets(decoded)
    np.testing.assert_array_equal(answers["age_group_set"], sets.age_group)
    assert answers["gender_set"].numpy().all()

    (face,) = Predictor(path, MiddleDetector()).predict(picture(size=(80, 80))).faces
    names = encoding.age_groups.names
    first = names.index(face.age_set[0])
    assert face.age_set == names[first : first + len(face.age_set)]
    assert len(face.age_set) > 1 and face.age_group in face.age_set
    assert face.gender_set == ("female", "male") and "female or male" in str(face)


def test_the_calibration_of_another_model_is_refused(run, tmp_path):
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    shutil.copy(tmp_path / "run" / "recipe.toml", copy.best_model)  # another content
    with pytest.raises(ValueError, match="fitted for another model.*calibrate again"):
        evaluate(copy)


def test_training_on_ends_a_calibration(run, tmp_path):
    """A run calibrated while it is unfinished gets other weights afterwards."""
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    copy.update_info(status="running")
    experiment = make_experiment(
        load_recipe("quickstart", SETTINGS), run.info()["data"]
    )
    open_run(copy, experiment, overwrite=False)
    assert copy.calibration() is None and copy.best_model.is_file()


def test_wrong_columns_are_errors_before_predicting(run, monkeypatch):
    def predict(*_, **__):
        raise AssertionError("it predicted")

    monkeypatch.setattr(RunDirectory, "load_model", predict)
    with pytest.raises(ValueError, match="'subjct'. Did you mean 'subject'"):
        evaluate(run, by=["gender", "subjct"])
    with pytest.raises(ValueError, match="'gendr'. Did you mean 'gender'"):
        calibrate(run, by="gendr")


def test_the_command(run, tmp_path, capsys):
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    arguments = ["calibrate", str(copy.path), "--alpha", "0.3", "--by", "gender"]
    assert cli.main(arguments) == 0
    assert "age_group sets, coverage 70%: threshold" in capsys.readouterr().out
    assert copy.calibration().by == "gender"


def test_calibrate_and_evaluate_warn_of_too_few_faces(run, tmp_path, capsys):
    """Sets that are wrong for 5 % need 19 faces; there are 8."""
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    text = "gender sets: too few faces (8) for 95%: sets contain all classes; "
    text += "at least 19 needed"
    with pytest.warns(UserWarning) as warned:
        calibrate(copy, alpha=0.05)
    own = [w for w in warned if w.filename == __file__]  # the caller's line
    assert text in [str(w.message) for w in own]
    assert cli.main(["calibrate", str(copy.path), "--alpha", "0.05"]) == 0
    assert f"warning: {text}" in capsys.readouterr().err.splitlines()
    assert cli.main(["evaluate", str(copy.path)]) == 0
    assert f"WARNING: {text}" in capsys.readouterr().out.splitlines()
