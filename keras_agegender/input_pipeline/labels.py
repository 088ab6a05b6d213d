"""tf.data pipelines from a prepared dataset to batches that `model.fit` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_agegender.encodings.decoding import NUM_GENDERS, NUM_GROUPS
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.labels import MISSING

if TYPE_CHECKING:
    from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.input_pipeline.reading import read_columns


def encode_labels(
    example: Mapping[str, tf.Tensor], encoding: Encoding
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Looks up targets and sample weights of a batch, as `Encoding.encode` gives them.

    Args:
        example: Labels `age_group` and `gender`, -1 where unknown, and the columns of
            the encoding's extra heads. Shape (batch,) each.
        encoding: What to encode them as.

    Returns:
        `(targets, sample_weights)`, dicts keyed by output name.
    """
    # -1 for a missing label is the tables' last row and column.
    cell = tf.stack(
        [
            tf.math.floormod(tf.cast(example["age_group"], tf.int64), NUM_GROUPS + 1),
            tf.math.floormod(tf.cast(example["gender"], tf.int64), NUM_GENDERS + 1),
        ],
        axis=-1,
    )
    targets, weights = {}, {}
    for head in encoding.heads:
        if head.column is None:
            table = encoding.target_tables[head.name].astype(np.float32)
            value = tf.gather_nd(tf.constant(table), cell)
        else:
            value = tf.cast(example[head.column], tf.float32)
            if head.kind != "regression":
                value = tf.where(value == MISSING, np.float32(np.nan), value)
        known = tf.logical_not(tf.math.is_nan(value))
        value = tf.where(known, value, 0.0)
        if head.kind == "categorical":
            targets[head.name] = tf.cast(value, tf.int32)
        else:
            targets[head.name] = value[..., tf.newaxis]
        weight = tf.cast(known, tf.float32)
        if head.name in encoding.weight_tables:
            table = encoding.weight_tables[head.name].astype(np.float32)
            factor = tf.gather_nd(tf.constant(table), cell)
            # A row per face, whatever the questions of the head.
            weight = tf.transpose(tf.transpose(weight) * factor)
        weights[head.name] = weight
    return targets, weights


def read_labels(
    data: PreparedDataset | str | Path,
    split: str,
    columns: Iterable[str] = (),
) -> dict[str, np.ndarray]:
    """Reads the labels of a split, in the order of `make_eval_dataset`.

    Args:
        data: A prepared dataset or its directory.
        split: A split name or expression.
        columns: Further columns to read.

    Returns:
        `key`, `age_group` and `gender` (-1 where unknown) and the columns asked for.
        Shape (num_faces,) each.
    """
    wanted = {"key", "age_group", "gender", *columns}
    examples = read_columns(data, split, wanted)
    rows = [*examples.as_numpy_iterator()]
    labels = {name: np.array([row[name] for row in rows]) for name in wanted}
    labels["key"] = np.array([key.decode() for key in labels["key"]])
    return labels


def read_age_groups(examples: tf.data.Dataset) -> list[int]:
    """Returns the age group of every example."""
    return [int(a) for a in examples.map(lambda e: e["age_group"]).as_numpy_iterator()]
