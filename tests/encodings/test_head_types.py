"""The table of head types: a new row is built, trained, decoded and evaluated."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_agegender as kag
from keras_agegender.encodings.head_types import HEAD_TYPES, HeadType, Regression

SIZES = ("small", "medium", "large", "huge")


class Poisson(Regression):
    """A count: its expectation, by the Poisson loss."""

    activation = "exponential"
    loss = "Poisson"
    standardized = False


class Binomial(HeadType):
    """Unimodal probabilities of ordered classes (Beckham & Pal, ICML 2017)."""

    ordered = True

    def build(self, head, features):
        k = np.arange(head.num_classes, dtype="float32")
        ways = [math.comb(head.num_classes - 1, i) for i in range(head.num_classes)]
        p = layers.Dense(1, "sigmoid", name=f"{head.name}_p")(features)
        powers = p**k * (1 - p) ** k[::-1].copy()
        return {head.name: layers.Rescaling(ways, name=head.name)(powers)}


@pytest.fixture
def encoding(monkeypatch):
    monkeypatch.setitem(HEAD_TYPES, "poisson", Poisson())
    monkeypatch.setitem(HEAD_TYPES, "binomial", Binomial())
    heads = [
        kag.Head("visits", "poisson"),
        kag.Head("size", "binomial", classes=SIZES),
    ]
    return kag.get_encoding("gender", heads=heads)


def test_a_new_head_type_trains_decodes_and_is_evaluated(encoding):
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    images = rng.random((32, 8, 8, 3)).astype("float32")
    gender = rng.integers(0, 2, 32)
    labels = {"visits": rng.poisson(4.0, 32), "size": rng.integers(0, 4, 32)}
    labels["size"][0] = -1

    def backbone(image):
        return layers.Dense(4, activation="relu")(layers.Flatten()(image))

    model = kag.build_model(backbone, encoding, image_size=(8, 8), augment=False)
    arguments = encoding.compile_arguments()
    arguments["weighted_metrics"] = kag.metrics.detailed_metrics(encoding)
    model.compile(keras.optimizers.Adam(0.005), **arguments)
    targets = encoding.encode(gender=gender, columns=labels)
    weights = encoding.sample_weights(gender=gender, columns=labels)
    assert weights["size"].tolist() == [0.0] + 31 * [1.0]
    logs = model.fit(images, targets, sample_weight=weights, epochs=8, verbose=0)
    assert logs.history["visits_loss"][-1] < logs.history["visits_loss"][0]
    assert "size_quadratic_kappa" in logs.history and "visits_mae" in logs.history

    outputs = model.predict(images, verbose=0)
    visits = encoding.decode_head("visits", outputs)
    assert visits.probabilities is None
    np.testing.assert_allclose(visits.values, outputs["visits"][:, 0])
    size = encoding.decode_head("size", outputs)
    np.testing.assert_allclose(np.sum(size.probabilities, axis=1), 1.0, rtol=1e-5)
    found = ops.convert_to_numpy(size.values)
    np.testing.assert_array_equal(found, outputs["size"].argmax(axis=1))

    scores = kag.evaluation.evaluate_predictions(
        np.full(32, -1),
        gender,
        kag.encodings.Decoded(*map(_numpy, encoding.decode(outputs))),
        extra={
            "visits": ("poisson", labels["visits"], _numpy(visits.values)),
            "size": ("binomial", labels["size"], found),
        },
    ).extra
    error = np.abs(labels["visits"] - outputs["visits"][:, 0]).mean()
    assert scores["visits"]["mean_absolute_error"] == pytest.approx(error)
    right = labels["size"][1:] == found[1:]
    assert scores["size"]["accuracy"] == pytest.approx(right.mean())


def test_a_new_head_type_is_stored_in_the_model(encoding, tmp_path):
    def backbone(image):
        return layers.Flatten()(image)

    model = kag.build_model(backbone, encoding, image_size=(4, 4), augment=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert kag.models.stored_encoding(loaded) == encoding


def test_only_numbers_that_say_so_are_standardized(encoding):
    with_statistics = encoding.with_statistics({"visits": np.array([1.0, 5.0])})
    assert with_statistics == encoding


def test_types_that_are_read_from_files_keep_their_key():
    head = kag.Head("size", "coral", classes=SIZES)
    assert head.to_dict()["kind"] == "coral"
    assert kag.Head.from_dict({"name": "size", "kind": "coral", "num_classes": 3})


def _numpy(values):
    return None if values is None else ops.convert_to_numpy(values)
