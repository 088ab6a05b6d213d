"""Metrics of the table: arrays, Keras and scikit-learn agree, in any batches."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

from keras_agegender.callbacks.decoded_metrics import DecodedMetrics, decoded_metrics
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.evaluation.evaluate import score
from keras_agegender.metrics.keras_metrics import (
    AgeYearsError,
    AllHeadsAccuracy,
    BalancedAccuracy,
    ExpectedCalibrationError,
    OneOffAccuracy,
    PositiveClassMetric,
    QuadraticKappa,
    RankViolationRate,
    detailed_metrics,
    keras_metric,
    metric_names,
    read_predictions,
)
from keras_agegender.metrics.table import (
    METRICS,
    Predictions,
    score as score_predictions,
)

NUM_FACES = 60
# Keras' AUC adds up 200 thresholds; the rest is float32.
TOLERANCE = {"auc": 0.02}

ENCODINGS = {
    **{name: get_encoding(name) for name in ("joint", "coral", "corn", "years")},
    "categorical": get_encoding("categorical", age_groups="decades"),
    "older": get_encoding("ordinal", question="older"),
    "younger": get_encoding("ordinal", question="younger"),
    "further": get_encoding(
        "gender",
        heads=[
            Head("glasses"),
            Head("hair", "categorical", 3),
            Head("size", "ordinal", 4),
        ],
    ),
}
COLUMNS = {
    "further": ("gender", "glasses", "hair", "size"),
    "years": ("gender", "age_group", "age_years"),
}
CASES = [
    (name, column)
    for name in ENCODINGS
    for column in COLUMNS.get(name, ("gender", "age_group"))
]


@cache
def sample(name: str) -> dict:
    """Partly labeled faces, and outputs that are mostly correct."""
    encoding: Encoding = ENCODINGS[name]
    rng = np.random.default_rng(7)
    groups = encoding.age_groups
    columns = {
        "age_group": rng.integers(-1, len(groups), NUM_FACES),
        "gender": rng.integers(-1, 2, NUM_FACES),
        "glasses": rng.integers(-1, 2, NUM_FACES),
        "hair": rng.integers(-1, 3, NUM_FACES),
        "size": rng.integers(-1, 4, NUM_FACES),
    }
    if name == "years":
        years = rng.integers(-1, 100, NUM_FACES)
        columns["age_years"] = years
        columns["age_group"] = np.array(
            [groups.from_years(y) if y >= 0 else -1 for y in years]
        )
    given = (columns["age_group"], columns["gender"], columns)
    targets, outputs = encoding.encode(*given), {}
    for head in encoding.heads:
        for output in head.output_names:
            target = targets[output]
            if head.head_type == "categorical":
                target = np.eye(head.num_classes)[target]
            noise = rng.random(target.shape)
            value = 0.45 * target + 0.55 * noise
            if head.head_type in ("categorical", "years"):
                value = value**4
                value /= value.sum(axis=1, keepdims=True)
            outputs[output] = value.astype("float32")
    return {
        "columns": columns,
        "targets": targets,
        "weights": encoding.sample_weights(*given),
        "outputs": outputs,
    }


def part_of(data: dict, rows) -> dict:
    return {
        key: {name: value[rows] for name, value in data[key].items()}
        for key in ("targets", "outputs", "weights", "columns")
    }


def labeled_predictions(name: str, column: str, rows=slice(None)) -> Predictions:
    """The input of array metrics: labeled faces only."""
    encoding, data = ENCODINGS[name], part_of(sample(name), rows)
    outputs, truth = data["outputs"], data["columns"][column]
    read = read_predictions(encoding, column, data["targets"], outputs)
    known = truth >= 0
    if name == "joint":  # its target is the pair
        known = (data["columns"]["age_group"] >= 0) & (data["columns"]["gender"] >= 0)

    def chosen(values):
        return None if values is None else keras.ops.convert_to_numpy(values)[known]

    return read._replace(
        truth=truth[known],
        predicted=chosen(read.predicted),
        probabilities=chosen(read.probabilities),
        agree=chosen(read.agree),
        median=chosen(read.median),
        weights=None,
    )


def update(metric, data: dict) -> None:
    metric.update_state(data["targets"], data["outputs"], data["weights"])


@pytest.mark.parametrize("name", ["coral", "corn", "older", "younger", "joint"])
def test_evaluate_has_the_metrics_of_ranks(name):
    """For all head types with ranks, one output or several; `None` for others."""
    encoding, data = ENCODINGS[name], sample(name)
    age = score(data["outputs"], data["columns"], encoding).age
    names = ("all_heads_accuracy", "rank_violation_rate")
    expected = dict.fromkeys(names)
    if name != "joint":
        expected = score_predictions(labeled_predictions(name, "age_group"), names)
        assert 0 < expected["all_heads_accuracy"] < 1
    assert {key: getattr(age, key) for key in names} == expected


def keras_value(metric, data: dict, batches=(slice(None),)) -> float:
    metric.reset_state()
    for rows in batches:
        update(metric, part_of(data, rows))
    return float(metric.result())


def test_all_metrics_are_tested():
    tested = {
        m for name, column in CASES for m in metric_names(ENCODINGS[name], column)
    }
    assert tested == set(METRICS)
    assert {h.head_type for e in ENCODINGS.values() for h in e.heads} == set(
        HEAD_TYPES
    ) - {"regression"}


@pytest.mark.parametrize(("name", "column"), CASES)
def test_keras_and_arrays_agree(name, column):
    encoding, data = ENCODINGS[name], sample(name)
    predictions = labeled_predictions(name, column)
    assert 5 < len(predictions.truth) < NUM_FACES
    shuffled = np.random.default_rng(1).permutation(NUM_FACES)
    unlabeled = part_of(data, data["columns"][column] < 0)
    for metric_name in metric_names(encoding, column):
        expected = score_predictions(predictions, [metric_name])[metric_name]
        tolerance = TOLERANCE.get(metric_name, 1e-5)
        metric = keras_metric(metric_name, encoding, column)
        found = keras_value(metric, data)
        assert found == pytest.approx(expected, abs=tolerance), metric_name
        # Faces without a label change nothing.
        update(metric, unlabeled)
        assert float(metric.result()) == pytest.approx(found, abs=1e-6), metric_name
        # Neither do the order and the batches.
        batches = np.split(shuffled, 3)
        again = keras_value(metric, data, batches)
        assert again == pytest.approx(found, abs=1e-5), metric_name
        # Neither does serialization.
        copy = type(metric).from_config(metric.get_config())
        assert copy.name == metric.name
        assert keras_value(copy, data) == pytest.approx(found, abs=1e-6), metric_name
        assert keras_value(metric, unlabeled) == 0.0, metric_name


@pytest.mark.parametrize(("name", "column"), CASES)
def test_array_metrics_ignore_the_order_of_faces(name, column):
    names = metric_names(ENCODINGS[name], column)
    order = np.random.default_rng(2).permutation(NUM_FACES)
    first = score_predictions(labeled_predictions(name, column), names)
    again = score_predictions(labeled_predictions(name, column, order), names)
    assert again == pytest.approx(first)


# Name -> the same by scikit-learn.
SCIKIT_LEARN = {
    "accuracy": lambda a: sk.accuracy_score(a.truth, a.predicted),
    "balanced_accuracy": lambda a: sk.balanced_accuracy_score(a.truth, a.predicted),
    "precision": lambda a: sk.precision_score(a.truth, a.predicted),
    "recall": lambda a: sk.recall_score(a.truth, a.predicted),
    "f1": lambda a: sk.f1_score(a.truth, a.predicted),
    "auc": lambda a: sk.roc_auc_score(a.truth, a.probabilities[:, 1]),
    "mean_absolute_error": lambda a: sk.mean_absolute_error(a.truth, a.predicted),
    "mean_absolute_error_years": lambda a: sk.mean_absolute_error(a.truth, a.predicted),
    "quadratic_kappa": lambda a: sk.cohen_kappa_score(
        a.truth, a.predicted, weights="quadratic", labels=range(a.num_classes)
    ),
    "negative_log_likelihood": lambda a: sk.log_loss(
        a.truth, a.probabilities.astype("float64"), labels=range(a.num_classes)
    ),
}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
@pytest.mark.parametrize(("name", "column"), CASES)
def test_array_metrics_are_those_of_scikit_learn(name, column):
    predictions = labeled_predictions(name, column)
    for metric_name in metric_names(ENCODINGS[name], column):
        if metric_name in SCIKIT_LEARN:
            found = METRICS[metric_name].value(predictions)
            expected = SCIKIT_LEARN[metric_name](predictions)
            assert found == pytest.approx(expected, rel=1e-4), metric_name
    if predictions.num_classes == 2:
        probability = np.clip(predictions.probabilities[:, 1], 0, 1)
        found = METRICS["brier_score"].value(predictions)
        assert found == pytest.approx(
            sk.brier_score_loss(predictions.truth, probability)
        )


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX compiles every batch size: a minute"
)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, NUM_FACES - 1), max_size=4, unique=True),
    st.permutations(range(NUM_FACES)),
)
def test_metrics_ignore_batches(cuts, order):
    data, encoding = sample("older"), ENCODINGS["older"]
    batches = np.split(np.array(order), sorted(cuts))
    # One of each aggregation: a mean, a matrix of counts and a histogram.
    for make in (OneOffAccuracy, QuadraticKappa, ExpectedCalibrationError):
        expected = keras_value(make(encoding), data)
        found = keras_value(make(encoding), data, batches)
        assert found == pytest.approx(expected, abs=1e-5)


# Groups 0, 4, 4, 7, 2 predicted as 0, 5, 4, 4, 2, as in test_scores.
BY_HAND = get_encoding("categorical")
TRUTH, PREDICTED = np.array([0, 4, 4, 7, 2]), np.array([0, 5, 4, 4, 2])


def value_of(make, probabilities, truth=TRUTH, weights=None, encoding=BY_HAND):
    metric = make(encoding)
    metric.update_state(truth, probabilities, weights)
    return float(metric.result())


def test_metrics_by_hand():
    sure = np.eye(8)[PREDICTED]
    assert value_of(OneOffAccuracy, sure) == pytest.approx(4 / 5)
    assert value_of(BalancedAccuracy, sure) == pytest.approx((1 + 1 + 1 / 2 + 0) / 4)
    assert value_of(QuadraticKappa, sure) == pytest.approx(1 - 10 / 44)
    # Without the fourth face, three groups off; the second has weight 2.
    weights = np.array([1, 2, 1, 0, 1], "float32")
    assert value_of(OneOffAccuracy, sure, weights=weights) == pytest.approx(1.0)
    assert value_of(BalancedAccuracy, sure, weights=weights) == pytest.approx(
        (1 + 1 / 3 + 1) / 3
    )


def test_one_off_is_not_top_two():
    """The second most probable class is correct, but three groups off."""
    probabilities = np.zeros((1, 8))
    probabilities[0, [1, 4]] = 0.6, 0.4
    assert value_of(OneOffAccuracy, probabilities, np.array([4])) == 0.0


def test_calibration_error_by_hand():
    """Two faces at 0.9, one correct: |1 - 1.8|; one at 0.6, correct: 0.4."""
    probabilities = np.zeros((3, 8))
    probabilities[:, 0] = 0.9, 0.9, 0.6
    probabilities[:, 1] = 0.1, 0.1, 0.4
    truth = np.array([0, 1, 0])
    expected = (0.8 + 0.4) / 3
    assert value_of(ExpectedCalibrationError, probabilities, truth) == pytest.approx(
        expected
    )
    arrays = METRICS["expected_calibration_error"]
    predictions = Predictions(truth, None, probabilities=probabilities)
    assert arrays.value(predictions) == pytest.approx(expected)
    certain = Predictions(np.array([0]), None, probabilities=np.array([[1.0, 0.0]]))
    assert arrays.value(certain) == 0.0


def test_rank_violations_by_hand():
    """Above 0, not above 1, above 2: matches no class, and counts to class 2."""
    encoding = get_encoding("gender", heads=[Head("size", "ordinal", 4)])
    bits = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], "float32")
    outputs = {f"size{k + 1}": bits[:, k : k + 1] for k in range(4)}
    targets = {name: outputs[name][[0, 0]] for name in outputs}
    for make, expected in ((RankViolationRate, 0.5), (AllHeadsAccuracy, 0.5)):
        metric = make(encoding, "size")
        metric.update_state(targets, outputs)
        assert float(metric.result()) == expected


def test_detailed_metrics_in_fit():
    """`evaluate` of a compiled model returns the values of the arrays."""
    encoding, data = ENCODINGS["corn"], sample("corn")
    inputs = {n: keras.Input(v.shape[1:], name=f"x_{n}")
              for n, v in data["outputs"].items()}  # fmt: skip
    outputs = {
        name: keras.layers.Activation("linear", name=name)(value)
        for name, value in inputs.items()
    }
    model = keras.Model(list(inputs.values()), outputs)
    arguments = encoding.compile_arguments()
    model.compile(
        "sgd", **{**arguments, "weighted_metrics": detailed_metrics(encoding)}
    )
    logs = model.evaluate(
        [data["outputs"][name] for name in inputs],
        data["targets"],
        sample_weight=data["weights"],
        batch_size=7,
        return_dict=True,
        verbose=0,
    )
    for output, column in (("gender", "gender"), ("age", "age_group")):
        names = metric_names(encoding, column)
        expected = score_predictions(labeled_predictions("corn", column), names)
        for name, value in expected.items():
            key = name if name != "accuracy" else "exact_accuracy"
            found = logs[f"{output}_{key}"]
            assert found == pytest.approx(value, abs=TOLERANCE.get(name, 1e-4)), key
    assert {"age_accuracy", "gender_accuracy"} <= set(logs)


class Batches(list):
    """Batches with a dataset's `map`."""

    def map(self, function):
        return np.concatenate([function(*batch) for batch in self])


