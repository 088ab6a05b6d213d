"""The predictor's front door: what it takes, from which models, in which order."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sample_data import MiddleDetector, picture, write_picture, write_video

from keras_agegender.cli import main as cli
from keras_agegender.encodings.of_age import AgeCheck
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.detector import Detections
from keras_agegender.faces.images import UnreadableImageError, encode_jpeg
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing
from keras_agegender.models.builder import build_model
from keras_agegender.serving import pipeline, predictions
from keras_agegender.serving.export import export
from keras_agegender.serving.formats import default_model, find_model, model_identity
from keras_agegender.serving.pipeline import PredictionTimes
from keras_agegender.serving.predictor import Predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network as a .keras file and as an export, `.keras` and `saved`."""
    folder = tmp_path_factory.mktemp("model")
    network = build_model(
        "caffe_1conv", get_encoding("categorical"), image_size=(32, 32)
    )
    network.save(folder / "network.keras")
    path = Preprocessing(crop=CropOptions(), detector=MiddleDetector().settings())
    with pytest.warns(UserWarning, match="no signature `photo`"):
        export(network, folder / "saved", pixels=path)
    return folder


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model / "saved", MiddleDetector())


def answers(prediction):
    return [(face.box, face.heads) for face in prediction.faces]


def test_every_kind_of_input_gives_the_same_answers(predictor, tmp_path):
    pixels = picture(size=(80, 60))
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    expected = predictor.predict(pixels)
    assert expected.status == "ok" and len(expected.faces) == 1
    data = (tmp_path / "photo.png").read_bytes()
    for photo in (tmp_path / "photo.png", data, Image.fromarray(pixels)):
        assert answers(predictor.predict(photo)) == answers(expected)
    for photos in (tmp_path, str(tmp_path / "*.png"), [pixels], pixels[np.newaxis]):
        (found,) = predictor.predict_many(photos)
        assert answers(found) == answers(expected)


def test_pillow_pictures_are_turned_upright(predictor):
    turned = Image.fromarray(picture(size=(80, 60)))
    turned.getexif()[0x0112] = 6  # to be turned by a quarter
    assert predictor.predict(turned).image_size == (60, 80)
    wide = Image.new("I", (70, 30), 100)
    assert predictor.predict(wide).image_size == (30, 70)


def test_what_is_not_one_photo_is_said(predictor, tmp_path):
    with pytest.raises(ValueError, match="several photos.*"):
        predictor.predict(tmp_path)
    with pytest.raises(ValueError, match="several photos"):
        predictor.predict([picture()])
    with pytest.raises(ValueError, match="`predict_video` a video"):
        predictor.predict("video.mp4")
    with pytest.raises(UnreadableImageError, match="Received: int"):
        predictor.predict(7)
    assert predictor.predict_many([]) == [] == predictor.predict_many(tmp_path)


def test_order_is_kept_over_chunks_and_faces_are_batched(predictor, tmp_path):
    """Sizes differ, some are dark, one is damaged, and a video lies between."""
    photos, expected = [], []
    for number in range(23):
        value = 0 if number % 5 == 0 else 120
        size = (60 + number % 3, 50)
        photos.append(picture(value, size) if value else np.zeros((*size, 3), "uint8"))
        expected.append(("ok" if value else "no_face", size))
    (tmp_path / "bad.jpg").write_text("no picture", "utf-8")
    photos.insert(7, tmp_path / "bad.jpg")
    expected.insert(7, ("unreadable", None))
    frames = [picture(90, (48, 64))] * 3
    photos.insert(12, write_video(tmp_path / "video.avi", frames))
    expected.insert(12, ("ok", (48, 64)))
    times = PredictionTimes()
    found = list(predictor.stream(photos, batch_size=4, times=times))
    assert [(p.status, p.image_size) for p in found] == expected
    assert (times.num_images, times.num_faces) == (23 + 3, 18 + 3)
    assert times.detection > 0 and "detection alone" in str(times)
    one_by_one = [p for photo in photos for p in predictor.predict_many(photo)]
    for one, other in zip(found, one_by_one, strict=True):
        assert [face.box for face in one.faces] == [face.box for face in other.faces]
        for face, same in zip(one.faces, other.faces, strict=True):
            assert face.male_probability == pytest.approx(
                same.male_probability, abs=1e-5
            )


