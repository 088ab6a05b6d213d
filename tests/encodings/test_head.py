"""Heads: every head type for every column, eager and in tf.data, decoded again."""

from __future__ import annotations

import math
import pickle

import keras
import numpy as np
import pytest
from keras import ops

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import RESERVED_NAMES, Head
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.labels import MAX_AGE
from keras_agegender.models.builder import (
    build_heads,
    build_model,
)
from keras_agegender.models.weights import stored_encoding

SIZES = ("small", "medium", "large", "huge")
CLASS_TYPES = sorted(
    name for name, head_type in HEAD_TYPES.items() if head_type.has_classes
)


def outputs_of(head, ids):
    """What a model that is right and sure puts out for these classes."""
    encoding = Encoding("one", (head,))
    outputs = encoding.encode(columns={head.columns[0]: ids})
    if head.head_type == "categorical":
        outputs[head.name] = np.eye(head.num_classes)[outputs[head.name]]
    if head.head_type == "years":
        outputs[head.name] = np.eye(head.num_classes)[ids]
    return outputs


@pytest.mark.parametrize("head_type", ["categorical", "coral", "corn", "ordinal"])
def test_every_head_type_of_classes_reads_any_column(head_type):
    head = Head("size", head_type, column="size_id", classes=SIZES)
    assert head.num_classes == 4
    ids = np.array([0, 1, 2, 3])
    found = Encoding("one", (head,)).decode_head("size", outputs_of(head, ids))
    np.testing.assert_array_equal(ops.convert_to_numpy(found.values), ids)
    np.testing.assert_allclose(found.probabilities, np.eye(4), atol=1e-6)
    assert [head.class_name(i) for i in ids] == list(SIZES)


def test_targets_of_size_2_by_hand():
    """Class 2 of 4: above 0 and 1, not above 2. CORN does not ask beyond that."""
    expected = {
        "coral": [[1.0], [1.0], [0.0]],
        "corn": [[1.0], [1.0], [0.0]],
        "categorical": 2,
    }
    for head_type, target in expected.items():
        head = Head("size", head_type, 4)
        found = Encoding("one", (head,)).encode(columns={"size": [2]})
        assert found["size"][0].tolist() == target
    weights = Encoding("one", (Head("size", "corn", 4),)).sample_weights(
        columns={"size": [0, 2, -1]}
    )
    assert weights["size"].tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    ordinal = Encoding("one", (Head("size", "ordinal", 4),)).encode(
        columns={"size": [2]}
    )
    assert {n: float(t[0, 0]) for n, t in ordinal.items()} == {
        "size1": 1, "size2": 1, "size3": 0, "size4": 0
    }  # fmt: skip
    younger = Head("size", "ordinal", 4, question="younger")
    found = Encoding("one", (younger,)).encode(columns={"size": [2]})
    assert [float(t[0, 0]) for t in found.values()] == [0, 0, 0, 1]


def test_years_targets_are_normal_about_the_age():
    head = Head("age", "years", column="age_years", sigma=2.0)
    encoding = Encoding("one", (head,))
    found = encoding.encode(columns={"age_years": [30.9, 0, 120, -1]})["age"]
    assert found.shape == (4, 101)
    np.testing.assert_allclose(found[:3].sum(axis=1), 1.0, atol=1e-5)
    # Completed years: 30. exp(-2² / (2 · 2²)) = exp(-1/2) two years off.
    assert found[0].argmax() == 30
    assert found[0, 32] / found[0, 30] == pytest.approx(np.exp(-0.5), rel=1e-5)
    # Older than the oldest year: as if 100.
    assert found[2, 98] / found[2, 100] == pytest.approx(np.exp(-0.5), rel=1e-5)
    weights = encoding.sample_weights(columns={"age_years": [30.9, 0, 120, -1]})
    assert weights["age"].tolist() == [1, 1, 1, 0]


def test_years_are_decoded_by_their_expectation_and_to_any_groups():
    outputs = {"gender": np.array([[0.2]]), "age": np.zeros((1, 101), "float32")}
    outputs["age"][0, [20, 30, 40]] = [0.25, 0.35, 0.4]
    encoding = get_encoding("years", age_groups="decades")
    decoded = encoding.decode(outputs)
    # 0.25 · 20 + 0.35 · 30 + 0.4 · 40
    assert float(decoded.age_years[0]) == pytest.approx(31.5)
    assert encoding.age_groups.names[int(decoded.age_group[0])] == "40-49"
    assert encoding.age_groups.names[int(decoded.median_age_group[0])] == "30-39"
    adience = get_encoding("years").decode(outputs)
    # 20 is in 15-20, 30 in 25-32, 40 in 38-43.
    expected = [0, 0, 0, 0.25, 0.35, 0.4, 0, 0]
    np.testing.assert_allclose(adience.age_probabilities[0], expected, atol=1e-6)


