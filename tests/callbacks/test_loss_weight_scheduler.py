"""LossWeightScheduler: proofs by gradients, on every way a model can be trained."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from two_outputs import FEATURES, TARGETS, assert_same_weights, build, fit

from keras_agegender.callbacks.loss_weights import LossWeightScheduler

BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="TensorFlow's own machinery"
)


def recompiled(model, loss_weights):
    """The reference: the same optimizer object, compiled anew with the weights."""
    model.compile(
        model.optimizer, loss={"a": "mse", "b": "mse"}, loss_weights=loss_weights
    )
    return model


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_after_the_switch_is_a_step_of_a_freshly_compiled_model(jit_compile):
    before, after = {"a": 1.0, "b": 2.0}, {"a": 0.25, "b": 8.0}
    model = build(before, jit_compile=jit_compile)
    fit(model, [LossWeightScheduler({2: after})], epochs=4)
    reference = build(before)
    fit(reference, epochs=2)
    fit(recompiled(reference, after), epochs=2)  # Adam goes on with its moments
    assert_same_weights(model, reference)


def test_gradient_of_a_switched_off_output_is_zero():
    model = build(optimizer=keras.optimizers.SGD(0.1))
    fit(model)
    frozen = [w.copy() for w in model.get_layer("a").get_weights()]
    fit(model, [LossWeightScheduler({0: {"a": 0.0}})], epochs=3)
    for value, expected in zip(model.get_layer("a").get_weights(), frozen, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_sgd_step_scales_with_the_weight():
    # One SGD step moves b's bias by -rate * weight * dloss/dbias: worked by hand.
    model = build(optimizer=keras.optimizers.SGD(0.1))
    start = model.get_layer("b").get_weights()[1].copy()
    predicted = np.asarray(keras.ops.convert_to_numpy(model(FEATURES)["b"]))
    gradient = 2 * np.mean(predicted - TARGETS["b"])
    fit(model, [LossWeightScheduler({0: {"b": 3.0}})])
    moved = model.get_layer("b").get_weights()[1] - start
    np.testing.assert_allclose(moved, [-0.1 * 3.0 * gradient], rtol=1e-4)


def test_steps_count_over_epochs():
    # 4 batches an epoch; step 6 is the third batch of the second epoch.
    seen = []
    schedule = {6: {"a": 5.0}}
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(float(logs["a_loss_weight"]))
    )
    model = build()
    fit(model, [LossWeightScheduler(schedule, by="step"), spy], epochs=2, batch_size=4)
    assert seen == [1.0] * 6 + [5.0] * 2


def test_steps_in_the_middle_of_an_epoch_match_a_manual_run():
    model = build()
    schedule = {1: {"a": 4.0}, 3: {"a": 0.5}}
    fit(model, [LossWeightScheduler(schedule, by="step")], batch_size=4)
    reference = build()
    for batch, weight in enumerate([1.0, 4.0, 4.0, 0.5]):
        recompiled(reference, {"a": weight, "b": 1.0})
        rows = slice(4 * batch, 4 * batch + 4)
        reference.train_on_batch(
            FEATURES[rows], {name: y[rows] for name, y in TARGETS.items()}
        )
    assert_same_weights(model, reference)


def test_callable_is_asked_with_the_weights_in_force():
    asked = []

    def halve(epoch, weights):
        asked.append((epoch, weights["a"]))
        return {"a": weights["a"] / 2} if epoch else None

    history = fit(build({"a": 8.0, "b": 1.0}), [LossWeightScheduler(halve)], epochs=3)
    assert asked == [(0, 8.0), (1, 8.0), (2, 4.0)]
    assert history.history["a_loss_weight"] == [8.0, 4.0, 2.0]


def test_threshold_changes_once_from_the_next_epoch_on():
    metrics = iter([0.5, 0.96, 0.2, 0.2])

    class Metric(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_a_accuracy"] = next(metrics)

    scheduler = LossWeightScheduler.when(
        "val_a_accuracy", above=0.95, set={"a": 0.5}, start={"a": 4.0}
    )
    history = fit(build(), [Metric(), scheduler], epochs=4)
    assert history.history["a_loss_weight"] == [4.0, 4.0, 0.5, 0.5]


def test_below_is_a_threshold_too():
    scheduler = LossWeightScheduler.when("loss", below=1e9, set={"b": 3.0})
    history = fit(build(), [scheduler], epochs=2)
    assert history.history["b_loss_weight"] == [1.0, 3.0]


def test_two_schedulers_share_the_model():
    callbacks = [
        LossWeightScheduler({1: {"a": 2.0}}),
        LossWeightScheduler.when("loss", below=1e9, set={"b": 3.0}),
    ]
    history = fit(build(), callbacks, epochs=3)
    assert history.history["a_loss_weight"] == [1.0, 2.0, 2.0]
    assert history.history["b_loss_weight"] == [1.0, 3.0, 3.0]


def test_validation_logs_are_free_of_the_weights():
    history = fit(
        build(),
        [LossWeightScheduler({0: {"a": 2.0}})],
        validation_data=(FEATURES, TARGETS),
    ).history
    assert "a_loss_weight" in history
    assert not [
        name for name in history if name.startswith("val_") and "weight" in name
    ]
    assert "b_loss_weight" not in history  # no schedule names it


def test_validation_loss_is_weighted():
    history = fit(
        build(),
        [LossWeightScheduler({0: {"a": 7.0}})],
        validation_data=(FEATURES, TARGETS),
    ).history
    expected = 7 * history["val_a_loss"][0] + history["val_b_loss"][0]
    np.testing.assert_allclose(history["val_loss"][0], expected, rtol=1e-5)


def test_fit_leaves_an_ordinary_model():
    model = build()
    names = model.metrics_names
    fit(model, [LossWeightScheduler({0: {"a": 2.0}})])
    assert [n for n in model.metrics_names if n in names] == names
    assert not hasattr(model, "loss_weight_state")
    history = fit(model, epochs=1).history  # the weights stay in force, unlogged
    assert "a_loss_weight" not in history
    expected = 2 * history["a_loss"][0] + history["b_loss"][0]
    np.testing.assert_allclose(history["loss"][0], expected, rtol=1e-5)


def test_compile_afterwards_starts_from_its_own_weights():
    model = build()
    fit(model, [LossWeightScheduler({0: {"a": 2.0}})])
    recompiled(model, {"a": 10.0, "b": 1.0})
    history = fit(model, [LossWeightScheduler({5: {"a": 1.0}})]).history
    assert history["a_loss_weight"] == [10.0]


def test_initial_epoch_catches_up():
    schedule = {0: {"a": 4.0}, 2: {"a": 2.0, "b": 6.0}, 9: {"a": 1.0}}
    history = fit(
        build(), [LossWeightScheduler(schedule)], epochs=6, initial_epoch=5
    ).history
    assert history["a_loss_weight"] == [2.0]
    assert history["b_loss_weight"] == [6.0]


@pytest.mark.parametrize("suffix", ["x.keras", "x.weights.h5"])
def test_files_written_while_training_load_everywhere(tmp_path, suffix):
    path = str(tmp_path / suffix)
    weights_only = suffix.endswith("h5")
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=weights_only)
    model = build()
    fit(model, [LossWeightScheduler({0: {"a": 2.0}}), checkpoint])
    if weights_only:
        loaded = build()
        loaded.load_weights(path)
    else:
        loaded = keras.saving.load_model(path)
    assert_same_weights(loaded, model)


def test_load_model_goes_on_with_the_weights_in_force(tmp_path):
    model = build({"a": 1.0, "b": 1.0})
    fit(model, [LossWeightScheduler({0: {"a": 2.0}})])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    history = fit(loaded, [LossWeightScheduler({7: {"b": 9.0}, 8: {"a": 1.0}})]).history
    assert history["a_loss_weight"] == [2.0]
    fit(model)
    assert_same_weights(loaded, model)


def test_right_after_load_model_the_schedule_works(tmp_path):
    build().save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    model = build()
    for m in (loaded, model):
        fit(m, [LossWeightScheduler({1: {"a": 6.0}})], epochs=3)
    assert_same_weights(loaded, model)


def test_outputs_in_a_list():
    targets = [TARGETS["a"], TARGETS["b"]]
    model = build([1.0, 1.0], listed=True)
    fit(model, [LossWeightScheduler({0: {"b": 0.0}})], epochs=2, y=targets)
    reference = build([1.0, 0.0], listed=True)
    fit(reference, epochs=2, y=targets)
    assert_same_weights(model, reference)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build({"a": 1.0, "b": 1.0})
        history = fit(model, [LossWeightScheduler({1: {"a": 0.0}})], epochs=3).history
        assert type(model.optimizer).__name__ == "LossScaleOptimizer"
        reference = build({"a": 1.0, "b": 1.0})
        fit(reference)
        fit(recompiled(reference, {"a": 0.0, "b": 1.0}), epochs=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert history["a_loss_weight"] == [1.0, 0.0, 0.0]
    assert_same_weights(model, reference, atol=1e-3)


@needs_tensorflow
def test_mirrored_strategy_on_two_devices(two_devices):
    assert two_devices.num_replicas_in_sync == 2
    schedule = {1: {"a": 0.0, "b": 3.0}}
    with two_devices.scope():
        model = build()
    history = fit(model, [LossWeightScheduler(schedule)], epochs=3).history
    assert history["a_loss_weight"] == [1.0, 0.0, 0.0]
    assert history["b_loss_weight"] == [1.0, 3.0, 3.0]
    single = build()
    fit(single, [LossWeightScheduler(schedule)], epochs=3)
    assert_same_weights(model, single, atol=1e-5)


@needs_tensorflow
def test_tensorboard_shows_the_weights(tmp_path):
    import tensorflow as tf

    # TensorBoard stands first: what it writes must not depend on the order.
    callbacks = [
        keras.callbacks.TensorBoard(tmp_path),
        LossWeightScheduler({0: {"a": 4.0}, 1: {"a": 0.5}}),
    ]
    fit(build(), callbacks, epochs=2)
    (file,) = (tmp_path / "train").glob("events*")
    values = [
        float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == "epoch_a_loss_weight"
    ]
    assert values == [4.0, 0.5]


def test_the_progress_line_shows_the_weights(capsys):
    model = build()
    model.fit(
        FEATURES, TARGETS, verbose=2, callbacks=[LossWeightScheduler({0: {"a": 2.5}})]
    )
    assert "a_loss_weight: 2.5" in capsys.readouterr().out


KILLED_RUN = """
import os, sys
import keras
from two_outputs import build, fit
from keras_agegender.callbacks.loss_weight_scheduler import LossWeightScheduler

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == int(sys.argv[2]):
            os.kill(os.getpid(), 9)

