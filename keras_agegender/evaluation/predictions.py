"""Predictions: a row per face, with who it is, the truth, the answers, every output.

predictions.csv is what `compare` reads: by the names of its columns, so that they may
become more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.files import replacing
from keras_agegender.labels import GENDERS, MISSING

_TEXT = (
    "key", "subject", "album", "source", "age_group", "gender", "predicted_age_group",
    "predicted_gender",
)  # fmt: skip
# Columns of numbers that a reader may average: an empty cell where unknown, not -1.
_NUMBERS = ("fold", "age_years")


def prediction_table(
    outputs: Mapping[str, Any],
    labels: Mapping[str, np.ndarray],
    encoding: Encoding,
    descriptions: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Returns a row per face.

    Args:
        outputs: Head name -> predictions. Shape (num_faces, units) each.
        labels: What `read_labels` returned.
        encoding: What decodes the outputs.
        descriptions: What `read_descriptions` returned.

    Returns:
        `key` and the descriptions; `age_group`, `gender` and their answers
        `predicted_…`, each as the name of a class beside its id (`…_id`); further
        answers; every output as `output_…`.
    """
    from keras import ops

    decoded = encoding.decode(outputs)
    table: dict[str, Any] = {"key": labels["key"], **(descriptions or {})}
    for name, names in (("age_group", encoding.age_groups.names), ("gender", GENDERS)):
        table |= class_columns(name, labels[name], names)
        answer = getattr(decoded, name)
        if answer is not None:
            table |= class_columns(
                f"predicted_{name}", ops.convert_to_numpy(answer), names
            )
    if decoded.age_years is not None:
        if "age_years" in labels:
            table["age_years"] = labels["age_years"]
        years = ops.convert_to_numpy(decoded.age_years)
        table["predicted_age_years"] = years.round(2)
    if decoded.gender_probability is not None:
        probability = ops.convert_to_numpy(decoded.gender_probability)
        table["male_probability"] = probability.round(4)
    if decoded.heads_agree is not None:
        table["heads_agree"] = ops.convert_to_numpy(decoded.heads_agree)
    for head in encoding.extra_heads:
        answer = ops.convert_to_numpy(encoding.answer(head.name, outputs).values)
        names = head.classes if KINDS[head.kind].classes else ()
        table |= class_columns(f"predicted_{head.name}", answer, names)
    for name, values in outputs.items():
        values = np.asarray(values).reshape(len(labels["key"]), -1)
        for unit in range(values.shape[1]):
            column = name if values.shape[1] == 1 else f"{name}[{unit}]"
            table[f"output_{column}"] = values[:, unit].round(4)
    return pd.DataFrame(table)


def class_columns(
    name: str, values: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Returns a column of class names and one of ids; of numbers without classes."""
    if not len(classes):
        return {name: values}
    lookup = np.array([*classes, ""])  # MISSING = -1 is the last
    return {name: lookup[values], f"{name}_id": values}


def write_predictions(file: Path, table: pd.DataFrame) -> None:
    """Writes predictions as CSV, whole or not at all.

    An unknown `fold` or `age_years` is an empty cell, an unknown id -1.
    """
    table = table.copy()
    for name in _NUMBERS:
        if name in table and pd.api.types.is_numeric_dtype(table[name]):
            known = table[name] >= 0
            table[name] = table[name].astype("object").where(known, "")
    with replacing(file) as partial:
        table.to_csv(partial, index=False)


def read_predictions(file: Path) -> pd.DataFrame:
    """Reads what `write_predictions` wrote, an older file too.

    Args:
        file: The CSV file.

    Returns:
        A row per face, indexed by key; text columns hold `""` where unknown, `fold`,
        `age_years` and ids -1.

    Raises:
        ValueError: If the file is no table of predictions, or a key is there twice.
    """
    try:
        table = pd.read_csv(
            file, keep_default_na=False, dtype=dict.fromkeys(_TEXT, "object")
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{file} is no table of predictions: {error}.") from error
    absent = [name for name in ("key", "age_group", "gender") if name not in table]
    if absent:
        raise ValueError(
            f"{file} is no table of predictions: it has no column {absent}. Columns: "
            f"{list(table)[:10]}. `agegender evaluate RUN` writes it anew."
        )
    twice = table["key"][table["key"].duplicated()]
    if len(twice):
        raise ValueError(f"{file} has the face {twice.iloc[0]!r} twice.")
    for name in _NUMBERS:
        if name in table:
            values = table[name].astype("object").replace("", MISSING)
            numbers = pd.to_numeric(values, errors="coerce")
            if numbers.notna().all():  # folds may have names
                table[name] = numbers
    return table.set_index("key")