def test_regression_is_standardized_and_decoded_in_its_unit():
    encoding = Encoding("one", (Head("weight", "regression", column="kg"),))
    encoding = encoding.with_statistics({"kg": np.array([50.0, 70.0, np.nan])})
    head = encoding.heads[0]
    assert (head.mean, head.scale) == (60.0, 10.0)
    targets = encoding.encode(columns={"kg": [75.0, np.nan]})
    assert targets["weight"].tolist() == [[1.5], [0.0]]
    found = encoding.decode_head("weight", {"weight": np.array([[1.5], [-1.0]])})
    np.testing.assert_allclose(found.values, [75.0, 50.0])


def test_the_prediction_is_the_most_probable_group():
    """P(>= k) = 1, .9, .54, .46, .05: groups weigh .1, .36, .08, .41, .05, so the
    median is a group of 8 %, and the prediction one of 41 %."""
    at_least = [0.9, 0.54, 0.46, 0.05, 0.0, 0.0, 0.0, 0.0]
    outputs = {f"age{k}": np.array([[p]]) for k, p in enumerate(at_least, 1)}
    outputs["gender"] = np.array([[0.3]])
    decoded = get_encoding("ordinal").decode(outputs)
    assert int(decoded.median_age_group[0]) == 2
    assert int(decoded.age_group[0]) == 3
    assert float(decoded.age_probabilities[0, 3]) == pytest.approx(0.41, abs=1e-6)
    assert bool(decoded.heads_agree[0])


@pytest.mark.parametrize(("question", "constant"), [("older", 8), ("younger", 1)])
def test_a_constant_output_can_disagree(question, constant):
    """Nobody is above the last group, or below the first: a yes is no group's story."""
    encoding = get_encoding("ordinal", question)
    outputs = {n: v.astype("float32") for n, v in encoding.encode([3], [0]).items()}
    assert bool(encoding.decode(outputs).heads_agree[0])
    outputs[f"age{constant}"] = np.array([[0.9]])
    decoded = encoding.decode(outputs)
    assert not bool(decoded.heads_agree[0]) and int(decoded.age_group[0]) == 3


def test_joint_predictions_agree_with_their_probabilities():
    """The most probable pair is a woman, but more of the probability is of men."""
    joint = np.full((1, 16), 0.0)
    joint[0, 3], joint[0, 8 + 4], joint[0, 8 + 5] = 0.4, 0.35, 0.25
    decoded = get_encoding("joint").decode({"gender_age": joint})
    assert int(decoded.gender[0]) == 1
    assert float(decoded.gender_probability[0]) == pytest.approx(0.6)
    assert int(decoded.age_group[0]) == 3


@pytest.mark.parametrize("name", ["joint", "categorical", "ordinal", "coral", "years"])
def test_predictions_are_the_largest_of_their_probabilities(name):
    rng = np.random.default_rng(1)
    encoding = get_encoding(name)
    outputs = {}
    for head in encoding.heads:
        for output in head.output_names:
            shape = (64, head.num_classes)
            if head.head_type == "coral":
                shape = (64, head.num_classes - 1, 1)
            elif head.head_type in ("ordinal", "binary"):
                shape = (64, 1)
            values = rng.random(shape)
            if head.spec.activation == "softmax":
                values /= values.sum(axis=-1, keepdims=True)
            outputs[output] = values
    decoded = encoding.decode(outputs)
    probabilities = ops.convert_to_numpy(decoded.age_probabilities)
    predicted = ops.convert_to_numpy(decoded.age_group)
    np.testing.assert_array_equal(predicted, probabilities.argmax(axis=1))
    male = ops.convert_to_numpy(decoded.gender_probability)
    np.testing.assert_array_equal(ops.convert_to_numpy(decoded.gender), male > 0.5)


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_reserved_names_are_refused(name):
    with pytest.raises(ValueError, match="reserved"):
        Head(name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": 3}, "`name`.*Received: name=3"),
        ({"name": "hair color"}, "letters, digits.*'hair color'"),  # as TensorFlow asks
        ({"name": "_x"}, "the first a letter or digit.*'_x'"),
        ({"name": "a", "head_type": ["x"]}, "`head_type` of head 'a'.*'x'"),
        ({"name": "a", "head_type": "coral", "num_classes": 2.5}, "an int.*2.5"),
        ({"name": "a", "head_type": "coral", "classes": "abc"}, "list of names.*'abc'"),
        (
            {"name": "a", "head_type": "coral", "classes": ["x", "x"]},
            "distinct names.*'x'",
        ),
        ({"name": "a", "head_type": "regression", "mean": math.nan}, "finite.*nan"),
    ],
)
def test_impossible_heads(fields, message):
    with pytest.raises(ValueError, match=message):
        Head(**fields)


