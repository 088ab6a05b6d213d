"""Callbacks of decoded predictions: accuracies and losses worked out by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_agegender as kag
from keras_agegender.callbacks.decoded_metrics import (
    AgeLossLogger,
    decoded_accuracies,
    labelled_losses,
)
from keras_agegender.encodings.head import Head

# P(male) of five faces in batches of two. The first two are labeled male.
FACES = np.array([[0.5], [0.25], [0.75], [0.75], [0.75]], "float32")
GENDERS = np.array([1, 1, -1, -1, -1])
LABELS = {"age_group": np.full(5, -1), "gender": GENDERS}
LN2 = np.log(2.0)
ENCODING = kag.get_encoding("gender")


class Images:
    """The faces as a dataset."""

    def map(self, function):
        return FACES


class PassThrough(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def model_of(encoding=ENCODING, optimizer="sgd", **compiled):
    """A model whose outputs are its input."""
    x = keras.Input((1,))
    outputs = {name: PassThrough(name=name)(x) for name in encoding.output_names}
    model = keras.Model(x, outputs)
    model.compile(optimizer, **{**encoding.compile_arguments(), **compiled})
    return model


def fit(model, encoding=ENCODING, labels=LABELS, callbacks=(), epochs=1):
    given = (labels["age_group"], labels["gender"], labels)
    data = (FACES, encoding.encode(*given), encoding.sample_weights(*given))
    return model.fit(
        FACES,
        data[1],
        batch_size=5,
        epochs=epochs,
        validation_data=data,
        validation_batch_size=2,
        callbacks=list(callbacks),
        verbose=0,
    ).history


def test_accuracies_are_logged_and_monitored():
    genders = np.array([-1, 0, 1, 0, 0])
    labels = {"age_group": np.full(5, -1), "gender": genders}
    stop = keras.callbacks.EarlyStopping(monitor="val_mean_accuracy", mode="max")
    callback = kag.callbacks.DecodedAccuracy(Images(), labels, ENCODING)
    history = fit(model_of(), labels=labels, callbacks=[callback, stop], epochs=2)
    assert history["val_gender_accuracy"] == [2 / 4] * 2  # 0.75 is male, 0.25 female
    assert history["val_mean_accuracy"] == history["val_gender_accuracy"]


def test_keras_weights_batches_by_all_their_faces():
    """-ln(1/2) and -ln(1/4): a mean of 1.5 ln 2 over the labeled faces.

    Keras weights the first batch's mean, 1.5 ln 2, by two of five faces, and has a loss
    of 0 for the other three. Its metrics divide by the sample weights.
    """
    faces = np.array([[0.75], [0.25]], "float32")
    history = fit(model_of())
    assert history["val_loss"][0] == pytest.approx(1.5 * LN2 * 2 / 5)
    model = model_of()
    weights = {"gender": np.array([1.0, 0.0, 0.0], "float32")}
    found = model.evaluate(
        np.concatenate([faces[1:], faces[:1], faces[:1]]),
        {"gender": np.ones((3, 1), "float32")},
        sample_weight=weights,
        batch_size=2,
        return_dict=True,
        verbose=0,
    )
    assert found["gender_accuracy"] == 0.0  # of the one labeled face


def test_logged_losses_are_means_over_labeled_faces():
    callback = kag.callbacks.DecodedAccuracy(Images(), LABELS, ENCODING)
    history = fit(model_of(), callbacks=[callback])
    assert history["val_loss"] == [pytest.approx(1.5 * LN2)]
    assert "gender_loss" not in history and "val_gender_loss" not in history


def test_each_output_has_its_own_labels_and_weight():
    """Glasses: the last two faces have them, -ln(3/4) each. Weights 3 and 0.5."""
    encoding = ENCODING.with_heads([Head("glasses", loss_weight=0.5)])
    encoding = encoding.with_loss_weights({"gender": 3.0})
    labels = {**LABELS, "glasses": np.array([-1, -1, -1, 1, 1])}
    model = model_of(encoding)
    callback = kag.callbacks.DecodedAccuracy(Images(), labels, encoding)
    history = fit(model, encoding, labels, [callback])
    glasses = np.log(4 / 3)
    assert history["val_gender_loss"] == [pytest.approx(1.5 * LN2)]
    assert history["val_glasses_loss"] == [pytest.approx(glasses)]
    assert history["val_loss"] == [pytest.approx(4.5 * LN2 + 0.5 * glasses)]


def test_total_uses_the_current_loss_weights():
    encoding = ENCODING.with_heads([Head("glasses")])
    labels = {**LABELS, "glasses": np.array([-1, -1, -1, 1, 1])}
    history = fit(
        model_of(encoding),
        encoding,
        labels,
        [
            kag.callbacks.DecodedAccuracy(Images(), labels, encoding),
            kag.LossWeightScheduler({0: {"gender": 2.0}, 1: {"gender": 0.0}}),
        ],
        epochs=2,
    )
    glasses = np.log(4 / 3)
    expected = [3.0 * LN2 + glasses, glasses]
    assert history["val_loss"] == [pytest.approx(value) for value in expected]


def output_shape(head):
    if head.head_type in ("coral", "corn"):
        return (head.num_classes - 1, 1)
    return (head.num_classes if head.head_type in ("categorical", "years") else 1,)


@pytest.mark.parametrize("name", ["joint", "ordinal", "coral", "corn", "years"])
def test_a_batch_with_all_labels_has_the_loss_of_keras(name):
    encoding = kag.get_encoding(name)
    ages, genders = np.arange(8), np.arange(8) % 2
    labels = {"age_group": ages, "gender": genders, "age_years": ages * 10}
    inputs, outputs, faces = [], {}, []
    for head in encoding.heads:
        for output in head.output_names:
            shape = output_shape(head)
            inputs.append(keras.Input(shape))
            outputs[output] = PassThrough(name=output)(inputs[-1])
            values = np.random.default_rng(0).uniform(0.1, 0.9, (8, *shape))
            if head.head_type in ("categorical", "years"):
                values /= values.sum(axis=1, keepdims=True)
            faces.append(values.astype("float32"))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", **encoding.compile_arguments())
    expected = model.evaluate(
        faces,
        encoding.encode(ages, genders, labels),
        sample_weight=encoding.sample_weights(ages, genders, labels),
        batch_size=8,
        return_dict=True,
        verbose=0,
    )
    predictions = model.predict(faces, verbose=0)
    found = labelled_losses(model, predictions, labels, encoding)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert len(found) == len(encoding.output_names) + 1


def test_other_losses_and_missing_columns_are_skipped():
    outputs = {"gender": FACES}
    model = model_of(loss={"gender": keras.losses.BinaryCrossentropy()})
    assert labelled_losses(model, outputs, LABELS, ENCODING) == {}
    model = model_of(loss="binary_crossentropy")
    assert labelled_losses(model, outputs, LABELS, ENCODING) == {}
    assert labelled_losses(model_of(), outputs, {"age_group": [1]}, ENCODING) == {}


def test_without_labels_the_loss_is_zero():
    labels = {"age_group": np.full(5, -1), "gender": np.full(5, -1)}
    found = labelled_losses(model_of(), {"gender": FACES}, labels, ENCODING)
    assert found == {"gender_loss": 0.0, "loss": 0.0}


# -- decoded accuracies and the loss of several age heads ------------------------------


def outputs_of(ages, genders, encoding):
    """Outputs of a model with these predictions and probabilities of 1."""
    targets = encoding.encode(ages, genders)
    return {
        name: np.eye(8)[value] if value.ndim == 1 else value
        for name, value in targets.items()
    }


@pytest.mark.parametrize("name", ["categorical", "ordinal"])
def test_accuracies(name):
    encoding = kag.get_encoding(name)
    outputs = outputs_of([0, 3, 5, 7], [0, 1, 1, 0], encoding)
    labels = {"age_group": np.array([0, 3, 4, -1]), "gender": np.array([0, 0, -1, -1])}
    found = decoded_accuracies(outputs, labels, encoding)
    assert found["gender_accuracy"] == 1 / 2  # of the two with a label
    assert found["age_accuracy"] == pytest.approx(2 / 3)
    assert found["mean_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert ("age_all_heads_accuracy" in found) == (name == "ordinal")


def test_all_heads_must_be_correct():
    """Heads 1 0 1 0 … count to group 2, but match no group."""
    encoding = kag.get_encoding("ordinal", question="older")
    outputs = outputs_of([2], [1], encoding)
    for k, value in enumerate((1, 0, 1, 0, 0, 0, 0, 0), start=1):
        outputs[f"age{k}"] = np.array([[value]], "float32")
    labels = {"age_group": np.array([2]), "gender": np.array([1])}
    found = decoded_accuracies(outputs, labels, encoding)
    assert found["age_accuracy"] == 1.0
    assert found["age_all_heads_accuracy"] == 0.0


def test_no_accuracy_without_labels():
    encoding = kag.get_encoding("gender")
    outputs = {"gender": np.array([[0.9], [0.1]])}
    labels = {"age_group": np.array([-1, -1]), "gender": np.array([-1, -1])}
    assert decoded_accuracies(outputs, labels, encoding) == {}


def test_age_loss_is_a_weighted_mean():
    # (2 * 0.1 + 6 * 0.5) / 8 = 0.4; unweighted it would be 0.3, a sum 3.2.
    logs = {"val_age1_loss": 0.1, "val_age2_loss": 0.5, "val_gender_loss": 9.0}
    AgeLossLogger({"age1": 2.0, "age2": 6.0}).on_epoch_end(0, logs)
    assert logs["val_age_loss"] == pytest.approx(0.4)


def test_age_loss_skips_a_head_of_weight_zero():
    logs = {"val_age1_loss": 0.1, "val_age2_loss": 0.5}
    AgeLossLogger({"age1": 1.0, "age2": 0.0}).on_epoch_end(0, logs)
    assert logs["val_age_loss"] == pytest.approx(0.1)


def test_age_loss_needs_a_positive_weight():
    with pytest.raises(ValueError, match="sum above 0"):
        AgeLossLogger({"age1": 0.0})
