"""Plots: written atomically, from every kind of history and scores."""

from __future__ import annotations

import csv
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_agegender.encodings.decoding import Decoded
from keras_agegender.evaluation import (
    plots,
    plots as confusion_plot,
    plots as reproduction_plot,
)
from keras_agegender.evaluation.plots import (
    COLORS,
    output_style,
    plot_confusion_matrices,
)
from keras_agegender.evaluation.scores import evaluate_predictions

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


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    figures = []

    def save(figure, path):
        figures.append(figure)
        return path

    for module in (plots, confusion_plot, reproduction_plot):
        monkeypatch.setattr(module, "save_figure", save)
    return figures


def legend_of(axis):
    """Label -> its line, of what the legend has."""
    handles, labels = axis.get_legend_handles_labels()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == labels
    return dict(zip(labels, handles, strict=True))


def weight_looks(drawn, weights, outputs=()):
    """Label -> (color, line style) in the panel of loss weights."""
    history = {f"{name}_loss_weight": values for name, values in weights.items()}
    plots.plot_history({"loss": [1.0, 1.0], **history}, "none.png", outputs=outputs)
    lines = legend_of(drawn[-1].axes[-1])
    return {
        label: (line.get_color(), line.get_linestyle()) for label, line in lines.items()
    }


@pytest.mark.parametrize(
    ("names", "panels"),
    [
        (("loss", "val_loss"), 1),
        (("loss", "val_loss", "val_gender_accuracy"), 2),
        (tuple(HISTORY), 3),
        (("loss",), 1),
    ],
)
def test_every_available_panel_is_drawn(tmp_path, names, panels):
    path = plots.plot_history({n: HISTORY[n] for n in names}, tmp_path / "curves.png")
    assert picture_of(path).shape[1] == pytest.approx(panels * 5.4 * 130, abs=2)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_history_from_a_csv_file_is_the_same_plot(tmp_path):
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
def test_confusion_of_the_predicted_targets(tmp_path, absent):
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


def test_an_output_looks_the_same_in_every_run(drawn):
    """Whichever weights change, in whatever order the history has them."""
    outputs = ["gender", "age1", "age2", "age3"]
    one = weight_looks(drawn, {"age2": [1, 2], "gender": [2, 1]}, outputs)
    two = weight_looks(drawn, {"age1": [2, 2], "age2": [3, 2], "age3": [1, 0]}, outputs)
    assert one == {"gender": (COLORS[0], "-"), "age2": (COLORS[2], "-")}
    assert two == {name: (COLORS[k], "-") for k, name in enumerate(outputs) if k}
    # Without the outputs, the order of the history.
    without = weight_looks(drawn, {"age2": [1, 2], "gender": [2, 1]})
    assert without["age2"][0] == COLORS[0]


def test_fourteen_outputs_are_distinct_and_the_rest_is_pale(drawn):
    names = [f"a{k}" for k in range(20)]
    looks = weight_looks(drawn, {n: [k, 1] for k, n in enumerate(names)}, names)
    assert list(looks) == [*names[:14], "6 more outputs"]
    assert len(set(looks.values())) == 15
    assert output_style(14) == output_style(39)


def test_labels_of_outputs_with_the_same_weights(drawn):
    ages = [f"age{k}" for k in range(1, 9)]
    same = dict.fromkeys(ages, [1, 2])
    assert list(weight_looks(drawn, same, ["gender", *ages])) == ["age1 … age8"]
    # age2 has other weights: "age1 … age8" would be untrue.
    other = weight_looks(drawn, same | {"age2": [0, 3]}, ["gender", *ages])
    assert list(other) == ["age1 and 6 more", "age2"]
    few = weight_looks(drawn, {"age1": [1, 2], "age3": [1, 2]}, ages)
    assert list(few) == ["age1, age3"]


def test_accuracies_keep_their_colors(drawn):
    """Where all heads are as right as the age group, one curve less is drawn."""
    means = []
    for all_heads in ([0.2, 0.3, 0.3], HISTORY["val_age_accuracy"]):
        more = {"val_age_all_heads_accuracy": all_heads, "val_mean_accuracy": [0.5] * 3}
        plots.plot_history(HISTORY | more, "none.png")
        means.append(legend_of(drawn[-1].axes[1])["mean of gender and age"])
    assert "age, all heads right" not in legend_of(drawn[-1].axes[1])
    assert means[0].get_color() == means[1].get_color() == COLORS[3]


def test_the_dot_is_the_best_epoch_and_in_the_legend(drawn):
    # Lowest validation loss: second epoch. Best checkpoint: third.
    plots.plot_history(HISTORY, "none.png", best_epoch=2)
    dot = legend_of(drawn[-1].axes[0])["best: epoch 3 (2.5)"]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (3, 2.5)
    accuracy = drawn[-1].axes[1]
    assert "best: epoch 3" in legend_of(accuracy)
    dots = [line for line in accuracy.lines if line.get_marker() == "o"]
    points = {tuple(np.ravel(dot.get_data())) for dot in dots}
    assert {(3, 0.8), (3, 0.35)} <= points

    plots.plot_history(HISTORY, "none.png")
    dot = legend_of(drawn[-1].axes[0])["lowest: epoch 2 (2.4)"]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (2, 2.4)
    with pytest.raises(ValueError, match=r"an epoch in \[0, 3\).*best_epoch=3"):
        plots.plot_history(HISTORY, "none.png", best_epoch=3)


def test_rows_without_faces_are_hatched_and_zeros_are_not(drawn):
    # True groups 1 and 3: the other six have no face; both genders have one.
    decoded = Decoded(np.array([1, 2]), None, np.array([0, 0]), None, None)
    plot_confusion_matrices(evaluate_predictions([1, 3], [0, 1], decoded), "none.png")
    gender, age = drawn[-1].axes
    assert not gender.patches
    assert {round(p.get_y() + 0.5) for p in age.patches} == {0, 2, 4, 5, 6, 7}
    assert all(p.get_hatch() and p.get_width() == 8 for p in age.patches)
    assert [t.get_text() for t in age.texts].count("no faces") == 6
    assert len(age.get_xticks(minor=True)) == 9  # the edges of eight cells


def test_percentages_are_0_or_100_only_if_exact(drawn):
    """One of 300 faces is not 0 %, and the other 299 are not all."""
    gender = np.zeros(300, int)
    answered = np.where(np.arange(300) == 0, 1, 0)
    decoded = Decoded(None, None, answered, None, None)
    plot_confusion_matrices(evaluate_predictions(gender - 1, gender, decoded), "no.png")
    texts = [text.get_text() for text in drawn[-1].axes[0].texts]
    assert texts == ["no faces", ">99%\n299", "<1%\n1"]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_rows_of_a_reproduction_are_inside_the_panel(drawn, tmp_path, count):
    figures = {"gender accuracy": 0.9, "age accuracy": 0.6}
    row = SimpleNamespace(
        recipe="14", checkpoint="", published=figures, measured={}, failed=[],
        intervals={}, one_class={}, interval_over="",
    )  # fmt: skip
    reproduction_plot.plot_reproduction([row] * count, "none.png", "a long note " * 80)
    (figure,) = drawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, of panels without any height
        figure.savefig(tmp_path / "table.png")
    for axis in figure.axes:
        bottom, top = axis.get_ylim()
        assert (bottom, top) == (count - 0.5, -0.5)
