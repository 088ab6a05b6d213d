"""What every test shares: quiet frameworks, two CPU devices, a fixed seed."""

from __future__ import annotations

import os
from pathlib import Path

# Processes that tests start find `sample_data:small_backbone` too.
_PATHS = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest  # noqa: E402


def pytest_configure(config):
    """Splits the CPU in two before TensorFlow starts, for the tests of strategies."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        half = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [half, half])


def pytest_unconfigure(config):
    """Removes the frameworks' temporary files: xdist workers run no exit handlers."""
    import gc
    import sys
    import tempfile

    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file"):
            Path(module.__file__).unlink(missing_ok=True)
    for thing in gc.get_objects():
        if type(thing) is tempfile.TemporaryDirectory:  # of TensorFlow Datasets
            thing.cleanup()


@pytest.fixture(autouse=True)
def fixed_seed():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def two_devices():
    """A MirroredStrategy; one for all, as every new one counts its collectives anew."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
