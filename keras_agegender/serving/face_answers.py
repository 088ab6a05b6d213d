"""A model's answers about one face, as arrays, become the fields of a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_agegender.encodings.head import ANSWER

Metadata = Mapping[str, Any]
Answers = Mapping[str, np.ndarray]


def face_fields(metadata: Metadata, answers: Answers) -> dict[str, Any]:
    """Returns the fields of a `FacePrediction` that a model answers.

    Args:
        metadata: What the model's agegender.json says.
        answers: Name -> what the signature `faces` says about one face.
    """
    groups, genders = metadata["age_groups"], metadata["genders"]
    age, gender = answers.get("age_group"), answers.get("gender_id")
    probabilities = answers.get("age_group_probabilities")
    agree, years = answers.get("heads_agree"), answers.get("age_years")
    heads = {name: _plain(answers[name]) for name in metadata["outputs"]}
    return {
        "age_group": None if age is None else groups[int(age)],
        "age_probabilities": None
        if probabilities is None
        else {n: _rounded(p) for n, p in zip(groups, probabilities, strict=True)},
        "age_years": None if years is None else round(float(years), 1),
        "gender": None if gender is None else genders[int(gender)],
        "male_probability": None
        if gender is None
        else _rounded(answers["male_probability"]),
        "heads_agree": None if agree is None else bool(agree),
        "heads": heads,
        "extra": _extra(metadata["extra_heads"], heads, answers),
        "binary": _binary(metadata["extra_heads"], answers),
        "age_set": _members(groups, answers.get("age_group_set")),
        "gender_set": _members(genders, answers.get("gender_set")),
    }


def place_fields(box: np.ndarray, crop_box: np.ndarray, score: float) -> dict[str, Any]:
    """Returns the fields of a `FacePrediction` that say where the face is."""
    return {
        "box": _corners(box),
        "crop_box": _corners(crop_box),
        "score": round(float(score), 4),
    }


def _extra(
    heads: Sequence[Metadata], outputs: Mapping[str, Any], answers: Answers
) -> dict[str, float | str]:
    """Returns the outputs that are read from a column of their own."""
    extra: dict[str, float | str] = {}
    for head in heads:
        name, classes = head["name"], head["classes"]
        if head["kind"] == "binary":
            extra[name] = outputs[name]
        elif classes:
            extra[name] = classes[int(answers[f"{name}{ANSWER}"])]
        else:
            extra[name] = _rounded(answers[f"{name}{ANSWER}"])
    return extra


def _binary(heads: Sequence[Metadata], answers: Answers) -> dict[str, str]:
    """Returns the classes that binary outputs answer with."""
    return {
        head["name"]: head["classes"][int(answers[f"{head['name']}{ANSWER}"])]
        for head in heads
        if head["kind"] == "binary"
    }


def _members(
    names: Sequence[str], members: np.ndarray | None
) -> tuple[str, ...] | None:
    """Returns the names that are in a set of answers."""
    if members is None:
        return None
    return tuple(name for name, there in zip(names, members, strict=True) if there)


def _plain(values: np.ndarray) -> float | list[float]:
    numbers = [_rounded(value) for value in np.ravel(values)]
    return numbers[0] if len(numbers) == 1 else numbers


def _rounded(value: Any) -> float:
    return round(float(value), 6)


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(x), 1) for x in box)
    return left, top, right, bottom