def test_predictions_that_are_nan_are_an_error():
    encoding = get_encoding("categorical")
    age = np.full((3, 8), 0.125, "float32")
    age[1, 4] = np.nan
    outputs = {"gender": np.full((3, 1), 0.5, "float32"), "age": age}
    for given in (outputs, {name: value.tolist() for name, value in outputs.items()}):
        with pytest.raises(ValueError, match="'age' is NaN for 1 of 3 faces.*ion 1"):
            encoding.decode(given)


@pytest.mark.parametrize(
    ("head", "values", "message"),
    [
        (Head("race"), [0, 4], r"`race` of head 'race'.*\[0, 2\).*4 at position 1"),
        (Head("size", "coral", 4), [4], r"\[0, 4\).*4 at position 0"),
        (Head("age", "years", column="years"), [MAX_AGE + 1], r"131 at position 0"),
    ],
)
def test_ids_beyond_the_classes_are_named(head, values, message):
    with pytest.raises(ValueError, match=message):
        Encoding("one", (head,)).encode(columns={head.columns[0]: values})


def test_unknown_ages_are_no_numbers():
    encoding = Encoding("one", (Head("years", "regression", column="age_years"),))
    (head,) = encoding.with_statistics({"age_years": [-1, 30, -1, 32]}).heads
    assert (head.mean, head.scale) == (31.0, 1.0)


def test_two_classes_of_eight_groups_are_refused():
    with pytest.raises(ValueError, match="'old'. Expected 8.*head_type='binary'"):
        Encoding("one", (Head("old", column="age_group"),))


def test_a_second_age_head_is_an_output_of_its_own():
    again = Head("again", "years", column="age_years")
    encoding = get_encoding("categorical", heads=[again])
    assert encoding.age_head.name == "age"
    assert encoding.extra_heads == (again,)


def test_an_encoding_is_a_value():
    def make(question="older"):
        return (
            get_encoding("ordinal", question, age_groups="fairface")
            .with_heads([Head("size", "coral", classes=SIZES)])
            .with_loss_weights({"age4": 1.3})
            .with_class_weights(gender=[1.0, 2.0])
        )

    assert make() == make() and hash(make()) == hash(make())
    listed = Encoding("one", [Head("hat")], class_weights=[["gender", [1.0, 2.0]]])
    tupled = Encoding("one", (Head("hat"),), class_weights=(("gender", (1.0, 2.0)),))
    assert listed == tupled and hash(listed) == hash(tupled)
    assert make() != make("younger") != get_encoding("ordinal")
    assert pickle.loads(pickle.dumps(make())) == make()
    assert Encoding.from_dict(make().to_dict()) == make()
    assert make().loss_weights["age4"] == 1.3 and make().loss_weights["age5"] == 1.0


def test_the_encoding_is_stored_in_the_model_s_file(tmp_path):
    encoding = get_encoding("ordinal", "younger", age_groups="fairface").with_heads(
        [Head("kg", "regression", mean=60.0, scale=9.5)]
    )
    model = build_model("caffe_1conv", encoding, image_size=(32, 32))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert stored_encoding(loaded) == encoding
    image = np.random.default_rng(0).random((2, 32, 32, 3))
    for name, value in model.predict(image, verbose=0).items():
        np.testing.assert_allclose(loaded.predict(image, verbose=0)[name], value)


# Tracing takes seconds each: by default one type of each sort.
@pytest.mark.parametrize(
    "head_type",
    [
        head_type
        if head_type in ("corn", "ordinal", "years")
        else pytest.param(head_type, marks=pytest.mark.slow)
        for head_type in sorted(HEAD_TYPES)
    ],
)
def test_every_head_type_trains(head_type):
    """A small model learns to tell three or more classes, or numbers, apart."""
    num = {"binary": 1, "regression": 1, "years": 30}.get(head_type, 3)
    head = Head("thing", head_type, num)
    encoding = Encoding("one", (head,))
    inputs = keras.Input((4,))
    outputs = build_heads(keras.layers.Dense(16, "tanh")(inputs), encoding.heads)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.02), **encoding.compile_arguments())
    rng = np.random.default_rng(0)
    ids = np.tile([0, 1, 2] if num > 1 or head_type == "regression" else [0, 1], 800)
    ids = ids * (10 if head_type == "years" else 1)
    x = np.eye(4)[ids // (10 if head_type == "years" else 1)] + rng.normal(
        0, 0.01, (len(ids), 4)
    )
    columns = {"thing": ids.astype("float64")}
    targets = encoding.encode(columns=columns)
    weights = encoding.sample_weights(columns=columns)
    model.fit(x, targets, sample_weight=weights, batch_size=32, verbose=0)
    found = encoding.decode_head("thing", model.predict(x, verbose=0))
    found = ops.convert_to_numpy(found.values)
    assert np.abs(found - ids).max() < (3.0 if head_type == "years" else 0.5)
