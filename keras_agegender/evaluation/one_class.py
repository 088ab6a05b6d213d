"""Models that answer (almost) always the same: their accuracy is not one of faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_agegender.labels import GENDERS

ALMOST_ALWAYS = 0.95


def one_class_answer(confusion: Any, names: Sequence[str]) -> str | None:
    """Returns the class that a model gives (almost) always; `None` if there is none.

    It is given to 95 % or more of all faces, and of the faces of all other classes
    too: where nearly all faces are of one class, a good model answers it nearly always.

    Args:
        confusion: Faces by true (row) and answered (column) class. Shape
            (num_classes, num_classes).
        names: The classes.

    Example:
    >>> one_class_answer([[2, 48], [0, 50]], ["female", "male"])
    'male'
    """
    counts = np.asarray(confusion, "float64")
    if not counts.sum():
        return None
    answer = int(counts.sum(axis=0).argmax())
    others = np.delete(counts, answer, axis=0)
    if not others.sum():
        return None
    shares = (
        counts[:, answer].sum() / counts.sum(),
        others[:, answer].sum() / others.sum(),
    )
    return names[answer] if min(shares) >= ALMOST_ALWAYS else None


def one_class_answers(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a scored model (almost) always answers about gender and age.

    Args:
        metrics: What metrics.json holds.

    Returns:
        `"gender"`, `"age"` -> the class; those that it tells apart are left out.
    """
    found = {}
    for section in ("gender", "age"):
        scores = metrics.get(section) or {}
        names: Sequence[str] = GENDERS
        if section == "age":
            names = [group["name"] for group in scores.get("groups", ())]
        answer = one_class_answer(scores.get("confusion", [[0]]), names)
        if answer is not None:
            found[section] = answer
    return found


def one_class_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each question that a model does not look at faces for.

    Args:
        metrics: What metrics.json holds.
    """
    called = {"gender": "gender", "age": "age group"}
    return [
        f"{called[section]}: (almost) every face is answered {answer}, those of others "
        "too"
        for section, answer in one_class_answers(metrics).items()
    ]
