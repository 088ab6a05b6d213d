"""A run from a prepared dataset to an answer about a photo, and its interruptions."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sample_data import EXTRA_HEADS, MiddleDetector, make_prepared, picture

from keras_agegender.datasets.pipeline import make_eval_dataset, read_labels
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.evaluate import evaluate
from keras_agegender.evaluation.scores import format_metrics
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.faces.preprocessing_graph import PreprocessingGraph
from keras_agegender.files import verify
from keras_agegender.models.builder import build_model
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.annotate import annotate_photo
from keras_agegender.serving.export import export, find_faces
from keras_agegender.serving.predictor import Predictor
from keras_agegender.synthetic.drawing import draw_face
from keras_agegender.training.train import train

SETTINGS = (
    "model.backbone=sample_data:small_backbone",
    "model.image_size=[32, 32]",
    "data.pipeline=resnet",
    "data.batch_size=8",
    "training.epochs=2",
    "loss_weight_changes=[{epoch=1, set={gender=0.5}}]",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"), extra_heads=EXTRA_HEADS)


class Follower(keras.callbacks.Callback):
    """What a tracker such as Weights & Biases asks of a training."""

    def __init__(self):
        super().__init__()
        self.rows, self.batches = [], 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += "loss" in logs

    def on_epoch_end(self, epoch, logs=None):
        rate = float(self.model.optimizer.learning_rate)
        self.rows.append({"epoch": epoch, "learning_rate": rate, **logs})


@pytest.fixture(scope="module")
def follower():
    return Follower()


@pytest.fixture(scope="module")
def run(prepared, follower, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    return train(
        "quickstart",
        prepared,
        directory,
        overrides=SETTINGS,
        callbacks=[follower],
        tensorboard=True,
        verbose=0,
    )


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    # The dataset's faces were found by a class of the tests.
    path = tmp_path_factory.mktemp("exports") / "model"
    return export(run, path, detector=MtcnnDetector())


def test_a_run_leaves_everything_behind(run):
    names = {file.name for file in run.path.iterdir()}
    assert names == {
        "best.keras", "best.json", "last.keras", "recipe.toml", "run.json",
        "history.csv",
        "curves.png", "metrics.json", "confusion.png", "predictions.csv",
        "faces.csv.gz", "checksums.json",
        "tensorboard",
    }  # fmt: skip
    info = run.info()
    assert info["status"] == "finished" and info["seed"] == 0
    assert run.best_epoch == run.checkpoint_info("best")["epoch"]
    assert RunDirectory(run.path / "no").best_epoch is None
    assert len(info["data_sha256"]) == 64
    assert info["versions"]["keras"] == keras.__version__
    assert info["outputs"][:2] == ["gender", "age1"]
    assert info["outputs"][-3:] == ["glasses", "colour", "weight"]
    for name in ("curves.png", "confusion.png"):
        with Image.open(run.path / name) as image:
            image.load()


def test_a_run_is_verified_after_evaluations_too(run, prepared, tmp_path):
    there = RunDirectory(shutil.copytree(run.path, tmp_path / "run"))
    evaluate(there, prepared)
    assert verify(there.path).differences == ()
    assert verify(there.path).num_files == 7  # two models, a record, four more
    for file in (there.best_model, there.history_file):
        file.write_bytes(file.read_bytes()[:-1])
    found = {difference.file for difference in verify(there.path).differences}
    assert found == {"best.keras", "history.csv"}


def test_a_release_is_verified(run, tmp_path, monkeypatch, capsys):
    file = Path(__file__).parents[2] / "pipelines" / "release_run.py"
    terms = ("--license", "CC0", "--limits", "None.")
    monkeypatch.setattr("sys.argv", [str(file), str(run.path), str(tmp_path), *terms])
    runpy.run_path(str(file), run_name="__main__")
    (tmp_path / "README.md").write_text("A card.", "utf-8")
    assert verify(tmp_path).differences == ()
    assert {file.name for file in tmp_path.iterdir()} == {
        *json.loads((tmp_path / "checksums.json").read_text("utf-8"))["files"],
        *("README.md", "checksums.json"),
    }
    (tmp_path / "terms.json").write_text("{}", "utf-8")
    assert [found.file for found in verify(tmp_path).differences] == ["terms.json"]


def test_the_resolved_recipe_is_the_recipe(run):
    assert run.recipe().to_dict() | {"name": ""} == (
        load_recipe("quickstart", SETTINGS).to_dict() | {"name": ""}
    )


def test_history_has_every_figure_of_every_epoch(run):
    with run.history_file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["gender_loss_weight"]) for row in rows] == [4.0, 0.5]
    assert {"val_loss", "val_gender_accuracy", "val_age_accuracy", "val_mean_accuracy",
            "val_age_all_heads_accuracy", "val_weight_mae"} <= set(rows[0])  # fmt: skip


def test_a_training_can_be_followed(run, follower):
    with open(run.history_file) as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in follower.rows] == [0, 1]
    assert follower.batches > 2
    for row, written in zip(follower.rows, history, strict=True):
        assert float(written["val_loss"]) == pytest.approx(row["val_loss"])
        assert "val_mean_accuracy" in row
    assert follower.rows[0]["learning_rate"] > 0
    events = list((run.path / "tensorboard").rglob("events.out.*"))
    assert {file.parent.name for file in events} == {"train", "validation"}


def test_metrics_are_those_of_the_predictions(run):
    """Scores are worked out once more from the file with a row per face."""
    metrics = json.loads((run.path / "metrics.json").read_text("utf-8"))
    with (run.path / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert metrics["num_faces"] == len(rows) == 8
    assert metrics["model"] == {
        "recipe": "quickstart",
        "seed": 0,
        "trained_on": run.info()["splits"]["train"],
        "selected_on": run.info()["splits"]["validation"],
        "checkpoint": "best",
        "epoch": run.best_epoch + 1,
        "monitor": "val_mean_accuracy",
        "value": run.checkpoint_info()["value"],
    }
    lines = format_metrics(metrics).splitlines()
    assert lines[1].startswith("model: quickstart, seed 0, trained on ")
    assert f"epoch {run.best_epoch + 1}, the best val_mean_accuracy" in " ".join(lines)
    for name, scores in (("gender", metrics["gender"]), ("age_group", metrics["age"])):
        known = [row for row in rows if row[name]]
        right = [row for row in known if row[name] == row[f"predicted_{name}"]]
        assert scores["num_faces"] == len(known)
        assert scores["accuracy"] == pytest.approx(len(right) / len(known))


def test_evaluating_another_split(run, prepared):
    scores = evaluate(run, prepared, split="fold_0+fold_1", positive_gender="female")
    assert scores.num_faces == 16
    assert scores.gender.positive == "female"
    assert (run.path / "metrics_fold_0-fold_1.json").is_file()
    for file in run.path.glob("*fold_0-fold_1*"):
        file.unlink()


def test_models_load_with_keras_alone(run, prepared):
    """In a process without this package: no custom objects, safe mode on."""
    code = f"""
