"""Distribution: one training over several devices and several processes.

TensorFlow trains on all GPUs of one machine (MirroredStrategy). JAX trains on all local
devices and, where the environment says so, on several machines: `keras.distribution`
starts the processes' network and keeps a copy of the weights on every device. Keras'
own variables say who is who; the same command is given on every machine:

    export KERAS_BACKEND=jax
    export KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:12345   # the first machine
    export KERAS_DISTRIBUTION_NUM_PROCESSES=2
    export KERAS_DISTRIBUTION_PROCESS_ID=0                   # 1 on the second machine
    agegender train 14 --data data/adience_prepared --run runs/14

Every process decodes its own share of every batch. The first one writes the run
directory, which all must see.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

COUNT_VARIABLE = "KERAS_DISTRIBUTION_NUM_PROCESSES"


def initialize_processes() -> None:
    """Joins the processes that the environment speaks of, if it does.

    Call it before anything touches a device.

    Raises:
        ValueError: If it speaks of several processes and the backend is not JAX.
    """
    count = os.environ.get(COUNT_VARIABLE, "1")
    if count in ("", "1"):
        return
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"{COUNT_VARIABLE}={count}, but several processes train on JAX only: "
            "Keras 3's fit does not run under TensorFlow's MultiWorkerMirroredStrategy "
            f"(keras issue 20585). Set KERAS_BACKEND=jax. Received: KERAS_BACKEND="
            f"{keras.backend.backend()}."
        )
    import jax

    if not jax.distributed.is_initialized():
        keras.distribution.initialize()


def process_index() -> int:
    """Returns which of the processes this is, from 0 on."""
    return _jax().process_index() if keras.backend.backend() == "jax" else 0


def process_count() -> int:
    """Returns how many processes train together."""
    return _jax().process_count() if keras.backend.backend() == "jax" else 1


def wait_for_all(name: str) -> None:
    """Returns when every process has come here.

    Args:
        name: What they wait for; the same in all of them.
    """
    if process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def model_scope() -> Iterator[None]:
    """The scope to build a model in, and on JAX to fit it in, for all devices."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        if len(tf.config.list_logical_devices("GPU")) > 1:
            strategy = tf.distribute.MirroredStrategy()
        with strategy.scope():
            yield
    elif num_shards() > 1:
        # Batches are cut by `make_train_dataset`, not by Keras.
        parallel = keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(), auto_shard_dataset=False
        )
        with parallel.scope():
            yield
    else:
        yield


def num_shards() -> int:
    """Returns into how many parts a batch is cut: the devices of JAX, else 1."""
    return len(_jax().devices()) if keras.backend.backend() == "jax" else 1


@contextlib.contextmanager
def undistributed() -> Iterator[None]:
    """Turns the distribution off for work that one process does alone.

    When Keras saves a model, it creates an optimizer variable. Under a distribution all
    processes must create it together, so a process that saves alone would wait forever.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


class LocalPrediction:
    """Predicts on this process' first device, whatever the model is distributed over.

    Keras' `predict` under a distribution gives arrays that no process sees whole, and
    takes just batches that can be cut.

    Args:
        model: A functional model with a dict of outputs.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._call: Any = None

    def predict(self, images: Any) -> Mapping[str, np.ndarray]:
        """Returns the model's outputs for batches of images."""
        import jax

        weights = [
            [_local(v) for v in variables]
            for variables in (
                self.model.trainable_variables,
                self.model.non_trainable_variables,
            )
        ]
        if self._call is None:
            self._call = jax.jit(
                lambda t, n, x: self.model.stateless_call(t, n, x, training=False)[0]
            )
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            parts = [
                self._call(*weights, batch) for batch in images.as_numpy_iterator()
            ]
        finally:
            keras.distribution.set_distribution(before)
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _local(variable: keras.Variable) -> Any:
    """Returns a variable's copy on the first device of this process."""
    return variable.value.addressable_data(0)


def _jax() -> Any:
    import jax

    return jax
