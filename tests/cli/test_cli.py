"""The command line: exit codes, one line per error, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sample_data import adience_row, make_prepared, write_adience, write_picture

from keras_agegender import __version__
from keras_agegender.cli import main as cli
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.evaluate import check_groupings, read_face_metadata

# A network and a dataset that train in a few seconds.
TINY = ("--set", "model.image_size=[32, 32]", "--set", "model.backbone=caffe_1conv",
        "--set", "model.encoding=categorical", "--set", "model.question=",
        "--set", "training.epochs=1", "--set", "data.batch_size=8")  # fmt: skip


def run(capsys, *arguments):
    """Returns exit code, stdout, stderr."""
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def error_of(capsys, *arguments):
    """Runs what must fail: exit code 1, one line on stderr. Returns the line."""
    code, _, err = run(capsys, *arguments)
    assert code == 1
    (line,) = [text for text in err.splitlines() if text.startswith("agegender")]
    assert "Traceback" not in err
    return line


def adience_in(directory, count=10):
    rows = {
        fold: [
            adience_row(n, fold, ("(25, 32)", "(0, 2)")[n % 2], "fm"[n // 2 % 2])
            for n in range(count)
        ]
        for fold in range(5)
    }
    return write_adience(directory, rows)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    # MTCNN, which finds no face here: exports and `predict` need its settings.
    return make_prepared(tmp_path_factory.mktemp("data"), detector=None)


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A run and its export, made by the command line."""
    root = tmp_path_factory.mktemp("cli")
    commands = [
        ["train", "quickstart", "--data", prepared, "--run", root / "run", *TINY],
        ["export", root / "run", "--out", root / "model"],
    ]
    for command in commands:
        assert cli.main([str(part) for part in command]) == 0
    return root


def test_help_and_version_load_no_framework():
    code = (
        "import sys; from keras_agegender.cli import main as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('tensorflow', 'keras', 'pandas', 'cv2')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")
    for verb in ("quickstart", "prepare", "train", "evaluate", "export", "predict"):
        assert verb in done.stdout


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [(), ("traain",), ("train",), ("predict",), ("prepare", "imdb", "x")],
)
def test_wrong_usage_is_exit_code_2(capsys, arguments):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "usage: agegender" in err


def test_recipes(capsys):
    code, out, _ = run(capsys, "recipes")
    assert code == 0 and "resnet_se_ordinal" in out and "base_" not in out
    code, out, _ = run(capsys, "recipes", "quickstart", "--set", "training.epochs=99")
    assert code == 0 and "epochs = 99" in out
    line = error_of(capsys, "recipes", "quikstart")
    assert "Did you mean 'quickstart'?" in line


def test_each_setting_requires_its_own_set_option(capsys):
    command = ("train", "quickstart", "--data", "x", "--run", "y", "--set", "a.b=9")
    code, _, said = run(capsys, *command, "training.seed=2")
    end = "training.seed=2; repeat --set for each setting: --set training.seed=2"
    assert code == 2 and said.splitlines()[-1].endswith(f"arguments: {end}")
    code, _, said = run(capsys, "verify", "folder", "--wrong")
    assert code == 2 and "--set" not in said


def test_prepare_adience(capsys, tmp_path):
    adience_in(tmp_path / "adience")
    code, out, _ = run(
        capsys, "prepare", "adience", tmp_path / "adience", "--out", tmp_path / "out",
        "--no-crop", "--size", 48, "--test-fold", 1,
    )  # fmt: skip
    assert code == 0
    assert "adience: 50 rows read, 50 kept" in out
    assert "50 not_cropped" in out
    dataset = load_prepared(tmp_path / "out")
    assert dataset.splits["test"] == "fold_1"
    assert dataset.splits["validation"] == "fold_2"