import sys, keras
sys.modules["keras_agegender"] = None
model = keras.saving.load_model({str(run.best_model)!r})
print(len(model.output), model.input_shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True, cwd=run.path)  # fmt: skip
    assert done.stdout.split("\n")[0] == "12 (None, 32, 32, 3)"


def test_a_finished_run_is_not_touched(run, prepared):
    before = run.best_model.stat().st_mtime_ns
    with pytest.raises(ValueError, match="is finished"):
        train("quickstart", prepared, run.path, overrides=SETTINGS, verbose=0)
    assert run.best_model.stat().st_mtime_ns == before


def test_folders_of_other_files_are_not_changed(prepared, tmp_path):
    (tmp_path / "mine").write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="not empty and contains no run"):
        train("quickstart", prepared, tmp_path, overrides=SETTINGS)
    with pytest.raises(ValueError, match="is a file"):
        train("quickstart", prepared, tmp_path / "mine", overrides=SETTINGS)


SMALL = (*SETTINGS, "model.encoding=categorical", "model.question=")


def interrupted(epoch):
    """A callback's `on_epoch_begin` that stops training when an epoch begins."""

    def on_epoch_begin(self, index, logs=None):
        if index == epoch:
            raise KeyboardInterrupt

    return on_epoch_begin


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_model(prepared, tmp_path, monkeypatch):
    settings = (*SMALL, "training.epochs=3")
    whole = train("quickstart", prepared, tmp_path / "a", overrides=settings, verbose=0)
    from keras_agegender.callbacks import decoded_metrics as callbacks

    with monkeypatch.context() as patch:
        patch.setattr(
            callbacks.DecodedAccuracy, "on_epoch_begin", interrupted(2), raising=False
        )
        with pytest.raises(KeyboardInterrupt):
            train("quickstart", prepared, tmp_path / "b", overrides=settings, verbose=0)
    assert RunDirectory(tmp_path / "b").info()["status"] == "running"
    with pytest.raises(
        ValueError, match="another experiment: seed is 0 in the existing run and 1 in"
    ):
        train("quickstart", prepared, tmp_path / "b", overrides=settings, seed=1)
    resumed = train(
        "quickstart", prepared, tmp_path / "b", overrides=settings, verbose=0
    )
    histories = [
        r.history_file.read_text("utf-8").splitlines() for r in (whole, resumed)
    ]
    assert len(histories[1]) == 4
    assert histories[0][:3] == histories[1][:3]  # the epochs before the interruption
    weights = [
        [row["gender_loss_weight"] for row in csv.DictReader(history)]
        for history in histories
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.backbone=resnet50"], "resnet50"),
        (["model.encoding=ordnal"], "ordinal"),
        (["training.optimizer=adamm"], "training.optimizer"),
        (["loss_weights={gendr=1.0}"], "'gender'"),
        (["loss_weight_changes=[{set={gender=1.0}}]"], "exactly one of"),
        (["training.epoch=3"], "unknown key 'training.epoch'"),
        (["training.epochs=many"], "valid integer"),
    ],
)
def test_recipes_that_cannot_be_trained(prepared, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train("quickstart", prepared, tmp_path / "run", overrides=[*SMALL, *settings])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.backbone=caffe", "model.image_size=[20, 20]"], "at least 35 pixels"),
        (
            ["model.backbone=keras.applications:MobileNet", "model.image_size=[9, 9]"],
            "Input size must be",
        ),
        (["loss_weights={gender=1.0, agee=1.0}"], "agee"),
    ],
)
def test_a_failed_export_leaves_no_files(prepared, tmp_path, settings, message):
    (tmp_path / "kept").mkdir()
    for folder in (tmp_path / "new" / "run", tmp_path / "kept"):
        with pytest.raises(ValueError, match=message):
            train("quickstart", prepared, folder, overrides=[*SMALL, *settings])
    assert [entry.name for entry in tmp_path.rglob("*")] == ["kept"]


