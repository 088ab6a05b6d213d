"""Decoding: a model's outputs become age groups, genders and probabilities.

One function for each way of asking, in `keras.ops`, so that they run eagerly, in graphs
and on every backend. `encodings` says which encoding decodes by which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from keras_agegender.labels import AGE_GROUPS, GENDERS

NUM_GROUPS = len(AGE_GROUPS)
NUM_GENDERS = len(GENDERS)
ORDINAL_HEAD_NAMES = tuple(f"age{k}" for k in range(1, NUM_GROUPS + 1))

Outputs = Mapping[str, Any]


def decode_gender_head(outputs: Outputs, name: str = "gender") -> tuple[Any, Any]:
    """Takes male where its probability is above a half."""
    probability = ops.convert_to_tensor(outputs[name])[:, 0]
    return ops.cast(probability > 0.5, "int32"), probability


def decode_age_head(outputs: Outputs) -> tuple[Any, Any, Any]:
    """Takes the most probable class of an 8-way softmax."""
    probabilities = ops.convert_to_tensor(outputs["age"])
    group = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
    return group, probabilities, ops.ones_like(group, dtype="bool")


def _joint_probabilities(outputs: Outputs) -> tuple[Any, Any]:
    joint = ops.convert_to_tensor(outputs["gender_age"])
    best = ops.cast(ops.argmax(joint, axis=-1), "int32")
    return best, ops.reshape(joint, (-1, NUM_GENDERS, NUM_GROUPS))


def decode_age_joint(outputs: Outputs) -> tuple[Any, Any, Any]:
    """Takes the age group of the most probable of the 16 classes."""
    best, joint = _joint_probabilities(outputs)
    group = best % NUM_GROUPS
    return group, ops.sum(joint, axis=1), ops.ones_like(group, dtype="bool")


def decode_gender_joint(outputs: Outputs) -> tuple[Any, Any]:
    """Takes the gender of the most probable of the 16 classes."""
    best, joint = _joint_probabilities(outputs)
    return best // NUM_GROUPS, ops.sum(joint, axis=2)[:, GENDERS.index("male")]


def decode_age_ordinal(outputs: Outputs, question: str) -> tuple[Any, Any, Any]:
    """Counts heads, as Niu et al. 2016 do, and reads probabilities off their steps.

    With `at_least[k]` = P(group >= k), the probability of group k is at_least[k] -
    at_least[k + 1]. Independent heads need not decrease in k, so they are sorted first
    (Chernozhukov et al., "Quantile and Probability Curves Without Crossing", 2010).
    Sorting leaves the count as it is: the group is the median of the distribution.
    """
    heads = ops.concatenate(
        [ops.convert_to_tensor(outputs[n]) for n in ORDINAL_HEAD_NAMES], axis=-1
    )
    bits = ops.cast(heads > 0.5, "int32")
    position = ops.arange(NUM_GROUPS, dtype="int32")[None, :]
    # One head is constant: age8 when asking "older", age1 when asking "younger".
    if question == "older":  # head k = P(group > k) = at_least[k + 1]
        group = ops.sum(bits[:, :-1], axis=-1)
        expected = group[:, None] > position
        at_least = heads[:, :-1]
    else:  # head k = P(group < k) = 1 - at_least[k]
        group = NUM_GROUPS - 1 - ops.sum(bits[:, 1:], axis=-1)
        expected = group[:, None] < position
        at_least = 1.0 - heads[:, 1:]
    agree = ops.all(ops.equal(bits, ops.cast(expected, "int32")), axis=-1)
    return ops.cast(group, "int32"), _probabilities(at_least), agree


def decode_age_coral(outputs: Outputs) -> tuple[Any, Any, Any]:
    """Counts the ranks exceeded: unit k is P(group > k), k from 0 to 6."""
    exceeded = ops.convert_to_tensor(outputs["age"])[:, :, 0]
    return _decode_ranks(exceeded)


def decode_age_corn(outputs: Outputs) -> tuple[Any, Any, Any]:
    """Counts the ranks exceeded: unit k is P(group > k, given group > k - 1)."""
    conditional = ops.convert_to_tensor(outputs["age"])[:, :, 0]
    return _decode_ranks(ops.cumprod(conditional, axis=-1))


def _decode_ranks(exceeded: Any) -> tuple[Any, Any, Any]:
    bits = ops.cast(exceeded > 0.5, "int32")
    group = ops.sum(bits, axis=-1)
    position = ops.arange(NUM_GROUPS - 1, dtype="int32")[None, :]
    expected = ops.cast(group[:, None] > position, "int32")
    agree = ops.all(ops.equal(bits, expected), axis=-1)
    return ops.cast(group, "int32"), _probabilities(exceeded), agree


def _probabilities(at_least: Any) -> Any:
    """Returns the probability of each group from P(group >= k), k from 1 to 7."""
    falling = ops.flip(ops.sort(at_least, axis=-1), axis=-1)
    one = ops.ones_like(falling[:, :1])
    steps = ops.concatenate([one, falling, ops.zeros_like(one)], axis=-1)
    return steps[:, :-1] - steps[:, 1:]
