"""Predictions of a test set, a row per face."""

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
from keras_agegender.evaluation.calibration import true_classes
from keras_agegender.files import atomic_write
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
        answer = ops.convert_to_numpy(encoding.decode_head(head.name, outputs).values)
        names = head.classes if head.spec.has_classes else ()
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
    with atomic_write(file) as partial:
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


@dataclass(frozen=True)
class QuestionAnswers:
    """What a model answered to one question.

    Attributes:
        name: `"age_group"`, `"gender"` or the name of a further head.
        classes: What can be answered, by id.
        probabilities: Of each class. Shape (num_faces, num_classes).
        truth: True class ids, -1 where unknown. Shape (num_faces,).
        answer: Answered class ids. Shape (num_faces,).
    """

    name: str
    classes: tuple[str, ...]
    probabilities: np.ndarray
    truth: np.ndarray
    answer: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Which faces are answered wrong; without a label none is."""
        return (self.truth != MISSING) & (self.answer != self.truth)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the answer. Shape (num_faces,)."""
        rows = np.arange(len(self.answer))
        return self.probabilities[rows, self.answer]

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ").capitalize()


def read_question_answers(
    table: pd.DataFrame, encoding: Encoding
) -> list[QuestionAnswers]:
    """Returns every question that is answered with classes, gender and age group first.

    Args:
        table: What `read_predictions` returned.
        encoding: What the outputs mean.

    Raises:
        ValueError: If the table was written before predictions had ids of classes, or
            lacks an output.
    """
    from keras_agegender.evaluation.calibration import all_probabilities

    outputs = _outputs(table, encoding)
    named = {"gender": tuple(GENDERS), "age_group": tuple(encoding.age_groups.names)}
    found = all_probabilities(outputs, encoding)
    answers = [
        QuestionAnswers(
            name,
            classes,
            found[name],
            _ids(table, name),
            _ids(table, f"predicted_{name}"),
        )
        for name, classes in named.items()
        if name in found
    ]
    for head in encoding.extra_heads:
        columns = {c: f"{c}_id" if f"{c}_id" in table else c for c in head.columns}
        if head.name not in found or not set(columns.values()) <= set(table):
            continue  # numbers, or a truth that nobody wrote down
        labels = {name: table[column].to_numpy() for name, column in columns.items()}
        truth = true_classes(head, labels)
        count = found[head.name].shape[1]
        classes = tuple(head.classes)
        if not classes:
            classes = ("no", "yes") if count == 2 else tuple(map(str, range(count)))
        if truth is not None and len(classes) == count:
            answer = found[head.name].argmax(axis=1)
            answers.append(
                QuestionAnswers(head.name, classes, found[head.name], truth, answer)
            )
    return answers


def _ids(table: pd.DataFrame, name: str) -> np.ndarray:
    column = f"{name}_id"
    if column not in table:
        raise ValueError(
            f"The predictions have no column {column!r}: they were written by an older "
            "version. `agegender evaluate RUN` writes them anew."
        )
    return table[column].to_numpy().astype("int64", copy=True).clip(MISSING)


def _outputs(table: pd.DataFrame, encoding: Encoding) -> dict[str, Any]:
    """Returns what a model said, from the columns `output_…`."""
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
                f"The predictions have no output {name!r}, which the run's model has. "
                "`agegender evaluate RUN` writes them anew."
            )
        values = table[columns].to_numpy("float32")
        # Such heads have an axis more: (num_faces, num_classes - 1, 1).
        outputs[name] = values[:, :, None] if name in ranked else values
    return outputs


THUMBNAIL = 144  # pixels: sharp on a card 96 wide on most screens
NUM_MISTAKES = 12
_COLUMNS = ("key", "question", "true", "answered", "probability", "probability_of_true")


def confident_mistakes(
    answers: Iterable[QuestionAnswers], keys: Any, count: int = NUM_MISTAKES
) -> pd.DataFrame:
    """Returns the wrong answers with the highest probabilities, of each question.

    Args:
        answers: What was answered to each question.
        keys: Key of each face. Shape (num_faces,).
        count: Rows of each question at most. Defaults to 12.

    Returns:
        `key`, `question`, the names of the classes `true` and `answered`,
        `probability` of the answer and `probability_of_true`; the surest first.
    """
    keys = np.asarray(keys)
    rows = []
    for question in answers:
        wrong = np.flatnonzero(question.wrong)
        surest = np.argsort(-question.confidence[wrong], kind="stable")
        for face in wrong[surest][:count]:
            truth, answer = int(question.truth[face]), int(question.answer[face])
            rows.append(
                (
                    keys[face],
                    question.name,
                    question.classes[truth],
                    question.classes[answer],
                    float(question.probabilities[face, answer]),
                    float(question.probabilities[face, truth]),
                )
            )
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def read_pictures(
    data: PreparedDataset, split: str, keys: Collection[str]
) -> dict[str, np.ndarray]:
    """Reads the stored pictures of some faces.

    Args:
        data: A prepared dataset.
        split: A split name or expression.
        keys: Keys of faces; those that are not in the split are left out.

    Returns:
        Key -> RGB picture. Shape (height, width, 3), uint8.
    """
    from keras_agegender.datasets.pipeline import picture_reader, read_columns

    read, wanted, found = picture_reader(data, None), set(keys), {}
    if not wanted:
        return {}
    for row in read_columns(data, split, {"image", "key"}):
        key = row["key"].numpy().decode()
        if key in wanted:
            found[key] = read(row["image"]).numpy()
    return found


def thumbnail(picture: np.ndarray, size: int = THUMBNAIL) -> bytes:
    """Returns a square JPEG of a picture, on white where it is not square.

    Args:
        picture: RGB. Shape (height, width, 3), uint8.
        size: Side in pixels. Defaults to 144.
    """
    image = Image.fromarray(picture)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), "#ffffff")
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    with io.BytesIO() as stream:
        square.save(stream, format="JPEG", quality=85)
        return stream.getvalue()
