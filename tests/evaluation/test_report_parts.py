"""Parts of reports: bins of confidence, bars of groups, mistakes, occlusion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation import plots as group_plot, plots as reliability_plot
from keras_agegender.evaluation.occlusion import draw_occlusion, occlusion_map
from keras_agegender.evaluation.plots import (
    decoded_history,
    history_panels,
    plot_history,
    reliability_bins,
)
from keras_agegender.evaluation.predictions import (
    TaskPredictions,
    confident_mistakes,
    prediction_table,
    read_predictions,
    task_predictions,
    thumbnail,
    write_predictions,
)
from keras_agegender.evaluation.report import (
    chosen_faces,
    confusion_rows,
    score_table,
    shade,
)
from keras_agegender.metrics.table import METRICS, Predictions

GROUPS = {
    "groups": [
        {"race": "a", "num_faces": 40, "few": False, "gender_accuracy": 0.5,
         "gender_interval": (0.3, 0.7)},
        {"race": "b", "num_faces": 50, "few": False, "gender_accuracy": 0.9,
         "gender_interval": (0.8, 1.0)},
        {"race": "c", "num_faces": 3, "few": True, "gender_accuracy": 0.0,
         "gender_interval": None},
    ]
}  # fmt: skip


def task(name, probabilities, truth):
    probabilities = np.array(probabilities)
    classes = tuple("abc"[: probabilities.shape[1]])
    predicted = probabilities.argmax(axis=1)
    return TaskPredictions(name, classes, probabilities, np.array(truth), predicted)


def test_bins_by_hand():
    probabilities = [[0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [0.6, 0.4], [1.0, 0.0]]
    table = reliability_bins(probabilities, [0, 0, 0, 1, -1], bins=5)
    assert table["num_faces"].tolist() == [0, 0, 1, 1, 2]  # 0.6 is in (0.4, 0.6]
    assert table["accuracy"].tolist()[2:] == [0.0, 1.0, 0.5]
    assert table["confidence"].tolist()[2:] == pytest.approx([0.6, 0.7, 0.9])
    assert table["accuracy"].isna().tolist()[:2] == [True, True]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_bins_are_those_of_the_calibration_error(seed, num_classes):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(num_classes), 60)
    classes = random.integers(num_classes, size=60)
    table = reliability_bins(probabilities, classes).dropna(subset=["accuracy"])
    gaps = (table["accuracy"] - table["confidence"]).abs() * table["num_faces"]
    predictions = Predictions(classes, None, probabilities=probabilities)
    expected = METRICS["expected_calibration_error"].value(predictions)
    assert gaps.sum() / 60 == pytest.approx(expected, abs=1e-6)


def test_one_person_with_many_faces_widens_the_interval():
    probabilities, classes = [[0.8, 0.2]] * 40, [0, 1] * 20
    alone = reliability_bins(probabilities, classes).iloc[11]
    people = np.repeat([f"p{n}" for n in range(4)], 10)
    agreeing = np.repeat([0, 1, 0, 1], 10)
    together = reliability_bins(probabilities, agreeing, subjects=people).iloc[11]
    assert alone["accuracy"] == together["accuracy"] == 0.5
    assert together["high"] - together["low"] > alone["high"] - alone["low"]


def test_a_reliability_diagram_has_points_and_counts(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(
        reliability_plot, "save_figure", lambda figure, path: figures.append(figure)
    )
    table = reliability_bins([[0.9, 0.1]] * 12 + [[0.6, 0.4]] * 2, [0] * 14)
    reliability_plot.plot_reliability(
        table, tmp_path / "x.png", title="Gender", calibration_error=0.1234
    )
    upper, lower = figures[0].axes
    assert upper.get_title(loc="left") == "Gender: ECE 0.123"
    assert sum(bar.get_height() for bar in lower.patches) == 14
    assert upper.get_xlim()[0] == 0.45  # of two classes, below a half there is nothing


def test_a_diagram_without_faces(tmp_path):
    table = reliability_bins(np.empty((0, 3)), np.empty(0, "int64"))
    file = reliability_plot.plot_reliability(table, tmp_path / "empty.png")
    with Image.open(file) as picture:
        assert picture.format == "PNG"


def test_bars_are_worst_first_and_few_ones_last(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(
        group_plot, "save_figure", lambda figure, path: figures.append(figure)
    )
    given = {"groups": GROUPS["groups"][::-1]}
    group_plot.plot_groups(
        given, tmp_path / "x.png", columns="race", task="gender", overall=0.7
    )
    axis = figures[0].axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["a (40)", "b (50)", "c (3)"]
    assert [bar.get_width() for bar in axis.patches] == [0.5, 0.9, 0.0]
    assert [bar.get_hatch() for bar in axis.patches] == [None, None, "///"]
    assert axis.yaxis_inverted()
    with pytest.raises(ValueError, match="task='age_group'"):
        group_plot.plot_groups(given, "x.png", columns="race", task="age_group")


@pytest.mark.parametrize("name", ["gender", "joint", "ordinal", "coral", "years"])
def test_predictions_come_back_from_a_file(name, tmp_path):
    """predictions.csv has the outputs, rounded to four decimals."""
    glasses = Head("glasses", "binary")
    question = "older" if name == "ordinal" else None
    encoding = get_encoding(name, question=question, heads=[glasses])
    random = np.random.default_rng(0)
    outputs = {}
    for head in encoding.heads:
        for output in head.output_names:
            if head.head_type == "coral":
                shape = (20, head.num_classes - 1, 1)
                outputs[output] = -np.sort(-random.random(shape), axis=1)
            elif head.spec.activation == "softmax":
                outputs[output] = random.dirichlet(np.ones(head.num_classes), 20)
            else:
                outputs[output] = random.random((20, 1))
    labels = {
        "key": np.array([f"k{n}" for n in range(20)]),
        "age_group": random.integers(-1, 8, 20),
        "gender": random.integers(-1, 2, 20),
        "age_years": random.integers(0, 90, 20),
    }
    described = {"glasses": np.array([0, 1, -1, 1] * 5)}
    table = prediction_table(outputs, labels, encoding, described)
    write_predictions(tmp_path / "p.csv", table)
    found = task_predictions(read_predictions(tmp_path / "p.csv"), encoding)
    by_name = {task.name: task for task in found}
    decoded = encoding.decode(outputs)
    assert by_name["gender"].predicted.tolist() == np.asarray(decoded.gender).tolist()
    assert by_name["gender"].truth.tolist() == labels["gender"].tolist()
    assert ("age_group" in by_name) == (decoded.age_group is not None)
    if decoded.age_group is not None:
        assert by_name["age_group"].probabilities == pytest.approx(
            np.asarray(decoded.age_probabilities), abs=5e-3
        )
    assert by_name["glasses"].classes == ("no", "yes")
    assert by_name["glasses"].truth.tolist() == described["glasses"].tolist()


def test_confident_mistakes_by_hand():
    gender = task(
        "gender", [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], [1, 0, -1, 0]
    )
    age = task("age_group", [[0.1, 0.2, 0.7]] * 4, [2, 2, 2, 0])
    found = confident_mistakes([gender, age], ["k0", "k1", "k2", "k3"], count=2)
    assert found.to_dict("list") == {
        "key": ["k0", "k1", "k3"],
        "question": ["gender", "gender", "age_group"],
        "true": ["b", "a", "a"],
        "answered": ["a", "b", "c"],
        "probability": [0.9, 0.8, 0.7],
        "probability_of_true": [0.1, 0.2, 0.1],
    }
    assert chosen_faces(found, 2)["key"].tolist() == ["k0", "k3"]
    assert confident_mistakes([], []).empty


def test_thumbnails_are_square():
    import io

    content = thumbnail(np.zeros((30, 60, 3), "uint8"), 40)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "JPEG" and picture.size == (40, 40)
        assert picture.getpixel((20, 2)) > (240, 240, 240)
        assert picture.getpixel((20, 20)) < (15, 15, 15)


def test_a_map_finds_the_decisive_part():
    image = np.zeros((20, 20, 3))
    image[12:16, 2:6] = 1.0
    needed = occlusion_map(image, lambda x: x[:, 12:16, 2:6].mean((1, 2, 3)), steps=5)
    row, column = np.unravel_index(needed.argmax(), needed.shape)
    # Squares of 5 begin at 0, 4, 8, 11 or 12, 15: the one at (12, 0..4) covers most.
    assert row == 3 and column in (0, 1)
    assert needed[0, 4] == 0.0
    drawn = draw_occlusion(np.full((20, 20, 3), 128, "uint8"), needed, 50)
    assert drawn.shape == (50, 50, 3) and drawn.dtype == np.uint8
    assert drawn[5, 45].tolist() == [128] * 3  # gray where nothing changes
    red = drawn[..., 0].astype("int64") - drawn[..., 2]
    assert red.max() > 50 and red.min() > -20
    with pytest.raises(ValueError, match=r"shape \(20, 20\)"):
        occlusion_map(image[..., 0], lambda x: x)
    with pytest.raises(ValueError, match="steps=1"):
        occlusion_map(image, lambda x: x, steps=1)


def test_shares_are_of_the_true_class():
    table = pd.DataFrame([[9, 1], [0, 0]], ["f", "m"], ["f", "m"])
    rows = confusion_rows(table)
    assert [cell["share"] for cell in rows[0]["cells"]] == [0.9, 0.1]
    assert rows[0]["cells"][0]["ink"] == "#ffffff"
    assert rows[0]["cells"][1]["ink"] == "#222222"
    assert rows[1]["total"] == 0
    assert (shade(0.0), shade(1.0)) == ("#ffffff", "#084594")


def test_a_model_no_better_than_the_majority_is_marked():
    metrics = {
        "age": {
            "num_faces": 10,
            "num_faces_with_years": 7,
            "accuracy": 0.4,
            "mean_absolute_error": 1.0,
            "mean_absolute_error_years": 9.0,
            "majority": {
                "answer": "25-32",
                "accuracy": 0.4,
                "mean_absolute_error": 2.0,
                "mean_absolute_error_years": 8.0,
            },
        }
    }
    table = score_table(metrics)
    assert table["beaten"].tolist() == [False, True, False]
    assert table["num_faces"].tolist() == [10, 10, 7]


def test_one_panel_of_a_history(tmp_path):
    history = {"loss": [1.0], "val_age_accuracy": [0.5], "age_loss_weight": [1.0]}
    assert history_panels(history) == ["loss", "accuracy", "weights"]
    assert history_panels({"loss": [1.0]}) == ["loss"]
    with Image.open(plot_history(history, tmp_path / "all.png")) as picture:
        whole = picture.width
    path = plot_history(history, tmp_path / "one.png", only="weights")
    with Image.open(path) as picture:
        assert picture.width == pytest.approx(whole / 3, abs=2)
    with pytest.raises(ValueError, match="only='weights'"):
        plot_history({"loss": [1.0]}, tmp_path / "no.png", only="weights")


def test_the_accuracy_of_exact_years_is_not_plotted_as_groups(tmp_path):
    file = tmp_path / "history.csv"
    file.write_text("epoch,loss,age_accuracy,val_age_accuracy\n0,1.5,0.1,0.7\n")
    kept = {"epoch": [0.0], "loss": [1.5], "val_age_accuracy": [0.7]}
    assert decoded_history(file, get_encoding("years")) == kept
    assert "age_accuracy" in decoded_history(file, get_encoding("categorical"))
