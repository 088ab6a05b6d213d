"""Answers beside the truth: what every metric is computed from.

The same tuple holds NumPy arrays, for `array_metrics`, and backend tensors, for
`keras_metrics`; `read_answers` makes the latter from targets and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_agegender.encodings.decoding import answer_head, count_ranks, decode
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.kinds import KINDS
from keras_agegender.labels import GENDERS, MISSING

# Kinds whose answers are numbers, not classes.
NUMBERS = ("regression", "years")


class Answers(NamedTuple):
    """The answers to one question, and the truth.

    Attributes:
        truth: True class ids, or years. Shape (num_faces,).
        answer: Answered class ids, or years. Shape (num_faces,).
        num_classes: Classes there are; 0 of years.
        probabilities: Probability of each class. Shape (num_faces, num_classes).
        positive: Class id that precision, recall, f1 and AUC are about.
        agree: Whether the questions about ranks are answered as of one class. Shape
            (num_faces,).
        median: Class id that counting them gives. Shape (num_faces,).
        weights: What each face counts, 0 without a label; `None` of arrays, which hold
            labelled faces only. Shape (num_faces,).
    """

    truth: Any
    answer: Any
    num_classes: int = 0
    probabilities: Any = None
    positive: int = 1
    agree: Any = None
    median: Any = None
    weights: Any = None


def find_head(encoding: Encoding, column: str) -> Head:
    """Returns the head that answers for a column.

    Args:
        encoding: An encoding.
        column: `"age_group"`, `"gender"`, `"age_years"` of an encoding with a years
            head, or the column of a further head that chooses among classes.

    Raises:
        ValueError: If there is none.
    """
    heads = {h.columns[0]: h for h in encoding.extra_heads if h.kind not in NUMBERS}
    if encoding.gender_head is not None:
        heads["gender"] = encoding.gender_head
    if encoding.age_head is not None:
        heads["age_group"] = encoding.age_head
        if encoding.age_head.kind == "years":
            heads["age_years"] = encoding.age_head
    if column not in heads:
        raise ValueError(
            f"Invalid `column`. Expected one of {sorted(heads)}, which the heads of "
            f"encoding {encoding.name!r} answer with classes. Received: "
            f"column={column!r}."
        )
    return heads[column]


def read_answers(
    encoding: Encoding,
    column: str,
    targets: Mapping[str, Any],
    outputs: Mapping[str, Any],
    weights: Any = None,
) -> Answers:
    """Returns a head's targets and outputs as truth and answers, in `keras.ops`.

    Args:
        encoding: What encoded the targets.
        column: As for `find_head`.
        targets: Output name -> target, as `Encoding.encode` gives it.
        outputs: Output name -> predictions. Shape (batch, units) each.
        weights: What each face counts. Shape (batch, …); `None` (default) is 1 for all.
    """
    head = find_head(encoding, column)
    truth = _true_classes(head, targets)
    if weights is None:
        weights = ops.ones_like(truth, dtype="float32")
    else:  # the first question of several is asked of every face with a label
        weights = ops.cast(ops.convert_to_tensor(weights), "float32")
        while len(weights.shape) > 1:
            weights = weights[:, 0]
    groups = encoding.age_groups
    if column == "gender":
        truth = truth // (head.num_classes // 2) if len(head.columns) > 1 else truth
        decoded = decode(outputs, None, head, groups)
        male = decoded.gender_probability
        probabilities = ops.stack([1.0 - male, male], axis=-1)
        answer = decoded.gender
    elif column in ("age_group", "age_years"):
        decoded = decode(outputs, head, None, groups)
        if column == "age_years":
            truth = ops.cast(truth, "float32")
            return Answers(truth, decoded.age_years, weights=weights)
        if head.kind == "years":
            years = range(head.num_classes)
            of_year = np.array([groups.from_years(y) for y in years], "int32")
            truth = ops.take(ops.convert_to_tensor(of_year), truth, axis=0)
            # A year between two groups has none: it does not count.
            weights = weights * ops.cast(truth != MISSING, "float32")
            truth = ops.maximum(truth, 0)
        elif len(head.columns) > 1:
            truth = truth % (head.num_classes // len(GENDERS))
        answer, probabilities = decoded.age_group, decoded.age_probabilities
    else:
        answer, probabilities = answer_head(head, outputs)
    median = agree = None
    if KINDS[head.kind].ranks:
        median, agree = count_ranks(head, outputs)
    return Answers(
        truth,
        answer,
        int(probabilities.shape[-1]),
        probabilities,
        agree=agree,
        median=median,
        weights=weights,
    )


def _true_classes(head: Head, targets: Mapping[str, Any]) -> Any:
    """Returns the class, or year, that targets stand for. Shape (batch,), int32."""
    given = [ops.convert_to_tensor(targets[name]) for name in head.output_names]
    if head.kind == "years":  # a normal distribution about the year
        return ops.cast(ops.argmax(given[0], axis=-1), "int32")
    if not KINDS[head.kind].ranks:
        return ops.cast(ops.reshape(given[0], (-1,)), "int32")
    columns = [t[:, :, 0] if len(t.shape) > 2 else t for t in given]
    bits = ops.cast(ops.concatenate(columns, axis=-1) > 0.5, "int32")
    yes = ops.cast(ops.sum(bits, axis=-1), "int32")
    younger = head.kind == "ordinal" and head.question == "younger"
    return head.num_classes - 1 - yes if younger else yes