def test_a_failed_export_does_not_change_the_existing_one(run, prepared, tmp_path):
    there = shutil.copytree(run.path, tmp_path / "run")
    before = {file.name for file in there.iterdir()}
    settings = [*SMALL, "model.backbone=caffe", "model.image_size=[20, 20]"]
    with pytest.raises(ValueError, match="at least 35 pixels"):
        train("quickstart", prepared, there, overrides=settings, overwrite=True)
    assert {file.name for file in there.iterdir()} == before


def test_splits_must_exist(prepared, tmp_path):
    with pytest.raises(ValueError, match="Invalid `split`"):
        train("quickstart", prepared, tmp_path / "run", overrides=SMALL,
              splits={"train": "fold_7"})  # fmt: skip


# -- export and prediction -------------------------------------------------------------


def test_an_export_predicts_like_the_model(run, exported, prepared):
    """The same numbers from JPEG bytes as from the input pipeline."""
    encoding, model = run.encoding(), run.load_model()
    dataset = make_eval_dataset(prepared, encoding, split="fold_4", image_size=(32, 32))
    expected = model.predict(dataset.map(lambda image, *rest: image), verbose=0)
    rows = load_prepared(prepared).builder.as_dataset(
        split="fold_4",
        decoders={"image": __import__("tensorflow_datasets").decode.SkipDecoding()},
    )
    files = [row["image"] for row in rows.as_numpy_iterator()]
    loaded = tf.saved_model.load(str(exported))
    answers = loaded.signatures["serving_default"](image_bytes=tf.constant(files))
    for name in encoding.output_names:
        np.testing.assert_allclose(answers[name], expected[name], atol=1e-5)
    decoded = encoding.decode(expected)
    np.testing.assert_array_equal(answers["age_group"], decoded.age_group)
    np.testing.assert_array_equal(answers["gender_id"], decoded.gender)
    np.testing.assert_allclose(
        answers["age_group_probabilities"], decoded.age_probabilities, atol=1e-5
    )


