"""Pictures: they are written whole, from every kind of history and scores."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.evaluation import plots
from keras_agegender.evaluation.confusion_plot import plot_confusion_matrices
from keras_agegender.evaluation.metrics import evaluate_predictions

HISTORY = {
    "loss": [3.0, 2.0, 1.5],
    "val_loss": [3.1, 2.4, 2.5],
    "val_gender_accuracy": [0.6, 0.7, 0.8],
    "val_age_accuracy": [0.2, 0.3, 0.35],
    "val_age1_accuracy": [0.9, 0.9, 0.9],
    "gender_loss_weight": [4.0, 4.0, 0.9],
    "age1_loss_weight": [1.0, 1.0, 1.0],
    "age2_loss_weight": [1.0, 1.0, 1.0],
}


def picture_of(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def scores_of(**changes):
    decoded = Decoded(np.array([1, 2]), None, np.array([0, 1]), None, None)
    return evaluate_predictions([1, 3], [0, 0], decoded._replace(**changes))


@pytest.mark.parametrize(
    ("names", "panels"),
    [
        (("loss", "val_loss"), 1),
        (("loss", "val_loss", "val_gender_accuracy"), 2),
        (tuple(HISTORY), 3),
        (("loss",), 1),
    ],
)
def test_a_panel_for_each_thing_there_is(tmp_path, names, panels):
    path = plots.plot_history({n: HISTORY[n] for n in names}, tmp_path / "curves.png")
    assert picture_of(path).shape[1] == pytest.approx(panels * 5.4 * 130, abs=2)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_history_from_a_csv_file_is_the_same_picture(tmp_path):
    with (tmp_path / "history.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", *HISTORY])
        for epoch, row in enumerate(zip(*HISTORY.values(), strict=True)):
            writer.writerow([epoch, *row])
    a = plots.plot_history(tmp_path / "history.csv", tmp_path / "a.png")
    b = plots.plot_history(HISTORY, tmp_path / "b.png")
    np.testing.assert_array_equal(picture_of(a), picture_of(b))


def test_one_epoch_and_gaps_can_be_drawn(tmp_path):
    plots.plot_history({n: v[:1] for n, v in HISTORY.items()}, tmp_path / "one.png")
    plots.plot_history(
        {"loss": [np.nan, 1.0], "val_loss": [np.nan, np.nan]}, tmp_path / "nan.png"
    )


def test_an_empty_history_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one epoch"):
        plots.plot_history({"loss": []}, tmp_path / "curves.png")
    (tmp_path / "history.csv").write_text("epoch,loss\n")
    with pytest.raises(ValueError, match="at least one epoch"):
        plots.plot_history(tmp_path / "history.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_confusion_of_scores_and_of_their_json_are_the_same(tmp_path):
    a = plot_confusion_matrices(scores_of(), tmp_path / "a.png")
    b = plot_confusion_matrices(scores_of().to_dict(), tmp_path / "b.png")
    np.testing.assert_array_equal(picture_of(a), picture_of(b))


@pytest.mark.parametrize(
    "absent",
    [{"age_group": None}, {"gender": None}, {"age_group": None, "gender": None}],
)
def test_confusion_of_what_a_model_answers(tmp_path, absent):
    path = plot_confusion_matrices(scores_of(**absent), tmp_path / "c.png")
    assert picture_of(path).std() > 0


def test_no_labels_at_all(tmp_path):
    decoded = Decoded(np.array([1]), None, np.array([0]), None, None)
    scores = evaluate_predictions([-1], [-1], decoded)
    plot_confusion_matrices(scores, tmp_path / "c.png")


def test_no_figure_stays_open_and_no_style_leaks(tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    plots.plot_history(HISTORY, tmp_path / "curves.png")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
