"""Options of training: images in memory, mixup, averaged weights, several teachers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sample_data import make_prepared, make_rows, write_picture

import keras_agegender as kag
from keras_agegender.callbacks.checkpoints import AveragedWeights, BestModelCheckpoint
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.pipeline import draw_share, mix_pairs
from keras_agegender.evaluation.plots import read_history
from keras_agegender.training.compile import make_optimizer
from keras_agegender.training.fit import train_dataset

SETTINGS = (
    "model.backbone=sample_data:small_backbone",
    "model.image_size=[32, 32]",
    "data.batch_size=8",
    "data.faces=any",
    "training.epochs=3",
    "training.learning_rate_changes={}",
    "training.extra_checkpoints={}",
    "training.normalize_loss=false",
)
OPTIONS = (
    "data.in_memory=true",
    "training.ema_momentum=0.8",
    "training.mixup=0.4",
    "training.optimizer=adamw",
    "augmentation.rotation=10.0",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return kag.load_prepared(make_prepared(tmp_path_factory.mktemp("data")))


def numbers(batches):
    """All arrays of batches, in one list."""
    return [
        np.asarray(array)
        for image, *labels in batches
        for array in (image, *(d[k] for d in labels for k in sorted(d)))
    ]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# -- images in memory ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pipeline": "caffe", "balanced": True},
        {
            "augment": kag.models.Augmentation(rotation=9, jpeg_quality=50),
            "shard": (1, 2),
        },
    ],
)
def test_batches_in_memory_are_those_from_disk(prepared, options):
    """24 faces in batches of 10, the last one of a shard filled up."""
    options = {"image_size": (32, 32), "batch_size": 10, "epochs": range(2), **options}
    first, second = (
        numbers(
            kag.make_train_dataset(prepared, "ordinal", in_memory=in_memory, **options)
        )
        for in_memory in (False, True)
    )
    assert_same(first, second)


def test_validation_batches_in_memory_are_those_from_disk(prepared):
    first, second = (
        numbers(kag.make_eval_dataset(prepared, "years", in_memory=in_memory))
        for in_memory in (False, True)
    )
    assert_same(first, second)


def test_images_of_several_sizes_do_not_fit_in_memory(tmp_path):
    rows = make_rows(tmp_path, 8)
    write_picture(tmp_path / "000.jpg", size=(44, 32))
    manifest = make_manifest(rows).assign(split="train")
    with pytest.raises(ValueError, match="Received images of 2 sizes"):
        kag.make_train_dataset(manifest, "gender", in_memory=True)


# -- mixup -----------------------------------------------------------------------------


def test_pairs_are_mixed_as_computed_by_hand():
    """A share of 3/4; the second face has no label of `a`, the third weighs double."""
    images = np.arange(3, dtype="float32").reshape(3, 1, 1, 1)
    targets = {
        "a": np.float32([[0.0], [1.0], [1.0]]),
        "id": np.int32([5, 6, 7]),
        "ranks": np.float32([[[1.0], [0.0]], [[1.0], [1.0]], [[0.0], [0.0]]]),
    }
    weights = {
        "a": np.float32([1.0, 0.0, 2.0]),
        "id": np.float32([1.0, 1.0, 0.0]),
        "ranks": np.float32([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]),
    }
    batch = tf.nest.map_structure(tf.constant, (images, targets, weights))
    image, mixed, mixed_weights = mix_pairs(*batch, 0.75)
    np.testing.assert_allclose(np.ravel(image), [0.5, 1.0, 1.5])
    # Weights 0.75 · 1 + 0.25 · 2 and 0.75 · 2 + 0.25 · 1; 0.5 / 1.25 and 1.5 / 1.75.
    np.testing.assert_allclose(mixed_weights["a"], [1.25, 0.0, 1.75])
    np.testing.assert_allclose(np.ravel(mixed["a"])[[0, 2]], [0.4, 1.5 / 1.75])
    np.testing.assert_array_equal(mixed["id"], targets["id"])
    np.testing.assert_array_equal(mixed_weights["id"], weights["id"])
    np.testing.assert_allclose(mixed_weights["ranks"][0], [1.0, 0.25])
    np.testing.assert_allclose(np.ravel(mixed["ranks"][0]), [0.75, 0.0])


def test_shares_are_the_larger_half_of_a_beta_distribution():
    """Beta(1, 1) is uniform: the larger share is, on [0.5, 1], with a mean of 0.75."""
    uniform = np.array([draw_share(1.0, (1, k)) for k in range(400)])
    assert 0.5 <= uniform.min() and uniform.max() <= 1.0
    assert uniform.mean() == pytest.approx(0.75, abs=0.03)  # 4 standard errors
    small = np.array([draw_share(0.01, (1, k)) for k in range(50)])
    assert np.isfinite(small).all() and small.mean() > 0.95


def test_mixed_epochs_depend_on_their_number_alone(prepared):
    options = {"image_size": (16, 16), "batch_size": 8, "mixup": 0.5}
    both, second = (
        numbers(kag.make_train_dataset(prepared, "ordinal", epochs=epochs, **options))
        for epochs in (range(2), range(1, 2))
    )
    assert_same(both[len(second) :], second)
    plain = numbers(
        kag.make_train_dataset(
            prepared, "ordinal", epochs=range(1), **{**options, "mixup": 0.0}
        )
    )
    assert not np.array_equal(plain[0], both[0])


# -- averaged weights ------------------------------------------------------------------


class Recorder(keras.callbacks.Callback):
    """The weights after every step."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.kernels.append(np.array(self.model.get_weights()[0]))


