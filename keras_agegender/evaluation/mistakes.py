"""Mistakes that a model is sure of: which faces, and how they look."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.evaluation.question_answers import QuestionAnswers

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
    from keras_agegender.input_pipeline.pixels import picture_reader
    from keras_agegender.input_pipeline.reading import read_columns

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
