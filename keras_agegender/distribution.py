"""Distributed training over several devices and processes.

TensorFlow trains on all GPUs of one machine (MirroredStrategy). JAX trains on all local
devices and, if the environment variables request it, on several machines:
`keras.distribution` connects the processes and keeps a copy of the weights on every
device. Run the same command on every machine, with Keras' own variables:

    export KERAS_BACKEND=jax
    export KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:12345   # the first machine
    export KERAS_DISTRIBUTION_NUM_PROCESSES=2
    export KERAS_DISTRIBUTION_PROCESS_ID=0                   # 1 on the second machine
    agegender train 14 --data data/adience_prepared --run runs/14

Every process decodes its own share of every batch. The first one writes the run
directory, which all processes must be able to read. If one fails, all stop with a
message that names it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_agegender.errors import one_line

if TYPE_CHECKING:
    import keras

COUNT_VARIABLE = "KERAS_DISTRIBUTION_NUM_PROCESSES"
FAILURE_KEY = "keras_agegender/failure"
PATIENCE = 10.0  # seconds that a failed process waits for the others to read of it
GRACE = 3.0  # seconds that the first process, which JAX needs, outlives a failed one


def initialize_processes() -> None:
    """Initializes multi-process training, before any device is used, if requested."""
    count = os.environ.get(COUNT_VARIABLE, "1")
    if count in ("", "1"):
        return
    import keras

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
    """Returns the index of this process, starting at 0."""
    jax = _jax()
    return 0 if jax is None else jax.process_index()


def process_count() -> int:
    """Returns the number of processes that train together."""
    jax = _jax()
    return 1 if jax is None else jax.process_count()


def wait_for_all(name: str) -> None:
    """Blocks until every process has called it."""
    if process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def abort_all_on_error() -> Iterator[None]:
    """Context in which the failure of one process ends all processes.

    The others print which process failed and why, and exit with code 1: a process that
    waits in a barrier or a collective operation cannot raise anything.
    """
    store = _key_value_store()
    if store is None:
        yield
        return
    done, heard = threading.Event(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(store, done, heard), daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        if heard.is_set():  # a consequence of another process' failure
            watcher.join()
        _tell(store, error)
        raise
    finally:
        done.set()
        watcher.join()


def _key_value_store() -> Any:
    """Returns JAX's distributed key-value store; `None` for a single process."""
    if process_count() == 1:
        return None
    from jax._src import distributed  # JAX has no public access to it

    return distributed.global_state.client


def _watch(store: Any, done: threading.Event, heard: threading.Event) -> None:
    """Ends this process when another one has failed."""
    while not done.is_set():
        try:
            text = store.blocking_key_value_get(FAILURE_KEY, 500)
        except Exception:  # no failure within half a second
            time.sleep(0.1)
            continue
        index, _, reason = text.partition(" ")
        if int(index) == process_index():
            return
        heard.set()
        line = f"agegender: process {index} failed, so this one stops: {reason}"
        print(line, file=sys.stderr, flush=True)
        store.key_value_set(f"{FAILURE_KEY}/heard/{process_index()}", "yes")
        if process_index() == 0:
            time.sleep(GRACE)
        _leave()


def _tell(store: Any, error: BaseException) -> None:
    """Reports this process' failure to the others and waits until they have read it."""
    reason = one_line(error, 500)
    text = f"{process_index()} {type(error).__name__}: {reason}"
    # At exit JAX contacts all processes, and aborts if one does not respond.
    atexit.register(_leave)
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(Exception):  # another process failed before, or exited
        store.key_value_set(FAILURE_KEY, text)
        for index in range(process_count()):
            if index != process_index():
                left = max(1, int(1000 * (end - time.monotonic())))
                store.blocking_key_value_get(f"{FAILURE_KEY}/heard/{index}", left)
        if process_index() == 0:  # JAX aborts processes that outlive the first
            time.sleep(GRACE)


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@contextlib.contextmanager
def model_scope() -> Iterator[None]:
    """Scope to build a model in, and on JAX to fit it in, for all devices."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        if len(tf.config.list_logical_devices("GPU")) > 1:
            strategy = tf.distribute.MirroredStrategy()
        with strategy.scope():
            yield
    elif num_shards() > 1:
        # `make_train_dataset` shards the batches, not Keras.
        parallel = keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(), auto_shard_dataset=False
        )
        with parallel.scope():
            yield
    else:
        yield


def sum_over_replicas(value: Any) -> Any:
    """Returns the sum of a value over the replicas of a TensorFlow strategy."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def num_shards() -> int:
    """Returns the number of shards of a batch: JAX devices, otherwise 1."""
    jax = _jax()
    return 1 if jax is None else len(jax.devices())


@contextlib.contextmanager
def no_distribution() -> Iterator[None]:
    """Disables the distribution for work that a single process does.

    Keras creates an optimizer variable when it saves a model; under a distribution it
    would wait for all processes.
    """
    import keras

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
    """Predicts on this process' first device, even if the model is distributed.

    Under a distribution, Keras' `predict` returns incomplete arrays in each process and
    requires batches that can be sharded.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._call: Any = None

    def predict(self, images: Any) -> Mapping[str, np.ndarray]:
        """Returns the model's outputs for batches of images."""
        import jax

        weights = [
            # Copies on the first device of this process.
            [variable.value.addressable_data(0) for variable in variables]
            for variables in (
                self.model.trainable_variables,
                self.model.non_trainable_variables,
            )
        ]
        if self._call is None:
            self._call = jax.jit(
                lambda t, n, x: self.model.stateless_call(t, n, x, training=False)[0]
            )
        with no_distribution():
            parts = [self._call(*weights, x) for x in images.as_numpy_iterator()]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _jax() -> Any:
    """Returns JAX if it is Keras' backend, which imports it, else `None`."""
    if "jax" not in sys.modules:
        return None
    import keras

    return sys.modules["jax"] if keras.backend.backend() == "jax" else None
