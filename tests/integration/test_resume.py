"""Runs that are killed: the same command again ends with the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from sample_data import make_prepared

from keras_agegender.evaluation.plots import read_history
from keras_agegender.run_directory import RunDirectory
from keras_agegender.training.resume import truncate_history
from keras_agegender.training.train import train

SHARED = (
    "model.image_size=[32, 32]",
    "data.batch_size=4",
    "training.epochs=6",
    "training.patience=4",
    "training.learning_rate=1e-3",
    "training.cosine_decay=false",
    "training.learning_rate_changes={9=1e-4}",
    "training.weight_decay=0.01",
    "training.extra_checkpoints={age='val_age_loss'}",
    "loss_weight_changes=[{epoch=1, set={gender=0.5}}]",
)
NETWORKS = {
    # Dropout; random crops and flips in the input pipeline (the recipe's: caffe).
    "small": ("model.backbone=sample_data:small_backbone", *SHARED),
    # Batch normalisation; random flips and contrast are layers.
    "resnet": ("model.backbone=resnet_se", "data.pipeline=resnet", *SHARED),
}

CODE = """
import sys
from keras_agegender.training.train import train
train("quickstart", sys.argv[1], sys.argv[2], overrides=sys.argv[3:], verbose=0)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """The run of the small network that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return train(
        "quickstart", prepared, folder / "a", overrides=NETWORKS["small"], verbose=0
    )


def killed(prepared, directory, settings, epochs, delay):
    """Trains in a process that is killed some time after so many epochs."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, prepared, directory, *settings],
        stderr=subprocess.DEVNULL,
    )
    state = directory / "backup" / "state.json"
    while process.poll() is None:
        if state.is_file() and f'"epoch": {epochs - 1}' in state.read_text("utf-8"):
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    return process.wait()


@pytest.mark.parametrize(
    ("network", "kills"),
    [
        ("small", [(2, 0.03)]),
        pytest.param("resnet", [(1, 0.02), (3, 0.1)], marks=pytest.mark.slow),
    ],
)
def test_killed_and_still_the_same_weights(prepared, whole, tmp_path, network, kills):
    settings = NETWORKS[network]
    if network != "small":
        whole = train(
            "quickstart", prepared, tmp_path / "a", overrides=settings, verbose=0
        )
    for epochs, delay in kills:
        assert killed(prepared, tmp_path / "b", settings, epochs, delay) == -9
        assert RunDirectory(tmp_path / "b").info()["status"] == "running"
    resumed = train(
        "quickstart", prepared, tmp_path / "b", overrides=settings, verbose=0
    )
    histories = [read_history(run.history_file) for run in (whole, resumed)]
    assert histories[0] == histories[1]
    assert len(histories[0]["loss"]) >= 5
    for name in ("best", "last", "age"):
        models = [run.load_model(name) for run in (whole, resumed)]
        weights = [model.get_weights() for model in models]
        for a, b in zip(*weights, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert (whole.path / "metrics.json").read_bytes() == (
        resumed.path / "metrics.json"
    ).read_bytes()


def test_killed_after_the_last_epoch(prepared, whole, tmp_path, monkeypatch):
    """Only what is missing is written; no epoch is trained again."""
    settings = NETWORKS["small"]

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("keras_agegender.distribution.no_distribution", killed)
        with pytest.raises(KeyboardInterrupt):
            train("quickstart", prepared, tmp_path / "b", overrides=settings, verbose=0)
    assert not RunDirectory(tmp_path / "b").last_model.is_file()
    monkeypatch.setattr(keras.Model, "fit", killed)
    resumed = train(
        "quickstart", prepared, tmp_path / "b", overrides=settings, verbose=0
    )
    weights = [run.load_model("last").get_weights() for run in (whole, resumed)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_processes_in_one_directory(prepared, tmp_path):
    run = RunDirectory(tmp_path)
    code = f"""
import time
from pathlib import Path
from keras_agegender.run_directory import RunDirectory
with RunDirectory(Path({str(tmp_path)!r})).locked():
    print("locked", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(ValueError, match="Another process trains in"):
            train("quickstart", prepared, tmp_path, verbose=0)
    finally:
        other.kill()
        other.wait()
    with run.locked():  # a killed process holds nothing
        pass
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_noticed_before_training(prepared, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    with pytest.raises(ValueError, match=r"Expected about \d+ MB. Available: 1 MB"):
        train("quickstart", prepared, tmp_path / "run", overrides=NETWORKS["small"])
    assert not (tmp_path / "run" / "history.csv").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write")
def test_an_unwritable_directory(prepared, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(OSError, match="run"):
        train("quickstart", prepared, tmp_path / "run", overrides=NETWORKS["small"])


def test_early_stopping_continues_counting(tmp_path):
    """Killed after it stopped, a run does not train an epoch more."""
    from keras_agegender.callbacks.checkpoints import RunBackup

    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2)), np.ones((4, 1))

    def fit(epochs):
        stopper = keras.callbacks.EarlyStopping("loss", patience=3, min_delta=1e9)
        backup = RunBackup(tmp_path, [stopper])
        if not backup.stopped:
            history = model.fit(
                x, y, epochs=epochs, initial_epoch=backup.first_epoch, verbose=0,
                callbacks=[stopper, backup],
            )  # fmt: skip
            return history.epoch
        return []

    assert fit(2) == [0, 1]  # the second is the first without an improvement
    assert fit(9) == [2, 3]
    assert fit(9) == []
    assert sorted(f.name for f in Path(tmp_path).iterdir()) == [
        "epoch-0003.weights.h5",
        "state.json",
    ]


def test_a_truncated_history_preserves_line_endings(tmp_path):
    """`CSVLogger` writes those of Windows; rows to come would have others."""
    file = tmp_path / "history.csv"
    file.write_bytes(b"epoch,loss\r\n0,1.5\r\n1,1.0\r\n")
    truncate_history(file, 1)
    assert file.read_bytes() == b"epoch,loss\r\n0,1.5\r\n"
    truncate_history(file, 0)
    assert not file.exists()
