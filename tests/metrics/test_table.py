"""A metric is one row of the table: everything else follows from it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_agegender as kag
from keras_agegender.evaluation.report import score_table
from keras_agegender.metrics.intervals import metric_intervals
from keras_agegender.metrics.keras_metrics import head_metrics
from keras_agegender.metrics.table import (
    METRICS,
    Metric,
    Predictions,
    confusion_matrix,
    metrics_for,
)

# Ten faces, 0, 1, 2, 3, 4 groups off, two each: six of ten within two.
TRUTH = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
PREDICTED = np.array([0, 0, 2, 2, 4, 4, 6, 6, 0, 0])
TWO_OFF = Metric(
    "two_off_accuracy",
    needs="ordered",
    aggregation="share",
    function=lambda p, xp: xp.abs(p.predicted - p.truth) <= 2,
    title="within two groups",
    baseline=True,
)


@pytest.fixture
def two_off(monkeypatch):
    monkeypatch.setitem(METRICS, TWO_OFF.name, TWO_OFF)
    return TWO_OFF.name


def test_a_row_is_an_array_value_and_an_interval(two_off):
    """Wilson's interval of 6 of 10, with Student's quantile of 9 degrees, 2.262157.

    The variance of a mean is over n - 1 = 9: z²/9 = 0.568595, center
    (0.6 + 0.284297) / 1.568595 = 0.563751, margin
    √(0.24 · 0.568595 + 0.568595² / 4) / 1.568595 = 0.297172.
    """
    predictions = Predictions(TRUTH, PREDICTED, 8)
    assert METRICS[two_off].value(predictions) == 0.6
    assert two_off in metrics_for("ordered") and two_off not in metrics_for("classes")
    people = kag.metrics.Clusters.of([""] * 10)
    (found,) = metric_intervals(predictions, [two_off], people).values()
    assert found.interval == pytest.approx((0.266580, 0.860923), abs=1e-5)


def test_a_row_is_a_score_a_printed_line_and_a_report_row(two_off):
    decoded = kag.encodings.Decoded(age_group=PREDICTED, heads_agree=np.ones(10, bool))
    unknown = np.full(10, -1)
    scores = kag.evaluation.evaluate_predictions(
        TRUTH, unknown, decoded, subjects=[""] * 10
    )
    assert scores.age.two_off_accuracy == 0.6
    stored = scores.to_dict()
    assert stored["age"][two_off] == 0.6
    # The most frequent group is the first of equals, 0: of 0 … 4, three are within two.
    assert stored["age"]["majority"][two_off] == 0.6
    text = kag.evaluation.format_metrics(scores)
    assert "            within two groups 0.600 [0.267, 0.861]\n" in text
    rows = score_table(stored).set_index("figure")
    row = rows.loc["within two groups"]
    assert (row["question"], row["value"], row["majority"]) == ("age group", 0.6, 0.6)
    assert (round(row["low"], 3), round(row["high"], 3)) == (0.267, 0.861)


def test_a_row_is_a_keras_metric(two_off):
    encoding = kag.get_encoding("categorical")
    (metric,) = (
        m for m in kag.metrics.detailed_metrics(encoding)["age"] if m.name == two_off
    )
    weights = np.array([1] * 8 + [0, 0], "float32")  # without those 4 groups off
    metric.update_state(TRUTH, np.eye(8)[PREDICTED], weights)
    assert float(metric.result()) == pytest.approx(6 / 8)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert type(copy) is type(metric) and copy.name == two_off
    copy.update_state(TRUTH, np.eye(8)[PREDICTED])
    assert float(copy.result()) == pytest.approx(0.6)
    # Heads with several outputs have it in `DecodedMetrics`.
    ordinal = kag.get_encoding("ordinal")
    assert two_off in {m.name for m in head_metrics(ordinal, ordinal.age_head)}


def test_a_statistic_of_the_confusion_matrix_is_a_row_too(monkeypatch):
    """Share of faces predicted as class 0: 4 of 10, or of 4 with weight 2."""
    row = Metric(
        "share_of_class_0",
        needs="classes",
        aggregation="confusion",
        function=lambda counts, xp, positive: (
            xp.sum(counts[..., :, 0], axis=-1) / xp.sum(counts, axis=(-2, -1))
        ),
        title="share of class 0",
    )
    monkeypatch.setitem(METRICS, row.name, row)
    predictions = Predictions(TRUTH, PREDICTED, 8)
    assert row.value(predictions) == 0.4
    people = kag.metrics.Clusters.of([""] * 10)
    found = metric_intervals(predictions, [row.name], people)[row.name]
    assert found.value == 0.4 and 0 <= found.low < 0.4 < found.high <= 1
    encoding = kag.get_encoding("categorical")
    metrics = {m.name: m for m in kag.metrics.detailed_metrics(encoding)["age"]}
    metric = metrics[row.name]
    metric.update_state(TRUTH, np.eye(8)[PREDICTED])
    assert float(metric.result()) == pytest.approx(0.4)
    assert row.value(Predictions(TRUTH[:0], PREDICTED[:0], 8)) is None


def test_every_row_is_documented():
    """Names are keys; what is printed has room for its value."""
    for name, row in METRICS.items():
        assert row.name == name
        assert "{}" in row.printed
        assert row.aggregation in ("share", "mean", "confusion", "bins", "rank")


def test_confusion_matrix_rows_are_the_truth():
    assert confusion_matrix([0, 0, 1, -1], [1, 0, 1, 0], 2).tolist() == [[1, 1], [0, 1]]
    assert confusion_matrix([-1], [1], 2).tolist() == [[0, 0], [0, 0]]
