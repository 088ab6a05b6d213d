"""Calibrations: temperatures and sets worked out by hand, and what stays as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import ops

from keras_agegender.encodings.calibration import Calibration, divide_logits, set_scores
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding

ENCODINGS = ("joint", "categorical", "ordinal", "coral", "corn", "years")


def random_outputs(encoding, count, seed=0):
    """Outputs of a model that says anything at all, as probabilities."""
    draw = np.random.default_rng(seed)
    outputs = {}
    for head in encoding.heads:
        for name in head.output_names:
            if head.head_type in ("categorical", "years"):
                rows = draw.dirichlet(np.ones(head.num_classes), count)
            elif head.head_type in ("coral", "corn"):
                rows = draw.uniform(size=(count, head.num_classes - 1, 1))
            else:
                rows = draw.uniform(size=(count, 1))
            outputs[name] = rows.astype("float32")
    return outputs


def numpy_of(values):
    return {name: ops.convert_to_numpy(value) for name, value in values.items()}


def test_temperatures_by_hand():
    """Logits are halved or doubled: odds become their square root or their square."""
    half = divide_logits(Head("x"), {"x": np.array([[0.9], [0.2]])}, 2.0)
    np.testing.assert_allclose(numpy_of(half)["x"], [[3 / 4], [1 / 3]], rtol=1e-5)
    head = Head("size", "categorical", 3)
    twice = divide_logits(head, {"size": np.array([[0.5, 0.25, 0.25]])}, 0.5)
    np.testing.assert_allclose(
        numpy_of(twice)["size"], [[4 / 6, 1 / 6, 1 / 6]], rtol=1e-5
    )
    head = Head("rank", "coral", 3)
    ranks = {"rank": np.array([[[0.9], [0.2]]])}
    halved = divide_logits(head, ranks, 2.0)
    np.testing.assert_allclose(
        numpy_of(halved)["rank"], [[[3 / 4], [1 / 3]]], rtol=1e-5
    )
    np.testing.assert_allclose(
        head.spec.probabilities(head, halved), [[1 / 4, 5 / 12, 1 / 3]], rtol=1e-5
    )


def test_saturated_outputs_stay_finite():
    """Sigmoids of exactly 0 and 1, and classes without any probability."""
    sure = numpy_of(divide_logits(Head("x"), {"x": np.array([[0.0], [1.0]])}, 3.0))
    assert 0 < sure["x"][0, 0] < 0.01 and 0.99 < sure["x"][1, 0] < 1
    head = Head("size", "categorical", 3)
    rows = numpy_of(divide_logits(head, {"size": np.array([[1.0, 0.0, 0.0]])}, 3.0))
    np.testing.assert_allclose(rows["size"], [[1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_temperature_of_one_leaves_everything_as_it_is(name):
    encoding = get_encoding(name)
    outputs = random_outputs(encoding, 5)
    same = Calibration({h.name: 1.0 for h in encoding.heads}).apply(outputs, encoding)
    assert all(same[key] is outputs[key] for key in outputs)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.3, 10.0])
def test_the_most_probable_class_of_a_head_does_not_change(temperature):
    encoding = get_encoding("categorical", heads=[Head("size", "categorical", 3)])
    outputs = random_outputs(encoding, 2000)
    calibration = Calibration({h.name: temperature for h in encoding.heads})
    after = numpy_of(calibration.apply(outputs, encoding))
    for name in ("age", "size"):
        np.testing.assert_array_equal(after[name].argmax(1), outputs[name].argmax(1))
        np.testing.assert_allclose(after[name].sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(after["gender"] > 0.5, outputs["gender"] > 0.5)
    assert np.abs(after["age"] - outputs["age"]).max() > 0.1


@pytest.mark.parametrize("name", ["ordinal", "coral"])
def test_thresholded_ranks_do_not_change(name):
    """Counting outputs above a half, as Niu et al. do, gives the same group."""
    encoding = get_encoding(name)
    outputs = random_outputs(encoding, 500)
    after = Calibration({"age": 3.0}).apply(outputs, encoding)
    first, second = encoding.decode(outputs), encoding.decode(after)
    np.testing.assert_array_equal(first.median_age_group, second.median_age_group)
    np.testing.assert_array_equal(first.heads_agree, second.heads_agree)


def test_regression_and_heads_without_temperature_do_not_change():
    encoding = get_encoding("gender", heads=[Head("weight", "regression")])
    outputs = {"gender": np.array([[0.9]]), "weight": np.array([[-3.0]])}
    after = Calibration({"weight": 5.0}).apply(outputs, encoding)
    assert after["weight"] is outputs["weight"]
    assert after["gender"] is outputs["gender"]


def test_set_scores_by_hand():
    """0.4 first; then 0.25 above, 0.2 below, 0.1 below it, 0.05 last."""
    rows = [[0.1, 0.2, 0.4, 0.25, 0.05], [0.5, 0.1, 0.1, 0.2, 0.1]]
    expected = [[0.85, 0.65, 0.0, 0.4, 0.95], [0.0, 0.5, 0.6, 0.7, 0.9]]
    np.testing.assert_allclose(set_scores(rows), expected, atol=1e-6)
    # The younger of two equal neighbors joins first.
    np.testing.assert_allclose(
        set_scores([[0.25, 0.5, 0.25]]), [[0.5, 0, 0.75]], atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 10), st.floats(0.0, 1.0), st.integers(0, 999))
def test_sets_have_no_holes(num_classes, threshold, seed):
    draw = np.random.default_rng(seed)
    rows = draw.dirichlet(np.full(num_classes, 0.4), 16).astype("float32")
    scores = ops.convert_to_numpy(set_scores(rows))
    members = scores <= threshold
    assert members[np.arange(16), rows.argmax(1)].all()  # never empty
    first, last = members.argmax(1), num_classes - 1 - members[:, ::-1].argmax(1)
    np.testing.assert_array_equal(members.sum(1), last - first + 1)
    assert (scores <= 1.0).all()  # a threshold of 1 is everything
    # As small as can be: without its last class there is too little in it.
    mass = (rows * members).sum(1)
    assert ((mass > threshold - 1e-5) | members.all(1)).all()


def test_sets_by_hand():
    """Males have a threshold that lets a second group in."""
    encoding = get_encoding("categorical", age_groups="0-9,10-19,20+")
    outputs = {
        "gender": np.array([[0.3], [0.8]]),
        "age": np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]),
    }
    decoded = encoding.decode(outputs)
    one = Calibration({}, {"gender": (0.7,)}).sets(decoded)
    assert one.age_group is None
    np.testing.assert_array_equal(one.gender, [[True, True], [False, True]])
    two = Calibration({}, {"age_group": (0.5, 0.6)}, by="gender").sets(decoded)
    np.testing.assert_array_equal(
        two.age_group, [[True, False, False], [True, True, False]]
    )


def test_a_calibration_survives_json():
    calibration = Calibration(
        {"gender": 1.25, "age": 0.8},
        {"age_group": (0.5, 0.75)},
        alpha=0.2,
        by="gender",
        num_faces={"gender": 30, "age_group_set": (10, 20)},
        fitted_on={"split": "validation"},
    )
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration
    assert str(again).splitlines() == [
        "gender: temperature 1.250 (over 30 faces)",
        "age: temperature 0.800",
        "age_group sets, coverage 80%: threshold 0.500, 0.750 by predicted gender "
        "(over 10, 20 faces)",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperatures": {"age": 0.0}}, "above 0 for 'age'. Received: 0.0"),
        ({"alpha": 1.0}, r"share in \(0, 1\). Received: alpha=1.0"),
        ({"by": "race"}, "Expected one of .* Received: by='race'"),
        ({"thresholds": {"age_group": (1.2,)}}, r"Received: \(1.2,\) for 'age_group'"),
        ({"thresholds": {"race": (0.5,)}}, "for 'race'"),
        ({"thresholds": {"gender": (0.5, 0.5)}}, "by=None"),
    ],
)
def test_impossible_calibrations(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**{"temperatures": {}, **arguments})


def test_a_calibration_of_other_heads_is_refused():
    with pytest.raises(ValueError, match=r"Received: 'race'"):
        Calibration({"race": 2.0}).apply({}, get_encoding("gender"))
