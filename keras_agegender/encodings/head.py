"""Heads: one output of a model, its options and its targets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_agegender.encodings.head_types import HEAD_TYPE_NAMES, HEAD_TYPES
from keras_agegender.files import RESERVED_NAMES_PATTERN, RESERVED_NAMES_TEXT
from keras_agegender.labels import GENDERS, MAX_AGE, MISSING, OLDEST_YEAR

RANK_DIRECTIONS = ("older", "younger")

# What TensorFlow takes as the name of an operation, less the slash of its scopes.
NAME = re.compile(RESERVED_NAMES_PATTERN + r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

# Behind a head's name, what exports call its answer: a class, or a number in its unit.
ANSWER = "_answer"

# Names that prepared datasets and exported models have for other things.
RESERVED_NAMES = (
    "boxes", "scores", "landmarks", "age_group", "age_group_probabilities", "age_years",
    "heads_agree", "gender_id", "male_probability", "median_age_group", "key", "path",
    "image", "subject", "album", "fold", "split", "source", "face_box", "face_score",
    "age_group_set", "gender_set",
    "face_status", "num_faces", "encoding", "loss", "counts",
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """One question to a model: what it predicts and how it is trained.

    Args:
        name: Name of the output layer (letters, digits, `_`, `.` and `-`), of the key
            in the model's output dict and of the prefix of its metrics (`gender` logs
            `val_gender_accuracy`). Outputs of an ordinal head are `<name>1` …
            `<name>n`.
        kind: A row of `HEAD_TYPES`:

            - `"binary"` (default): one sigmoid unit, binary cross-entropy.
            - `"categorical"`: softmax, sparse categorical cross-entropy.
            - `"regression"`: one linear unit, mean squared error of the standardized
              number; answers are in the column's own unit.
            - `"coral"`, `"corn"`: for ordered classes, `num_classes - 1` questions "is
              it above class k?", weights shared in `"coral"` (Cao et al. 2020, Shi et
              al. 2021).
            - `"ordinal"`: the same questions, a named output each (Niu et al. 2016).
            - `"years"`: softmax over the years 0 … `num_classes - 1`, trained towards a
              normal distribution about the true age, answered by its expectation
              (Rothe et al. 2018, Gao et al. 2018).
        num_classes: Classes of a head that chooses among some, at least 2. Binary and
            regression heads have 1. Defaults to 1, or 101 for years.
        loss_weight: Factor of this head's loss in the total, not negative; of each of
            its outputs, if there are several. Defaults to 1.0.
        column: Manifest column its target is read from; `None` (default) is `name`. Two
            columns make one class of every pair: `("gender", "age_group")`.
        classes: Names of the classes, by id. Defaults to none.
        question: What output k of an ordinal head asks: `"older"` (default; is the
            class above k?) or `"younger"` (is it below?).
        sigma: Standard deviation of the soft labels of a years head, in years. Defaults
            to 2.0.
        mean: What a regression head's numbers are reduced by, in the column's unit.
            Defaults to 0.0; `train` takes the training data's.
        scale: What they are divided by then. Defaults to 1.0.

    Raises:
        ValueError: If the name is reserved or cannot be a layer's, or kind, classes or
            numbers contradict each other.

    Example:
    >>> Head("glasses", column="Eyeglasses").output_names
    ('glasses',)
    >>> Head("size", "ordinal", 3).output_names
    ('size1', 'size2', 'size3')
    """

    name: str
    kind: str = "binary"
    num_classes: int = 0
    loss_weight: float = 1.0
    column: str | tuple[str, str] | None = None
    classes: tuple[str, ...] = ()
    question: str = "older"
    sigma: float = 2.0
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        self._check_name()
        if self.kind not in HEAD_TYPE_NAMES:
            raise ValueError(
                f"Invalid `kind` of head {self.name!r}. Expected one of {HEAD_TYPE_NAMES}. "
                f"Received: kind={self.kind!r}."
            )
        if isinstance(self.classes, str):
            raise ValueError(
                f"Invalid `classes` of head {self.name!r}. Expected a list of names. "
                f"Received: classes={self.classes!r}."
            )
        object.__setattr__(self, "classes", tuple(self.classes or ()))
        if isinstance(self.column, list):
            object.__setattr__(self, "column", tuple(self.column))
        if type(self.num_classes) is not int:
            raise ValueError(
                f"Invalid `num_classes` of head {self.name!r}. Expected an int. "
                f"Received: num_classes={self.num_classes!r}."
            )
        if not self.num_classes:
            default = OLDEST_YEAR + 1 if self.kind == "years" else 1
            if HEAD_TYPES[self.kind].classes and self.classes:
                default = len(self.classes)
            object.__setattr__(self, "num_classes", default)
        self._check_classes()
        self._check_columns()
        self._check_numbers()

    def _check_name(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ValueError(
                "Invalid head `name`. Expected at most 100 letters, digits, '_', '.' "
                f"and '-', the first a letter or digit, and {RESERVED_NAMES_TEXT}. Received: "
                f"name={self.name!r}."
            )
        if self.name in RESERVED_NAMES:
            raise ValueError(
                f"Invalid head `name`. {self.name!r} is reserved for what datasets and "
                f"exported models say by themselves. Reserved: {RESERVED_NAMES}."
            )

    def _check_classes(self) -> None:
        choosing = HEAD_TYPES[self.kind].classes
        if choosing != (self.num_classes >= 2) or self.num_classes < 1:
            raise ValueError(
                f"Invalid `num_classes` of head {self.name!r}. Expected at least 2 for "
                "a head of classes and 1 for any other. "
                f"Received: kind={self.kind!r}, num_classes={self.num_classes}."
            )
        expected = (0, max(self.num_classes, 2))
        if len(self.classes) not in (expected if self.kind != "regression" else (0,)):
            raise ValueError(
                f"Invalid `classes` of head {self.name!r}. Expected a name for each of "
                f"its {expected[1]} classes. Received: classes={self.classes}."
            )
        for name in self.classes:
            if not isinstance(name, str) or self.classes.count(name) > 1:
                raise ValueError(
                    f"Invalid `classes` of head {self.name!r}. Expected different "
                    f"names. Received: {name!r} in classes={self.classes}."
                )

    def _check_columns(self) -> None:
        """Raises ValueError for several columns that `class_ids` makes no class of."""
        if len(self.columns) == 1:
            return
        pair = len(self.columns) == 2 and self.columns[0] == "gender"
        whole = self.num_classes % len(GENDERS) == 0
        if not (pair and whole and self.kind == "categorical"):
            raise ValueError(
                f"Invalid `column` of head {self.name!r}. Expected one column, or "
                "('gender', another) of a categorical head with twice as many classes "
                f"as the other has. Received: column={self.column!r}, "
                f"kind={self.kind!r}, num_classes={self.num_classes}."
            )

    def _check_numbers(self) -> None:
        if not 0 <= self.loss_weight < math.inf:
            raise ValueError(
                f"Invalid `loss_weight` of head {self.name!r}. Expected a number that "
                f"is not negative. Received: loss_weight={self.loss_weight}."
            )
        if self.question not in RANK_DIRECTIONS:
            raise ValueError(
                f"Invalid `question` of head {self.name!r}. Expected one of "
                f"{RANK_DIRECTIONS}. Received: question={self.question!r}."
            )
        for name in ("sigma", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"Invalid `{name}` of head {self.name!r}. Expected a number above "
                    f"0. Received: {name}={getattr(self, name)}."
                )
        if not math.isfinite(self.mean):
            raise ValueError(
                f"Invalid `mean` of head {self.name!r}. Expected a finite number. "
                f"Received: mean={self.mean}."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The manifest columns the target is read from."""
        if isinstance(self.column, tuple):
            return self.column
        return (self.column or self.name,)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs that answer the question."""
        if not HEAD_TYPES[self.kind].several_outputs:
            return (self.name,)
        return tuple(f"{self.name}{k}" for k in range(1, self.num_classes + 1))

    def class_name(self, index: int) -> str:
        """Returns the name of a class, or its id as text where it has none."""
        if self.classes:
            return self.classes[index]
        return ("no", "yes")[index] if self.kind == "binary" else str(index)

    # -- targets -----------------------------------------------------------------------

    @property
    def target_table(self) -> np.ndarray | None:
        """Target of each class id, the last row NaN for `MISSING`; `None`: a number.

        Both `Encoding.encode` and the input pipeline look targets up here, so that they
        cannot differ. Shape (num_values + 1, …).
        """
        targets = HEAD_TYPES[self.kind].targets
        if targets is None:
            return None
        table = targets(self)
        return np.concatenate([table, np.full_like(table[:1], np.nan)])

    @property
    def num_values(self) -> int:
        """How many class ids the column may hold, or years of a years head."""
        return MAX_AGE + 1 if self.kind == "years" else max(self.num_classes, 2)

    def class_ids(self, values: Sequence[Any], cast: Callable[[Any], Any]) -> Any:
        """Returns class ids from the ids in the head's columns.

        Args:
            values: Ids of each of `columns`, -1 where unknown. Shape (batch,) each.
            cast: Turns a boolean array into ids, for NumPy and TensorFlow alike.
        """
        if len(values) == 1:
            return values[0]
        first, second = values
        pairs = first * (self.num_classes // len(GENDERS)) + second
        # 0 where either is unknown, less 1: MISSING.
        return (pairs + 1) * cast(first >= 0) * cast(second >= 0) - 1

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that differ from their defaults, as plain values."""
        plain: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for key, default in _DEFAULTS.items():
            value = getattr(self, key)
            if value != default:
                plain[key] = list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Head:
        """Returns the head that `to_dict` wrote."""
        values: dict[str, Any] = dict(fields)
        return cls(**values)  # lists become tuples there


