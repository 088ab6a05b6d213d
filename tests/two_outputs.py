"""A small model with two outputs, for tests of the loss weight callbacks."""

from __future__ import annotations

import keras
import numpy as np

NUM_EXAMPLES = 16
FEATURES = np.random.default_rng(0).normal(size=(NUM_EXAMPLES, 4)).astype("float32")
TARGETS = {"a": FEATURES[:, :1] * 2, "b": FEATURES[:, 1:2] - 1}


def build(loss_weights=None, optimizer=None, listed=False, loss=None, **kwargs):
    """A model with two outputs that share a layer, the same at every call."""
    keras.utils.set_random_seed(1)
    x = keras.Input((4,))
    shared = keras.layers.Dense(5, activation="tanh")(x)
    outputs = {
        name: keras.layers.Dense(1, name=name, dtype="float32")(shared)
        for name in ("a", "b")
    }
    loss = loss or {"a": "mse", "b": "mse"}
    if listed:
        outputs = list(outputs.values())
        loss = list(loss.values()) if isinstance(loss, dict) else loss
    model = keras.Model(x, outputs)
    model.compile(
        optimizer or keras.optimizers.Adam(0.05),
        loss=loss,
        loss_weights=loss_weights,
        **kwargs,
    )
    return model


def fit(model, callbacks=(), epochs=1, batch_size=NUM_EXAMPLES, y=TARGETS, **kwargs):
    return model.fit(
        FEATURES,
        y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **kwargs,
    )


def assert_same_weights(model, reference, atol=1e-6):
    for value, expected in zip(
        model.get_weights(), reference.get_weights(), strict=True
    ):
        np.testing.assert_allclose(value, expected, atol=atol)
