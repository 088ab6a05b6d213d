"""`agegender predict`: forms of output, files that go on, and which model answers."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from sample_data import picture, write_picture, write_video

from keras_agegender.cli import main as cli
from keras_agegender.cli.serve import choose_model
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.faces.preprocessing import Preprocessing
from keras_agegender.models.builder import build_model
from keras_agegender.serving.export import export


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An export that takes whole pictures: every photo has one answer."""
    hat = Head("hat", "categorical", 2, classes=("bare", "hat"))
    encoding = get_encoding("categorical", heads=[hat])
    network = build_model("caffe_1conv", encoding, image_size=(32, 32))
    folder = tmp_path_factory.mktemp("model") / "saved"
    return export(network, folder, pixels=Preprocessing())


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number in range(5):
        write_picture(folder / f"{number}.jpg", value=60 + 20 * number)
    (folder / "2.jpg").write_text("damaged", "utf-8")
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def run(capsys, model):
    def run(*arguments):
        code = cli.main(["predict", "--model", str(model), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_json_is_a_line_for_each_file(run, photos):
    code, out, err = run(photos, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1  # one is damaged
    assert [line["source"] for line in lines] == [
        str(photos / f"{number}.jpg") for number in range(5)
    ]
    statuses = ["not_cropped", "not_cropped", "unreadable", *["not_cropped"] * 2]
    assert [line["status"] for line in lines] == statuses
    assert "skipped 1 of 6 files" in err
    assert "5 files: 4 not_cropped, 1 unreadable" in err and "images/s" in err


def test_csv_is_a_row_for_each_face(run, photos):
    _, lines, _ = run(photos, "--json")
    _, out, _ = run(photos, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert len(rows) == 5
    assert (rows[2]["status"], rows[2]["face"]) == ("unreadable", "")
    assert "damaged" in rows[2]["reason"] or "not an image" in rows[2]["reason"]
    (face,) = json.loads(lines.splitlines()[4])["faces"]
    assert rows[4]["age_group"] == face["age_group"]
    assert rows[4]["hat"] == face["extra"]["hat"] in ("bare", "hat")
    assert float(rows[4]["probability_25-32"]) == face["age_probabilities"]["25-32"]
    assert [rows[4][n] for n in ("left", "top", "right", "bottom")] == [
        "0.0", "0.0", "32.0", "40.0",
    ]  # fmt: skip


def test_people_of_a_video_are_rows(run, tmp_path):
    frames = [picture(90, (48, 64))] * 9
    video = write_video(tmp_path / "video.avi", frames, frame_rate=4)
    _, out, _ = run(video, "--csv", "--fps", "2", "--annotate", tmp_path / "drawn")
    (row,) = csv.DictReader(out.splitlines())
    times = [row[name] for name in ("first_second", "last_second", "num_frames")]
    assert times == ["0.0", "2.0", "5"]
    assert [file.name for file in (tmp_path / "drawn").iterdir()] == ["video_1.png"]
    _, out, _ = run(video, "--json")
    assert json.loads(out)["faces"][0]["num_frames"] == 9
    (tmp_path / "bad.mp4").write_text("no video", "utf-8")
    code, out, _ = run(tmp_path / "bad.mp4")
    assert code == 1 and "not a video" in out


def test_a_file_in_either_form(run, photos, tmp_path):
    _, expected, _ = run(photos, "--json")
    code, out, err = run(photos, "--out", tmp_path / "new" / "a.jsonl")
    assert (code, out) == (1, "")
    assert (tmp_path / "new" / "a.jsonl").read_text("utf-8") == expected
    assert "5 files: 4 not_cropped, 1 unreadable" in err
    _, expected, _ = run(photos, "--csv")
    run(photos, "--out", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text("utf-8") == expected
    names = {file.name for file in tmp_path.rglob("*.partial")}
    assert names == set()


def interrupted(run, photos, out, monkeypatch, after):
    """Predicts into a file until an interruption behind some photos."""
    from keras_agegender.serving.predictions import PredictionFile

    add, added = PredictionFile.add, []

    def add_some(self, prediction):
        if len(added) == after:
            raise KeyboardInterrupt
        added.append(prediction)
        add(self, prediction)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionFile, "add", add_some)
        code, _, err = run(photos, "--out", out)
    assert code == 130 and "run the same command to resume" in err
    return out.with_name(f"{out.name}.partial")


def test_an_interrupted_file_goes_on(run, photos, tmp_path, monkeypatch):
    _, expected, _ = run(photos, "--json")
    out = tmp_path / "a.jsonl"
    partial = interrupted(run, photos, out, monkeypatch, after=3)
    assert not out.exists()
    with partial.open("ab") as stream:
        stream.write(b'{"source": "cut off in the mid')
    # What was answered is not asked again: a changed answer stays.
    content = partial.read_bytes()
    marked = content.replace(b'"status": "unreadable"', b'"status": "unreadable!"')
    partial.write_bytes(marked)
    write_picture(photos / "9.jpg")  # a file behind the others does no harm
    code, _, err = run(photos, "--out", out)
    assert code == 0 and "3 of 6 are already done; continuing" in err
    lines = out.read_text("utf-8").splitlines()
    assert len(lines) == 6 and not partial.exists()
    assert '"unreadable!"' in lines[2]
    assert lines[3:5] == expected.splitlines()[3:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            "option",
            "was made with another model or other options",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "order",
            "lists other files, or another order, from",
            marks=pytest.mark.slow,
        ),
        ("photo", "is older than"),
    ],
)
def test_what_cannot_go_on_begins_anew(
    run, photos, tmp_path, monkeypatch, change, reason
):
    out = tmp_path / "a.jsonl"
    partial = interrupted(run, photos, out, monkeypatch, after=3)
    options = ["--whole-image"] if change == "option" else []
    if change == "order":
        write_picture(photos / "00.jpg")
    if change == "photo":
        import os

        later = partial.stat().st_mtime + 10
        os.utime(photos / "1.jpg", (later, later))
    _, _, err = run(photos, "--out", out, *options)
    (line,) = [text for text in err.splitlines() if "starting over" in text]
    assert reason in line and "already done" not in err
    assert len(out.read_text("utf-8").splitlines()) == len(list(photos.glob("*.jpg")))


def test_which_model_answers(model, photos, monkeypatch, tmp_path):
    photo, saved = str(photos / "0.jpg"), str(model)
    assert choose_model(None, [saved, photo]) == (model, [photo])
    assert choose_model(saved, [photo, saved]) == (model, [photo, saved])
    monkeypatch.setenv("KERAS_AGEGENDER_MODEL", saved)
    for inputs in ([photo], [str(photos), photo], ["missing.jpg", photo], ["*.jpg"]):
        assert choose_model(None, inputs) == (model, inputs)
    with pytest.raises(ValueError, match="missing contains neither"):
        choose_model(None, ["missing", photo])
    monkeypatch.setenv("KERAS_AGEGENDER_MODEL", str(tmp_path))
    with pytest.raises(ValueError, match="Invalid KERAS_AGEGENDER_MODEL"):
        choose_model(None, [photo])


def test_whole_pictures_of_a_model_without_a_run_are_mentioned(
    run, capsys, photos, tmp_path
):
    _, _, err = run(photos / "0.jpg")
    assert err == ""  # the export says so itself
    network = build_model("caffe_1conv", get_encoding("gender"), image_size=(32, 32))
    network.save(tmp_path / "network.keras")
    file = tmp_path / "network.keras"
    assert cli.main(["predict", str(file), str(photos / "0.jpg")]) == 0
    assert "using whole images" in capsys.readouterr().err


def test_numbers_survive_the_file(run, tmp_path):
    """Names that JSON and CSV must quote."""
    photo = write_picture(tmp_path / 'a "b", ü.jpg')
    run(photo, "--out", tmp_path / "o.csv")
    (row,) = csv.DictReader((tmp_path / "o.csv").read_text("utf-8").splitlines())
    assert row["source"] == str(photo)
    total = sum(float(v) for n, v in row.items() if n.startswith("probability_"))
    assert np.isclose(total, 1, atol=1e-4)
