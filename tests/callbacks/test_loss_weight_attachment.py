"""Loss weights on every kind of model, and after a `fit` that was interrupted."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from two_outputs import FEATURES, TARGETS, assert_same_weights, build, fit

from keras_agegender.callbacks.balancer import LossWeightBalancer
from keras_agegender.callbacks.loss_weights import LossWeightScheduler

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


def assert_detached(model):
    assert not hasattr(model, "loss_weight_state")
    assert "loss_weight_state" not in model.metrics_names
    assert not {"make_train_function", "get_compile_config"} & set(vars(model))


def test_training_goes_on_after_ctrl_c_without_a_callback():
    model = interrupted()
    history = fit(model).history
    assert_detached(model)
    assert set(history) == {"loss", "a_loss", "b_loss"}
    expected = 3 * history["a_loss"][0] + history["b_loss"][0]
    assert history["loss"][0] == pytest.approx(expected)


def test_training_goes_on_after_ctrl_c_with_callbacks():
    model = interrupted()
    scheduler = LossWeightScheduler({1: {"b": 5.0}})
    history = fit(model, [scheduler, LossWeightScheduler({2: {"a": 7.0}})], epochs=3)
    assert history.history["a_loss_weight"] == [3.0, 3.0, 7.0]
    assert history.history["b_loss_weight"] == [1.0, 5.0, 5.0]
    assert_detached(model)


def test_evaluation_after_ctrl_c():
    model = interrupted()
    scores = model.evaluate(FEATURES, TARGETS, verbose=0, return_dict=True)
    assert_detached(model)
    assert set(scores) == {"loss", "a_loss", "b_loss"}
    assert scores["loss"] == pytest.approx(3 * scores["a_loss"] + scores["b_loss"])


def test_compile_after_ctrl_c_starts_from_its_own_weights():
    model = interrupted()
    model.compile("sgd", loss={"a": "mse", "b": "mse"}, loss_weights={"a": 9, "b": 1})
    history = fit(model, [LossWeightScheduler({5: {"a": 1.0}})]).history
    assert history["a_loss_weight"] == [9.0]
    assert_detached(model)


@pytest.mark.slow
def test_weights_files_after_ctrl_c_are_those_of_an_ordinary_model(tmp_path):
    model = interrupted()
    model.save_weights(tmp_path / "after.weights.h5")
    assert_detached(model)
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
    assert_detached(model)
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
    assert_detached(model)
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


def test_a_loop_of_ones_own_keeps_the_weights_attached():
    model = build()
    scheduler = LossWeightScheduler({0: {"a": 2.0}, 1: {"a": 4.0}})
    callbacks = keras.callbacks.CallbackList([scheduler], model=model, epochs=2)
    callbacks.on_train_begin()
    for epoch, weight in enumerate([2.0, 4.0]):
        callbacks.on_epoch_begin(epoch)
        logs = model.train_on_batch(FEATURES, TARGETS, return_dict=True)
        assert logs["a_loss_weight"] == weight
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end()
    assert_detached(model)
