"""Weight decay in the gradient: worked by hand, PyTorch's numbers, outside the loss."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_agegender.callbacks.checkpoints import RunBackup
from keras_agegender.encodings.registry import get_encoding
from keras_agegender.recipes.loading import load_recipe
from keras_agegender.training.compile import (
    add_coupled_weight_decay,
    build_compiled_model,
)


def small_model(optimizer, **compile_arguments):
    """A kernel of 3 × 1, all 2, and a bias, 1; nothing of the data reaches the first
    two rows of the kernel."""
    inputs = keras.Input((3,))
    layer = keras.layers.Dense(1, kernel_initializer="ones", name="dense")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.full((3, 1), 2.0), np.ones(1)])
    model.compile(optimizer, "mse", **compile_arguments)
    return model


X = np.array([[0, 0, 1], [0, 0, 1]], "float32")
Y = np.array([[1], [1]], "float32")


def test_sgd_by_hand():
    """0.5 * (0.1 * 2) comes off a weight of 2, and 0.5 * 0.3 for its gradient."""
    optimizer = add_coupled_weight_decay(keras.optimizers.SGD(0.5), 0.1)
    weight = keras.Variable([2.0, 2.0])
    optimizer.apply([keras.ops.array([0.0, 0.3])], [weight])
    np.testing.assert_allclose(weight, [1.9, 1.75], rtol=1e-6)


def test_adam_has_pytorch_s_numbers():
    """torch.optim.Adam([w], lr=0.1, weight_decay=0.3) of PyTorch 2.13, three steps.

    The first weight has no gradient of its own and shrinks all the same.
    """
    optimizer = add_coupled_weight_decay(keras.optimizers.Adam(0.1, epsilon=1e-8), 0.3)
    weight = keras.Variable([2.0, -1.0, 0.5])
    steps = [
        ([0.0, 1.0, -0.2], [1.9, -1.1, 0.6]),
        ([0.0, -0.5, 0.1], [1.8001665, -1.0862901, 0.5385173]),
        ([0.0, 0.25, 0.0], [1.7006234, -1.071261, 0.4656346]),
    ]
    for gradient, expected in steps:
        optimizer.apply([keras.ops.array(gradient)], [weight])
        np.testing.assert_allclose(weight, expected, atol=2e-6)


def test_weights_without_a_gradient_shrink_in_fit():
    plain, decayed = (
        small_model(optimizer)
        for optimizer in (
            keras.optimizers.Adam(1e-4, weight_decay=1e-4),  # Keras' decoupled one
            add_coupled_weight_decay(keras.optimizers.Adam(1e-4), 1e-4),
        )
    )
    for model in (plain, decayed):
        model.fit(X, Y, batch_size=2, epochs=10, verbose=0)
    kernels = [m.get_layer("dense").get_weights()[0][:2] for m in (plain, decayed)]
    np.testing.assert_array_equal(kernels[0], 2.0)
    # A gradient of one sign moves a weight by Adam's rate: 10 * 1e-4.
    np.testing.assert_allclose(kernels[1], 2.0 - 10 * 1e-4, atol=1e-5)


def test_biases_decay_and_frozen_weights_do_not():
    model = small_model(add_coupled_weight_decay(keras.optimizers.SGD(1.0), 0.5))
    model.fit(X, np.full((2, 1), 3.0), batch_size=2, verbose=0)  # 3 is what it says
    kernel, bias = model.get_layer("dense").get_weights()
    np.testing.assert_allclose(kernel, 1.0)  # 2 - 0.5 * 2
    np.testing.assert_allclose(bias, 0.5)  # 1 - 0.5 * 1

    inputs = keras.Input((3,))
    frozen = keras.layers.Dense(3, name="frozen", trainable=False)
    model = keras.Model(inputs, keras.layers.Dense(1)(frozen(inputs)))
    before = frozen.get_weights()[0].copy()
    model.compile(add_coupled_weight_decay(keras.optimizers.SGD(1.0), 0.5), "mse")
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(frozen.get_weights()[0], before)


def test_no_loss_contains_it():
    """The model says 3 where 1 is right: (3 - 1)² = 4, at any decay."""
    model = small_model(add_coupled_weight_decay(keras.optimizers.SGD(0.0), 10.0))
    history = model.fit(X, Y, validation_data=(X, Y), verbose=0).history
    assert history == {"loss": [4.0], "val_loss": [4.0]}
    assert model.evaluate(X, Y, verbose=0) == 4.0


def test_gradients_are_clipped_before():
    optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
    add_coupled_weight_decay(optimizer, 0.5)
    weight = keras.Variable([4.0])
    optimizer.apply([keras.ops.array([100.0])], [weight])
    np.testing.assert_allclose(weight, [1.0], rtol=1e-6)  # 4 - 1 - 0.5 * 4


def test_mixed_precision_scales_the_gradient_alone():
    optimizer = add_coupled_weight_decay(keras.optimizers.SGD(1.0), 0.5)
    scaled = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    model = small_model(scaled)
    model.fit(X, np.full((2, 1), 3.0), batch_size=2, verbose=0)
    np.testing.assert_allclose(model.get_layer("dense").get_weights()[0], 1.0)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow"
)
def test_replicas_decay_once(two_devices):
    weights = []
    for scope in (contextlib.nullcontext(), two_devices.scope()):
        with scope:
            model = small_model(
                add_coupled_weight_decay(keras.optimizers.SGD(0.1), 0.5)
            )
        model.fit(X, Y, batch_size=2, epochs=2, verbose=0)
        weights.append(
            np.concatenate(model.get_layer("dense").get_weights(), axis=None)
        )
    np.testing.assert_allclose(*weights, rtol=1e-6)
    np.testing.assert_allclose(weights[0][0], 2 * 0.95**2, rtol=1e-6)


@pytest.mark.slow
def test_files_load_with_keras_alone(tmp_path):
    model = small_model(add_coupled_weight_decay(keras.optimizers.Adam(0.1), 0.1))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    code = f"""
