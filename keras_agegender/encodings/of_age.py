"""Of age, or not: the probability of an age of at least 18, and the check of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.labels import MAX_AGE

ADULT = 18


@dataclass(frozen=True)
class AgeCheck:
    """Checks an estimated age, as for the sale of restricted goods ("Challenge 25").

    A face passes if its expected age is at least the threshold. A threshold above the
    age lets fewer minors pass and refuses more young adults, who then show a document:
    `Evaluation.of_age` has both shares.

    Args:
        age: The age that is required, in years. Defaults to 18.
        threshold: The age that a face must look, in years; `None` (default) is `age`.

    Raises:
        ValueError: If `threshold` is below `age`, or one is out of range.

    Example:
    >>> AgeCheck(18, threshold=25).passes(23.4)
    False
    """

    age: int = ADULT
    threshold: float | None = None

    def __post_init__(self) -> None:
        required = self.required
        if not 1 <= self.age <= required <= MAX_AGE:
            raise ValueError(
                "Invalid `age` or `threshold` (--at-least, --threshold). Expected 1 <= "
                f"age <= threshold <= {MAX_AGE}. Received: age={self.age}, "
                f"threshold={self.threshold}."
            )

    @property
    def required(self) -> float:
        """The threshold, or the age without one."""
        return self.age if self.threshold is None else self.threshold

    def passes(self, expected_age: float) -> bool:
        """Returns whether a face of this expected age passes."""
        return expected_age >= self.required


def at_least_probability(
    encoding: Encoding,
    outputs: Mapping[str, Any],
    age: int = ADULT,
    age_probabilities: Any = None,
) -> np.ndarray | None:
    """Returns P(age >= `age`); `None` if the model does not distinguish that age.

    A years head does. Age groups do if none of them contains ages on both sides.
    """
    head = encoding.age_head
    if head is None:
        return None
    if head.spec.in_years:
        return _sum(np.asarray(outputs[head.name])[..., age:])
    if age_probabilities is None:
        return None
    bounds = encoding.age_groups.bounds
    if any(low < age <= high for low, high in bounds):
        return None
    members = [low >= age for low, _ in bounds]
    return _sum(np.asarray(age_probabilities)[..., members])


def _sum(values: np.ndarray) -> np.ndarray:
    return np.clip(values.sum(axis=-1, dtype="float64"), 0.0, 1.0)
