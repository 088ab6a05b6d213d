"""Decoding: from model outputs to classes, numbers and probabilities.

All of it uses `keras.ops`, so that it runs eagerly, in graphs and on every backend. The
predicted class is always the most probable one of the probabilities returned with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_agegender.encodings.head import Head
from keras_agegender.encodings.head_types import Outputs, Ranks, read_output
from keras_agegender.labels import GENDERS, AgeGroups


class Decoded(NamedTuple):
    """Age and gender of a batch, decoded from the outputs of any encoding.

    A field is `None` if the encoding does not predict it.

    Attributes:
        age_group: Id of the most probable age group. Shape (batch,), int32.
        age_probabilities: Probability of each age group; rows sum to 1. Shape
            (batch, num_groups).
        gender: Gender id, 0 female, 1 male. Shape (batch,), int32.
        gender_probability: Probability of male. Shape (batch,).
        heads_agree: Whether the thresholded outputs of ordinal, coral and corn heads
            are consistent. Always true for other head types. Shape (batch,), bool.
        age_years: Expected age in years, of age groups by their centers. Shape
            (batch,).
        median_age_group: Id of the group that reaches half of the probability; for
            ordinal, coral and corn heads the number of ranks below the age. Shape
            (batch,), int32.
    """

    age_group: Any = None
    age_probabilities: Any = None
    gender: Any = None
    gender_probability: Any = None
    heads_agree: Any = None
    age_years: Any = None
    median_age_group: Any = None


class HeadPrediction(NamedTuple):
    """The decoded prediction of one head.

    Attributes:
        values: Most probable class ids, int32, or numbers in the unit of the column, in
            years for a years head. Shape (batch,).
        probabilities: Probability of each class; rows sum to 1. `None` for regression
            heads. Shape (batch, num_classes).
    """

    values: Any
    probabilities: Any


def decode_head(head: Head, outputs: Outputs) -> HeadPrediction:
    """Returns the prediction of a head; see `Encoding.decode_head`."""
    if head.spec.continuous:
        raw = read_output(outputs, head.name)[:, 0]
        return HeadPrediction(raw * head.scale + head.mean, None)
    probabilities = head.spec.probabilities(head, outputs)
    if head.spec.is_number:
        return HeadPrediction(_expectation(probabilities), probabilities)
    return HeadPrediction(most_probable(probabilities), probabilities)


def decode(
    outputs: Outputs,
    age_head: Head | None,
    gender_head: Head | None,
    age_groups: AgeGroups,
) -> Decoded:
    """Returns age and gender; see `Encoding.decode`."""
    decoded = Decoded()
    if gender_head is not None:
        male = _gender_probabilities(gender_head, outputs)[:, GENDERS.index("male")]
        # A tie is female, as for a sigmoid unit at 0.5.
        decoded = decoded._replace(
            gender=ops.cast(male > 0.5, "int32"), gender_probability=male
        )
    if age_head is None:
        return decoded
    probabilities = _age_probabilities(age_head, outputs, age_groups)
    group = most_probable(probabilities)
    if isinstance(age_head.spec, Ranks):
        median, agree = age_head.spec.count_ranks(age_head, outputs)
    else:
        median, agree = _median(probabilities), ops.ones_like(group, dtype="bool")
    if age_head.spec.in_years:
        years = _expectation(age_head.spec.probabilities(age_head, outputs))
    else:
        centers = np.asarray(age_groups.centers, "float32")
        years = ops.sum(probabilities * centers, axis=-1)
    return decoded._replace(
        age_group=group,
        age_probabilities=probabilities,
        heads_agree=agree,
        age_years=years,
        median_age_group=median,
    )


def _gender_probabilities(head: Head, outputs: Outputs) -> Any:
    probabilities = head.spec.probabilities(head, outputs)
    if len(head.columns) == 1:
        return probabilities
    return ops.sum(_pairs(head, probabilities), axis=2)


def _age_probabilities(head: Head, outputs: Outputs, age_groups: AgeGroups) -> Any:
    probabilities = head.spec.probabilities(head, outputs)
    if len(head.columns) > 1:
        return ops.sum(_pairs(head, probabilities), axis=1)
    if not head.spec.in_years:
        return probabilities
    # Years between two groups count for the nearer one, so that rows sum to 1.
    belongs = np.zeros((head.num_classes, len(age_groups)), "float32")
    for year in range(head.num_classes):
        belongs[year, age_groups.from_years(year, unmapped_ages="nearest")] = 1.0
    return ops.matmul(probabilities, belongs)


def _pairs(head: Head, probabilities: Any) -> Any:
    """Reshapes gender × age group: (batch, num_genders, num_groups)."""
    return ops.reshape(
        probabilities, (-1, len(GENDERS), head.num_classes // len(GENDERS))
    )


def most_probable(probabilities: Any) -> Any:
    """Returns the id of the most probable class, the first one of a tie; int32."""
    # `ops.argmax` distinguishes -0 from 0 by its bits, which ONNX cannot do.
    best = ops.max(probabilities, axis=-1, keepdims=True)
    num_classes = probabilities.shape[-1]
    ids = ops.arange(num_classes, dtype="int32")
    return ops.min(ops.where(probabilities >= best, ids, num_classes - 1), axis=-1)


def _median(probabilities: Any) -> Any:
    below = ops.cumsum(probabilities, axis=-1)
    # Without the last one, which rounding may keep below a half.
    reached = ops.cast(below[:, :-1] < 0.5, "int32")
    return ops.cast(ops.sum(reached, axis=-1), "int32")


def _expectation(probabilities: Any) -> Any:
    years = np.arange(probabilities.shape[-1], dtype="float32")
    return ops.sum(probabilities * years, axis=-1)
