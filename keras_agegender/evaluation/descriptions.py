"""Descriptions: what a dataset says of its faces beside what models learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.datasets.shards import read_rows
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.evaluation.grouping import (
    as_groupings,
    check_columns,
    find_groups,
)
from keras_agegender.evaluation.groups import known_values
from keras_agegender.evaluation.predictions import class_columns
from keras_agegender.input_pipeline.reading import read_columns

DESCRIBING = ("subject", "fold", "album", "source")
# What preparation says of pictures, and what tables of labels have anyhow.
_NOT_DESCRIBING = (
    "image", "key", "age_group", "gender", "age_years", "face_box", "face_score",
    "face_status", "num_faces",
)  # fmt: skip


def read_descriptions(data: PreparedDataset, split: str) -> dict[str, np.ndarray]:
    """Reads what else a dataset says of the faces of a split.

    Args:
        data: A prepared dataset.
        split: A split name or expression.

    Returns:
        `subject`, `fold`, `album` and `source` where the dataset has them, then every
        extra column: names of classes, `""` where unknown, with the ids in
        `<column>_id`, or numbers. Shape (num_faces,) each, in the order of
        `read_labels`.
    """
    features = data.builder.info.features
    extra = [
        name
        for name, feature in features.items()
        if name not in (*_NOT_DESCRIBING, *DESCRIBING) and feature.shape == ()
    ]
    names = [*(name for name in DESCRIBING if name in features), *extra]
    if not names:
        return {}
    rows = [*read_rows(data, read_columns(data, split, set(names)))]
    found: dict[str, np.ndarray] = {}
    for name in names:
        values = np.array([row[name] for row in rows])
        if values.dtype.kind in "SO":
            values = np.array([row[name].decode() for row in rows])
        classes = data.info.get("extra_heads", {}).get(name, {}).get("classes", ())
        found |= class_columns(name, values, classes)
    return found


def check_groupings(
    by: str | Sequence[str], descriptions: Mapping[str, np.ndarray], encoding: Encoding
) -> None:
    """Raises a `ValueError` if faces can't be grouped so: known before predicting.

    Args:
        by: Columns to group by, those to cross with a comma between them.
        descriptions: What `read_descriptions` returned.
        encoding: What will answer.
    """
    heads = {"gender": encoding.gender_head, "age_group": encoding.age_head}
    answered = [name for name, head in heads.items() if head is not None]
    answered += [head.name for head in encoding.extra_heads]
    named = ["age_group", "gender", *(f"predicted_{name}" for name in answered)]
    available = [*descriptions, *named, *(f"{name}_id" for name in named)]
    if encoding.age_head is not None and KINDS[encoding.age_head.kind].ranks:
        available.append("heads_agree")
    check_columns(by, available)
    table = pd.DataFrame(dict(descriptions))
    for name in as_groupings(by):
        columns = name.split(",")
        if set(columns) <= set(table):
            known = np.all([known_values(table[c]) for c in columns], axis=0)
            find_groups(table[known], columns)