_DEFAULTS: dict[str, Any] = {
    "num_classes": 1,
    "loss_weight": 1.0,
    "column": None,
    "classes": (),
    "question": "older",
    "sigma": 2.0,
    "mean": 0.0,
    "scale": 1.0,
}


def check_class_ids(
    head_name: str, column: str, values: Any, num_values: int
) -> np.ndarray:
    """Returns class ids as int64, `MISSING` for NaN.

    Raises:
        ValueError: If a value is not an id in [0, num_values).
    """
    numbers = np.atleast_1d(np.asarray(values, dtype="float64"))
    ids = np.where(np.isnan(numbers), MISSING, numbers)
    wrong = ~np.isin(ids, np.arange(MISSING, num_values))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Invalid `{column}` of head {head_name!r}. Expected a class id in "
            f"[0, {num_values}) or {MISSING} for unknown. Received: "
            f"{ids[first]:g} at position {first}."
        )
    return ids.astype("int64")


# Columns of every manifest, MISSING where unknown; heads of any other are "extra".
LABEL_COLUMNS = ("age_group", "gender", "age_years")


def head_targets(head: Head, columns: Sequence[Any]) -> np.ndarray:
    """Returns a head's targets, NaN where unknown.

    Args:
        head: The head.
        columns: Values of each of its columns, -1 or NaN where unknown. Shape (batch,).
    """
    table = head.target_table
    if table is None:
        values = known_numbers(head, columns[0])
        return (values - head.mean) / head.scale
    sizes = [head.num_values]
    if len(columns) > 1:
        sizes = [len(GENDERS), head.num_values // len(GENDERS)]
    if head.kind == "years":
        columns = [np.floor(np.asarray(columns[0], "float64"))]
    ids = [
        check_class_ids(head.name, name, values, size)
        for name, values, size in zip(head.columns, columns, sizes, strict=True)
    ]
    return table[head.class_ids(ids, lambda known: known.astype("int64"))]


def known_numbers(head: Head, values: Any) -> np.ndarray:
    """Returns the numbers that a regression head reads, NaN where unknown.

    Args:
        head: The head.
        values: What its column holds. Shape (batch,).
    """
    numbers = np.atleast_1d(np.asarray(values, dtype="float64"))
    if head.columns[0] not in LABEL_COLUMNS:
        return numbers  # -1 is a number like another
    return np.where(numbers == MISSING, np.nan, numbers)


def split_outputs(head: Head, targets: Any) -> dict[str, Any]:
    """Returns a head's targets by output name, shaped as losses take them.

    Args:
        head: The head.
        targets: NumPy array or tensor. Shape (batch,) or (batch, units).
    """
    if head.kind in ("categorical", "years"):
        return {head.name: targets}
    if HEAD_TYPES[head.kind].several_outputs:
        return {name: targets[:, k : k + 1] for k, name in enumerate(head.output_names)}
    return {head.name: targets[..., None]}


def known_targets(head: Head, known: Any) -> Any:
    """Returns which targets count: one entry per face, or per question asked of it."""
    # Units of these are known together, or none is.
    return known[:, 0] if head.kind in ("ordinal", "years") else known


def check_ids(ids: Any, num_classes: int, name: str) -> np.ndarray:
    """Returns ids as int64; raises ValueError where one is out of range."""
    ids = np.atleast_1d(np.asarray(ids))
    wrong = ~np.isin(ids, np.arange(MISSING, num_classes))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Invalid `{name}`. Expected ids in [0, {num_classes}) or {MISSING} for "
            f"unknown. Received: {ids[first]} at position {first}."
        )
    return ids.astype("int64")
