"""Several processes on this machine's loopback: the weights of one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from sample_data import make_prepared

from keras_agegender.datasets.pipeline import make_eval_dataset, make_train_dataset
from keras_agegender.distribution import abort_all_on_error, initialize_processes
from keras_agegender.evaluation.plots import read_history
from keras_agegender.run_directory import RunDirectory

pytest.importorskip("jax")
# Dropout and random layers draw by place in the batch, which processes share out.
SETTINGS = (
    "model.backbone=caffe_2conv",
    "model.image_size=[32, 32]",
    "model.dropout_rate=0.0",
    "data.batch_size=8",
    "training.epochs=3",
    "training.patience=2",
    "training.cosine_decay=false",
    "training.extra_checkpoints={age='val_age_loss'}",
    "loss_weight_changes=[{epoch=1, set={gender=0.5}}]",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


def start(prepared, directory, count):
    """Starts `agegender train` once for each process, as on so many machines."""
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [
        *(sys.executable, "-m", "keras_agegender.cli.main", "train", "quickstart"),
        *("--data", prepared, "--run", directory, *overrides),
    ]
    return start_each(command, count)


def start_each(command, count):
    """Starts a command as so many processes that train together on JAX."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        subprocess.Popen(
            list(map(str, command)),
            env={
                **os.environ,
                "KERAS_BACKEND": "jax",
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finish(processes):
    outputs = [process.communicate(timeout=400) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [out for out, _ in outputs]


@pytest.mark.slow
def test_two_processes_train_like_one_and_resume(prepared, tmp_path):
    finish(start(prepared, tmp_path / "one", 1))
    processes = start(prepared, tmp_path / "two", 2)
    state = tmp_path / "two" / "backup" / "state.json"
    while all(p.poll() is None for p in processes) and not state.is_file():
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.communicate()
    assert RunDirectory(tmp_path / "two").info()["status"] == "running"
    first, second = finish(start(prepared, tmp_path / "two", 2))
    assert "Run: " in first and "Run: " not in second  # one process speaks
    runs = [RunDirectory(tmp_path / name) for name in ("one", "two")]
    histories = [read_history(run.history_file) for run in runs]
    assert len(histories[0]["loss"]) == len(histories[1]["loss"]) == 3
    assert histories[1]["gender_loss_weight"] == [4.0, 0.5, 0.5]
    for name in ("loss", "val_age_accuracy", "val_gender_accuracy"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-3)
    for name in ("best", "last", "age"):
        weights = [run.load_model(name).get_weights() for run in runs]
        for a, b in zip(*weights, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)
    files = [{file.name for file in run.path.iterdir()} for run in runs]
    assert files[0] == files[1]


FAILING = """
import sys
from keras_agegender.distribution import (
    abort_all_on_error, initialize_processes, process_index, wait_for_all)
initialize_processes()
with abort_all_on_error():
    wait_for_all("begin")
    if process_index() == int(sys.argv[1]):
        raise ValueError("The disk is full.\\nReally.")
    wait_for_all("end")
print("went on")
"""


@pytest.mark.parametrize("failing", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_an_error_of_one_process_ends_all(failing):
    """Within seconds, where the other one waits in a barrier for minutes."""
    processes = start_each([sys.executable, "-c", FAILING, failing], 2)
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert not any("went on" in out for out, _ in outputs)
    own, other = outputs[failing][1], outputs[1 - failing][1]
    assert "ValueError: The disk is full." in own and "so this one stops" not in own
    (line,) = [text for text in other.splitlines() if text.startswith("agegender")]
    assert line == (
        f"agegender: process {failing} failed, so this one stops: "
        "ValueError: The disk is full. Really."
    )
    assert "Traceback" not in other and "stack trace" not in own + other


@pytest.mark.slow
def test_a_run_that_one_process_refuses_ends_all(prepared, tmp_path):
    """The first process finds another thing in the folder; the second one hears it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("mine", "utf-8")
    processes = start(prepared, tmp_path / "run", 2)
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    for _, errors in outputs:
        (line,) = [text for text in errors.splitlines() if text.startswith("agegender")]
        assert "is not empty and contains no run" in line
        assert "Traceback" not in errors


def test_errors_of_a_single_process_are_raised():
    with pytest.raises(ValueError, match="mine"), abort_all_on_error():
        raise ValueError("mine")


def test_shards_are_the_batches_shared_out(prepared):
    """Faces of both shards are those of the whole batch, and the filling is masked."""
    options = {"split": "train", "image_size": (16, 16), "batch_size": 10}
    for make, seed in ((make_eval_dataset, {}), (make_train_dataset, {"seed": 3})):
        arguments = {**options, **seed}
        whole = [batch[0].numpy() for batch in make(prepared, "gender", **arguments)]
        shards = [
            [
                (images.numpy(), weights["gender"].numpy())
                for images, _, weights in make(
                    prepared, "gender", shard=(index, 2), **arguments
                )
            ]
            for index in range(2)
        ]
        assert len(whole) == len(shards[0]) == len(shards[1]) == 3
        for k, images in enumerate(whole):
            parts = np.concatenate([shard[k][0] for shard in shards])
            assert len(parts) == 10
            found = {image.tobytes() for image in parts}
            assert {image.tobytes() for image in images} <= found
        filled = np.concatenate([shard[2][1] for shard in shards])
        assert filled.sum() <= 4  # 24 = 10 + 10 + 4
    with pytest.raises(ValueError, match="multiple of the 3 shards"):
        make_train_dataset(prepared, "gender", shard=(0, 3), **options)


def test_several_processes_require_jax(monkeypatch):
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("of the TensorFlow backend")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="Set KERAS_BACKEND=jax"):
        initialize_processes()