def test_prepare_csv_makes_outputs_of_columns(capsys, tmp_path):
    lines = ["file,years,sex,hat,owner"]
    for number in range(40):
        write_picture(tmp_path / f"{number}.jpg", value=60 + number)
        lines.append(f"{number}.jpg,27,{number % 2},{number % 2},o{number % 3}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), "utf-8")
    command = ["prepare", "csv", tmp_path / "labels.csv", "--age-column", "years",
               "--album-column", "owner", "--no-crop",
               "--out", tmp_path / "out"]  # fmt: skip
    line = error_of(capsys, *command)
    assert "line 2, column 'sex'" in line and "--female" in line
    code, out, _ = run(capsys, *command, "--female", "0", "--male", "1")
    assert code == 0 and "output: binary" in out
    data = load_prepared(tmp_path / "out")
    assert [head.name for head in data.extra_heads()] == ["hat"]
    albums = read_face_metadata(data, "train")["album"]
    assert set(albums) == {"o0", "o1", "o2"} and len(albums) == data.num_faces("train")
    code, out, _ = run(
        capsys, *command[:-1], tmp_path / "none", "--female", 0, "--male", 1, "--extra",
        "--keep-columns", "hat",
    )  # fmt: skip
    data = load_prepared(tmp_path / "none")
    assert code == 0 and data.extra_heads() == ()
    descriptions = read_face_metadata(data, "train")
    assert set(descriptions["hat"]) == {"0", "1"}
    check_groupings("hat", descriptions, get_encoding("categorical"))
    with pytest.raises(ValueError, match=r"Received: 'race'\.$"):
        check_groupings("race", descriptions, get_encoding("categorical"))


def test_errors_of_prepare(capsys, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "no folder" in error_of(capsys, "prepare", "adience", tmp_path / "no", *out)
    directory = adience_in(tmp_path / "adience", 1)
    (directory / "fold_2_data.txt").write_text("", "utf-8")
    line = error_of(capsys, "prepare", "adience", directory, *out)
    assert "fold_2_data.txt, line 1" in line
    (directory / "fold_2_data.txt").unlink()
    assert "lacks" in error_of(capsys, "prepare", "adience", directory, *out)
    assert "There is no" in error_of(capsys, "prepare", "csv", "no.csv", *out)
    assert "is a folder" in error_of(capsys, "prepare", "csv", tmp_path, *out)
    assert "usable" in error_of(
        capsys, "prepare", "utkface", tmp_path / "adience", *out
    )
    assert "list_eval_partition" in error_of(
        capsys, "prepare", "celeba", tmp_path, *out
    )
    assert not (tmp_path / "out").exists()


def test_errors_of_train(capsys, prepared, tmp_path):
    new = ("--run", tmp_path / "run")
    train = ("train", "quickstart", "--data", prepared, *new, *TINY)
    assert "no prepared dataset" in error_of(
        capsys, "train", "quickstart", "--data", tmp_path / "no", *new
    )
    assert "Invalid --split" in error_of(capsys, *train, "--split", "fold_1")
    wrong = "model.backbone=caffe_1cnv"
    assert "caffe_1conv" in error_of(capsys, *train, "--set", wrong)
    assert "ordinal" in error_of(capsys, *train, "--set", "model.encoding=ordinla")
    assert "training.epochs" in error_of(capsys, *train, "--set", "training.epoch=1")
    assert "'gender'" in error_of(capsys, *train, "--set", "loss_weights.gendr=1.0")


def test_evaluate(capsys, trained):
    code, out, _ = run(capsys, "evaluate", trained / "run")
    assert code == 0 and "gender      accuracy" in out and "age group" in out
    code, out, _ = run(capsys, "evaluate", trained / "run", "--json")
    assert code == 0 and json.loads(out)["num_faces"] == 8
    assert "Invalid `split`" in error_of(
        capsys, "evaluate", trained / "run", "--split", "fold_9"
    )
    assert "neither an exported model nor a run" in error_of(
        capsys, "evaluate", trained
    )


def test_errors_of_export(capsys, trained):
    line = error_of(capsys, "export", trained / "run", "--out", trained / "model")
    assert "already" in line
    assert "not a run directory" in error_of(
        capsys, "export", trained / "nowhere", "--out", trained / "other"
    )
    assert not (trained / "other").exists()


def test_predict(capsys, trained, tmp_path):
    photo = write_picture(tmp_path / "photo.jpg", size=(64, 64))
    model = trained / "model"
    code, out, _ = run(
        capsys, "predict", model, photo, "--whole-image", "--json",
        "--annotate", tmp_path / "annotated.png",
    )  # fmt: skip
    assert code == 0
    (prediction,) = map(json.loads, out.splitlines())
    assert prediction["status"] == "whole_image"
    assert prediction["faces"][0]["gender"] in ("female", "male")
    assert (tmp_path / "annotated.png").is_file()
    code, out, err = run(capsys, "predict", model, photo)
    assert code == 0 and out.strip().endswith("no face found")
    assert (
        "no face found in 1 of 1 files: if they are face crops, use --whole-im" in err
    )


def test_predict_answers_what_it_can(capsys, trained, tmp_path):
    photo = write_picture(tmp_path / "photo.jpg", size=(64, 64))
    (tmp_path / "empty.jpg").write_bytes(b"")
    code, out, err = run(
        capsys, "predict", trained / "model", tmp_path / "empty.jpg", photo, tmp_path,
        "--whole-image", "--annotate", tmp_path / "annotated",
    )  # fmt: skip
    assert code == 1
    heading, *lines = out.splitlines()
    assert heading.split()[:3] == ["file", "face", "predictions"]
    # The folder holds both again.
    assert ["empty file" in line for line in lines] == [True, False, True, False]
    names = sorted(file.name for file in (tmp_path / "annotated").iterdir())
    assert names == ["photo.png", "photo_2.png"]
    assert "Traceback" not in err
    assert "4 files: 2 unreadable, 2 whole_image" in err
    assert "detection alone" in err
    missing = tmp_path / "missing"
    assert "neither an exported model" in error_of(capsys, "predict", missing, photo)


def test_annotations_need_a_picture_s_ending(capsys, trained, tmp_path):
    photo = write_picture(tmp_path / "photo.jpg", size=(64, 64))
    predict = ("predict", trained / "model", photo, "--annotate")
    assert "Invalid --annotate" in error_of(capsys, *predict, tmp_path / "out.txt")
    assert run(capsys, *predict, tmp_path)[0] == 0
    assert (tmp_path / "photo.png").is_file()
    assert run(capsys, *predict, tmp_path / "new")[0] == 0
    assert (tmp_path / "new" / "photo.png").is_file()


def test_photos_of_one_name_have_an_annotation_each(capsys, trained, tmp_path):
    photos = [tmp_path / name for name in ("a/x.jpg", "b/x.jpg", "x_2.jpg")]
    for photo in photos:
        write_picture(photo, size=(64, 64))
    code, _, _ = run(
        capsys, "predict", trained / "model", *photos, "--annotate", tmp_path / "out"
    )
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert code == 0 and names == ["x.png", "x_2.png", "x_2_2.png"]


def test_the_unexpected_is_a_line_too(capsys, monkeypatch):
    def fail(arguments):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("keras_agegender.cli.train._recipes", fail)
    assert "unexpected RuntimeError: two lines" in error_of(capsys, "recipes")


def test_an_interruption_is_no_traceback(capsys, monkeypatch):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_agegender.cli.train._recipes", interrupt)
    code, _, err = run(capsys, "recipes")
    assert code == 130 and err.startswith("agegender: interrupted")


def test_warnings_of_the_library_are_a_line_each(capsys, monkeypatch):
    """And neither those of frameworks nor of what is deprecated."""

    def warn(arguments):
        for text, kind, module in (
            ("two\nlines", UserWarning, "keras_agegender.serving.export"),
            ("noise", UserWarning, "keras.src.saving"),
            ("noise", DeprecationWarning, "keras_agegender.files"),
        ):
            warnings.warn_explicit(text, kind, "file.py", 1, module=module)

    monkeypatch.setattr("keras_agegender.cli.train._recipes", warn)
    code, _, err = run(capsys, "recipes")
    assert (code, err) == (0, "warning: two lines\n")


def test_output_is_calm(trained, tmp_path):
    """In a process of its own: not a word of the frameworks on either stream."""
    photo = write_picture(tmp_path / "photo.jpg", size=(64, 64))
    command = [sys.executable, "-m", "keras_agegender.cli.main", "predict",
               str(trained / "model"), str(photo), "--whole-image"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


def test_tests_see_gray_pictures_as_faces_nowhere():
    """MTCNN finds no face in the gradients these tests use."""
    from sample_data import picture

    from keras_agegender.faces.detector import MtcnnDetector

    assert len(MtcnnDetector().detect([picture(size=(64, 64))])[0]) == 0
    assert np.ptp(picture()) > 50


def test_reproduce_and_compare(tmp_path, capsys):
    """Mistakes are one line each; nothing is left behind."""
    data = make_prepared(tmp_path)
    for arguments, message in [
        (
            ["reproduce", "99", "--data", data, "--out", tmp_path / "o"],
            "Unknown recipe",
        ),
        (["reproduce", "7", "--data", tmp_path, "--out", tmp_path / "o"], "dataset"),
        (["compare", tmp_path / "a", tmp_path / "b"], "not a run directory"),
        (["train", "9", "--data", data, "--run", tmp_path / "r"], "pretraining_data"),
    ]:
        code = cli.main(list(map(str, arguments)))
        errors = capsys.readouterr().err.strip().splitlines()
        assert code == (2 if arguments[0] == "compare" else 1)
        assert len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "o").exists() and not (tmp_path / "r").exists()