def test_few_pictures_are_in_memory(model, tmp_path):
    """An endless stream: what is read ahead is bounded, and stops with the reader."""
    before, made = threading.active_count(), []

    def endless():
        while True:
            made.append(1)
            yield picture(size=(40, 40))

    stream = Predictor(model / "saved", MiddleDetector()).stream(
        endless(), batch_size=2
    )
    assert [next(stream).status for _ in range(3)] == ["ok"] * 3
    # Three steps hold a chunk of two, two chunks wait; the readers are four ahead.
    stream.close()
    assert len(made) <= 30
    assert threading.active_count() == before


def test_a_single_photo_starts_no_threads(predictor, monkeypatch):
    """For instance in each request of a server."""

    def start(*_):
        raise AssertionError("a thread was started")

    monkeypatch.setattr(pipeline, "prefetch", start)
    monkeypatch.setattr(pipeline, "map_ahead", start)
    (found,) = predictor.predict_many([picture(size=(80, 60))])
    assert found.status == "ok"
    with pytest.raises(AssertionError, match="a thread"):
        predictor.predict_many([picture(), picture()])


def test_errors_of_a_detector_arrive(model):
    class Broken(MiddleDetector):
        def detect(self, images):
            raise RuntimeError("no faces today")

    with pytest.raises(RuntimeError, match="no faces today"):
        Predictor(model / "saved", Broken()).predict_many([picture()] * 40)


def test_wrong_numbers_are_errors(predictor):
    with pytest.raises(ValueError, match="batch_size=0"):
        predictor.predict_many([picture()], batch_size=0)
    with pytest.raises(ValueError, match="frames_per_second=0"):
        predictor.predict_many([picture()], frames_per_second=0)


def test_a_video_has_one_answer_for_a_person(predictor, tmp_path):
    frames = [picture(60 + 10 * number, (48, 64)) for number in range(12)]
    dark = [np.zeros((48, 64, 3), "uint8")] * 8
    video = write_video(tmp_path / "video.avi", frames + dark, frame_rate=8)
    found = predictor.predict_video(video, frames_per_second=4)
    (person,) = found.faces
    assert (found.status, found.seconds, found.num_frames) == ("ok", 2.5, 10)
    assert (person.first_second, person.last_second, person.num_frames) == (0, 1.25, 6)
    # The mean over the frames as they are after compression.
    from keras_agegender.faces.video import VideoReader

    males = [
        predictor.predict(frame.image).faces[0].male_probability
        for frame in list(VideoReader(video, 4))[:6]
    ]
    assert person.male_probability == pytest.approx(np.mean(males), abs=1e-5)
    assert "1 person in 2.5 s" in str(found)


def test_videos_that_hold_nothing(predictor, tmp_path):
    dark = write_video(tmp_path / "dark.avi", [np.zeros((48, 64, 3), "uint8")] * 2)
    assert predictor.predict_video(dark).status == "no_face"
    none = write_video(tmp_path / "none.avi", [], size=(48, 64))
    with pytest.raises(UnreadableImageError, match="without a readable frame"):
        predictor.predict_video(none)
    (found,) = predictor.predict_many(none)
    assert found.status == "unreadable" and "readable frame" in found.reason


def test_a_keras_file_answers_as_its_export(model, predictor):
    photo = picture(size=(80, 60))
    expected = predictor.predict(photo)
    same = Predictor(model / "network.keras", MiddleDetector()).predict(photo)
    assert same.faces[0].male_probability == pytest.approx(
        expected.faces[0].male_probability, abs=1e-5
    )
    whole = Predictor(model / "network.keras").predict(photo)
    assert whole.status == "not_cropped"  # nobody said what its pixels were
    with pytest.raises(ValueError, match="Model file not found"):
        Predictor(model / "missing.keras")
    identities = {model_identity(model / n) for n in ("network.keras", "saved")}
    assert len(identities) == 2


