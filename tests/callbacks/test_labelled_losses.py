"""What Keras logs of partly labelled faces, and the means that replace it, by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_agegender.callbacks.decoded_metrics import DecodedAccuracy, labelled_losses
from keras_agegender.callbacks.loss_weights import LossWeightScheduler
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.registry import get_encoding

# P(male) of five faces in batches of two. The first two are labelled male.
FACES = np.array([[0.5], [0.25], [0.75], [0.75], [0.75]], "float32")
GENDERS = np.array([1, 1, -1, -1, -1])
LABELS = {"age_group": np.full(5, -1), "gender": GENDERS}
LN2 = np.log(2.0)
ENCODING = get_encoding("gender")


class Images:
    """The faces as a dataset, the images of which DecodedAccuracy predicts."""

    def map(self, function):
        return FACES


class PassThrough(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def model_of(encoding=ENCODING, optimizer="sgd", **compiled):
    """A model whose outputs are its input, whatever it is trained on."""
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


def test_keras_counts_batches_by_faces_with_and_without_a_label():
    """-ln(1/2) and -ln(1/4): a mean of 1.5 ln 2 over the labelled faces.

    Keras has the first batch's mean, 1.5 ln 2, count two of five, and a loss of 0 for
    the other three faces. Its metrics divide by the weights: one of two is right.
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
    assert found["gender_accuracy"] == 0.0  # of the one labelled face


def test_logged_losses_are_means_over_labelled_faces():
    callback = DecodedAccuracy(Images(), LABELS, ENCODING)
    history = fit(model_of(), callbacks=[callback])
    assert history["val_loss"] == [pytest.approx(1.5 * LN2)]
    assert "gender_loss" not in history and "val_gender_loss" not in history


def test_each_output_has_its_own_faces_and_weight():
    """Glasses: the last two faces have them, -ln(3/4) each. Weights 3 and 0.5."""
    encoding = ENCODING.with_heads([Head("glasses", loss_weight=0.5)])
    encoding = encoding.with_loss_weights({"gender": 3.0})
    labels = {**LABELS, "glasses": np.array([-1, -1, -1, 1, 1])}
    model = model_of(encoding)
    callback = DecodedAccuracy(Images(), labels, encoding)
    history = fit(model, encoding, labels, [callback])
    glasses = np.log(4 / 3)
    assert history["val_gender_loss"] == [pytest.approx(1.5 * LN2)]
    assert history["val_glasses_loss"] == [pytest.approx(glasses)]
    assert history["val_loss"] == [pytest.approx(4.5 * LN2 + 0.5 * glasses)]


def test_total_follows_the_weights_in_force():
    encoding = ENCODING.with_heads([Head("glasses")])
    labels = {**LABELS, "glasses": np.array([-1, -1, -1, 1, 1])}
    history = fit(
        model_of(encoding),
        encoding,
        labels,
        [
            DecodedAccuracy(Images(), labels, encoding),
            LossWeightScheduler({0: {"gender": 2.0}, 1: {"gender": 0.0}}),
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
def test_one_batch_of_labelled_faces_is_what_keras_says(name):
    """Where all faces have a label and are one batch, Keras' figure is the mean."""
    encoding = get_encoding(name)
    ages, genders = np.arange(8), np.arange(8) % 2
    labels = {"age_group": ages, "gender": genders, "age_years": ages * 10}
    inputs, outputs, faces = [], {}, []
    for head in encoding.heads:
        for output in head.output_names:
            shape = output_shape(head)
            inputs.append(keras.Input(shape))
            outputs[output] = PassThrough(name=output)(inputs[-1])
            answers = np.random.default_rng(0).uniform(0.1, 0.9, (8, *shape))
            if head.head_type in ("categorical", "years"):
                answers /= answers.sum(axis=1, keepdims=True)
            faces.append(answers.astype("float32"))
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
    answers = model.predict(faces, verbose=0)
    found = labelled_losses(model, answers, labels, encoding)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert len(found) == len(encoding.output_names) + 1


def test_other_losses_and_missing_columns_are_left_to_keras():
    outputs = {"gender": FACES}
    model = model_of(loss={"gender": keras.losses.BinaryCrossentropy()})
    assert labelled_losses(model, outputs, LABELS, ENCODING) == {}
    model = model_of(loss="binary_crossentropy")
    assert labelled_losses(model, outputs, LABELS, ENCODING) == {}
    assert labelled_losses(model_of(), outputs, {"age_group": [1]}, ENCODING) == {}


def test_no_labelled_face_is_a_loss_of_nothing():
    labels = {"age_group": np.full(5, -1), "gender": np.full(5, -1)}
    found = labelled_losses(model_of(), {"gender": FACES}, labels, ENCODING)
    assert found == {"gender_loss": 0.0, "loss": 0.0}
