"""Kinds of heads: one table of what follows from each.

What a head puts out, what it is trained towards, by which loss and metric: everything
else in the library asks this table. How answers are read is in `decoding`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_agegender.labels import MAX_AGE

if TYPE_CHECKING:
    from keras_agegender.encodings.head import Head


@dataclass(frozen=True)
class HeadType:
    """A row of `HEAD_TYPES`: everything that follows from the kind of a head.

    Attributes:
        classes: Whether the head chooses among `num_classes` classes; else it has 1.
        activation: Keras activation of the output.
        loss: Name of its class in `keras.losses`.
        metric: Name of its class in `keras.metrics`, and what it is logged as.
        ordered: Whether the classes have an order, so that neighbors are near.
        ranks: Whether the units are questions "is the class above k?".
        several_outputs: Whether every unit is a named output of its own.
        targets: Head -> target of each class, NaN where a unit is not asked. Shape
            (num_values, …). `None` for kinds whose target is the number itself.
    """

    classes: bool
    activation: str
    loss: str
    metric: tuple[str, str]
    ordered: bool = False
    ranks: bool = False
    several_outputs: bool = False
    targets: Callable[[Head], np.ndarray] | None = None


def _identity_targets(head: Head) -> np.ndarray:
    return np.arange(max(head.num_classes, 2), dtype="float32")


def _coral_targets(head: Head) -> np.ndarray:
    """Unit k: is the class above k? All of them are always asked."""
    classes, ranks = np.ogrid[: head.num_classes, : head.num_classes - 1]
    return (classes > ranks).astype("float32")


def _corn_targets(head: Head) -> np.ndarray:
    """Unit k asks the same, but only of faces whose class is above k - 1."""
    classes, ranks = np.ogrid[: head.num_classes, : head.num_classes - 1]
    return np.where(classes >= ranks, classes > ranks, np.nan).astype("float32")


def _ordinal_targets(head: Head) -> np.ndarray:
    """Output k: is the class above (or below) class k? The report has all of them."""
    classes, ranks = np.ogrid[: head.num_classes, : head.num_classes]
    above = classes > ranks if head.question != "younger" else classes < ranks
    return above.astype("float32")


def _years_targets(head: Head) -> np.ndarray:
    """A normal distribution about the year, as Gao et al. 2018 have it."""
    truth, years = np.ogrid[: MAX_AGE + 1, : head.num_classes]
    truth = np.minimum(truth, head.num_classes - 1)  # older than the oldest year
    density = np.exp(-((years - truth) ** 2) / (2.0 * head.sigma**2))
    return (density / density.sum(axis=1, keepdims=True)).astype("float32")


HEAD_TYPES: dict[str, HeadType] = {
    "binary": HeadType(
        classes=False,
        activation="sigmoid",
        loss="BinaryCrossentropy",
        metric=("BinaryAccuracy", "accuracy"),
        targets=_identity_targets,
    ),
    "categorical": HeadType(
        classes=True,
        activation="softmax",
        loss="SparseCategoricalCrossentropy",
        metric=("SparseCategoricalAccuracy", "accuracy"),
        targets=_identity_targets,
    ),
    "regression": HeadType(
        classes=False,
        activation="linear",
        loss="MeanSquaredError",
        metric=("MeanAbsoluteError", "mae"),
        ordered=True,
    ),
    # Over the units too, as both papers do: an output of shape (n, 1) has a loss and a
    # weight for each of its n questions.
    "coral": HeadType(
        classes=True,
        activation="sigmoid",
        loss="BinaryCrossentropy",
        metric=("BinaryAccuracy", "accuracy"),
        ordered=True,
        ranks=True,
        targets=_coral_targets,
    ),
    "corn": HeadType(
        classes=True,
        activation="sigmoid",
        loss="BinaryCrossentropy",
        metric=("BinaryAccuracy", "accuracy"),
        ordered=True,
        ranks=True,
        targets=_corn_targets,
    ),
    "ordinal": HeadType(
        classes=True,
        activation="sigmoid",
        loss="BinaryCrossentropy",
        metric=("BinaryAccuracy", "accuracy"),
        ordered=True,
        ranks=True,
        several_outputs=True,
        targets=_ordinal_targets,
    ),
    "years": HeadType(
        classes=True,
        activation="softmax",
        loss="CategoricalCrossentropy",
        metric=("CategoricalAccuracy", "accuracy"),
        ordered=True,
        targets=_years_targets,
    ),
}
HEAD_TYPE_NAMES = tuple(HEAD_TYPES)