callbacks = [
    keras.callbacks.BackupAndRestore(sys.argv[1]),
    LossWeightScheduler({0: {"a": 4.0}, 5: {"b": 2.0}}),
    LossWeightScheduler.when("loss", below=1e9, set={"a": 0.3}),
    Kill(),
]
model = build()
fit(model, callbacks, epochs=6)
model.save_weights(sys.argv[3])
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_with_its_loss_weights(tmp_path):
    def run(name, kill_at):
        weights = tmp_path / f"{name}.weights.h5"
        command = [sys.executable, "-c", KILLED_RUN, str(tmp_path / name), str(kill_at)]
        return weights, subprocess.run(
            [*command, str(weights)], env=os.environ, capture_output=True, text=True
        )

    whole, finished = run("whole", -1)
    assert finished.returncode == 0, finished.stderr
    _, killed = run("killed", 4)
    assert killed.returncode == -9, killed.stderr
    resumed, finished = run("killed", -1)
    assert finished.returncode == 0, finished.stderr
    models = [build(), build()]
    models[0].load_weights(whole)
    models[1].load_weights(resumed)
    assert_same_weights(*models)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossWeightScheduler({0: {"a": -1.0}}), "not negative"),
        (lambda: LossWeightScheduler({0: {"a": float("nan")}}), "finite"),
        (lambda: LossWeightScheduler({0: {"a": "high"}}), "'high'"),
        (lambda: LossWeightScheduler({0: 2.0}), "Expected a dict"),
        (lambda: LossWeightScheduler({-1: {"a": 1.0}}), "from 0 on"),
        (lambda: LossWeightScheduler([1.0, 2.0]), "or a callable"),
        (lambda: LossWeightScheduler({}, by="batch"), "'epoch' or 'step'"),
        (lambda: LossWeightScheduler.when("x", set={"a": 1}), "exactly one"),
        (
            lambda: LossWeightScheduler.when("x", above=1, below=2, set={}),
            "exactly one",
        ),
    ],
)
def test_malformed_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_output_is_named():
    with pytest.raises(ValueError, match=r"\['gendr'\].*Outputs: \['a', 'b'\]"):
        fit(build(), [LossWeightScheduler({3: {"gendr": 1.0}})])


def test_unknown_metric_is_named():
    with pytest.raises(ValueError, match="'val_a_accuracy'.*Logged: "):
        fit(
            build(), [LossWeightScheduler.when("val_a_accuracy", above=1, set={"a": 1})]
        )
