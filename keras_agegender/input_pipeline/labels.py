"""tf.data pipelines from a prepared dataset to batches that `model.fit` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_agegender.datasets.prepared import PreparedDataset, load_prepared
from keras_agegender.datasets.shards import read_rows
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.targets import (
    LABEL_COLUMNS,
    known_targets,
    split_outputs,
)
from keras_agegender.input_pipeline.reading import read_columns
from keras_agegender.labels import MISSING


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
    targets: dict[str, tf.Tensor] = {}
    weights: dict[str, tf.Tensor] = {}
    for head in encoding.heads:
        raw = _raw_targets(head, example)
        unknown = tf.math.is_nan(raw)
        value = tf.where(unknown, 0.0, raw)
        if head.kind == "categorical":
            value = tf.cast(value, tf.int32)
        targets |= split_outputs(head, value)
        weight = tf.cast(known_targets(head, tf.logical_not(unknown)), tf.float32)
        for column, table in encoding.weight_tables(head):
            factor = _look_up(table, tf.cast(example[column], tf.int64))
            # A row per face, whatever the questions of the head.
            weight = tf.transpose(tf.transpose(weight) * factor)
        weights |= dict.fromkeys(head.output_names, weight)
    return targets, weights


def _raw_targets(head: Head, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns a head's targets, NaN where unknown; see `Encoding.encode`."""
    table = head.target_table
    if table is None:
        number = tf.cast(example[head.columns[0]], tf.float32)
        if head.columns[0] in LABEL_COLUMNS:
            number = tf.where(number == MISSING, np.nan, number)
        return (number - head.mean) / head.scale
    whole = head.kind != "years"
    ids = [_class_ids(example[column], head.name, whole) for column in head.columns]
    one = head.class_ids(ids, lambda known: tf.cast(known, tf.int64))
    # An id beyond the classes must not be taken for another class.
    message = (
        f"Invalid {' or '.join(head.columns)} of head {head.name!r}. Expected ids in "
        f"[0, {head.num_values}) or {MISSING} for unknown. Received:"
    )
    possible = (one >= MISSING) & (one < head.num_values)
    return _look_up(table, _checked(one, possible, [message, tf.reduce_max(one)]))


def _class_ids(values: tf.Tensor, head_name: str, whole: bool) -> tf.Tensor:
    """Returns ids, `MISSING` for NaN; fractions are completed years, or an error."""
    if not values.dtype.is_floating:
        return tf.cast(values, tf.int64)
    values = tf.where(tf.math.is_nan(values), float(MISSING), values)
    floor = tf.floor(values)
    if whole:
        message = f"Invalid target of head {head_name!r}. Expected class ids. Received:"
        floor = _checked(floor, values == floor, [message, values])
    return tf.cast(floor, tf.int64)


def _checked(values: tf.Tensor, right: tf.Tensor, message: list) -> tf.Tensor:
    """Returns the values, once it is sure, in a graph too, that all are right."""
    check = tf.debugging.Assert(tf.reduce_all(right), message)
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(values)


def _look_up(table: np.ndarray, ids: tf.Tensor) -> tf.Tensor:
    """Returns rows of a table; -1 is its last one."""
    rows = tf.constant(table.astype(np.float32))
    return tf.gather(rows, tf.math.floormod(ids, len(table)))


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
        `key`, `age_group` and `gender` (-1 where unknown), `age_years` where the
        dataset has it, and the columns asked for. Shape (num_faces,) each.
    """
    prepared = load_prepared(data) if isinstance(data, (str, Path)) else data
    wanted = {"key", "age_group", "gender", *columns}
    wanted |= {"age_years"} & set(prepared.builder.info.features)
    examples = read_columns(prepared, split, wanted)
    rows = [*read_rows(prepared, examples)]
    labels = {name: np.array([row[name] for row in rows]) for name in wanted}
    labels["key"] = np.array([key.decode() for key in labels["key"]])
    return labels


def columns_without_labels(
    prepared: PreparedDataset, split: str, columns: Iterable[str]
) -> set[str]:
    """Returns those columns that no face of a split has a label in.

    Faces are read until all are found to have one: a few, as a rule.
    """
    missing = set(columns)
    examples = read_columns(prepared, split, missing)
    for row in read_rows(prepared, examples):
        missing -= {name for name in missing if _is_label(name, row[name])}
        if not missing:
            break
    return missing


def _is_label(column: str, value: np.ndarray) -> bool:
    """Whether a value is known; numbers of one's own may be -1, and are NaN if not."""
    if np.issubdtype(value.dtype, np.floating) and column not in LABEL_COLUMNS:
        return not np.isnan(value)
    return value != MISSING


def read_age_groups(examples: tf.data.Dataset) -> list[int]:
    """Returns the age group of every example."""
    return [int(a) for a in examples.map(lambda e: e["age_group"]).as_numpy_iterator()]
