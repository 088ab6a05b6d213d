"""Encodings by name: the heads for age and gender.

A new encoding is a row of `ENCODINGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import LABEL_COLUMNS, RANK_DIRECTIONS, Head
from keras_agegender.errors import did_you_mean
from keras_agegender.labels import CELEBA_ATTRIBUTES, AgeGroups, get_age_groups

GENDER = Head("gender")

# Name -> heads for a number of age groups.
ENCODINGS: dict[str, Callable[[int], tuple[Head, ...]]] = {
    "gender": lambda groups: (GENDER,),
    "joint": lambda groups: (
        Head("gender_age", "categorical", 2 * groups, column=("gender", "age_group")),
    ),
    "categorical": lambda groups: (
        GENDER,
        Head("age", "categorical", groups, column="age_group"),
    ),
    "ordinal": lambda groups: (
        GENDER,
        Head("age", "ordinal", groups, column="age_group"),
    ),
    "attributes": lambda groups: tuple(Head(name) for name in CELEBA_ATTRIBUTES),
    # CORAL sums over units what Keras averages: the weight compensates for it.
    "coral": lambda groups: (
        GENDER,
        Head("age", "coral", groups, column="age_group", loss_weight=groups - 1.0),
    ),
    "corn": lambda groups: (GENDER, Head("age", "corn", groups, column="age_group")),
    "years": lambda groups: (GENDER, Head("age", "years", column="age_years")),
}


def list_encodings() -> list[str]:
    """Returns the names that `get_encoding` and `build_model` take.

    - `gender`: one output, the probability of male.
    - `joint`: one softmax over pairs, `gender * num_groups + age_group`.
    - `categorical`: `gender` and a softmax `age` over the age groups.
    - `ordinal`: `gender` and `age1` … `age8`, a binary output for each group.
    - `attributes`: the 40 attributes of CelebA, one binary output each.
    - `coral`: `gender` and `age` with seven units that predict whether the group is
      above k; they share their weights and differ in a threshold (Cao et al., "Rank
      consistent ordinal regression for neural networks", 2020, arXiv 1901.07884).
    - `corn`: the same, each unit conditional on the one before it (Shi et al., "Deep
      Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
      Probabilities", 2021, arXiv 2111.08851).
    - `years`: `gender` and a softmax `age` over the years 0 … 100, trained on soft
      labels of the column `age_years` and decoded by its expectation, and to age groups
      (Rothe et al., "Deep expectation of real and apparent age from a single image",
      IJCV 2018; Gao et al., "Age estimation using expectation of label distribution
      learning", IJCAI 2018).
    """
    return list(ENCODINGS)


def get_encoding(
    name: str | Encoding,
    question: str | None = None,
    heads: Sequence[Head] = (),
    age_groups: AgeGroups | str | Sequence[tuple[int, int]] | None = None,
) -> Encoding:
    """Returns an encoding by name.

    Args:
        name: One of `list_encodings()`, or an `Encoding`, which is returned with
            `heads`.
        question: What ordinal output k predicts: `"older"` (1 if the true group is
            above k; the default) or `"younger"` (1 if it is below). The ResNets of the
            report use the first, its Caffe networks the second. `None` for every other
            encoding.
        heads: Your own heads to append, as in `Encoding.with_heads`.
        age_groups: The age groups of age-group ids, as in `get_age_groups`: the name of
            a preset, bounds, or an `AgeGroups`. `None` (default) is Adience's eight, or
            those of the given `Encoding`.

    Raises:
        ValueError: If there is no such encoding, question or preset of age groups.

    Example:
    >>> get_encoding("ordinal", question="older").output_names[:3]
    ('gender', 'age1', 'age2')
    >>> get_encoding("categorical", age_groups="decades").heads[1].num_classes
    10

    Source: the report for the nine-output ordinal encoding; Niu et al., "Ordinal
    Regression with Multiple Output CNN for Age Estimation", CVPR 2016, for the family.
    """
    if isinstance(name, Encoding):
        return _given(name, question, age_groups).with_heads(heads)
    if name not in ENCODINGS:
        hint = did_you_mean(name, ENCODINGS)
        raise ValueError(
            f"Invalid `encoding`. Expected one of {list_encodings()}. "
            f"Received: encoding={name!r}.{hint}"
        )
    if question is not None and not (
        has_rank_direction(name) and question in RANK_DIRECTIONS
    ):
        raise ValueError(
            f"Invalid `question`. Expected one of {RANK_DIRECTIONS}, for the ordinal "
            f"encoding only. Received: question={question!r}, encoding={name!r}."
        )
    groups = get_age_groups(age_groups)
    own = ENCODINGS[name](len(groups))
    if question is not None:
        own = tuple(
            replace(head, question=question) if head.spec.has_direction else head
            for head in own
        )
    return Encoding(name, (*own, *heads), groups)


def has_rank_direction(name: Any) -> bool:
    """Returns whether `question` applies to the encoding of that name."""
    heads = ENCODINGS[name](2) if name in list(ENCODINGS) else ()
    return any(head.spec.has_direction for head in heads)


def predicts_age(name: str) -> bool:
    """Returns whether the encoding of that name has a head for age."""
    return get_encoding(name).age_head is not None


def is_encoding_output(name: str) -> bool:
    """Returns whether an encoding has an output of that name for age or gender."""
    heads = {head for make in ENCODINGS.values() for head in make(2)}
    return any(
        name == head.name
        or head.spec.several_outputs
        and name.startswith(head.name)
        and name.removeprefix(head.name).isdecimal()
        for head in heads
        if set(head.columns) <= set(LABEL_COLUMNS)
    )


def _given(
    encoding: Encoding,
    question: str | None,
    age_groups: AgeGroups | str | Sequence[tuple[int, int]] | None,
) -> Encoding:
    """Returns the given encoding after checking that the other arguments match it."""
    if question is not None and question != encoding.question:
        raise ValueError(
            f"Invalid `question`. The given encoding has {encoding.question!r}. "
            f"Received: question={question!r}."
        )
    if age_groups is not None and get_age_groups(age_groups) != encoding.age_groups:
        raise ValueError(
            f"Invalid `age_groups`. The given encoding has {encoding.age_groups}. "
            f"Received: {get_age_groups(age_groups)}."
        )
    return encoding
