"""Loss weights that change during `fit`: every kind of model, backend and file."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from two_outputs import FEATURES, TARGETS, assert_same_weights, build, fit

from keras_agegender import LossWeightBalancer, LossWeightScheduler
from keras_agegender.callbacks.loss_weights import (
    flatten_weights,
    name_losses,
    pack_weights,
)

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


def test_callable_receives_the_weights_in_force():
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
    assert "loss_weight_state" not in model.metrics_names
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


def test_load_model_continues_with_the_weights_in_force(tmp_path):
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
from keras_agegender.callbacks.loss_weights import LossWeightScheduler

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
def test_a_killed_run_resumes_with_its_loss_weights(tmp_path):
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
        (lambda: LossWeightScheduler({0: {"a": -1.0}}), "non-negative"),
        (lambda: LossWeightScheduler({0: {"a": float("nan")}}), "finite"),
        (lambda: LossWeightScheduler({0: {"a": "high"}}), "'high'"),
        (lambda: LossWeightScheduler({0: 2.0}), "Expected a dict"),
        (lambda: LossWeightScheduler({-1: {"a": 1.0}}), "non-negative integers"),
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


BOTH = [TARGETS["a"], TARGETS["b"]]


class TwoHeads(keras.Model):
    """A subclassed model; `kind` says what it returns."""

    def __init__(self, kind):
        super().__init__()
        self.shared = keras.layers.Dense(5, activation="tanh")
        self.first = keras.layers.Dense(1)
        self.second = keras.layers.Dense(1)
        self.kind = kind

    def call(self, x):
        x = self.shared(x)
        a, b = self.first(x), self.second(x)
        return {"dict": {"b": b, "a": a}, "list": [a, b], "single": a + b}[self.kind]


def subclassed(kind, loss):
    def make(loss_weights):
        keras.utils.set_random_seed(1)
        model = TwoHeads(kind)
        model.compile("adam", loss=loss, loss_weights=loss_weights)
        return model

    return make


def sequential(built):
    def make(loss_weights):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((4,))] if built else []
        layers += [keras.layers.Dense(3, "tanh"), keras.layers.Dense(1, name="out")]
        model = keras.Sequential(layers)
        model.compile("adam", loss="mse", loss_weights=loss_weights)
        return model

    return make


def sequential_of_two_outputs(loss_weights):
    keras.utils.set_random_seed(1)
    x = keras.Input((4,))
    heads = keras.Model(x, {n: keras.layers.Dense(1)(x) for n in "ba"})
    model = keras.Sequential([keras.layers.Dense(4), heads])
    model.compile("adam", loss={"a": "mse", "b": "mae"}, loss_weights=loss_weights)
    return model


def functional(loss, listed=False):
    def make(loss_weights):
        return build(loss_weights, "adam", loss=loss, listed=listed)

    return make


def dict_of_other_layer_names(loss_weights):
    """The keys of the outputs are each the name of the other one's layer."""
    keras.utils.set_random_seed(1)
    x = keras.Input((4,))
    b, a = keras.layers.Dense(1, name="a")(x), keras.layers.Dense(1, name="b")(x)
    model = keras.Model(x, {"b": b, "a": a})
    model.compile("adam", loss="mse", loss_weights=loss_weights)
    return model


# model, targets, the name of what the schedule changes, the same weights for `compile`
KINDS = {
    "dict of outputs": (functional({"b": "mse", "a": "mae"}), TARGETS, "a", "dict"),
    "dict, list of losses": (functional(["mse", "mae"]), TARGETS, "a", [3.0, 1.0]),
    "dict, one loss": (functional("mse"), TARGETS, "a", None),
    "dict, crossed names": (dict_of_other_layer_names, TARGETS, "a", None),
    "list of outputs": (functional(["mse", "mae"], True), BOTH, "a", [3.0, 1.0]),
    "subclassed dict": (
        subclassed("dict", {"b": "mse", "a": "mae"}),
        TARGETS,
        "a",
        "dict",
    ),
    "subclassed list": (
        subclassed("list", ["mse", "mae"]),
        BOTH,
        "output_0",
        [3.0, 1.0],
    ),
    "subclassed single": (subclassed("single", "mse"), TARGETS["a"], "output", 3.0),
    "sequential": (sequential(True), TARGETS["a"], "out", 3.0),
    "sequential, unbuilt": (sequential(False), TARGETS["a"], "out", 3.0),
    "sequential of two": (sequential_of_two_outputs, TARGETS, "a", "dict"),
}


