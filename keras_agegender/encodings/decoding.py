"""Decoding: a model's outputs become classes, numbers and probabilities.

Class probabilities of every kind of head, in `keras.ops`, so that they run eagerly, in
graphs and on every backend. One rule for all: the answer is the most probable class, by
the very probabilities that are returned with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_agegender.encodings.head import Head
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.labels import GENDERS, AgeGroups

Outputs = Mapping[str, Any]


class Decoded(NamedTuple):
    """What a batch of model outputs says, whatever the encoding.

    A field is `None` where the encoding does not answer that question.

    Attributes:
        age_group: Id of the most probable age group. Shape (batch,), int32.
        age_probabilities: Probability of each age group; rows sum to 1. Shape
            (batch, num_groups).
        gender: Gender id, 0 female, 1 male: male where its probability is above a half.
            Shape (batch,), int32.
        gender_probability: Probability of male. Shape (batch,).
        heads_agree: Whether the age outputs tell one story: for questions about ranks,
            whether their thresholded answers are those of one age group. Always true of
            other kinds. Shape (batch,), bool.
        age_years: Expected age in years: of a years head its expectation, of age groups
            that of their centers. Shape (batch,).
        median_age_group: Id of the group at which half of the probability is reached:
            for questions about ranks, how many of them are answered yes. Shape
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
    """What one head says.

    Attributes:
        values: Most probable class ids, int32, or numbers: of a regression head in the
            column's unit, of a years head in years. Shape (batch,).
        probabilities: Probability of each class; rows sum to 1. `None` of regression
            heads. Shape (batch, num_classes).
    """

    values: Any
    probabilities: Any


def answer_head(head: Head, outputs: Outputs) -> HeadPrediction:
    """Returns what a head says.

    Args:
        head: The head.
        outputs: Output name -> predictions. Shape (batch, units) each.
    """
    if head.kind == "regression":
        raw = _output(outputs, head.name)[:, 0]
        return HeadPrediction(raw * head.scale + head.mean, None)
    probabilities = class_probabilities(head, outputs)
    if head.kind == "years":
        return HeadPrediction(_expectation(probabilities), probabilities)
    return HeadPrediction(most_probable(probabilities), probabilities)


def class_probabilities(head: Head, outputs: Outputs) -> Any:
    """Returns the probability of each class. Shape (batch, num_classes or 2)."""
    if HEAD_TYPES[head.kind].ranks:
        return _steps(_at_least(head, outputs))
    values = _output(outputs, head.name)
    if head.kind == "binary":
        return ops.concatenate([1.0 - values, values], axis=-1)
    return values


def decode(
    outputs: Outputs,
    age_head: Head | None,
    gender_head: Head | None,
    age_groups: AgeGroups,
) -> Decoded:
    """Returns what the outputs say of age and gender; see `Encoding.decode`."""
    decoded = Decoded()
    if gender_head is not None:
        male = _gender_probabilities(gender_head, outputs)[:, GENDERS.index("male")]
        # A tie is female, as where one sigmoid unit is at a half.
        decoded = decoded._replace(
            gender=ops.cast(male > 0.5, "int32"), gender_probability=male
        )
    if age_head is None:
        return decoded
    probabilities = _age_probabilities(age_head, outputs, age_groups)
    group = most_probable(probabilities)
    if HEAD_TYPES[age_head.kind].ranks:
        median, agree = count_ranks(age_head, outputs)
    else:
        median, agree = _median(probabilities), ops.ones_like(group, dtype="bool")
    if age_head.kind == "years":
        years = _expectation(class_probabilities(age_head, outputs))
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


def _output(outputs: Outputs, name: str) -> Any:
    """Returns an output as float32: numbers typed in by hand may be whole."""
    return ops.cast(ops.convert_to_tensor(outputs[name]), "float32")


def _gender_probabilities(head: Head, outputs: Outputs) -> Any:
    probabilities = class_probabilities(head, outputs)
    if len(head.columns) == 1:
        return probabilities
    return ops.sum(_pairs(head, probabilities), axis=2)


