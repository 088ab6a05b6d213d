"""tf.data pipelines from a prepared dataset to batches that `model.fit` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_agegender.datasets.check_encoding import check_manifest_encoding
from keras_agegender.datasets.manifest import validate_manifest
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.labels import MISSING


def read_examples(
    data: Any, split: str, encoding: Encoding, cache: bool | str
) -> tf.data.Dataset:
    """Reads compressed pictures and the labels that the encoding needs."""
    columns = {"image", "age_group", "gender", *encoding.columns}
    if isinstance(data, pd.DataFrame):
        validate_manifest(data)
        check_manifest_encoding(data, encoding)
        examples = _read_manifest(data, split, columns)
    else:
        data = load_prepared(data) if isinstance(data, (str, Path)) else data
        data.check_encoding(encoding)
        examples = read_columns(data, split, columns)
    if cache:
        cardinality = examples.cardinality()
        examples = examples.cache("" if cache is True else str(cache))
        examples = examples.apply(tf.data.experimental.assert_cardinality(cardinality))
    return examples


def _read_manifest(
    manifest: pd.DataFrame, split: str, columns: set[str]
) -> tf.data.Dataset:
    """Reads rows of some splits of a manifest, and their pictures' files."""
    names = split.split("+")
    known = sorted(manifest["split"].unique())
    absent = sorted(set(names) - set(known))
    if absent:
        raise ValueError(
            f"Invalid `split`. Expected names of {known} with '+' between them. "
            f"Received: split={split!r}."
        )
    absent = sorted(columns - {"image", *manifest})
    if absent:
        raise ValueError(
            f"The manifest has no column {absent}, which outputs of the model need. "
            f"Columns: {sorted(manifest)}."
        )
    rows = manifest[manifest["split"].isin(names)]
    values = {name: rows[name].to_numpy() for name in sorted(columns - {"image"})}
    values["image"] = rows["path"].to_numpy().astype(str)
    examples = tf.data.Dataset.from_tensor_slices(values)
    return examples.map(
        lambda example: {**example, "image": tf.io.read_file(example["image"])},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def read_columns(data: Any, split: str, columns: set[str]) -> tf.data.Dataset:
    """Reads some features of a split, in a fixed order, the picture undecoded."""
    import tensorflow_datasets as tfds

    prepared = load_prepared(data) if isinstance(data, (str, Path)) else data
    builder = prepared.builder
    expression = prepared.splits.get(split, split)
    count = prepared.num_faces(split)
    absent = sorted(columns - set(builder.info.features))
    if absent:
        raise ValueError(
            f"The prepared dataset in {builder.data_dir} has no column {absent}, which "
            f"outputs of the model need. Columns: {sorted(builder.info.features)}."
        )
    examples = builder.as_dataset(
        split=expression,
        decoders=tfds.decode.PartialDecoding(
            {name: True for name in columns},
            decoders={"image": tfds.decode.SkipDecoding()}
            if "image" in columns
            else None,
        ),
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    return examples.apply(tf.data.experimental.assert_cardinality(count))


def local_batch_size(batch_size: int, shard: tuple[int, int] | None) -> int:
    """Returns how many faces of a batch this process has."""
    if shard is None:
        return batch_size
    if batch_size % shard[1]:
        raise ValueError(
            f"Invalid `batch_size`. Expected a multiple of the {shard[1]} shards. "
            f"Received: batch_size={batch_size}."
        )
    return batch_size // shard[1]


def shard_examples(
    examples: tf.data.Dataset,
    fillers: tf.data.Dataset,
    count: int,
    batch_size: int,
    shard: tuple[int, int] | None,
) -> tf.data.Dataset:
    """Takes every n-th of `count` examples, filled up to whole batches."""
    if shard is None:
        return examples
    index, shards = shard
    if missing := -count % batch_size:
        filling = fillers.take(1).repeat(missing).map(mask_labels)
        examples = examples.concatenate(filling)
    return examples.shard(shards, index)


def mask_labels(example: dict) -> dict:
    """Takes a face's labels away: it weighs nothing in loss and metrics."""

    def mask(value: tf.Tensor) -> tf.Tensor:
        if value.dtype == tf.string:
            return value
        unknown = np.nan if value.dtype.is_floating else MISSING
        return tf.fill(tf.shape(value), tf.cast(unknown, value.dtype))

    return {name: mask(value) for name, value in example.items()}
