"""Every metric of the table: arrays, Keras and scikit-learn agree, however batched."""

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
    """Partly labelled faces, and outputs that are right more often than not."""
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
    """The array metrics' input: labels as a manifest has them, unlabelled left out."""
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
def test_evaluate_has_the_figures_of_ranks(name):
    """Of every kind that asks about ranks, one output or several; `None` of others."""
    encoding, data = ENCODINGS[name], sample(name)
    age = score(data["outputs"], data["columns"], encoding).age
    names = ("all_heads_accuracy", "rank_violation_rate")
    expected = dict.fromkeys(names)
    if name != "joint":
        expected = score_predictions(labeled_predictions(name, "age_group"), names)
        assert 0 < expected["all_heads_accuracy"] < 1
    assert {key: getattr(age, key) for key in names} == expected


def keras_figure(metric, data: dict, batches=(slice(None),)) -> float:
    metric.reset_state()
    for rows in batches:
        update(metric, part_of(data, rows))
    return float(metric.result())


def test_no_metric_is_forgotten():
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
    answers = labeled_predictions(name, column)
    assert 5 < len(answers.truth) < NUM_FACES
    shuffled = np.random.default_rng(1).permutation(NUM_FACES)
    unlabelled = part_of(data, data["columns"][column] < 0)
    for metric_name in metric_names(encoding, column):
        expected = score_predictions(answers, [metric_name])[metric_name]
        tolerance = TOLERANCE.get(metric_name, 1e-5)
        metric = keras_metric(metric_name, encoding, column)
        found = keras_figure(metric, data)
        assert found == pytest.approx(expected, abs=tolerance), metric_name
        # Faces without a label change nothing.
        update(metric, unlabelled)
        assert float(metric.result()) == pytest.approx(found, abs=1e-6), metric_name
        # Nor does the order, or where it is cut into batches.
        batches = np.split(shuffled, 3)
        again = keras_figure(metric, data, batches)
        assert again == pytest.approx(found, abs=1e-5), metric_name
        # Nor does writing it down.
        copy = type(metric).from_config(metric.get_config())
        assert copy.name == metric.name
        assert keras_figure(copy, data) == pytest.approx(found, abs=1e-6), metric_name
        assert keras_figure(metric, unlabelled) == 0.0, metric_name


@pytest.mark.parametrize(("name", "column"), CASES)
def test_order_of_faces_does_not_matter_to_arrays(name, column):
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
def test_arrays_are_what_scikit_learn_says(name, column):
    answers = labeled_predictions(name, column)
    for metric_name in metric_names(ENCODINGS[name], column):
        if metric_name in SCIKIT_LEARN:
            found = METRICS[metric_name].value(answers)
            expected = SCIKIT_LEARN[metric_name](answers)
            assert found == pytest.approx(expected, rel=1e-4), metric_name
    if answers.num_classes == 2:
        probability = np.clip(answers.probabilities[:, 1], 0, 1)
        found = METRICS["brier_score"].value(answers)
        assert found == pytest.approx(sk.brier_score_loss(answers.truth, probability))


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX compiles every batch size: a minute"
)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, NUM_FACES), max_size=4),
    st.permutations(range(NUM_FACES)),
)
def test_any_batches_have_the_same_figure(cuts, order):
    data, encoding = sample("older"), ENCODINGS["older"]
    batches = np.split(np.array(order), sorted(cuts))
    # A mean, a matrix of counts and a histogram: what the others are made of.
    for make in (OneOffAccuracy, QuadraticKappa, ExpectedCalibrationError):
        expected = keras_figure(make(encoding), data)
        found = keras_figure(make(encoding), data, batches)
        assert found == pytest.approx(expected, abs=1e-5)


# Four faces of groups 0, 4, 4, 7 answered 0, 5, 4, 4: see test_metrics.
BY_HAND = get_encoding("categorical")
TRUTH, ANSWER = np.array([0, 4, 4, 7, 2]), np.array([0, 5, 4, 4, 2])