@pytest.mark.parametrize("name", ["younger", "further"])
def test_decoded_metrics_read_all_outputs_of_a_head(name):
    """The logs contain the values of the arrays, for heads with several outputs."""
    encoding, data = ENCODINGS[name], sample(name)
    rows = np.arange(NUM_FACES, dtype="float32")[:, None]
    x = keras.Input((1,))
    outputs = {}
    for output, values in data["outputs"].items():  # a model with these outputs
        table = keras.layers.Embedding(NUM_FACES, values.shape[1], trainable=False)
        outputs[output] = keras.layers.Flatten(name=output)(table(x))
        table.set_weights([values])
    model = keras.Model(x, outputs)
    model.compile("sgd", **encoding.compile_arguments())
    callback = DecodedMetrics(Batches([(rows,)]), data["columns"], encoding)
    history = model.fit(
        rows, data["targets"], sample_weight=data["weights"], batch_size=NUM_FACES,
        callbacks=[callback], verbose=0,
    ).history  # fmt: skip
    for head in encoding.heads:
        (column,) = head.columns
        names = metric_names(encoding, column)
        expected = score_predictions(labeled_predictions(name, column), names)
        for metric, value in expected.items():
            key = "exact_accuracy" if metric == "accuracy" else metric
            found = history[f"val_{head.name}_{key}"][-1]
            assert found == pytest.approx(value, abs=TOLERANCE.get(metric, 1e-4)), key
    # What `DecodedAccuracy` logs is there too.
    assert "val_gender_accuracy" in history


