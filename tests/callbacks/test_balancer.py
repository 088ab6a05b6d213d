"""Loss weights from losses: numbers worked by hand, and training with them."""

from __future__ import annotations

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from two_outputs import FEATURES, TARGETS, assert_same_weights, build, fit

from keras_agegender import LossWeightBalancer, LossWeightScheduler
from keras_agegender.callbacks.balancer import (
    dynamic_weight_average,
    uncertainty_weights,
)
from keras_agegender.callbacks.checkpoints import RunBackup

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's own machinery"
)


LOSSES = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=9)


def test_dynamic_average_by_hand():
    # r = (1, 0.5); r / 2 = (0.5, 0.25); exp = (1.648721, 1.284025), sum 2.932747;
    # 2 * exp / sum = (1.124353, 0.875647).
    weights = dynamic_weight_average([1.0, 1.0], [1.0, 2.0])
    np.testing.assert_allclose(weights, [1.124353, 0.875647], atol=1e-6)


def test_dynamic_average_of_three_at_temperature_one_by_hand():
    # r = (1, 2, 0.5); exp = (2.718282, 7.389056, 1.648721), sum 11.756059;
    # 3 * exp / sum = (0.693672, 1.885595, 0.420733).
    weights = dynamic_weight_average([0.3, 4.0, 1.0], [0.3, 2.0, 2.0], temperature=1.0)
    np.testing.assert_allclose(weights, [0.693672, 1.885595, 0.420733], atol=1e-6)


def test_uncertainty_by_hand():
    np.testing.assert_allclose(uncertainty_weights([0.5, 4.0]), [2.0, 0.25])


