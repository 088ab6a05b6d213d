"""Faces in a report: the surest mistakes as thumbnails, and occlusion maps of some."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.evaluation.fit_calibration import all_probabilities
from keras_agegender.evaluation.mistakes import thumbnail
from keras_agegender.evaluation.occlusion import draw_occlusion, occlusion_map
from keras_agegender.evaluation.question_answers import QuestionAnswers
from keras_agegender.evaluation.report_figures import Picture, embed
from keras_agegender.run_directory import RunDirectory

GONE = "data:image/gif;base64,R0lGODlhAQABAIAAAOTk5AAAACwAAAAAAQABAAACAkQBADs="


def mistake_cards(
    mistakes: pd.DataFrame, pictures: Mapping[str, np.ndarray] | None
) -> dict[str, list[dict[str, Any]]]:
    """Returns the mistakes of each question, with thumbnails.

    Args:
        mistakes: What `confident_mistakes` returned.
        pictures: What `read_pictures` returned; `None` for no pictures and no keys,
            which may name people too.
    """
    cards: dict[str, list[dict[str, Any]]] = {}
    for row in mistakes.to_dict("records"):
        card = {**row, "picture": None}
        if pictures is None:
            card.pop("key")
        else:
            alt = (
                f"Face that is {row['true']}, answered {row['answered']} with "
                f"probability {row['probability']:.3f}"
            )
            found = pictures.get(row["key"])
            card["picture"] = (
                Picture(GONE, f"{alt}; its picture is not in the dataset")
                if found is None
                else embed(thumbnail(found), alt, kind="jpeg")
            )
        cards.setdefault(row["question"].replace("_", " "), []).append(card)
    return cards


def chosen_faces(mistakes: pd.DataFrame, count: int) -> pd.DataFrame:
    """Returns the surest mistakes, of each question in turn, each face once."""
    turn = mistakes.groupby("question", sort=False).cumcount()
    order = turn.sort_values(kind="stable").index
    return mistakes.loc[order].drop_duplicates("key").head(count)


def occlusion_pictures(
    run: RunDirectory,
    checkpoint: str,
    mistakes: pd.DataFrame,
    answers: Sequence[QuestionAnswers],
    pictures: Mapping[str, np.ndarray],
) -> list[Picture]:
    """Returns occlusion maps of faces, each for the answer that is wrong about it.

    Args:
        run: A run.
        checkpoint: Which of its models.
        mistakes: Rows of `confident_mistakes`.
        answers: What was answered to each question.
        pictures: Key -> stored picture.
    """
    from keras_agegender.input_pipeline.pixels import (
        checked_image_size,
        preprocess_for_evaluation,
    )

    recipe, encoding = run.recipe(), run.encoding()
    size = checked_image_size(recipe.model.image_size, recipe.data.pipeline)
    model = run.load_model(checkpoint)
    calibration = run.calibration() if checkpoint == "best" else None
    classes = {question.name: question.classes for question in answers}
    found = []
    for row in mistakes.to_dict("records"):
        if row["key"] not in pictures:
            continue
        picture = pictures[row["key"]]
        answered = classes[row["question"]].index(row["answered"])

        def probability(
            images: np.ndarray, name: str = row["question"], answer: int = answered
        ) -> np.ndarray:
            outputs = model.predict(images, verbose=0)
            if calibration is not None:
                outputs = calibration.apply(outputs, encoding)
            return all_probabilities(outputs, encoding)[name][:, answer]

        image = preprocess_for_evaluation(picture, size, recipe.data.pipeline).numpy()
        fall = occlusion_map(image, probability)
        shown = (image * 255).round().astype("uint8")
        alt = (
            f"Occlusion map of a face that is {row['true']}, answered "
            f"{row['answered']}; covering a part lowers the probability by "
            f"{max(float(fall.max()), 0):.3f} at most"
        )
        caption = (
            f"{row['answered']} ({row['probability']:.3f}), true {row['true']}; "
            f"covered it falls to {row['probability'] - max(float(fall.max()), 0):.3f}"
        )
        found.append(
            embed(_jpeg(draw_occlusion(shown, fall)), alt, caption, kind="jpeg")
        )
    return found


def _jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    with io.BytesIO() as stream:
        Image.fromarray(picture).save(stream, format="JPEG", quality=88)
        return stream.getvalue()
