"""Encodings: which named outputs stand for an age group and a gender, and back."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_agegender.encodings.decoding import (
    NUM_GENDERS,
    NUM_GROUPS,
    ORDINAL_HEAD_NAMES,
    decode_age_coral,
    decode_age_corn,
    decode_age_head,
    decode_age_joint,
    decode_age_ordinal,
    decode_gender_head,
    decode_gender_joint,
)
from keras_agegender.encodings.encoding import AgeDecoder, Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.labels import CELEBA_ATTRIBUTES

QUESTIONS = ("older", "younger")


def _table(
    target: Callable[[int, int], Any], by_age: bool, by_gender: bool, units: int = 0
) -> np.ndarray:
    """Fills a (9, 3) table; NaN wherever a label that the target needs is missing."""
    shape = (NUM_GROUPS + 1, NUM_GENDERS + 1, *([units] if units else []))
    table = np.full(shape, np.nan)
    for age in range(NUM_GROUPS + 1):
        for gender in range(NUM_GENDERS + 1):
            if (by_age and age == NUM_GROUPS) or (by_gender and gender == NUM_GENDERS):
                continue
            table[age, gender] = target(age, gender)
    return table


def _gender() -> Encoding:
    return Encoding(
        name="gender",
        heads=(Head("gender"),),
        target_tables={"gender": _table(lambda age, gender: gender, False, True)},
        gender_decoder=decode_gender_head,
    )


def _joint() -> Encoding:
    return Encoding(
        name="joint",
        heads=(Head("gender_age", "categorical", NUM_GENDERS * NUM_GROUPS),),
        target_tables={
            "gender_age": _table(
                lambda age, gender: gender * NUM_GROUPS + age, True, True
            )
        },
        age_decoder=decode_age_joint,
        gender_decoder=decode_gender_joint,
    )


def _categorical() -> Encoding:
    return Encoding(
        name="categorical",
        heads=(Head("gender"), Head("age", "categorical", NUM_GROUPS)),
        target_tables={
            "gender": _table(lambda age, gender: gender, False, True),
            "age": _table(lambda age, gender: age, True, False),
        },
        age_decoder=decode_age_head,
        gender_decoder=decode_gender_head,
    )


def _ordinal(question: str = "older") -> Encoding:
    tables = {"gender": _table(lambda age, gender: gender, False, True)}
    for k, name in enumerate(ORDINAL_HEAD_NAMES):
        if question == "older":
            tables[name] = _table(lambda age, _, k=k: age > k, True, False)  # type: ignore[misc]
        else:
            tables[name] = _table(lambda age, _, k=k: age < k, True, False)  # type: ignore[misc]
    return Encoding(
        name="ordinal",
        heads=(Head("gender"), *[Head(name) for name in ORDINAL_HEAD_NAMES]),
        question=question,
        target_tables=tables,
        age_decoder=lambda outputs: decode_age_ordinal(outputs, question),
        gender_decoder=decode_gender_head,
    )


def _coral() -> Encoding:
    # Units: is the group above 0, above 1, … above 6? Always all of them.
    rank = np.arange(NUM_GROUPS - 1)
    head = Head("age", "coral", NUM_GROUPS, loss_weight=float(NUM_GROUPS - 1))
    return _ranks("coral", head, lambda age, _: age > rank, decode_age_coral)


def _corn() -> Encoding:
    # Unit k asks the same, but only of faces whose group is above k - 1.
    rank = np.arange(NUM_GROUPS - 1)
    return _ranks(
        "corn",
        Head("age", "corn", NUM_GROUPS),
        lambda age, _: np.where(age >= rank, age > rank, np.nan),
        decode_age_corn,
    )


def _ranks(
    name: str, head: Head, target: Callable[[int, int], Any], decoder: AgeDecoder
) -> Encoding:
    return Encoding(
        name=name,
        heads=(Head("gender"), head),
        target_tables={
            "gender": _table(lambda age, gender: gender, False, True),
            "age": _table(target, True, False, NUM_GROUPS - 1),
        },
        age_decoder=decoder,
        gender_decoder=decode_gender_head,
    )


def _attributes() -> Encoding:
    return Encoding(
        name="attributes",
        heads=tuple(Head(name, column=name) for name in CELEBA_ATTRIBUTES),
        gender_decoder=lambda outputs: decode_gender_head(outputs, "Male"),
    )


ENCODINGS: dict[str, Callable[..., Encoding]] = {
    "gender": _gender,
    "joint": _joint,
    "categorical": _categorical,
    "ordinal": _ordinal,
    "attributes": _attributes,
    "coral": _coral,
    "corn": _corn,
}


def list_encodings() -> list[str]:
    """Returns the names that `get_encoding` and `build_model` take.

    - `gender`: one output, the probability of male.
    - `joint`: one 16-way softmax, gender × age group (`gender * 8 + age_group`).
    - `categorical`: `gender` and an 8-way softmax `age`.
    - `ordinal`: `gender` and `age1` … `age8`, one binary question about each group.
    - `attributes`: the 40 attributes of CelebA, one binary output each.
    - `coral`: `gender` and an output `age` of seven questions "above group k?" that
      share their weights and differ in a threshold (Cao et al., "Rank consistent
      ordinal regression for neural networks", 2020, arXiv 1901.07884).
    - `corn`: the same questions, each asked only where the one before it was answered
      yes (Shi et al., "Deep Neural Networks for Rank-Consistent Ordinal Regression
      Based On Conditional Probabilities", 2021, arXiv 2111.08851).
    """
    return list(ENCODINGS)


def get_encoding(
    name: str | Encoding,
    question: str | None = None,
    heads: Sequence[Head] = (),
) -> Encoding:
    """Returns an encoding by name.

    Args:
        name: One of `list_encodings()`, or an `Encoding`, which is passed through.
        question: What the ordinal heads ask of group k: `"older"` (1 where the true
            group is above k; the default) or `"younger"` (1 where it is below). The
            report's ResNet half asks the first, its Caffe half the second. `None` for
            every other encoding.
        heads: Outputs of your own to append, as for `Encoding.with_heads`.

    Raises:
        ValueError: If there is no such encoding or question.

    Example:
    >>> get_encoding("ordinal", question="older").output_names[:3]
    ('gender', 'age1', 'age2')

    Source: the report for the nine-output ordinal encoding; Niu et al., "Ordinal
    Regression with Multiple Output CNN for Age Estimation", CVPR 2016, for the family.
    """
    if isinstance(name, Encoding):
        encoding = name
        if question is not None and question != encoding.question:
            raise ValueError(
                f"Invalid `question`. The encoding given asks {encoding.question!r}. "
                f"Received: question={question!r}."
            )
        return encoding.with_heads(heads) if heads else encoding
    if name not in ENCODINGS:
        close = difflib.get_close_matches(str(name), ENCODINGS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Invalid `encoding`. Expected one of {list_encodings()}. "
            f"Received: encoding={name!r}.{hint}"
        )
    if question is not None and (name != "ordinal" or question not in QUESTIONS):
        raise ValueError(
            f"Invalid `question`. Expected one of {QUESTIONS}, for the ordinal "
            f"encoding only. Received: question={question!r}, encoding={name!r}."
        )
    made = ENCODINGS[name](question) if question else ENCODINGS[name]()
    return made.with_heads(heads) if heads else made
