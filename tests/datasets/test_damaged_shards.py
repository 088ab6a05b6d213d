"""A bit of a shard that is another one is one line with the file and a remedy."""

from __future__ import annotations

import shutil

import keras
import pytest
from sample_data import make_prepared

from keras_agegender.cli.main import main
from keras_agegender.datasets.face_index import index_faces
from keras_agegender.datasets.pipeline import read_labels
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.evaluation.audit import read_faces
from keras_agegender.evaluation.evaluate import read_face_metadata
from keras_agegender.files import CHECKSUMS_FILE
from keras_agegender.training.train import train


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"), 10)


def flipped(whole, folder, place):
    """Returns a copy of a dataset with one bit of fold_0's shard changed, and it."""
    data = shutil.copytree(whole, folder / "damaged")
    (shard,) = data.glob("*fold_0.tfrecord*")
    content = bytearray(shard.read_bytes())
    content[place] ^= 4
    shard.write_bytes(content)
    return data, shard


# The length of a record, its checksum, the record, and the checksum behind it.
@pytest.mark.parametrize("place", [0, 7, 9, 300, -1])
def test_the_shard_is_named(whole, tmp_path, place):
    data, shard = flipped(whole, tmp_path, place)
    with pytest.raises(ValueError, match="Prepare it again") as found:
        index_faces(load_prepared(data))
    assert f"'{shard.name}': expected SHA-256" in str(found.value)
    (data / CHECKSUMS_FILE).unlink()  # as of a dataset of an earlier version
    with pytest.raises(ValueError, match=r"damaged is damaged. .*record.* Prepare"):
        index_faces(load_prepared(data))


@pytest.mark.parametrize(
    "read",
    [
        lambda data: read_labels(data, "fold_0"),
        lambda data: read_face_metadata(load_prepared(data), "fold_0"),
        read_faces,
        lambda data: [*read_faces(data).pictures()],
    ],
)
def test_whoever_reads_it(whole, tmp_path, read):
    data, shard = flipped(whole, tmp_path, 300)
    with pytest.raises(ValueError, match=shard.name):
        read(data)


def test_a_command_is_one_line(whole, tmp_path, capsys):
    data, shard = flipped(whole, tmp_path, 300)
    command = ("train", "quickstart", "--data", str(data), "--run", str(tmp_path / "r"))
    assert main([*command, "--set", "data.faces=any"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert shard.name in line and line.endswith("or put the file back.")
    assert f"`agegender verify {data}` lists" in line


class Damage(keras.callbacks.Callback):
    """Changes a bit of a shard when the first epoch has ended."""

    def __init__(self, shard):
        super().__init__()
        self.shard = shard

    def on_epoch_end(self, epoch, logs=None):
        if epoch > 0:
            return
        content = bytearray(self.shard.read_bytes())
        content[300] ^= 4
        self.shard.write_bytes(content)


@pytest.mark.parametrize(
    "split", ["train", pytest.param("validation", marks=pytest.mark.slow)]
)
def test_damage_that_comes_while_it_trains(tmp_path, split):
    data = make_prepared(tmp_path, 10)
    fold = load_prepared(data).splits[split].partition("+")[0]
    (shard,) = data.glob(f"*{fold}.tfrecord*")
    settings = ("model.backbone=sample_data:small_backbone", "data.faces=any",
                "model.image_size=[32, 32]", "training.epochs=40",
                "data.cache=false")  # fmt: skip
    with pytest.raises(ValueError, match=rf"{shard.name}': expected .*agegender verif"):
        train("quickstart", data, tmp_path / "run", overrides=settings, verbose=0,
              callbacks=[Damage(shard)])  # fmt: skip
    assert (tmp_path / "run" / "best.keras").is_file()  # an epoch's work