def test_an_export_has_no_augmentation(exported):
    """Neither random operations nor different answers to the same picture."""
    loaded = tf.saved_model.load(str(exported))
    graphs = [s.graph for s in loaded.signatures.values()]
    operations = {
        node.op
        for graph in graphs
        for function in [graph.as_graph_def()]
        for node in [
            *function.node,
            *(n for f in function.library.function for n in f.node_def),
        ]
    }
    assert not [name for name in operations if "Random" in name or "PyFunc" in name]
    faces = tf.random.stateless_uniform((3, 32, 32, 3), (1, 2))
    first, second = (
        loaded.signatures["inputs"](inputs=faces)["age3"] for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_an_export_needs_neither_this_package_nor_keras(exported, tmp_path):
    (tmp_path / "face.jpg").write_bytes(encode_jpeg(picture()))
    code = f"""
import sys
sys.modules["keras_agegender"] = sys.modules["keras"] = None
import tensorflow as tf
model = tf.saved_model.load({str(exported)!r})
answer = model.signatures["serving_default"](
    image_bytes=tf.constant([open("face.jpg", "rb").read()]))
print(sorted(answer)[:4], float(tf.reduce_sum(answer["age_group_probabilities"])))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "['age1', 'age2', 'age3', 'age4']" in done.stdout


def test_an_export_finds_the_faces_of_a_photo_itself(exported):
    """The signature `photo` says what `Predictor` says, with no Python around it."""
    faces = [draw_face(seed, 2 * seed, seed % 2).image for seed in (1, 2, 3)]
    data = encode_jpeg(np.hstack([*faces, np.full((256, 99, 3), 90, "uint8")]))
    signatures = tf.saved_model.load(str(exported)).signatures
    photo = signatures["photo"]
    answers = photo(photo_bytes=tf.constant(data))
    expected = Predictor(exported, min_score=0.8).predict(data)
    assert len(answers["boxes"]) == len(expected.faces) == 3
    for row, face in enumerate(expected.faces):
        np.testing.assert_allclose(answers["boxes"][row], face.box, atol=0.1)
        np.testing.assert_allclose(answers["scores"][row], face.score, atol=1e-3)
        male = answers["male_probability"][row]
        np.testing.assert_allclose(male, face.male_probability, atol=1e-3)
    gray = encode_jpeg(np.full((99, 99, 3), 9, "uint8"))
    empty = photo(photo_bytes=tf.constant(gray))
    assert empty["boxes"].shape == (0, 4) and empty["age_group"].shape == (0,)

    one = encode_jpeg(faces[1])
    photos = signatures["photos"]
    batch = photos(photo_bytes=tf.constant([gray, data, one]))
    assert batch["counts"].numpy().tolist() == [0, 3, 1]
    alone = photo(photo_bytes=tf.constant(one))
    assert set(batch) == {*alone, "counts"}
    for name, value in batch.items():
        if name != "counts":
            assert value.shape[:2] == (3, 3)
            np.testing.assert_allclose(value[1], answers[name], atol=1e-5)
            np.testing.assert_allclose(value[2, :1], alone[name], atol=1e-5)
    assert batch["gender_id"].numpy()[2].tolist()[1:] == [-1, -1]
    assert not batch["boxes"].numpy()[0].any()
    none = photos(photo_bytes=tf.constant([], tf.string))
    assert none["counts"].shape == (0,) and none["age_group"].shape[0] == 0


def test_files_are_compared_on_the_faces_of_the_run(run, prepared):
    graph = PreprocessingGraph(run.pixels().with_input((32, 32)))
    compared = find_faces(run, None, graph)
    labels = read_labels(prepared, "validation")
    np.testing.assert_array_equal(compared.labels["gender_id"], labels["gender"])
    np.testing.assert_array_equal(compared.labels["age_group"], labels["age_group"])
    assert compared.crops.shape == (len(labels["gender"]), 48, 48, 3)
    assert compared.source.endswith("split fold_3")
    # Asked for by name, and where the dataset is gone.
    again = find_faces(None, prepared, graph)
    np.testing.assert_array_equal(again.crops, compared.crops)
    drawn = find_faces(None, None, graph)
    assert "drawn faces" in drawn.source and not drawn.labels
    assert len(drawn.crops) == 48


def test_an_export_repeats_what_training_wrote_down(run, prepared, tmp_path):
    """Not what the dataset says by now: it may be gone, or made anew."""
    pixels = load_prepared(prepared).pixels
    assert run.pixels() == pixels.with_input((32, 32))
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    copy.update_info(data=str(tmp_path / "gone"))
    with pytest.warns(UserWarning, match="no signature `photo`"):
        path = export(copy, tmp_path / "model", crop_size=(40, 40))
    metadata = json.loads((path / "agegender.json").read_text("utf-8"))
    found = Preprocessing.from_dict(metadata["pixels"])
    assert found.differences(run.pixels()) == ["stored_size"]
    assert found.stored_size == (40, 40)
    assert metadata["extra_heads"][-2]["classes"] == ["red", "green", "blue"]
    copy.update_info(pixels=None)
    with pytest.raises(ValueError, match="has no record of its preprocessing"):
        export(copy, tmp_path / "none")


def test_another_detector_cannot_prepare_faces_again(run, tmp_path):
    other = make_prepared(tmp_path, crop_options=CropOptions(margin=0.6),
                          extra_heads=EXTRA_HEADS)  # fmt: skip
    with pytest.raises(ValueError, match=r"trained on faces found by .*middle"):
        evaluate(run, other)


def test_exports_are_not_replaced_without_overwrite(run, exported, tmp_path):
    with pytest.raises(ValueError, match="already exists"):
        export(run, exported)
    (tmp_path / "mine").write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="contains no export"):
        export(run, tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="not a run directory"):
        export(tmp_path / "nowhere", tmp_path / "out")


def test_a_model_of_one_s_own(tmp_path):
    model = build_model("caffe_1conv", "gender", image_size=(32, 32))
    with pytest.raises(ValueError, match="The model's outputs are"):
        export(model, tmp_path / "out", encoding="ordinal")
    plain = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    with pytest.raises(ValueError, match="Missing `encoding`"):
        export(plain, tmp_path / "out")
    path = export(model, tmp_path / "out", pipeline="caffe")  # it knows its encoding
    prediction = Predictor(path, MiddleDetector()).predict(picture(size=(80, 80)))
    assert prediction.faces[0].age_group is None
    assert prediction.faces[0].gender in ("female", "male")


def test_a_younger_model_is_not_read_as_an_older_one(tmp_path):
    encoding = get_encoding("ordinal", "younger")
    model = build_model("caffe_1conv", encoding, image_size=(32, 32))
    with pytest.raises(ValueError, match="question='younger' for output 'age'"):
        export(model, tmp_path / "out", encoding="ordinal")


class TwoFaces(MiddleDetector):
    """The right and the left half, in this order."""

    def _detect(self, image):
        one = super()._detect(image)
        if not len(one):
            return one
        height, width = image.shape[:2]
        boxes = np.array(
            [[width / 2, 0, width, height], [0, 0, width / 2, height]], "float32"
        )
        return type(one)(
            boxes, np.array([0.9, 0.8], "float32"), np.zeros((2, 5, 2), "float32")
        )


def test_all_faces_of_a_photo(exported, tmp_path):
    photo = picture(size=(300, 400))
    prediction = Predictor(exported, TwoFaces(), min_score=0.8).predict(photo)
    assert prediction.status == "ok"
    assert [face.box[0] for face in prediction.faces] == [0.0, 200.0]  # left to right
    face = prediction.faces[0]
    assert sum(face.age_probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert face.extra["colour"] in ("red", "green", "blue")
    assert json.loads(json.dumps(prediction.to_dict()))["faces"][1]["heads"][
        "gender"
    ] == (pytest.approx(prediction.faces[1].male_probability))
    annotated = annotate_photo(photo, prediction)
    # Two halves leave no room for labels: the answers are below.
    assert annotated.shape[0] > 300 and annotated.shape[1] == 400
    annotated = annotated[:300]
    assert (annotated != photo).any(axis=2).mean() > 0.01


def test_a_run_predicts_like_its_export(run, exported):
    photo = picture(size=(300, 400))
    expected = Predictor(exported, TwoFaces()).predict(photo)
    predictor = Predictor(run.path, TwoFaces())
    found = predictor.predict(photo)
    assert [str(face) for face in found.faces] == [str(f) for f in expected.faces]
    for one, other in zip(found.faces, expected.faces, strict=True):
        np.testing.assert_allclose(
            list(one.age_probabilities.values()),
            list(other.age_probabilities.values()),
            atol=1e-5,
        )
    assert predictor.metadata["outputs"] == list(run.encoding().output_names)


def test_a_prediction_sees_what_training_saw(exported, prepared):
    """A photo's crop is the prepared dataset's crop: same box, margin, stored size."""
    file = prepared.parent / "pictures" / "004.jpg"
    prediction = Predictor(exported, MiddleDetector()).predict(file)
    row = next(load_prepared(prepared).as_dataset("fold_4").as_numpy_iterator())
    assert row["key"] == b"004.jpg"
    assert list(prediction.faces[0].crop_box) == row["face_box"].tolist()


def test_a_status_for_every_photo(exported, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "good.jpg").write_bytes(encode_jpeg(picture(size=(90, 90))))
    dark = np.zeros((50, 50, 3), "uint8")
    predictor = Predictor(exported, MiddleDetector())
    photos = [tmp_path / "empty.jpg", dark, tmp_path / "good.jpg", tmp_path]
    predictions = predictor.predict_many(photos, batch_size=2)
    statuses = [p.status for p in predictions]
    # The folder holds the two files again.
    assert statuses == ["unreadable", "no_face", "ok", "unreadable", "ok"]
    assert "empty file" in str(predictions[0])
    (whole,) = predictor.predict_many([dark], whole_image=True)
    assert whole.status == "whole_image" and len(whole.faces) == 1


def test_no_model_no_prediction(exported, tmp_path):
    with pytest.raises(ValueError, match="neither an exported model nor a run"):
        Predictor(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    assert verify(copy).differences == ()
    content = bytearray((copy / "saved_model.pb").read_bytes())
    content[:3] = b"\xff\xff\xff"
    (copy / "saved_model.pb").write_bytes(content)
    with pytest.raises(ValueError, match="saved_model.pb is damaged"):
        Predictor(copy)
    assert [found.file for found in verify(copy).differences] == ["saved_model.pb"]
    (copy / "saved_model.pb").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"'saved_model.pb': expected \d+ bytes, rec"):
        Predictor(copy)
    (copy / "checksums.json").unlink()
    (copy / "agegender.json").unlink()
    with pytest.raises(ValueError, match=r"has no agegender.json"):
        Predictor(copy)


def test_encoding_of_a_run_has_its_heads(run):
    assert run.encoding().output_names == (
        *get_encoding("ordinal").output_names, "glasses", "colour", "weight"
    )  # fmt: skip


def test_an_export_prepares_pixels_as_its_run_did(prepared, tmp_path):
    """A run of the Caffe preparation cuts its input out of a larger picture."""
    settings = (*SETTINGS, "data.pipeline=caffe", "training.epochs=1",
                "loss_weight_changes=[]")  # fmt: skip
    run = train("quickstart", prepared, tmp_path / "run", overrides=settings, verbose=0)
    path = export(run, tmp_path / "model")
    metadata = json.loads((path / "agegender.json").read_text("utf-8"))
    assert metadata["pixels"]["enlarge"] == pytest.approx(256 / 227)
    assert metadata["pixels"] == run.pixels().to_dict()
