"""Predictions as rows: of a CSV file, and of the table that is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from keras_agegender.serving.answers import PhotoPrediction, VideoPrediction

BOX = ("left", "top", "right", "bottom")
# Of people in videos; empty of photos.
VIDEO_FIELDS = ("first_second", "last_second", "num_frames")
# Width of the columns of the printed table, in letters.
FILE_WIDTH, FACE_WIDTH, ANSWER_WIDTH = 40, 4, 14


def json_line(prediction: Mapping[str, Any]) -> str:
    """Returns what `to_dict` gave as one line of a JSON Lines file.

    It is ASCII, with escapes, if the file's name is no text, as Linux allows them.
    """
    line = json.dumps(prediction, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(prediction)
    return line


def csv_columns(metadata: Mapping[str, Any]) -> list[str]:
    """Returns the columns of a model's CSV rows; they do not depend on the photos.

    Args:
        metadata: What the model's agegender.json says.
    """
    extra = [head["name"] for head in metadata["extra_heads"]]
    return [
        "source", "status", "reason", "face", *BOX, "score",
        "age_group", "age_years", "age_set", "gender", "male_probability",
        "gender_set", "heads_agree", *extra, *VIDEO_FIELDS,
        *(_probability_column(name) for name in metadata["age_groups"]),
    ]  # fmt: skip


def csv_rows(prediction: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a row for each face or person; one with the status where there is none.

    Args:
        prediction: What `to_dict` gave.
    """
    first = {name: prediction[name] for name in ("source", "status", "reason")}
    if not prediction["faces"]:
        yield first
    for number, face in enumerate(prediction["faces"], 1):
        names = ("score", "age_group", "age_years", "gender", "male_probability",
                 "heads_agree", *VIDEO_FIELDS)  # fmt: skip
        probabilities = face["age_probabilities"] or {}
        yield {
            **first,
            "face": number,
            **dict(zip(BOX, face["box"], strict=True)),
            **{name: face.get(name) for name in names},
            **{name: " ".join(face[name] or ()) for name in ("age_set", "gender_set")},
            **face["extra"],
            **face["binary"],
            **{_probability_column(n): p for n, p in probabilities.items()},
        }


def table_heading() -> str:
    """Returns the first line of the printed table."""
    return _line("file", "face", ("answers",), "box or seconds")


def table_lines(prediction: PhotoPrediction | VideoPrediction) -> Iterator[str]:
    """Yields a line for each face or person, or one that says what was found."""
    if not prediction.faces:
        found = prediction.found.replace(f"{prediction.source}: ", "")
        yield _line(prediction.source, "-", (found,), "")
    for number, face in enumerate(prediction.faces, 1):
        place = str(face).rpartition("[")[2].removesuffix("]")
        yield _line(prediction.source, str(number), face.words, place)


def _line(file: str, number: str, answers: tuple[str, ...], place: str) -> str:
    # The end of a path says more than its beginning.
    name = file if len(file) <= FILE_WIDTH else f"…{file[1 - FILE_WIDTH :]}"
    columns = [name.ljust(FILE_WIDTH), number.ljust(FACE_WIDTH)]
    columns += [answer.ljust(ANSWER_WIDTH) for answer in answers]
    return "  ".join([*columns, place]).rstrip()


def _probability_column(age_group: str) -> str:
    return f"probability_{age_group}"
