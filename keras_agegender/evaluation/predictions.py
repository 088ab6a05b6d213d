"""Predictions of a split: one row per face, as in predictions.csv."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.of_age import at_least_probability
from keras_agegender.evaluation.calibration import all_probabilities, true_classes
from keras_agegender.files import atomic_write
from keras_agegender.labels import GENDERS, MISSING

_TEXT = (
    "key", "subject", "album", "source", "age_group", "gender", "predicted_age_group",
    "predicted_gender",
)  # fmt: skip
# Numbers that a user may average: unknown values are empty cells, not -1.
_NUMBERS = ("fold", "age_years")
EVALUATE_AGAIN = "Run `agegender evaluate RUN` again."


def prediction_table(
    outputs: Mapping[str, Any],
    labels: Mapping[str, np.ndarray],
    encoding: Encoding,
    metadata: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Returns a row per face."""
    from keras import ops

    decoded = encoding.decode(outputs)
    table: dict[str, Any] = {"key": labels["key"], **(metadata or {})}
    for name, names in (("age_group", encoding.age_groups.names), ("gender", GENDERS)):
        table |= class_columns(name, labels[name], names)
        ids = getattr(decoded, name)
        if ids is not None:
            table |= class_columns(
                f"predicted_{name}", ops.convert_to_numpy(ids), names
            )
    if decoded.age_years is not None:
        if "age_years" in labels:
            table["age_years"] = labels["age_years"]
        years = ops.convert_to_numpy(decoded.age_years)
        table["predicted_age_years"] = years.round(2)
    adult = at_least_probability(
        encoding, outputs, age_probabilities=decoded.age_probabilities
    )
    if adult is not None:
        table["adult_probability"] = adult.round(4)
    if decoded.gender_probability is not None:
        probability = ops.convert_to_numpy(decoded.gender_probability)
        table["male_probability"] = probability.round(4)
    if decoded.heads_agree is not None:
        table["heads_agree"] = ops.convert_to_numpy(decoded.heads_agree)
    for head in encoding.extra_heads:
        values = ops.convert_to_numpy(encoding.decode_head(head.name, outputs).values)
        names = head.classes if head.spec.has_classes else ()
        table |= class_columns(f"predicted_{head.name}", values, names)
    for name, values in outputs.items():
        values = np.asarray(values).reshape(len(labels["key"]), -1)
        for unit in range(values.shape[1]):
            column = name if values.shape[1] == 1 else f"{name}[{unit}]"
            table[f"output_{column}"] = values[:, unit].round(4)
    return pd.DataFrame(table)


