"""`train`: what it reads, and how often."""

from __future__ import annotations

import pytest
from sample_data import make_prepared

import keras_agegender as kag
from keras_agegender import files
from keras_agegender.recipes import loading

SETTINGS = (
    "model.backbone=sample_data:small_backbone",
    "model.image_size=[32, 32]",
    "data.batch_size=8",
    "data.faces=any",
    "training.epochs=1",
)


@pytest.fixture
def reads(monkeypatch):
    """The recipes that are parsed, and the datasets that are hashed."""
    parsed, hashed = [], []
    parse, directory_hash = loading._parse, files.directory_hash

    def counted_parse(text, source):
        parsed.append(source)
        return parse(text, source)

    def counted_hash(directory, *arguments):
        hashed.append(directory)
        return directory_hash(directory, *arguments)

    loading._read_packaged.cache_clear()
    monkeypatch.setattr(loading, "_parse", counted_parse)
    monkeypatch.setattr(files, "directory_hash", counted_hash)
    return parsed, hashed


def test_recipes_are_parsed_and_datasets_hashed_once(tmp_path, reads):
    """Two recipes and their bases, two datasets; a test split, so that it evaluates."""
    data = make_prepared(tmp_path / "data")
    first = make_prepared(tmp_path / "first", count=41)
    parsed, hashed = reads
    run = kag.train(
        "05_caffe_finetuned",
        data,
        tmp_path / "run",
        pretraining_data=first,
        overrides=SETTINGS,
        verbose=0,
    )
    assert run.info()["status"] == "finished"
    packaged = [source for source in parsed if "/" not in source]
    assert sorted(packaged) == [
        "01_caffe.toml",
        "05_caffe_celeba.toml",
        "05_caffe_finetuned.toml",
        "base_caffe.toml",
    ]
    assert sorted(hashed) == sorted([data, first])
