"""Encodings: targets worked by hand, round trips for every label, decoding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from keras import ops

from keras_agegender.encodings.encoding import Encoding, balanced_class_weights
from keras_agegender.encodings.head import RESERVED_NAMES, Head
from keras_agegender.encodings.registry import (
    get_encoding,
    has_rank_direction,
    is_encoding_output,
    list_encodings,
    predicts_age,
)

LABELS = list(itertools.product(range(8), range(2)))
AGES, GENDERS = (np.array(x) for x in zip(*LABELS, strict=True))
VARIANTS = [
    ("gender", None),
    ("joint", None),
    ("categorical", None),
    ("ordinal", "older"),
    ("ordinal", "younger"),
]


def perfect_outputs(encoding, age_group, gender):
    """Outputs of a model that is right and sure: targets as probabilities."""
    outputs = encoding.encode(age_group, gender)
    for head in encoding.heads:
        if head.head_type == "categorical":
            outputs[head.name] = np.eye(head.num_classes, dtype="float32")[
                outputs[head.name]
            ]
    return outputs


def numpy_of(decoded):
    return type(decoded)(
        *(None if x is None else ops.convert_to_numpy(x) for x in decoded)
    )


@pytest.mark.parametrize(("name", "question"), VARIANTS)
def test_every_label_round_trips(name, question):
    encoding = get_encoding(name, question)
    decoded = numpy_of(encoding.decode(perfect_outputs(encoding, AGES, GENDERS)))
    np.testing.assert_array_equal(decoded.gender, GENDERS)
    np.testing.assert_allclose(decoded.gender_probability, GENDERS, atol=1e-6)
    if name == "gender":
        assert decoded.age_group is None and decoded.heads_agree is None
        return
    np.testing.assert_array_equal(decoded.age_group, AGES)
    np.testing.assert_allclose(decoded.age_probabilities, np.eye(8)[AGES], atol=1e-6)
    assert decoded.heads_agree.all()


def test_younger_targets_of_group_5_are_the_report_s():
    # The report: group 5 -> 0 0 0 0 0 1 1 1; group 5 has id 4.
    targets = get_encoding("ordinal", "younger").encode([4], [0])
    bits = [int(targets[f"age{k}"][0, 0]) for k in range(1, 9)]
    assert bits == [0, 0, 0, 0, 0, 1, 1, 1]


def test_older_targets_of_group_5():
    # Older than group k: 5 > 1, 2, 3, 4 and no other.
    targets = get_encoding("ordinal", "older").encode([4], [0])
    bits = [int(targets[f"age{k}"][0, 0]) for k in range(1, 9)]
    assert bits == [1, 1, 1, 1, 0, 0, 0, 0]


def test_one_ordinal_head_is_constant():
    older = get_encoding("ordinal", "older").encode(AGES, GENDERS)
    younger = get_encoding("ordinal", "younger").encode(AGES, GENDERS)
    assert not older["age8"].any() and older["age7"].any()
    assert not younger["age1"].any() and younger["age2"].any()


def test_joint_id():
    # gender * 8 + age: male (1), group id 3 -> 11.
    assert get_encoding("joint").encode([3], [1])["gender_age"].tolist() == [11]


@pytest.mark.parametrize(
    ("name", "age", "gender", "expected"),
    [
        ("categorical", -1, 1, {"gender": 1.0, "age": 0.0}),
        ("categorical", 3, -1, {"gender": 0.0, "age": 1.0}),
        ("joint", 3, -1, {"gender_age": 0.0}),
        ("joint", -1, 0, {"gender_age": 0.0}),
        ("joint", 0, 0, {"gender_age": 1.0}),
        ("gender", -1, 0, {"gender": 1.0}),
        (
            "ordinal",
            -1,
            -1,
            dict.fromkeys(["gender", *(f"age{k}" for k in range(1, 9))], 0.0),
        ),
    ],
)
def test_missing_labels_have_weight_zero(name, age, gender, expected):
    weights = get_encoding(name).sample_weights([age], [gender])
    assert {n: float(w[0]) for n, w in weights.items()} == expected


def test_heads_that_disagree_are_counted_and_flagged():
    # Older-bits 1 0 1 0 0 0 0 0: two heads say older -> group id 2, but no group has
    # these outputs.
    probabilities = [0.9, 0.4, 0.8, 0.1, 0.1, 0.1, 0.1, 0.0]
    outputs = {"gender": np.array([[0.2]], "float32")}
    for k, p in enumerate(probabilities, start=1):
        outputs[f"age{k}"] = np.array([[p]], "float32")
    decoded = numpy_of(get_encoding("ordinal", "older").decode(outputs))
    assert decoded.median_age_group.tolist() == [2]
    assert decoded.heads_agree.tolist() == [False]
    # The median is the most probable group here: 0.4 of group 2, see below.
    assert decoded.age_group.tolist() == [2]
    assert decoded.gender.tolist() == [0]
    # at least: 1 .9 .4 .8 .1 .1 .1 .1; sorted 1 .9 .8 .4 .1 .1 .1 .1 0, in steps:
    expected = [[0.1, 0.1, 0.4, 0.3, 0.0, 0.0, 0.0, 0.1]]
    np.testing.assert_allclose(decoded.age_probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("question", ["older", "younger"])
def test_the_group_is_the_median_of_its_probabilities(question):
    rng = np.random.default_rng(6)
    outputs = {f"age{k}": rng.random((200, 1)) for k in range(1, 9)}
    outputs["gender"] = rng.random((200, 1))
    decoded = numpy_of(get_encoding("ordinal", question).decode(outputs))
    below = np.cumsum(decoded.age_probabilities, axis=1)
    rows = np.arange(200)
    median = decoded.median_age_group
    assert (below[rows, median] >= 0.5 - 1e-6).all()
    before = below[rows, median] - decoded.age_probabilities[rows, median]
    assert (before <= 0.5 + 1e-6).all()


def test_both_questions_give_the_same_probabilities():
    rng = np.random.default_rng(3)
    older = {"gender": rng.random((5, 1))}
    at_least = np.sort(rng.random((5, 7)), axis=1)[:, ::-1]  # P(group >= 2 … 8)
    younger = dict(older)
    for k in range(1, 9):
        older[f"age{k}"] = at_least[:, k - 1 : k] if k < 8 else np.zeros((5, 1))
        younger[f"age{k}"] = (
            1 - at_least[:, k - 2 : k - 1] if k > 1 else np.zeros((5, 1))
        )
    a = numpy_of(get_encoding("ordinal", "older").decode(older))
    b = numpy_of(get_encoding("ordinal", "younger").decode(younger))
    np.testing.assert_allclose(a.age_probabilities, b.age_probabilities, atol=1e-6)
    np.testing.assert_array_equal(a.age_group, b.age_group)
    assert a.heads_agree.all() and b.heads_agree.all()


def test_probabilities_of_any_outputs_are_probabilities():
    rng = np.random.default_rng(4)
    for name, question in VARIANTS[1:]:
        encoding = get_encoding(name, question)
        outputs = {}
        for head in encoding.heads:
            units = 1 if head.head_type == "ordinal" else head.num_classes
            for output in head.output_names:
                raw = rng.random((50, units)).astype("float32")
                if head.head_type == "categorical":
                    raw /= raw.sum(axis=1, keepdims=True)
                outputs[output] = raw
        p = numpy_of(encoding.decode(outputs)).age_probabilities
        assert (p >= -1e-6).all()
        np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)


def test_attributes_read_columns_and_decode_gender():
    encoding = get_encoding("attributes")
    assert len(encoding.heads) == 40
    columns = {name: np.array([1, 0, -1]) for name in encoding.columns}
    targets = encoding.encode(columns=columns)
    assert targets["Male"].tolist() == [[1.0], [0.0], [0.0]]
    weights = encoding.sample_weights(columns=columns)
    assert weights["Male"].tolist() == [1.0, 1.0, 0.0]
    decoded = numpy_of(encoding.decode(targets))
    assert decoded.gender.tolist() == [1, 0, 0]
    assert decoded.age_group is None


def test_extra_heads_of_every_type():
    heads = [
        Head("glasses"),
        Head("hair", "categorical", 3, column="hair_colour"),
        Head("years", "regression", loss_weight=0.1, column="age_years"),
    ]
    encoding = get_encoding("categorical", heads=heads)
    assert encoding.output_names == ("gender", "age", "glasses", "hair", "years")
    columns = {
        "glasses": [1, -1],
        "hair_colour": [2, -1],
        "age_years": [31.5, float("nan")],
    }
    targets = encoding.encode([4, 4], [1, 1], columns)
    assert encoding.columns[2:] == ("glasses", "hair_colour", "age_years")
    weights = encoding.sample_weights([4, 4], [1, 1], columns)
    assert targets["glasses"].tolist() == [[1.0], [0.0]]
    assert targets["hair"].tolist() == [2, 0]
    assert targets["years"].tolist() == [[31.5], [0.0]]
    for name in ("glasses", "hair", "years"):
        assert weights[name].tolist() == [1.0, 0.0]
    assert encoding.loss_weights["years"] == 0.1


def test_losses_are_means_over_labelled_faces():
    # Two faces, one labelled: -log(0.8), not half of it.
    loss = get_encoding("gender").losses()["gender"]
    value = loss(
        np.array([[1.0], [0.0]]), np.array([[0.8], [0.3]]), np.array([1.0, 0.0])
    )
    np.testing.assert_allclose(float(value), -np.log(0.8), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_encoding("ordnal"), "Did you mean 'ordinal'"),
        (lambda: get_encoding("ordinal", "taller"), "'older', 'younger'"),
        (lambda: get_encoding("joint", "older"), "ordinal encoding only"),
        (
            lambda: get_encoding("joint").encode([8], [0]),
            r"`age_group`.*8 at position 0",
        ),
        (lambda: get_encoding("joint").encode([0], [2]), r"`gender`.*2 at position 0"),
        (lambda: get_encoding("joint").encode([0.5], [1]), "0.5 at position 0"),
        (lambda: get_encoding("attributes").encode(columns={}), "Missing column"),
        (lambda: get_encoding("ordinal").decode({"gender": 0}), "Missing: .'age1'"),
        (
            lambda: get_encoding("gender", heads=[Head("gender")]),
            "Duplicate output name",
        ),
        (lambda: get_encoding("gender").with_loss_weights({"agee": 1}), "'agee'"),
        (lambda: Head("x", "categorical", 1), "at least 2"),
        (lambda: Head("x", "softmax"), "'softmax'"),
        (lambda: Head("x", loss_weight=-1), "non-negative"),
        (lambda: Head("a/b"), "letters, digits.*'a/b'"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_names():
    assert list_encodings()[:5] == [
        "gender", "joint", "categorical", "ordinal", "attributes"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        *[(n, True) for n in ("gender", "age", "age1", "age12", "gender_age")],
        *[(n, False) for n in ("ages", "age_", "Smiling", "12", "gender1")],
    ],
)
def test_outputs_of_encodings_are_known_by_the_table(name, taken):
    assert is_encoding_output(name) == taken


def test_what_recipes_ask_about_encodings():
    names = list_encodings()
    assert [n for n in names if has_rank_direction(n)] == ["ordinal"]
    assert [n for n in names if not predicts_age(n)] == ["gender", "attributes"]
    assert not has_rank_direction("ordnal") and not has_rank_direction([1])


# -- CORAL and CORN --------------------------------------------------------------------

LOGITS = np.array(
    [
        [1.5, 0.5, -0.25, -1.0, -2.0, 0.75, -3.0],
        [3.0, 2.0, 1.0, 0.5, 0.25, -0.5, -1.5],
        [-1.0, 0.5, 0.0, 2.0, -0.75, 1.25, 0.1],
    ]
)


@pytest.mark.parametrize(
    ("name", "loss", "groups"),
    [("coral", 3.493990659713745, [3, 5, 4]), ("corn", 0.5432068109512329, [2, 3, 0])],
)
def test_coral_pytorch_s_numbers(name, loss, groups):
    """Golden: coral_loss, corn_loss, proba_to_label and corn_label_from_logits of
    coral-pytorch 1.4.0 for these logits and the groups 1, 4 and 7."""
    encoding = get_encoding(name)
    probabilities = 1 / (1 + np.exp(-LOGITS))[..., np.newaxis]
    targets = encoding.encode([1, 4, 7], [0, 1, 1])
    weights = encoding.sample_weights([1, 4, 7], [0, 1, 1])
    assert targets["age"].shape == (3, 7, 1) and weights["age"].shape == (3, 7)
    found = encoding.losses()["age"](
        targets["age"], probabilities, sample_weight=weights["age"]
    )
    # CORAL sums over its questions what Keras averages: the head's weight says so.
    assert float(found) * encoding.loss_weights["age"] == pytest.approx(loss, rel=1e-5)
    decoded = encoding.decode({"gender": np.zeros((3, 1)), "age": probabilities})
    assert np.asarray(decoded.median_age_group).tolist() == groups
    np.testing.assert_allclose(np.sum(decoded.age_probabilities, axis=1), 1, rtol=1e-5)


def test_corn_asks_only_who_passed():
    """Group 2: above 0? yes; above 1? yes; above 2? no; the others are not asked."""
    encoding = get_encoding("corn")
    assert encoding.encode(2, 0)["age"][0, :, 0].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert encoding.sample_weights(2, 0)["age"][0].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert encoding.sample_weights(-1, 0)["age"][0].tolist() == [0] * 7


def test_coral_s_questions_share_their_weights():
    """Its layers hold one weight per feature and seven thresholds, in order."""
    from keras_agegender.models.builder import build_model

    model = build_model("caffe_1conv", "coral", image_size=(32, 32))
    names = {layer.name: layer for layer in model.layers}
    assert names["age_rank_score"].count_params() == 512
    assert names["age_rank_thresholds"].count_params() == 7
    output = model.predict(np.random.default_rng(0).random((4, 32, 32, 3)), verbose=0)
    assert (np.diff(output["age"][:, :, 0], axis=1) < 0).all()


# -- class weights ---------------------------------------------------------------------


def test_balanced_class_weights_by_hand():
    """Four known faces of two groups: 4 / (2 · 3) and 4 / (2 · 1)."""
    assert balanced_class_weights([0, 0, 0, 2, -1], 3) == [4 / 6, 0.0, 2.0]


@pytest.mark.parametrize("name", ["categorical", "ordinal", "coral", "corn", "joint"])
def test_class_weights_reach_every_age_head(name):
    plain = get_encoding(name)
    ages = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    weighed = plain.with_class_weights(age_group=ages, gender=[1.0, 10.0])
    for group, gender in ((0, 0), (4, 1), (-1, 1), (6, -1)):
        before = plain.sample_weights(group, gender)
        after = weighed.sample_weights(group, gender)
        age = ages[group] if group >= 0 else 1.0
        sex = (1.0, 10.0)[gender] if gender >= 0 else 1.0
        for head in plain.output_names:
            factor = sex if head == "gender" else age
            if head == "gender_age":
                factor = age * sex
            np.testing.assert_allclose(after[head], before[head] * factor)
    with pytest.raises(ValueError, match="Expected 8 non-negative weights"):
        plain.with_class_weights(age_group=[1.0])


def test_importance_weights_by_hand():
    """Of 4 faces in groups 0, 0, 0, 7: "older than k" is 1 for one face, but never for
    the last head. max(n, N - n) = 3, and 4 for the constant head."""
    encoding = get_encoding("ordinal")
    weights = encoding.importance_weights([0, 0, 0, 7, -1])
    assert weights["age1"] == pytest.approx(np.sqrt(3) / 2)
    assert weights["age8"] == 1.0
    with pytest.raises(ValueError, match="ordinal"):
        get_encoding("categorical").importance_weights([0])


def test_outputs_of_any_number_type_are_decoded():
    """Whole numbers among them, as in outputs typed in by hand."""
    encoding = get_encoding("ordinal")
    shares = [1, 0.9, 0.6, 0.54, 0.46, 0.1, 0.05, 0]
    outputs = {f"age{k}": np.array([[v]]) for k, v in enumerate(shares, 1)}
    decoded = encoding.decode({"gender": np.array([[1]]), **outputs})
    whole = encoding.decode(
        {"gender": np.ones((1, 1), "float32")}
        | {name: value.astype("float32") for name, value in outputs.items()}
    )
    for a, b in zip(decoded, whole, strict=True):
        if a is not None:
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (("age", "categorical", 5, "age_group"), "Expected 8 for the column"),
        (("age", "ordinal", 9, "age_group"), "Expected 8 for the column"),
        (("g", "coral", 8, "gender"), "Expected 2 for the column"),
        (("a", "categorical", 14, ("gender", "age_group")), "Expected 16"),
        (("a", "categorical", 7, ("gender", "age_group")), "Expected one column, or"),
        (("a", "categorical", 16, ("age_group", "gender")), "Expected one column, or"),
        (("a", "binary", 1, ("gender", "age_group")), "Expected one column, or"),
    ],
)
def test_a_head_has_the_classes_of_its_column(head, message):
    name, head_type, num_classes, column = head
    with pytest.raises(ValueError, match=message):
        Encoding("x", (Head(name, head_type, num_classes, column=column),))


@pytest.mark.parametrize("names", [("hat", "hat_answer"), ("hat_answer", "hat")])
def test_no_head_takes_the_name_of_anothers_prediction(names):
    """The export of one would replace the prediction of the other."""
    with pytest.raises(ValueError, match="'hat_answer' is reserved for"):
        Encoding("mine", tuple(Head(name) for name in names))


def test_names_of_exports_are_reserved():
    from keras_agegender.faces.preprocessing_graph import PhotoFaces
    from keras_agegender.serving.bundle import COUNTS, DECODED_NAMES, SET_NAMES

    taken = {*DECODED_NAMES.values(), *SET_NAMES.values(), *PhotoFaces._fields, COUNTS}
    assert taken <= set(RESERVED_NAMES)


def test_heads_without_a_column_take_their_loss_weights_with_them():
    encoding = get_encoding("ordinal").with_loss_weights({"age3": 2.0, "gender": 0.5})
    left = encoding.without_columns({"age_group"})
    assert left.output_names == ("gender",)
    assert left.output_loss_weights == (("gender", 0.5),)
    assert get_encoding("joint").without_columns({"gender"}).heads == ()
    assert encoding.without_columns(()) == encoding