def class_columns(
    name: str, values: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Returns a column of class names and one of ids; numbers have no classes."""
    if not len(classes):
        return {name: values}
    lookup = np.array([*classes, ""])  # MISSING = -1 is the last
    return {name: lookup[values], f"{name}_id": values}


def write_predictions(file: Path, table: pd.DataFrame) -> None:
    """Writes predictions as CSV; unknown numbers are empty cells, unknown ids -1."""
    table = table.copy()
    for name in _NUMBERS:
        if name in table and pd.api.types.is_numeric_dtype(table[name]):
            known = table[name] >= 0
            table[name] = table[name].astype("object").where(known, "")
    with atomic_write(file) as partial:
        table.to_csv(partial, index=False)


def read_predictions(file: Path) -> pd.DataFrame:
    """Reads what `write_predictions` wrote."""
    try:
        table = pd.read_csv(
            file, keep_default_na=False, dtype=dict.fromkeys(_TEXT, "object")
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{file} is not a table of predictions: {error}.") from error
    absent = [name for name in ("key", "age_group", "gender") if name not in table]
    if absent:
        raise ValueError(
            f"{file} is not a table of predictions. Missing columns: {absent}. "
            f"Received: {list(table)[:10]}. {EVALUATE_AGAIN}"
        )
    twice = table["key"][table["key"].duplicated()]
    if len(twice):
        raise ValueError(f"{file} contains the face {twice.iloc[0]!r} twice.")
    for name in _NUMBERS:
        if name in table:
            values = table[name].astype("object").replace("", MISSING)
            numbers = pd.to_numeric(values, errors="coerce")
            if numbers.notna().all():  # folds may have names
                table[name] = numbers
    return table.set_index("key")


@dataclass(frozen=True)
class TaskPredictions:
    """Predicted classes of one task, with their probabilities and labels."""

    name: str  # "age_group", "gender" or an extra head
    classes: tuple[str, ...]
    probabilities: np.ndarray  # shape (num_faces, num_classes)
    truth: np.ndarray  # class ids, -1 if unknown
    predicted: np.ndarray  # class ids

    @property
    def wrong(self) -> np.ndarray:
        """Whether each prediction is wrong; `False` without a label."""
        return (self.truth != MISSING) & (self.predicted != self.truth)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class. Shape (num_faces,)."""
        rows = np.arange(len(self.predicted))
        return self.probabilities[rows, self.predicted]

    @property
    def title(self) -> str:
        """Title in plots."""
        return self.name.replace("_", " ").capitalize()


def task_predictions(table: pd.DataFrame, encoding: Encoding) -> list[TaskPredictions]:
    """Returns every task with classes, gender and age group first."""
    found = all_probabilities(_outputs(table, encoding), encoding)
    tasks = [
        TaskPredictions(
            name, tuple(classes), found[name], _ids(table, name),
            _ids(table, f"predicted_{name}"),
        )
        for name, classes in (
            ("gender", GENDERS), ("age_group", encoding.age_groups.names),
        )
        if name in found
    ]  # fmt: skip
    for head in encoding.extra_heads:
        columns = {c: f"{c}_id" if f"{c}_id" in table else c for c in head.columns}
        if head.name not in found or not set(columns.values()) <= set(table):
            continue  # numbers, or a dataset without labels
        labels = {name: table[column].to_numpy() for name, column in columns.items()}
        truth = true_classes(head, labels)
        probabilities = found[head.name]
        count = probabilities.shape[1]
        classes = tuple(head.classes)
        if not classes:
            classes = ("no", "yes") if count == 2 else tuple(map(str, range(count)))
        if truth is not None and len(classes) == count:
            predicted = probabilities.argmax(axis=1)
            tasks.append(
                TaskPredictions(head.name, classes, probabilities, truth, predicted)
            )
    return tasks


def _ids(table: pd.DataFrame, name: str) -> np.ndarray:
    column = f"{name}_id"
    if column not in table:
        raise ValueError(f"The predictions have no column {column!r}. {EVALUATE_AGAIN}")
    return table[column].to_numpy().astype("int64", copy=True).clip(MISSING)


def _outputs(table: pd.DataFrame, encoding: Encoding) -> dict[str, Any]:
    """Returns a model's outputs from the columns `output_…`."""
    outputs = {}
    ranked = {
        head.name
        for head in encoding.heads
        if head.spec.ranks and not head.spec.several_outputs
    }
    for name in encoding.output_names:
        columns = [f"output_{name}"]
        if columns[0] not in table:
            count = sum(str(c).startswith(f"output_{name}[") for c in table)
            columns = [f"output_{name}[{unit}]" for unit in range(count)]
        if not columns or not set(columns) <= set(table):
            raise ValueError(
                f"The predictions have no output {name!r}, unlike the run's model. "
                f"{EVALUATE_AGAIN}"
            )
        values = table[columns].to_numpy("float32")
        # These heads have one more axis: (num_faces, num_classes - 1, 1).
        outputs[name] = values[:, :, None] if name in ranked else values
    return outputs


THUMBNAIL = 144  # pixels: sharp on a card 96 wide on most screens
NUM_MISTAKES = 12
_COLUMNS = ("key", "question", "true", "answered", "probability", "probability_of_true")


def confident_mistakes(
    tasks: Iterable[TaskPredictions], keys: Any, count: int = NUM_MISTAKES
) -> pd.DataFrame:
    """Returns the wrong predictions with the highest probabilities, for each task."""
    keys = np.asarray(keys)
    rows = []
    for task in tasks:
        wrong = np.flatnonzero(task.wrong)
        surest = np.argsort(-task.confidence[wrong], kind="stable")
        for face in wrong[surest][:count]:
            truth, predicted = int(task.truth[face]), int(task.predicted[face])
            names = task.classes[truth], task.classes[predicted]
            probabilities = task.probabilities[face, [predicted, truth]].tolist()
            rows.append((keys[face], task.name, *names, *probabilities))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def read_images(
    data: PreparedDataset, split: str, keys: Collection[str]
) -> dict[str, np.ndarray]:
    """Returns the stored RGB images of some faces of a split, by key."""
    from keras_agegender.datasets.pipeline import image_decoder, read_columns

    read, wanted, found = image_decoder(data), set(keys), {}
    if not wanted:
        return {}
    for row in read_columns(data, split, {"image", "key"}):
        key = row["key"].numpy().decode()
        if key in wanted:
            found[key] = read(row["image"]).numpy()
    return found


def thumbnail(image: np.ndarray, size: int = THUMBNAIL) -> bytes:
    """Returns a square JPEG of an RGB image, on white where it is not square."""
    small = Image.fromarray(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), "#ffffff")
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    with io.BytesIO() as stream:
        square.save(stream, format="JPEG", quality=85)
        return stream.getvalue()
