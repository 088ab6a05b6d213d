"""Labels of -1 or NaN are masked by losses and metrics, without sample weights."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_agegender as kag

ENCODINGS = ("categorical", "joint", "ordinal", "coral", "years")
NUM_FACES = 12


def small_model(encoding, as_list=False):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    heads = kag.models.attach_heads(features, encoding)
    return keras.Model(image, list(heads.values()) if as_list else heads)


def images():
    return np.random.default_rng(0).random((NUM_FACES, 8, 8, 3), "float32")


def labels():
    """A third of the labels is missing, each of other faces."""
    number = np.arange(NUM_FACES)
    return {
        "age_group": np.where(number % 3 == 0, -1, number % 8),
        "gender": np.where(number % 3 == 1, -1, number % 2),
        "columns": {
            "age_years": np.where(number % 3 == 0, -1, 5 * number),
            "weight": np.where(number % 3 == 2, np.nan, 10.0 * number),
        },
    }


def encoding_of(name):
    head = kag.Head("weight", "regression", mean=50.0, scale=30.0)
    return kag.get_encoding(name, heads=[head])


def with_missing(encoding, given):
    """The targets, -1 or NaN instead of 0 where a label is missing."""
    targets, weights = encoding.encode(**given), encoding.sample_weights(**given)
    made = {}
    for name, target in targets.items():
        known = weights[name].reshape(NUM_FACES, -1)[:, 0] > 0
        known = known.reshape(-1, *[1] * (target.ndim - 1))
        missing = np.nan if name == "weight" else -1
        made[name] = np.where(known, target, missing).astype(target.dtype)
    return made


@pytest.mark.parametrize("name", ENCODINGS)
def test_missing_labels_count_as_with_sample_weights(name):
    encoding, given = encoding_of(name), labels()
    scores, weights = [], []
    for masked in (True, False):
        model = small_model(encoding)
        model.compile(keras.optimizers.SGD(0.1), **encoding.compile_arguments())
        targets = with_missing(encoding, given) if masked else encoding.encode(**given)
        options = {} if masked else {"sample_weight": encoding.sample_weights(**given)}
        model.fit(images(), targets, **options, batch_size=NUM_FACES, verbose=0)
        scores.append(
            model.evaluate(
                images(), targets, **options, batch_size=5, return_dict=True, verbose=0
            )
        )
        weights.append(model.get_weights())
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_loss_by_hand():
    """-ln 0.8 and -ln 0.5 of three faces, one without a label."""
    loss = kag.get_encoding("gender").losses()["gender"]
    predicted = np.array([[0.8], [0.9], [0.5]], "float32")
    expected = -(np.log(0.8) + np.log(0.5)) / 2
    for missing in (-1.0, np.nan):
        truth = np.array([1.0, missing, 0.0], "float32")
        assert float(loss(truth, predicted)) == pytest.approx(expected, rel=1e-6)
    weighted = float(loss(truth, predicted, np.array([3.0, 9.0, 1.0], "float32")))
    assert weighted == pytest.approx(-(3 * np.log(0.8) + np.log(0.5)) / 4, rel=1e-6)
    assert float(loss(np.array([-1, -1, -1]), predicted)) == 0.0


def test_a_metric_by_hand():
    metric = kag.get_encoding("categorical").metrics()["age"][0]
    predicted = np.eye(8, dtype="float32")[[3, 3, 5]]
    metric.update_state(np.array([3, -1, 4]), predicted)
    assert float(metric.result()) == 0.5
    metric.update_state(np.array([[-1], [-1], [5]]), predicted)
    assert float(metric.result()) == pytest.approx(2 / 3)


def test_regressions_take_any_number():
    encoding = kag.Encoding("own", (kag.Head("x", "regression"),))
    loss, metric = encoding.losses()["x"], encoding.metrics()["x"][0]
    truth = np.array([[-1.0], [np.nan], [2.0]], "float32")
    predicted = np.zeros((3, 1), "float32")
    assert float(loss(truth, predicted)) == 2.5
    metric.update_state(truth, predicted)
    assert float(metric.result()) == 1.5


def test_saved_files_contain_plain_keras_classes(tmp_path):
    encoding = encoding_of("categorical")
    model = small_model(encoding)
    model.compile("adam", **encoding.compile_arguments())
    model.fit(images(), with_missing(encoding, labels()), verbose=0)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = json.loads(file.read("config.json"))["compile_config"]
    assert "keras_agegender" not in json.dumps(config)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.loss["age"]) is keras.losses.SparseCategoricalCrossentropy
    loaded.fit(images(), encoding.encode([1] * NUM_FACES, [0] * NUM_FACES, {
        "weight": [1.0] * NUM_FACES}), verbose=0)  # fmt: skip


def lists_of(values):
    return list(values.values())


def test_heads_as_a_list_train_and_decode_like_a_dict():
    encoding, given = kag.get_encoding("categorical"), labels()
    truth = {"age_group": given["age_group"], "gender": given["gender"]}
    targets = encoding.encode(**truth)
    weights = encoding.sample_weights(**truth)
    histories, decoded = [], []
    for as_list in (False, True):
        form = lists_of if as_list else dict
        model = small_model(encoding, as_list)
        arguments = {k: form(v) for k, v in encoding.compile_arguments().items()}
        model.compile("sgd", **arguments)
        data = tf.data.Dataset.from_tensor_slices((images(), targets, weights))
        if as_list:
            data = data.map(lambda x, y, w: (x, tuple(y.values()), tuple(w.values())))
        history = model.fit(
            data.batch(NUM_FACES),
            validation_data=data.batch(5),
            epochs=2,
            verbose=0,
            callbacks=[
                kag.callbacks.DecodedAccuracy(data.batch(5), truth, encoding),
                kag.LossWeightScheduler({1: {"age": 0.0}}),
            ],
        )
        histories.append(history.history)
        outputs = model.predict(images(), verbose=0)
        decoded.append(encoding.decode(outputs))
        assert encoding.decode_head("age", outputs).values.shape == (NUM_FACES,)
    assert histories[1].keys() == histories[0].keys()
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-5), name
    np.testing.assert_array_equal(decoded[0].age_group, decoded[1].age_group)
    with pytest.raises(ValueError, match="list of the 2 outputs .* Received: 3"):
        encoding.decode([1, 2, 3])


def test_one_output_alone_is_decoded():
    outputs = np.array([[0.9], [0.2]], "float32")
    assert list(np.asarray(kag.get_encoding("gender").decode(outputs).gender)) == [1, 0]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow"
)
@pytest.mark.parametrize(("missing", "decay"), [(7, 0.05), (8, 0.0)])
def test_two_replicas_train_like_one_device(two_devices, missing, decay):
    """Ages are missing in the first half of a batch, which one replica gets."""
    count = 16
    draw = np.random.default_rng(0)
    ages = draw.integers(0, 8, count)
    ages[:missing] = -1
    given = {"age_group": ages, "gender": draw.integers(0, 2, count)}
    encoding = kag.get_encoding("categorical")
    arrays = (
        draw.random((count, 8, 8, 3), "float32"),
        encoding.encode(**given),
        encoding.sample_weights(**given),
    )
    found = []
    for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), two_devices):
        with strategy.scope():
            model = small_model(encoding)
            model.layers[1].kernel.regularizer = keras.regularizers.L2(decay)
            model.compile(keras.optimizers.SGD(0.5), **encoding.compile_arguments())
            data = tf.data.Dataset.from_tensor_slices(arrays).batch(count)
            history = model.fit(data, validation_data=data, verbose=0).history
        found.append((history, [v.numpy() for v in model.trainable_variables]))
    (one, one_weights), (two, two_weights) = found
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-4), name
    for a, b in zip(one_weights, two_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