def fit_line(optimizer, callbacks, epochs):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(2)
    model.fit(data, validation_data=data, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


def test_checkpoints_contain_the_recurrence(tmp_path):
    """average = 0.7 average + 0.3 weight, from the first step's weight on."""
    recipe = kag.load_recipe("7", ["training.ema_momentum=0.7", *SETTINGS])
    recorder, average = Recorder(), AveragedWeights()
    best = BestModelCheckpoint(tmp_path / "best.keras", "val_loss", mode="min")
    best.best = np.inf
    model = fit_line(
        make_optimizer(recipe, 3),
        [average, best, average.restore_at_epoch_end(), recorder],
        epochs=2,
    )
    expected = recorder.kernels[0]
    for kernel in recorder.kernels[1:]:
        expected = 0.7 * expected + 0.3 * kernel
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5)
    saved = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_allclose(saved.get_weights()[0], expected, rtol=1e-5)
    # Training itself is the same as without.
    plain = Recorder()
    fit_line(make_optimizer(kag.load_recipe("7", SETTINGS), 3), [plain], epochs=2)
    for a, b in zip(recorder.kernels, plain.kernels, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name",
    ["adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion",
     "muon", "nadam", "rmsprop", "schedulefreeadamw", "sgd"],
)  # fmt: skip
def test_every_optimizer_averages(name):
    settings = [f"training.optimizer={name}", "training.ema_momentum=0.5", *SETTINGS]
    recipe = kag.load_recipe("7", [*settings, "training.learning_rate=0.01"])
    recorder, average = Recorder(), AveragedWeights()
    model = fit_line(
        make_optimizer(recipe, 3),
        [average, average.restore_at_epoch_end(), recorder],
        epochs=1,
    )
    first, second, third = recorder.kernels
    expected = 0.25 * first + 0.25 * second + 0.5 * third
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5)


# -- a run with all of them ------------------------------------------------------------


class Stop(keras.callbacks.Callback):
    """As Ctrl-C in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_resumed_run_has_the_same_weights(prepared, tmp_path):
    """Images in memory, mixup, averaged weights and layers that augment."""
    arguments = {"overrides": [*SETTINGS, *OPTIONS], "verbose": 0}
    whole = kag.train("7", prepared, tmp_path / "a", **arguments)
    with pytest.raises(KeyboardInterrupt):
        kag.train("7", prepared, tmp_path / "b", callbacks=[Stop()], **arguments)
    resumed = kag.train("7", prepared, tmp_path / "b", **arguments)
    assert whole.history_file.read_bytes() == resumed.history_file.read_bytes()
    for name in ("best", "last"):
        weights = [run.load_model(name).get_weights() for run in (whole, resumed)]
        assert_same(*weights)
    # The last epoch's metrics are those of the saved, averaged weights.
    last = whole.load_model("last")
    validation = kag.make_eval_dataset(
        prepared, "categorical", image_size=(32, 32), pipeline="caffe"
    )
    found = last.evaluate(validation, verbose=0, return_dict=True)
    history = read_history(whole.history_file)
    logged = history["val_age_accuracy"][-1]
    assert found["age_accuracy"] == pytest.approx(logged, abs=1e-6)


def test_teachers_are_averaged_over_both_views(prepared, tmp_path):
    """Two teachers, two views: a quarter of each prediction, at any backend."""
    files = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        teacher = kag.build_model(
            "sample_data:small_backbone", "ordinal", image_size=(32, 32)
        )
        files.append(str(tmp_path / f"{seed}.keras"))
        teacher.save(files[-1])
    settings = [f"distillation.teachers={files}", "distillation.flip=true"]
    settings += ["distillation.weight=1.0", "model.encoding=ordinal", *SETTINGS]
    experiment = kag.training.make_experiment(kag.load_recipe("7", settings), prepared)
    image, targets, _ = next(iter(train_dataset(experiment, range(1))))
    image = np.asarray(image)
    predictions = [
        keras.saving.load_model(file).predict_on_batch(view)["age3"]
        for file in files
        for view in (image, image[:, :, ::-1])
    ]
    np.testing.assert_allclose(
        np.asarray(targets["age3"]), sum(predictions) / 4, atol=1e-5
    )