import sys, keras
sys.modules["keras_agegender"] = None
model = keras.saving.load_model({str(tmp_path / "model.keras")!r})
print(type(model.optimizer) is keras.optimizers.Adam, int(model.optimizer.iterations))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True, cwd=tmp_path)  # fmt: skip
    assert done.stdout.split() == ["True", "1"]


def test_resumed_training_preserves_weight_decay(tmp_path):
    def compiled():
        return small_model(add_coupled_weight_decay(keras.optimizers.Adam(0.1), 0.5))

    whole = compiled()
    whole.fit(X, Y, batch_size=2, epochs=4, verbose=0)
    for epochs in (2, 4):
        model = compiled()
        backup = RunBackup(tmp_path, [])
        model.fit(
            X, Y, batch_size=2, epochs=epochs, initial_epoch=backup.first_epoch,
            callbacks=[backup], verbose=0,
        )  # fmt: skip
    for a, b in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mistakes_are_named():
    adam = keras.optimizers.Adam
    with pytest.raises(ValueError, match="non-negative"):
        add_coupled_weight_decay(adam(), -0.1)
    with pytest.raises(ValueError, match="without weight decay"):
        add_coupled_weight_decay(adam(weight_decay=0.1), 0.1)
    with pytest.raises(ValueError, match="without weight decay"):
        add_coupled_weight_decay(add_coupled_weight_decay(adam(), 0.1), 0.1)
    with pytest.raises(ValueError, match="does not wrap another"):
        add_coupled_weight_decay(keras.optimizers.LossScaleOptimizer(adam()), 0.1)


SETTINGS = (
    "model.image_size=[32, 32]",
    "model.backbone=caffe_1conv",
    "training.learning_rate_changes={}",
    "training.learning_rate=0.5",
)


@pytest.mark.parametrize(
    ("name", "settings", "share"),
    [
        ("1", ["training.optimizer=sgd"], 1 - 0.5 * 1e-4),  # of base_caffe.toml
        ("1", ["training.optimizer=sgd", "training.weight_decay=0.1"], 0.95),
        ("1", ["training.optimizer=sgd", "training.weight_decay=0"], 1.0),
        # AdamW's own, decoupled one: 0.5 * 0.1 of the weight.
        ("1", ["training.optimizer=adamw", "training.weight_decay=0.1"], 0.95),
        ("13", ["training.optimizer=sgd"], 1.0),
    ],
)
def test_the_recipe_s_weight_decay(name, settings, share):
    recipe = load_recipe(name, [*SETTINGS, *settings])
    model = build_compiled_model(recipe, get_encoding("gender"))
    weight = keras.Variable([1.0, 2.0])
    model.optimizer.apply([keras.ops.zeros(2)], [weight])
    np.testing.assert_allclose(weight, [share, 2 * share], rtol=1e-6)