def test_decoded_metrics_without_labels_are_not_logged():
    columns = {"age_group": np.full(3, -1), "gender": np.array([0, 1, -1])}
    outputs = {n: np.full((3, 1), 0.4) for n in ENCODINGS["older"].output_names}
    found = decoded_metrics(outputs, columns, ENCODINGS["older"])
    assert found["gender_exact_accuracy"] == 0.5
    assert not [name for name in found if name.startswith("age")]


@pytest.mark.parametrize("name", [*ENCODINGS, "gender"])
def test_names_in_the_logs_are_unique(name):
    encoding = ENCODINGS.get(name) or get_encoding(name)
    for output, metrics in detailed_metrics(encoding).items():
        names = [metric.name for metric in metrics]
        assert len(names) == len(set(names)), output


def test_a_compiled_model_is_saved_with_its_metrics(tmp_path):
    encoding = get_encoding("gender")
    x = keras.Input((1,))
    model = keras.Model(x, {"gender": keras.layers.Dense(1, name="gender")(x)})
    arguments = encoding.compile_arguments()
    model.compile(
        "sgd", **{**arguments, "weighted_metrics": detailed_metrics(encoding)}
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    faces, ones = np.ones((2, 1)), {"gender": np.ones((2, 1))}
    logs = loaded.evaluate(faces, ones, return_dict=True, verbose=0)
    assert {"gender_auc", "gender_brier_score", "gender_f1"} <= set(logs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneOffAccuracy(get_encoding("gender")), "column='age_group'"),
        (lambda: AgeYearsError(get_encoding("coral")), "column='age_years'"),
        (lambda: PositiveClassMetric("top", BY_HAND), "metric='top'"),
        (
            lambda: OneOffAccuracy(ENCODINGS["older"]).update_state([[1]], [[1]]),
            "'age1'.*DecodedMetrics",
        ),
        (
            lambda: OneOffAccuracy(BY_HAND).update_state({"age": [1]}, {}),
            r"Missing: \['age'\]",
        ),
    ],
)
def test_invalid_arguments(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