def _age_probabilities(head: Head, outputs: Outputs, age_groups: AgeGroups) -> Any:
    probabilities = class_probabilities(head, outputs)
    if len(head.columns) > 1:
        return ops.sum(_pairs(head, probabilities), axis=1)
    if head.kind != "years":
        return probabilities
    # Years in a gap between two groups count for the nearer one: all sum to 1.
    belongs = np.zeros((head.num_classes, len(age_groups)), "float32")
    for year in range(head.num_classes):
        belongs[year, age_groups.from_years(year, gaps="nearest")] = 1.0
    return ops.matmul(probabilities, belongs)


def _pairs(head: Head, probabilities: Any) -> Any:
    """Reshapes gender × age group: (batch, num_genders, num_groups)."""
    return ops.reshape(
        probabilities, (-1, len(GENDERS), head.num_classes // len(GENDERS))
    )


def _at_least(head: Head, outputs: Outputs) -> Any:
    """Returns P(class >= k) for k from 1 on, as it is answered, perhaps not falling."""
    if head.kind == "ordinal":
        columns = [_output(outputs, name) for name in head.output_names]
        answers = ops.concatenate(columns, axis=-1)
        # One output is constant: the last of "older", the first of "younger".
        if head.question == "older":
            return answers[:, :-1]
        return 1.0 - answers[:, 1:]
    answers = _output(outputs, head.name)[:, :, 0]
    if head.kind == "corn":  # P(class > k, given class > k - 1)
        return ops.cumprod(answers, axis=-1)
    return answers


def _steps(at_least: Any) -> Any:
    """Returns the probability of each class from P(class >= k).

    It is at_least[k] - at_least[k + 1]. Independent questions need not decrease in k,
    so they are sorted first (Chernozhukov et al., "Quantile and Probability Curves
    Without Crossing", 2010). Sorting leaves their count as it is.
    """
    falling = ops.flip(ops.sort(at_least, axis=-1), axis=-1)
    one = ops.ones_like(falling[:, :1])
    steps = ops.concatenate([one, falling, ops.zeros_like(one)], axis=-1)
    return steps[:, :-1] - steps[:, 1:]


def count_ranks(head: Head, outputs: Outputs) -> tuple[Any, Any]:
    """Counts the questions answered yes, as Niu et al. 2016 do.

    Args:
        head: A head whose kind asks questions about ranks.
        outputs: Output name -> predictions. Shape (batch, units) each.

    Returns:
        The count, which is the median of the probabilities, and whether all answers,
        those of constant outputs included, are those of that class.
    """
    at_least = _at_least(head, outputs)
    younger = head.kind == "ordinal" and head.question == "younger"
    # "Not below" at exactly a half: the output itself is not above it.
    bits = ops.cast(at_least >= 0.5 if younger else at_least > 0.5, "int32")
    count = ops.cast(ops.sum(bits, axis=-1), "int32")
    position = ops.arange(head.num_classes - 1, dtype="int32")[None, :]
    expected = ops.cast(count[:, None] > position, "int32")
    agree = ops.all(ops.equal(bits, expected), axis=-1)
    if head.kind == "ordinal":
        constant = head.output_names[0 if younger else -1]
        never = _output(outputs, constant)[:, 0] <= 0.5
        agree = ops.logical_and(agree, never)
    return count, agree


def most_probable(probabilities: Any) -> Any:
    """Returns the id of the most probable class, of equal ones the first; int32.

    `ops.argmax` tells -0 from 0 by its bits, which ONNX has no operation for.
    """
    best = ops.max(probabilities, axis=-1, keepdims=True)
    num_classes = probabilities.shape[-1]
    ids = ops.arange(num_classes, dtype="int32")
    return ops.min(ops.where(probabilities >= best, ids, num_classes - 1), axis=-1)


def _median(probabilities: Any) -> Any:
    below = ops.cumsum(probabilities, axis=-1)
    # The last is left out: rounding may keep it from reaching a half.
    reached = ops.cast(below[:, :-1] < 0.5, "int32")
    return ops.cast(ops.sum(reached, axis=-1), "int32")


def _expectation(probabilities: Any) -> Any:
    years = np.arange(probabilities.shape[-1], dtype="float32")
    return ops.sum(probabilities * years, axis=-1)