def figure(make, probabilities, truth=TRUTH, weights=None, encoding=BY_HAND):
    metric = make(encoding)
    metric.update_state(truth, probabilities, weights)
    return float(metric.result())


def test_figures_by_hand():
    sure = np.eye(8)[ANSWER]
    assert figure(OneOffAccuracy, sure) == pytest.approx(4 / 5)
    assert figure(BalancedAccuracy, sure) == pytest.approx((1 + 1 + 1 / 2 + 0) / 4)
    assert figure(QuadraticKappa, sure) == pytest.approx(1 - 10 / 44)
    # The fourth face, three groups off, left out; the second counts double.
    weights = np.array([1, 2, 1, 0, 1], "float32")
    assert figure(OneOffAccuracy, sure, weights=weights) == pytest.approx(1.0)
    assert figure(BalancedAccuracy, sure, weights=weights) == pytest.approx(
        (1 + 1 / 3 + 1) / 3
    )


def test_one_off_is_not_top_two():
    """The second best answer is right, but three groups away from the best."""
    answer = np.zeros((1, 8))
    answer[0, [1, 4]] = 0.6, 0.4
    assert figure(OneOffAccuracy, answer, np.array([4])) == 0.0


def test_calibration_error_by_hand():
    """Two faces at 0.9, one correct: |1 - 1.8|; one at 0.6, correct: 0.4."""
    answers = np.zeros((3, 8))
    answers[:, 0] = 0.9, 0.9, 0.6
    answers[:, 1] = 0.1, 0.1, 0.4
    truth = np.array([0, 1, 0])
    expected = (0.8 + 0.4) / 3
    assert figure(ExpectedCalibrationError, answers, truth) == pytest.approx(expected)
    arrays = METRICS["expected_calibration_error"]
    predictions = Predictions(truth, None, probabilities=answers)
    assert arrays.value(predictions) == pytest.approx(expected)
    certain = Predictions(np.array([0]), None, probabilities=np.array([[1.0, 0.0]]))
    assert arrays.value(certain) == 0.0


def test_rank_violations_by_hand():
    """Above 0, not above 1, above 2: no class's answer; it counts to class 2."""
    encoding = get_encoding("gender", heads=[Head("size", "ordinal", 4)])
    bits = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], "float32")
    outputs = {f"size{k + 1}": bits[:, k : k + 1] for k in range(4)}
    targets = {name: outputs[name][[0, 0]] for name in outputs}
    for make, expected in ((RankViolationRate, 0.5), (AllHeadsAccuracy, 0.5)):
        metric = make(encoding, "size")
        metric.update_state(targets, outputs)
        assert float(metric.result()) == expected


def test_detailed_metrics_in_fit():
    """What `evaluate` of a compiled model says is what the arrays say."""
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
def test_decoded_metrics_see_all_outputs_of_a_question(name):
    """After an epoch the logs hold what the arrays say, of heads with many outputs."""
    encoding, data = ENCODINGS[name], sample(name)
    rows = np.arange(NUM_FACES, dtype="float32")[:, None]
    x = keras.Input((1,))
    outputs = {}
    for output, values in data["outputs"].items():  # a model that knows the answers
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


def test_decoded_metrics_of_no_label_are_not_logged():
    columns = {"age_group": np.full(3, -1), "gender": np.array([0, 1, -1])}
    outputs = {n: np.full((3, 1), 0.4) for n in ENCODINGS["older"].output_names}
    found = decoded_metrics(outputs, columns, ENCODINGS["older"])
    assert found["gender_exact_accuracy"] == 0.5
    assert not [name for name in found if name.startswith("age")]


@pytest.mark.parametrize("name", [*ENCODINGS, "gender"])
def test_names_in_the_logs_differ(name):
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
def test_wrong_use_is_named(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