@pytest.mark.parametrize(
    "used_before", [True, pytest.param(False, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind, used_before):
    make, targets, name, compiled = KINDS[kind]
    if compiled == "dict":
        compiled = {"a": 3.0, "b": 1.0}
    model = make(None)
    if used_before:  # then the compiled loss is built before the weights come in
        model.evaluate(FEATURES, targets, batch_size=16, verbose=0)
    callbacks = [LossWeightScheduler({0: {name: 3.0}})]
    history = fit(model, callbacks, epochs=2, y=targets).history
    assert history[f"{name}_loss_weight"] == [3.0, 3.0]
    if compiled is None:  # `compile` has no way to say it
        assert history["loss"][0] == pytest.approx(
            3 * history["a_loss"][0] + history["b_loss"][0]
        )
        return
    reference = make(compiled)
    expected = fit(reference, epochs=2, y=targets).history
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    assert_same_weights(model, reference)


def test_two_weights_on_one_loss_survive_a_file(tmp_path):
    model = build(loss="mse")
    fit(model, [LossWeightScheduler({0: {"b": 5.0}})])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for m in (model, loaded):
        history = fit(m).history
        assert history["loss"][0] == pytest.approx(
            history["a_loss"][0] + 5 * history["b_loss"][0]
        )
    assert_same_weights(loaded, model)


def test_a_train_step_without_the_compiled_loss_is_an_error():
    class OwnLoss(keras.Model):
        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            return keras.ops.mean((y["a"] - y_pred["a"]) ** 2)

    x = keras.Input((4,))
    model = OwnLoss(x, {n: keras.layers.Dense(1, name=n)(x) for n in "ab"})
    model.compile("sgd", loss={"a": "mse", "b": "mse"})
    with pytest.raises(ValueError, match=r"no effect.*compute_loss"):
        fit(model, [LossWeightScheduler({0: {"a": 2.0}})])


def test_a_model_without_compile_or_loss_is_an_error():
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1)(x))
    with pytest.raises(ValueError, match=r"Call compile\(\)"):
        LossWeightScheduler({}).set_model(model)
    model.compile("sgd")
    with pytest.raises(ValueError, match="compiled with `loss=`"):
        LossWeightScheduler({}).set_model(model)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C in the third step."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


def interrupted(**kwargs):
    """A model whose `fit` was interrupted while `a` weighed 2 and then 3."""
    model = build(**kwargs)
    callbacks = [
        LossWeightScheduler({0: {"a": 2.0}}),
        LossWeightScheduler({1: {"a": 3.0}}, by="step"),
        Interrupt(),
    ]
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks, batch_size=4)
    return model


def assert_ordinary(model):
    assert model.metrics_names == ["loss", "a_loss", "b_loss"]


def test_training_continues_after_ctrl_c_without_a_callback():
    model = interrupted()
    history = fit(model).history
    assert_ordinary(model)
    assert set(history) == {"loss", "a_loss", "b_loss"}
    expected = 3 * history["a_loss"][0] + history["b_loss"][0]
    assert history["loss"][0] == pytest.approx(expected)


def test_training_continues_after_ctrl_c_with_callbacks():
    model = interrupted()
    scheduler = LossWeightScheduler({1: {"b": 5.0}})
    history = fit(model, [scheduler, LossWeightScheduler({2: {"a": 7.0}})], epochs=3)
    assert history.history["a_loss_weight"] == [3.0, 3.0, 7.0]
    assert history.history["b_loss_weight"] == [1.0, 5.0, 5.0]
    assert_ordinary(model)


def test_evaluation_after_ctrl_c():
    model = interrupted()
    scores = model.evaluate(FEATURES, TARGETS, verbose=0, return_dict=True)
    assert set(scores) == {"loss", "a_loss", "b_loss"}
    assert scores["loss"] == pytest.approx(3 * scores["a_loss"] + scores["b_loss"])


def test_compile_after_ctrl_c_starts_from_its_own_weights():
    model = interrupted()
    model.compile("sgd", loss={"a": "mse", "b": "mse"}, loss_weights={"a": 9, "b": 1})
    history = fit(model, [LossWeightScheduler({5: {"a": 1.0}})]).history
    assert history["a_loss_weight"] == [9.0]
    assert_ordinary(model)


def test_compile_after_ctrl_c_leaves_an_ordinary_model():
    model = interrupted()
    model.compile("sgd", loss={"a": "mse", "b": "mse"}, loss_weights={"a": 9, "b": 1})
    history = fit(model).history
    assert_ordinary(model)
    expected = 9 * history["a_loss"][0] + history["b_loss"][0]
    assert history["loss"][0] == pytest.approx(expected)


def test_weights_loaded_after_ctrl_c_leave_the_loss_weights(tmp_path):
    file = tmp_path / "within.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(file, save_weights_only=True)
    other = build()
    fit(other, [LossWeightBalancer("dwa"), checkpoint])
    model = interrupted()
    model.load_weights(file)
    assert_same_weights(model, other)
    history = fit(model).history
    expected = 3 * history["a_loss"][0] + history["b_loss"][0]
    assert history["loss"][0] == pytest.approx(expected)


@pytest.mark.slow
def test_weights_files_after_ctrl_c_are_those_of_an_ordinary_model(tmp_path):
    model = interrupted()
    model.save_weights(tmp_path / "after.weights.h5")
    loaded = build()
    loaded.load_weights(tmp_path / "after.weights.h5")
    assert_same_weights(loaded, model)


