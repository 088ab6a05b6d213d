"""Answers and their probabilities, read back from predictions.csv, by question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.evaluation.fit_calibration import true_classes
from keras_agegender.labels import GENDERS, MISSING


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
    from keras_agegender.evaluation.fit_calibration import all_probabilities

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
        if KINDS[head.kind].ranks and not KINDS[head.kind].several_outputs
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
