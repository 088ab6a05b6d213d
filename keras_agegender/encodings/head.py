"""Heads: one output of a model, its options and its targets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from keras_agegender.encodings.head_types import HEAD_TYPES, LAYER_PART, HeadType
from keras_agegender.files import RESERVED_NAMES_PATTERN, RESERVED_NAMES_TEXT
from keras_agegender.labels import GENDERS, MISSING

RANK_DIRECTIONS = ("older", "younger")

# What TensorFlow accepts as the name of an operation, without the slash of scopes.
NAME = re.compile(RESERVED_NAMES_PATTERN + r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

# Suffix of the decoded prediction in exports: a class, or a number in its unit.
ANSWER = "_answer"

# Names with another meaning in prepared datasets and exported models.
RESERVED_NAMES = (
    "boxes", "scores", "landmarks", "age_group", "age_group_probabilities", "age_years",
    "heads_agree", "gender_id", "male_probability", "median_age_group", "key", "path",
    "image", "subject", "album", "fold", "split", "source", "face_box", "face_score",
    "age_group_set", "gender_set", "face_status", "num_faces", "encoding", "loss",
    "counts", "face_left", "face_top", "face_right", "face_bottom",
)  # fmt: skip

# Columns of every manifest, MISSING where unknown; heads of any other are "extra".
LABEL_COLUMNS = ("age_group", "gender", "age_years")


@dataclass(frozen=True)
class Head:
    """One output of a model: what it predicts and how it is trained.

    Args:
        name: Name of the output layer (letters, digits, `_`, `.` and `-`), of the key
            in the model's output dict and of the prefix of its metrics (`gender` logs
            `val_gender_accuracy`). Outputs of an ordinal head are `<name>1` …
            `<name>n`.
        head_type: A row of `HEAD_TYPES`:

            - `"binary"` (default): one sigmoid unit, binary cross-entropy.
            - `"categorical"`: softmax, sparse categorical cross-entropy.
            - `"regression"`: one linear unit, mean squared error of the standardized
              number; predictions are in the unit of the column.
            - `"coral"`, `"corn"`: for ordered classes, `num_classes - 1` units that
              predict whether the class is above k, with shared weights in `"coral"`
              (Cao et al. 2020, Shi et al. 2021).
            - `"ordinal"`: the same with a named output for each class (Niu et al.
              2016).
            - `"years"`: softmax over the years 0 … `num_classes - 1`, trained on a
              normal distribution about the true age, decoded by its expectation
              (Rothe et al. 2018, Gao et al. 2018).
        num_classes: Number of classes, at least 2. Binary and regression heads have 1.
            Defaults to 1, or 101 for years.
        loss_weight: Non-negative factor of the loss of each of its outputs. Defaults to
            1.0.
        column: Manifest column of its target; `None` (default) is `name`. Two columns
            make one class of every pair: `("gender", "age_group")`.
        classes: Names of the classes, by id. Defaults to no names.
        question: What output k of an ordinal head predicts: `"older"` (default; is the
            class above k?) or `"younger"` (is it below?).
        sigma: Standard deviation of the soft labels of a years head, in years. Defaults
            to 2.0.
        mean: Subtracted from the numbers of a regression head, in the unit of the
            column. Defaults to 0.0; `train` uses the mean of the training data.
        scale: Divisor of these numbers after that. Defaults to 1.0.

    Raises:
        ValueError: If the name is reserved or not a valid layer name, or if head type,
            classes or numbers are inconsistent.

    Example:
    >>> Head("glasses", column="Eyeglasses").output_names
    ('glasses',)
    >>> Head("size", "ordinal", 3).output_names
    ('size1', 'size2', 'size3')
    """

    name: str
    head_type: str = "binary"
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
        # A list from a file is not hashable.
        known = isinstance(self.head_type, str) and self.head_type in HEAD_TYPES
        self._require(known, f"one of {tuple(HEAD_TYPES)}", "head_type")
        self._require(not isinstance(self.classes, str), "a list of names", "classes")
        object.__setattr__(self, "classes", tuple(self.classes or ()))
        if isinstance(self.column, list):
            object.__setattr__(self, "column", tuple(self.column))
        self._require(type(self.num_classes) is int, "an int", "num_classes")
        if not self.num_classes:
            default = self.spec.default_num_classes
            if self.spec.has_classes and self.classes:
                default = len(self.classes)
            object.__setattr__(self, "num_classes", default)
        self._check_classes()
        self._check_columns()
        self._check_numbers()

    def _require(self, valid: bool, expected: str, *names: str) -> None:
        """Raises a `ValueError` about the first of the named fields unless `valid`."""
        if not valid:
            received = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            raise ValueError(
                f"Invalid `{names[0]}` of head {self.name!r}. Expected {expected}. "
                f"Received: {received}."
            )

    def _check_name(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ValueError(
                "Invalid head `name`. Expected at most 100 letters, digits, '_', '.' "
                "and '-', the first a letter or digit, and "
                f"{RESERVED_NAMES_TEXT}. Received: name={self.name!r}."
            )
        if self.name in RESERVED_NAMES:
            raise ValueError(
                f"Invalid head `name`. {self.name!r} is reserved by datasets and "
                f"exported models. Reserved: {RESERVED_NAMES}."
            )

    def _check_classes(self) -> None:
        has_classes = self.spec.has_classes
        self._require(
            has_classes == (self.num_classes >= 2) and self.num_classes >= 1,
            "at least 2 for a head with classes and 1 for any other",
            *("num_classes", "head_type"),
        )
        expected = max(self.num_classes, 2)
        fits = not self.spec.continuous and len(self.classes) == expected
        self._require(
            fits or not self.classes,
            f"a name for each of its {expected} classes",
            "classes",
        )
        texts = {name for name in self.classes if isinstance(name, str)}
        self._require(len(texts) == len(self.classes), "distinct names", "classes")

    def _check_columns(self) -> None:
        """Checks that `class_ids` can combine the columns."""
        pair = len(self.columns) == 2 and self.columns[0] == "gender"
        even = self.num_classes % len(GENDERS) == 0
        self._require(
            len(self.columns) == 1 or (pair and even and self.spec.reads_pairs),
            "one column, or a pair ('gender', column) for a categorical head with "
            "twice as many classes as `column`",
            *("column", "head_type", "num_classes"),
        )

    def _check_numbers(self) -> None:
        valid = 0 <= self.loss_weight < math.inf
        self._require(valid, "a non-negative number", "loss_weight")
        directions = self.question in RANK_DIRECTIONS
        self._require(directions, f"one of {RANK_DIRECTIONS}", "question")
        for name in ("sigma", "scale"):
            positive = 0 < getattr(self, name) < math.inf
            self._require(positive, "a number above 0", name)
        self._require(math.isfinite(self.mean), "a finite number", "mean")

    @property
    def spec(self) -> HeadType:
        """The row of `HEAD_TYPES`."""
        return HEAD_TYPES[self.head_type]

    @property
    def columns(self) -> tuple[str, ...]:
        """The manifest columns of the target."""
        if isinstance(self.column, tuple):
            return self.column
        return (self.column or self.name,)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the head's outputs in the model."""
        if not self.spec.several_outputs:
            return (self.name,)
        return tuple(f"{self.name}{k}" for k in range(1, self.num_classes + 1))

    def has_layer(self, name: str) -> bool:
        """Returns whether a layer of a model belongs to this head."""
        return name in self.output_names or name.startswith(f"{self.name}{LAYER_PART}")

    def class_name(self, index: int) -> str:
        """Returns the name of a class, or its id as text if it has no name."""
        if self.classes:
            return self.classes[index]
        return ("no", "yes")[index] if self.spec.binary else str(index)

    # -- targets -----------------------------------------------------------------------

    @property
    def target_table(self) -> np.ndarray | None:
        """Target of each class id, with a last row of NaN for `MISSING`.

        `None` for a continuous head. `Encoding.encode` and the input pipeline both use
        it. Shape (num_values + 1, …).
        """
        table = self.spec.targets(self)
        if table is None:
            return None
        return np.concatenate([table, np.full_like(table[:1], np.nan)])

    @property
    def num_values(self) -> int:
        """Number of class ids in the column, or of years for a years head."""
        return self.spec.num_values(self)

    def class_ids(self, values: Sequence[Any], cast: Callable[[Any], Any]) -> Any:
        """Returns class ids from those of columns; `cast` converts booleans to ids."""
        if len(values) == 1:
            return values[0]
        first, second = values
        pairs = first * (self.num_classes // len(GENDERS)) + second
        # 0 where either is unknown, less 1: MISSING.
        return (pairs + 1) * cast(first >= 0) * cast(second >= 0) - 1

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields without defaults; the key of the head type is `kind`."""
        plain: dict[str, Any] = {"name": self.name, "kind": self.head_type}
        for field in fields(self)[2:]:
            default = 1 if field.name == "num_classes" else field.default
            value = getattr(self, field.name)
            if value != default:
                plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Head:
        """Returns the head that `to_dict` wrote."""
        values: dict[str, Any] = dict(plain)
        if "kind" in values:
            values["head_type"] = values.pop("kind")
        return cls(**values)  # lists become tuples there


def column_classes(head: Head, columns: Sequence[Any]) -> np.ndarray:
    """Returns class ids, or completed years; columns are -1 or NaN where unknown."""
    sizes = [head.num_values]
    if len(columns) > 1:
        sizes = [len(GENDERS), head.num_values // len(GENDERS)]
    if head.spec.in_years:
        columns = [np.floor(np.asarray(columns[0], "float64"))]
    ids = [
        check_class_ids(head, name, values, size)
        for name, values, size in zip(head.columns, columns, sizes, strict=True)
    ]
    return head.class_ids(ids, lambda known: known.astype("int64"))


def head_targets(head: Head, columns: Sequence[Any]) -> np.ndarray:
    """Returns a head's targets, NaN where unknown; `columns` as in `column_classes`."""
    table = head.target_table
    if table is None:
        return (known_numbers(head, columns[0]) - head.mean) / head.scale
    return table[column_classes(head, columns)]


def known_numbers(head: Head, values: Any) -> np.ndarray:
    """Returns the values of a continuous head's column, NaN where unknown."""
    numbers = np.atleast_1d(np.asarray(values, dtype="float64"))
    if head.columns[0] not in LABEL_COLUMNS:
        return numbers  # -1 is a number like any other
    return np.where(numbers == MISSING, np.nan, numbers)


def split_outputs(head: Head, targets: Any) -> dict[str, Any]:
    """Returns targets, an array or tensor, by output name in the shape for losses."""
    if head.spec.several_outputs:
        return {name: targets[:, k : k + 1] for k, name in enumerate(head.output_names)}
    return {head.name: targets[..., None] if head.spec.unit_axis else targets}


def known_targets(head: Head, known: Any) -> Any:
    """Returns a mask of the known targets, per face or per unit."""
    if head.spec.unit_weights or len(known.shape) == 1:
        return known
    return known[:, 0]


def check_ids(ids: Any, num_classes: int, name: str, head: str = "") -> np.ndarray:
    """Returns ids as int64 after checking that they are in [-1, num_classes)."""
    ids = np.atleast_1d(np.asarray(ids))
    wrong = ~np.isin(ids, np.arange(MISSING, num_classes))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        owner = f" of head {head!r}" if head else ""
        received = str(ids[first]).removesuffix(".0")
        raise ValueError(
            f"Invalid `{name}`{owner}. Expected ids in [0, {num_classes}) or {MISSING} "
            f"for unknown. Received: {received} at position {first}."
        )
    return ids.astype("int64")


def check_class_ids(head: Head, column: str, values: Any, num_values: int) -> Any:
    """Returns class ids of a column as int64, `MISSING` for NaN; see `check_ids`."""
    numbers = np.asarray(values, dtype="float64")
    ids = np.where(np.isnan(numbers), MISSING, numbers)
    return check_ids(ids, num_values, column, head.name)