PLAIN_KERAS = """
import sys
import keras
import numpy as np

model = keras.saving.load_model(sys.argv[1])
assert "keras_agegender" not in sys.modules
x = np.ones((4, 4), "float32")
y = {"a": np.zeros((4, 1)), "b": np.zeros((4, 1))}
logs = model.train_on_batch(x, y, return_dict=True)
assert set(logs) == {"loss", "a_loss", "b_loss"}, logs
np.testing.assert_allclose(logs["loss"], 3 * logs["a_loss"] + logs["b_loss"], 1e-5)
"""


def test_a_model_saved_after_ctrl_c_loads_with_plain_keras(tmp_path):
    model = interrupted()
    model.save(tmp_path / "after.keras")
    command = [sys.executable, "-c", PLAIN_KERAS, str(tmp_path / "after.keras")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_weights(keras.saving.load_model(tmp_path / "after.keras"), model)


def test_a_balancer_detaches_after_ctrl_c_too():
    model = build()
    balancer = LossWeightBalancer("uncertainty", by="step")
    with pytest.raises(KeyboardInterrupt):
        fit(model, [balancer, Interrupt()], batch_size=4)
    weights = balancer.loss_weights
    history = fit(model).history
    assert_ordinary(model)
    expected = sum(weights[name] * history[f"{name}_loss"][0] for name in "ab")
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_evaluating_and_saving_within_fit_leave_the_weights_attached(tmp_path):
    class Busy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(FEATURES, TARGETS, verbose=0)
            self.model.save(tmp_path / "within.keras")

    callbacks = [LossWeightScheduler({0: {"a": 2.0}, 2: {"a": 4.0}}), Busy()]
    history = fit(build(), callbacks, epochs=3).history
    assert history["a_loss_weight"] == [2.0, 2.0, 4.0]


def test_a_custom_loop_uses_the_attached_weights():
    model = build()
    scheduler = LossWeightScheduler({0: {"a": 2.0}, 1: {"a": 4.0}})
    callbacks = keras.callbacks.CallbackList([scheduler], model=model, epochs=2)
    callbacks.on_train_begin()
    for epoch, weight in enumerate([2.0, 4.0]):
        callbacks.on_epoch_begin(epoch)
        model.reset_metrics()
        logs = model.train_on_batch(FEATURES, TARGETS, return_dict=True)
        assert logs["loss"] == pytest.approx(weight * logs["a_loss"] + logs["b_loss"])
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end()
    assert_ordinary(model)


@pytest.mark.parametrize(
    ("losses", "outputs", "names"),
    [
        ("mse", ["out"], "out"),
        (["mse", None, "mae"], ["x", "y", "z"], ["x", None, "z"]),
        (["mse", "mae"], ["out"], ["out", "out"]),
        ({"b": "mse", "a": None}, ["a", "b"], {"b": "b", "a": None}),
        (
            {"a": {"x": "mse", "y": "mae"}, "b": ["mse", "mae"]},
            [],
            {"a": {"x": "a/x", "y": "a/y"}, "b": ["b", "b"]},
        ),
    ],
)
def test_names(losses, outputs, names):
    assert name_losses(losses, outputs) == names


@pytest.mark.parametrize(
    ("names", "weights", "flat", "packed"),
    [
        ("out", None, {"out": 1.0}, 1.0),
        ("out", 3, {"out": 3.0}, 3.0),
        ("out", [2.0], {"out": 2.0}, 2.0),
        (["x", None, "z"], [2.0, 7.0, 4.0], {"x": 2.0, "z": 4.0}, [2.0, 1.0, 4.0]),
        (["x", "y"], {"y": 5.0}, {"x": 1.0, "y": 5.0}, [1.0, 5.0]),
        ({"b": "b", "a": "a"}, {"a": 2.0, "b": 3.0}, {"a": 2.0, "b": 3.0}, None),
        (
            {"a": {"x": "a/x", "y": "a/y"}},
            {"a": {"x": 2.0, "y": 3.0}},
            {"a/x": 2.0, "a/y": 3.0},
            {"a": {"x": 2.0, "y": 3.0}},
        ),
    ],
)
def test_weights(names, weights, flat, packed):
    assert flatten_weights(names, weights) == flat
    assert pack_weights(names, flat) == (weights if packed is None else packed)


def test_more_weights_than_the_one_loss():
    with pytest.raises(ValueError, match=r"output 'out'.*one weight.*\[2\.0, 3\.0\]"):
        flatten_weights("out", [2.0, 3.0])


def test_a_list_of_losses_that_does_not_fit():
    with pytest.raises(ValueError, match=r"each of the outputs.*'c'.*2 losses"):
        name_losses(["mse", "mse"], ["a", "b", "c"])


def test_two_weights_of_one_output():
    with pytest.raises(ValueError, match=r"output 'a'.*1\.0 and 2\.0"):
        flatten_weights({"a": ["a", "a"]}, {"a": [1.0, 2.0]})
