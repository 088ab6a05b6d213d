"""Encodings: which named outputs stand for an age group and a gender, and back.

In: age-group and gender ids of faces (-1 where unknown). Out: one target per named
output, what `model.compile` needs for them, and, from the trained model's outputs, the
answer in words everybody understands again (`Decoded`).

An encoding is data: a tuple of `Head`s, and for each head a table that holds its target
for every (age group, gender) pair. Nothing else in the library knows which encodings
exist.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD_KINDS = ("binary", "categorical", "regression", "coral", "corn")


# Kinds of heads that are of `num_classes`; the others have one unit.
CLASS_KINDS = ("categorical", "coral", "corn")


@dataclass(frozen=True)
class Head:
    """One named output of a model: what it predicts and how it is trained.

    Args:
        name: Name of the output layer, of the key in the model's output dict and of
            the prefix of its metrics (`gender` logs `val_gender_accuracy`).
        kind: `"binary"` (one sigmoid unit, binary cross-entropy), `"categorical"`
            (softmax, sparse categorical cross-entropy), `"regression"` (one linear
            unit, mean squared error), or, for ordered classes, `"coral"` and `"corn"`
            (`num_classes - 1` questions, binary cross-entropy, weights shared in
            `"coral"`).
        num_classes: Classes of a categorical, coral or corn head, at least 2. Binary
            and regression heads have 1. Defaults to 1.
        loss_weight: Factor of this head's loss in the total, not negative. Defaults
            to 1.0.
        column: Manifest column its target is read from. `None` (default) for the heads
            that an encoding computes from age group and gender.

    Raises:
        ValueError: If kind, number of classes or weight contradict each other.

    Example:
    >>> Head("glasses", column="Eyeglasses").num_classes
    1
    """

    name: str
    kind: str = "binary"
    num_classes: int = 1
    loss_weight: float = 1.0
    column: str | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(
                "Invalid head `name`. Expected a non-empty name without '/'. "
                f"Received: name={self.name!r}."
            )
        if self.kind not in HEAD_KINDS:
            raise ValueError(
                f"Invalid `kind` of head {self.name!r}. Expected one of {HEAD_KINDS}. "
                f"Received: kind={self.kind!r}."
            )
        fits = (
            self.num_classes >= 2
            if self.kind in CLASS_KINDS
            else (self.num_classes == 1)
        )
        if not fits:
            raise ValueError(
                f"Invalid `num_classes` of head {self.name!r}. Expected at least 2 for "
                "a head of classes and 1 for any other. "
                f"Received: kind={self.kind!r}, num_classes={self.num_classes}."
            )
        if not self.loss_weight >= 0:
            raise ValueError(
                f"Invalid `loss_weight` of head {self.name!r}. Expected a number that "
                f"is not negative. Received: loss_weight={self.loss_weight}."
            )