def test_soft_uncertainty_by_hand():
    # 1 / L / 2 = (1, 0.5); exp = (2.718282, 1.648721), sum 4.367003;
    # 2 * exp / sum = (1.244919, 0.755081).
    weights = uncertainty_weights([0.5, 1.0], temperature=2.0)
    np.testing.assert_allclose(weights, [1.244919, 0.755081], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(LOSSES, st.floats(0.01, 100))
def test_dynamic_average_does_not_see_scales(losses, scale):
    earlier = np.asarray(losses)
    latest = earlier[::-1] / 2
    weights = dynamic_weight_average(latest, earlier)
    scales = np.linspace(1, scale, len(losses))
    np.testing.assert_allclose(
        dynamic_weight_average(latest * scales, earlier * scales), weights, rtol=1e-6
    )
    assert weights.sum() == pytest.approx(len(losses))


@settings(max_examples=50, deadline=None)
@given(LOSSES)
def test_uncertainty_makes_weighted_losses_equal(losses):
    np.testing.assert_allclose(uncertainty_weights(losses) * losses, 1.0)


@settings(max_examples=50, deadline=None)
@given(LOSSES)
def test_a_high_temperature_makes_weights_equal(losses):
    ones = np.ones(len(losses))
    near = uncertainty_weights(losses, temperature=1e9)
    np.testing.assert_allclose(near, ones, atol=1e-3)
    near = dynamic_weight_average(losses, losses[::-1], temperature=1e12)
    np.testing.assert_allclose(near, ones, atol=1e-3)


def test_a_loss_of_zero_gives_finite_weights():
    assert np.isfinite(uncertainty_weights([0.0, 1.0])).all()
    assert np.isfinite(uncertainty_weights([0.0, 1.0], temperature=0.1)).all()
    assert np.isfinite(dynamic_weight_average([1.0, 0.0], [0.0, 0.0])).all()


def averages(history, epoch, temperature=2.0):
    """DWA's weights of an epoch, from the logged losses of the two before it."""
    rates = [
        history[f"{n}_loss"][epoch - 1] / history[f"{n}_loss"][epoch - 2] for n in "ab"
    ]
    powers = [math.exp(rate / temperature) for rate in rates]
    return [2 * power / sum(powers) for power in powers]


def logged(history):
    """The logged weights: one row per epoch."""
    return np.transpose([history["a_loss_weight"], history["b_loss_weight"]])


@pytest.mark.parametrize("temperature", [None, 0.5])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_dynamic_averages(jit_compile, temperature):
    model = build({"a": 5.0, "b": 1.0}, jit_compile=jit_compile)
    balancer = LossWeightBalancer("dwa", temperature=temperature)
    history = fit(model, [balancer], epochs=4, batch_size=8).history
    expected = [averages(history, epoch, temperature or 2.0) for epoch in (2, 3)]
    np.testing.assert_allclose(
        logged(history), [[1.0, 1.0], [1.0, 1.0], *expected], rtol=1e-5
    )
    assert abs(history["a_loss_weight"][3] - 1) > 1e-3


def test_an_epoch_trains_with_the_weights_it_logs():
    model = build(optimizer=keras.optimizers.SGD(0.1))
    history = fit(model, [LossWeightBalancer("dwa")], epochs=4).history
    reference = build(optimizer=keras.optimizers.SGD(0.1))
    for a, b in logged(history):
        reference.compile(
            reference.optimizer,
            loss={"a": "mse", "b": "mse"},
            loss_weights={"a": float(a), "b": float(b)},
        )
        fit(reference)
    assert_same_weights(model, reference, atol=1e-5)


def test_uncertainty_by_epoch():
    history = fit(build(), [LossWeightBalancer("uncertainty")], epochs=3).history
    losses = np.transpose([history["a_loss"], history["b_loss"]])
    np.testing.assert_allclose(logged(history), [[1, 1], *1 / losses[:2]], rtol=1e-5)


def test_uncertainty_with_a_temperature_is_a_softmax():
    balancer = LossWeightBalancer("uncertainty", temperature=0.5)
    history = fit(build(), [balancer], epochs=2).history
    powers = [math.exp(1 / history[f"{n}_loss"][0] / 0.5) for n in "ab"]
    expected = [2 * power / sum(powers) for power in powers]
    np.testing.assert_allclose(logged(history)[1], expected, rtol=1e-5)


def test_momentum_is_a_running_average():
    balancer = LossWeightBalancer("uncertainty", momentum=0.75)
    history = fit(build(), [balancer], epochs=4).history
    first, second, third, _ = history["a_loss"]
    average = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
    assert history["a_loss_weight"][3] == pytest.approx(1 / average, rel=1e-5)


class Steps(keras.callbacks.Callback):
    """Writes down the weights of every step, as it logs them."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(float(logs["a_loss_weight"]))


def step_losses(num_epochs, last_batch):
    """The loss of `a` in each step of a model that stands still."""
    model = build()
    ends = [0, 6, 12, 12 + last_batch]
    losses = [
        float(
            np.mean(
                (model.predict(FEATURES[i:j], verbose=0)["a"] - TARGETS["a"][i:j]) ** 2
            )
        )
        for i, j in zip(ends[:-1], ends[1:], strict=True)
    ]
    return losses * num_epochs


def test_uncertainty_by_step_with_a_smaller_last_batch():
    # A learning rate of 0 makes the losses of all steps known beforehand.
    steps = Steps()
    model = build(optimizer=keras.optimizers.SGD(0.0))
    balancer = LossWeightBalancer("uncertainty", by="step", momentum=0.5)
    fit(model, [balancer, steps], epochs=2, batch_size=6)
    expected, average = [1.0], None
    for loss in step_losses(2, last_batch=4)[:-1]:
        average = loss if average is None else 0.5 * average + 0.5 * loss
        expected.append(1 / average)
    np.testing.assert_allclose(steps.weights, expected, rtol=1e-4)


def test_steps_per_execution_average_the_losses_of_an_execution():
    steps = Steps()
    model = build(optimizer=keras.optimizers.SGD(0.0), steps_per_execution=2)
    balancer = LossWeightBalancer("uncertainty", by="step", momentum=0.0)
    fit(model, [balancer, steps], epochs=1, batch_size=4)
    still = build().predict(FEATURES[:8], verbose=0)["a"]
    loss = float(np.mean((still - TARGETS["a"][:8]) ** 2))
    np.testing.assert_allclose(steps.weights, [1.0, 1 / loss], rtol=1e-4)


def test_base_weights_multiply_and_other_outputs_keep_theirs():
    balancer = LossWeightBalancer("dwa", base_weights={"a": 3.0})
    history = fit(build({"a": 1.0, "b": 9.0}), [balancer], epochs=3).history
    a, b = averages(history, 2)
    np.testing.assert_allclose(logged(history), [[3, 1], [3, 1], [3 * a, b]], rtol=1e-5)


def test_unbalanced_outputs_have_their_own_weights():
    x = keras.Input((4,))
    model = keras.Model(x, {n: keras.layers.Dense(1, name=n)(x) for n in "abc"})
    losses = dict.fromkeys("abc", "mse")
    model.compile("adam", loss=losses, loss_weights={"a": 1.0, "b": 1.0, "c": 7.0})
    targets = {**TARGETS, "c": TARGETS["a"]}
    balancer = LossWeightBalancer("uncertainty", outputs=["a", "b"])
    history = fit(model, [balancer], epochs=2, y=targets).history
    assert "c_loss_weight" not in history
    assert balancer.loss_weights["c"] == 7.0
    expected = 7 * history["c_loss"][1] + sum(
        history[f"{n}_loss"][1] * history[f"{n}_loss_weight"][1] for n in "ab"
    )
    assert history["loss"][1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_of_two_that_set_a_weight_the_later_one_wins():
    def weights(*callbacks):
        return fit(build(), callbacks, epochs=2).history["a_loss_weight"]

    balancer = LossWeightBalancer("dwa")
    scheduler = LossWeightScheduler({1: {"a": 42.0}})
    assert weights(balancer, scheduler) == [1.0, 42.0]
    assert weights(scheduler, LossWeightBalancer("dwa")) == [1.0, 1.0]


def test_a_second_fit_continues_and_a_new_callback_starts_over():
    model, balancer = build(), LossWeightBalancer("dwa")
    fit(model, [balancer], epochs=2)
    assert fit(model, [balancer]).history["a_loss_weight"][0] != 1.0
    assert fit(model, [LossWeightBalancer("dwa")]).history["a_loss_weight"] == [1.0]
    assert fit(build(), [balancer]).history["a_loss_weight"] == [1.0]


def test_sample_weights_are_in_the_losses():
    model = build(optimizer=keras.optimizers.SGD(0.0))
    balancer = LossWeightBalancer("uncertainty")
    sample_weight = {"a": np.full(16, 4.0), "b": np.ones(16)}
    history = fit(model, [balancer], epochs=2, sample_weight=sample_weight).history
    plain = fit(
        build(optimizer=keras.optimizers.SGD(0.0)),
        [LossWeightBalancer("uncertainty")],
        epochs=2,
    ).history
    np.testing.assert_allclose(
        history["a_loss_weight"][1], plain["a_loss_weight"][1] / 4, rtol=1e-5
    )


def test_a_loss_that_is_no_number_leaves_the_weights():
    balancer = LossWeightBalancer("uncertainty")
    targets = {"a": TARGETS["a"] * np.nan, "b": TARGETS["b"]}
    history = fit(build(), [balancer], epochs=2, y=targets).history
    assert logged(history).tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.slow
def test_of_losses_1000_times_apart_both_are_learned():
    """Two linear regressions; the best possible losses are known in closed form."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(64, 4)), rng.normal(size=(2, 64, 1))
    targets = {
        "large": 2 * x[:, :1] + noise[0] / 2,
        "small": 2 * x[:, 1:2] + noise[1] / 2,
    }
    features = np.concatenate([x, np.ones((64, 1))], axis=1)
    best = {
        n: np.linalg.lstsq(features, y, rcond=None)[1][0] / 64
        for n, y in targets.items()
    }

    def errors(rate, callbacks, epochs=30):
        inputs = keras.Input((4,))
        outputs = {
            n: keras.layers.Dense(1, kernel_initializer="zeros", name=n)(inputs)
            for n in targets
        }
        model = keras.Model(inputs, outputs)
        mse = keras.losses.mean_squared_error
        losses = {"large": mse, "small": lambda y, y_pred: mse(y, y_pred) / 1000}
        model.compile(keras.optimizers.SGD(rate), loss=losses)
        logs = model.fit(
            x, targets, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks
        ).history
        return {
            name: (logs[f"{name}_loss"][-1] * scale) / best[name]
            for name, scale in (("large", 1), ("small", 1000))
        }

    fixed = errors(0.1, [])
    assert fixed["large"] < 1.05
    assert fixed["small"] > 10
    # The rate that `small` needs is too high for `large`.
    assert not errors(50.0, [], epochs=6)["large"] < 10
    balanced = errors(0.1, [LossWeightBalancer("uncertainty")])
    assert balanced["large"] < 1.05
    assert balanced["small"] < 1.05


@needs_tensorflow
@pytest.mark.parametrize(
    "options", [{"method": "dwa"}, {"method": "uncertainty", "by": "step"}]
)
def test_mirrored_strategy_on_two_devices(options, two_devices):
    with two_devices.scope():
        model = build()
    history = fit(
        model, [LossWeightBalancer(**options)], epochs=4, batch_size=8
    ).history
    single = build()
    expected = fit(
        single, [LossWeightBalancer(**options)], epochs=4, batch_size=8
    ).history
    np.testing.assert_allclose(logged(history), logged(expected), rtol=1e-4)
    assert logged(history)[3, 0] != 1.0
    assert_same_weights(model, single, atol=1e-4)


RUN = """
import os, sys
import keras
from two_outputs import build, fit
from keras_agegender.callbacks.balancer import LossWeightBalancer
from keras_agegender.callbacks.checkpoints import RunBackup

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == int(sys.argv[2]):
            os.kill(os.getpid(), 9)

directory, kill_at, weights, kind, method, by = sys.argv[1:]
balancer = LossWeightBalancer(method, by=by)
first = 0
if kind == "keras":
    backup = keras.callbacks.BackupAndRestore(directory)
else:
    backup = RunBackup(directory, [balancer])
    first = backup.first_epoch
model = build()
fit(model, [balancer, Kill(), backup], epochs=5, batch_size=8, initial_epoch=first)
model.save_weights(weights)
"""


@pytest.mark.parametrize(
    ("kind", "method", "by"),
    [
        pytest.param("keras", "dwa", "epoch", marks=pytest.mark.slow),
        pytest.param("ours", "uncertainty", "step", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_with_its_losses(tmp_path, kind, method, by):
    weights = str(tmp_path / "end.weights.h5")

    def run(kill_at):
        command = [sys.executable, "-c", RUN, str(tmp_path / "backup")]
        return subprocess.run(
            [*command, str(kill_at), weights, kind, method, by],
            capture_output=True,
            text=True,
        )

    killed = run(3)
    assert killed.returncode == -9, killed.stderr
    finished = run(-1)
    assert finished.returncode == 0, finished.stderr
    resumed, whole = build(), build()
    resumed.load_weights(weights)
    fit(whole, [LossWeightBalancer(method, by=by)], epochs=5, batch_size=8)
    assert_same_weights(resumed, whole)


def test_a_backup_in_front_is_an_error_on_resuming(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def callbacks():
        backup = RunBackup(tmp_path)
        return backup.first_epoch, [backup, LossWeightBalancer("dwa")]

    first, both = callbacks()
    with pytest.raises(KeyboardInterrupt):
        fit(build(), [*both, Stop()], epochs=3, initial_epoch=first)
    first, both = callbacks()
    with pytest.raises(ValueError, match=r"after LossWeightBalancer"):
        fit(build(), both, epochs=3, initial_epoch=first)


def test_a_checkpoint_of_other_callbacks_is_an_error(tmp_path):
    fit(build(), [LossWeightBalancer("dwa"), RunBackup(tmp_path)])
    backup = RunBackup(tmp_path)
    with pytest.raises(ValueError, match=r"same callbacks.*2 values.*4 values"):
        fit(
            build(),
            [LossWeightScheduler({}), backup],
            epochs=2,
            initial_epoch=backup.first_epoch,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gradnorm"}, "'dwa', 'uncertainty'.*'gradnorm'"),
        ({"method": "dwa", "by": "step"}, "by='step' with method='dwa'"),
        ({"method": "uncertainty", "by": "batch"}, "'batch'"),
        ({"method": "dwa", "momentum": 0.5}, "with method='dwa'"),
        ({"method": "uncertainty", "momentum": 1.0}, r"\[0, 1\)"),
        ({"method": "dwa", "temperature": 0.0}, "above 0"),
        ({"method": "dwa", "outputs": "gender"}, "distinct names"),
        ({"method": "dwa", "outputs": ["a", "a"]}, "distinct names"),
        ({"method": "dwa", "base_weights": {"a": -1}}, "non-negative"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        LossWeightBalancer(**options)


def test_unknown_outputs():
    with pytest.raises(ValueError, match=r"\['c'\].*Outputs: \['a', 'b'\]"):
        fit(build(), [LossWeightBalancer("dwa", outputs=["a", "c"])])
    with pytest.raises(ValueError, match=r"\['c'\]"):
        fit(build(), [LossWeightBalancer("dwa", base_weights={"c": 2.0})])


def test_one_output_has_nothing_to_balance():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="two or more outputs"):
        fit(model, [LossWeightBalancer("dwa")], y=TARGETS["a"])


def test_a_negative_loss_is_named():
    model = build(loss={"a": lambda y, y_pred: -((y - y_pred) ** 2), "b": "mse"})
    with pytest.raises(ValueError, match=r"non-negative.*'a': -"):
        fit(model, [LossWeightBalancer("uncertainty")])
