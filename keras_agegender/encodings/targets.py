"""Targets of heads: ids of faces become what each output is trained towards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_agegender.encodings.head import Head, check_class_ids
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.labels import GENDERS, MISSING

# Columns of every manifest, MISSING where unknown; heads of any other are "extra".
LABEL_COLUMNS = ("age_group", "gender", "age_years")


def head_targets(head: Head, columns: Sequence[Any]) -> np.ndarray:
    """Returns a head's targets, NaN where unknown.

    Args:
        head: The head.
        columns: Values of each of its columns, -1 or NaN where unknown. Shape (batch,).
    """
    table = head.target_table
    if table is None:
        values = known_numbers(head, columns[0])
        return (values - head.mean) / head.scale
    sizes = [head.num_values]
    if len(columns) > 1:
        sizes = [len(GENDERS), head.num_values // len(GENDERS)]
    if head.kind == "years":
        columns = [np.floor(np.asarray(columns[0], "float64"))]
    ids = [
        check_class_ids(head.name, name, values, size)
        for name, values, size in zip(head.columns, columns, sizes, strict=True)
    ]
    return table[head.class_ids(ids, lambda known: known.astype("int64"))]


def known_numbers(head: Head, values: Any) -> np.ndarray:
    """Returns the numbers that a regression head reads, NaN where unknown.

    Args:
        head: The head.
        values: What its column holds. Shape (batch,).
    """
    numbers = np.atleast_1d(np.asarray(values, dtype="float64"))
    if head.columns[0] not in LABEL_COLUMNS:
        return numbers  # -1 is a number like another
    return np.where(numbers == MISSING, np.nan, numbers)


def split_outputs(head: Head, targets: Any) -> dict[str, Any]:
    """Returns a head's targets by output name, shaped as losses take them.

    Args:
        head: The head.
        targets: NumPy array or tensor. Shape (batch,) or (batch, units).
    """
    if head.kind in ("categorical", "years"):
        return {head.name: targets}
    if KINDS[head.kind].several_outputs:
        return {name: targets[:, k : k + 1] for k, name in enumerate(head.output_names)}
    return {head.name: targets[..., None]}


def known_targets(head: Head, known: Any) -> Any:
    """Returns which targets count: one entry per face, or per question asked of it."""
    # Units of these are known together, or none is.
    return known[:, 0] if head.kind in ("ordinal", "years") else known


def check_ids(ids: Any, num_classes: int, name: str) -> np.ndarray:
    """Returns ids as int64; raises ValueError where one is out of range."""
    ids = np.atleast_1d(np.asarray(ids))
    wrong = ~np.isin(ids, np.arange(MISSING, num_classes))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Invalid `{name}`. Expected ids in [0, {num_classes}) or {MISSING} for "
            f"unknown. Received: {ids[first]} at position {first}."
        )
    return ids.astype("int64")