def test_the_default_model(model, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_AGEGENDER_MODEL", str(model / "saved"))
    assert default_model() == model / "saved"
    assert Predictor(None, MiddleDetector()).predict(picture()).status == "ok"
    monkeypatch.setenv("KERAS_AGEGENDER_MODEL", str(tmp_path))
    with pytest.raises(ValueError, match="Invalid KERAS_AGEGENDER_MODEL"):
        default_model()
    monkeypatch.delenv("KERAS_AGEGENDER_MODEL")
    for place in ("RELEASED", "CHECKOUT"):
        monkeypatch.setattr(f"keras_agegender.serving.formats.{place}", tmp_path)
    with pytest.raises(ValueError, match="No default model found"):
        Predictor()
    monkeypatch.setattr("keras_agegender.serving.formats.DEFAULT_NAME", "saved")
    monkeypatch.setattr("keras_agegender.serving.formats.CHECKOUT", model)
    assert default_model() == find_model("saved") == model / "saved"


def test_jpeg_bytes_of_a_video_are_no_photo(predictor, tmp_path):
    """The ending tells what a file is: a photo named as a video is refused as one."""
    (tmp_path / "photo.mp4").write_bytes(encode_jpeg(picture(size=(64, 64)))[:200])
    (found,) = predictor.predict_many(tmp_path / "photo.mp4")
    assert found.status == "unreadable"
    write_picture(tmp_path / "photo.jpg")
    assert predictor.predict_many(tmp_path / "photo.jpg")[0].status == "ok"


def test_an_age_check_is_printed_and_in_the_files(model, tmp_path, capsys):
    """The groups of the model do not divide at 18; its expected age decides."""
    check = AgeCheck(18, threshold=25)
    predictor = Predictor(model / "saved", MiddleDetector(), age_check=check)
    found = predictor.predict(picture(size=(80, 60)))
    (face,) = found.faces
    assert face.of_age == {
        "age": 18, "threshold": 25, "probability": None,
        "passes": face.age_years >= 25,
    }  # fmt: skip
    assert f"(looks {face.age_years:.0f})" in str(found)
    (row,) = predictions.csv_rows(found.to_dict())
    assert row["of_age_passes"] is face.of_age["passes"]
    assert set(row) <= set(predictions.csv_columns(predictor.metadata))
    plain = Predictor(model / "saved", MiddleDetector()).predict(picture(size=(80, 60)))
    assert "of_age" not in plain.to_dict()["faces"][0]
    photo = write_picture(tmp_path / "photo.jpg")
    for options, message in (
        (["--threshold", "25"], "Missing --at-least"),
        (["--at-least", "18", "--threshold", "10"], "age <= threshold"),
    ):
        assert cli.main(["predict", str(model / "saved"), str(photo), *options]) == 1
        assert message in capsys.readouterr().err


def test_the_probability_of_an_age_check():
    """Of a years head: 0.25 at 17, 0.5 at 18, 0.25 at 60."""
    years = np.zeros(101, "float32")
    years[[17, 18, 60]] = 0.25, 0.5, 0.25
    encoding = get_encoding("years")
    metadata = {
        "encoding": encoding.to_dict(), "age_groups": encoding.age_groups.names,
        "genders": ["female", "male"], "outputs": ["age"], "extra_heads": [],
        "age_check": {"age": 18, "threshold": None},
    }  # fmt: skip
    outputs = {"age": years, "age_years": np.float32(28.25)}
    found = predictions.face_fields(metadata, outputs)["of_age"]
    assert found == {"age": 18, "threshold": 18, "probability": 0.75, "passes": True}


class UprightDetector(MiddleDetector):
    """Finds a face in images that are brighter at the top than elsewhere."""

    def _detect(self, image):
        found = super()._detect(image)
        sides = (image[:4], image[-4:], image[:, :4], image[:, -4:])
        if np.argmax([side.mean() for side in sides]) != 0:
            return Detections.none()
        return replace(found, boxes=np.array([[10, 5, 30, 25]], "float32"))


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_photos_on_their_side_are_rotated_if_asked(model, quarters):
    predictor = Predictor(model / "saved", UprightDetector())
    upright = picture(90, (60, 80))
    upright[:8] += 90
    photo = np.ascontiguousarray(np.rot90(upright, quarters))
    found = predictor.predict(photo, try_rotations=True)
    assert found.rotation == -90 * quarters % 360
    assert found.image_size == photo.shape[:2]
    mask = np.zeros((60, 80), bool)
    mask[5:25, 10:30] = True  # the face
    rows, columns = np.nonzero(np.rot90(mask, quarters))
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found.faces[0].box == box
    straight = predictor.predict(upright).faces[0]
    assert found.faces[0].heads == straight.heads
    assert predictor.predict(photo).status == ("no_face" if quarters else "ok")
    assert ("rotated by" in str(found)) == (quarters > 0)
    assert ("rotation" in found.to_dict()) == (quarters > 0)
    (many,) = predictor.predict_many([photo], try_rotations=True)
    assert many == found


def test_a_model_of_whole_images_rotates_nothing(model):
    with pytest.raises(ValueError, match="--try-rotations"):
        Predictor(model / "network.keras").predict(picture(), try_rotations=True)
