"""Encodings: which named outputs stand for an age group and a gender, and back."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from keras_agegender.encodings.decoding import (
    NUM_GENDERS,
    NUM_GROUPS,
    ORDINAL_HEAD_NAMES,
)
from keras_agegender.encodings.head import Head
from keras_agegender.labels import MISSING


class Decoded(NamedTuple):
    """What a batch of model outputs says, whatever the encoding.

    A field is `None` where the encoding does not answer that question.

    Attributes:
        age_group: Age-group id in [0, 8). Shape (batch,), int32.
        age_probabilities: Probability of each age group; rows sum to 1. Shape
            (batch, 8).
        gender: Gender id, 0 female, 1 male. Shape (batch,), int32.
        gender_probability: Probability of male. Shape (batch,).
        heads_agree: Whether the age heads tell one story: for ordinal heads, whether
            their thresholded answers are those of one age group. Always true where a
            single head answers. Shape (batch,), bool.
    """

    age_group: Any
    age_probabilities: Any
    gender: Any
    gender_probability: Any
    heads_agree: Any


AgeDecoder = Callable[[Mapping[str, Any]], tuple[Any, Any, Any]]


GenderDecoder = Callable[[Mapping[str, Any]], tuple[Any, Any]]


@dataclass(frozen=True)
class Encoding:
    """Named outputs for age group and gender, their targets, losses and decoding.

    Get one with `get_encoding`; add outputs of your own with `with_heads`.

    Attributes:
        name: Name it was asked for by, `"ordinal"` for instance.
        heads: The model's outputs, in order.
        question: `"older"` or `"younger"` for ordinal heads, else `None`.
        target_tables: For each head computed from the labels, its target for every
            (age group, gender); NaN where the target is unknown. The last row stands
            for a missing age group, the last column for a missing gender, so that
            -1 indexes them. Shape (9, 3) each, (9, 3, 7) for coral and corn.
        weight_tables: For heads that weigh faces by their labels, the weight for every
            (age group, gender). Shape (9, 3) each. See `with_class_weights`.
        age_decoder: Outputs -> (age group, probabilities, whether heads agree).
        gender_decoder: Outputs -> (gender, probability of male).
    """

    name: str
    heads: tuple[Head, ...]
    question: str | None = None
    target_tables: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    weight_tables: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    age_decoder: AgeDecoder | None = field(default=None, repr=False)
    gender_decoder: GenderDecoder | None = field(default=None, repr=False)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, in order."""
        return tuple(head.name for head in self.heads)

    @property
    def columns(self) -> dict[str, str]:
        """Head name -> manifest column, for the heads whose target is a column."""
        return {head.name: head.column for head in self.heads if head.column}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Head name -> factor of its loss, as `model.compile` takes it."""
        return {head.name: head.loss_weight for head in self.heads}

    def with_heads(self, heads: Sequence[Head]) -> Encoding:
        """Returns this encoding with further outputs behind its own.

        Args:
            heads: Heads to append; each names the manifest column of its target.

        Raises:
            ValueError: If a name is taken already or a head has no column.
        """
        names = list(self.output_names)
        for head in heads:
            if head.name in names:
                raise ValueError(
                    f"Invalid `heads`. The name {head.name!r} is taken already. "
                    f"Outputs so far: {names}."
                )
            names.append(head.name)
        bound = tuple(replace(h, column=h.column or h.name) for h in heads)
        return replace(self, heads=self.heads + bound)

    def with_loss_weights(self, loss_weights: Mapping[str, float]) -> Encoding:
        """Returns this encoding with other loss weights for the heads named.

        Args:
            loss_weights: Head name -> weight, not negative. Heads left out keep theirs.

        Raises:
            ValueError: If a head of that name does not exist.
        """
        check_head_names(loss_weights, self.output_names, "loss_weights")
        heads = tuple(
            replace(h, loss_weight=float(loss_weights.get(h.name, h.loss_weight)))
            for h in self.heads
        )
        return replace(self, heads=heads)

    def with_class_weights(
        self,
        age_group: Sequence[float] | None = None,
        gender: Sequence[float] | None = None,
    ) -> Encoding:
        """Returns this encoding with faces weighed by their labels.

        Whatever the encoding, a face of group g counts `age_group[g]` in every head
        that is computed from age groups; in the joint head the two weights multiply.
        Heads of columns are left alone.

        Args:
            age_group: Weights of the 8 groups, not negative; `None` weighs all 1.
                `balanced_class_weights` makes some.
            gender: Weights of female and male.

        Raises:
            ValueError: If there are too few weights, or one is negative.
        """
        ages = _checked_class_weights(age_group, NUM_GROUPS, "age_group")
        genders = _checked_class_weights(gender, NUM_GENDERS, "gender")
        tables = {}
        for name, table in self.target_tables.items():
            by_gender = np.isnan(table[0, NUM_GENDERS]).all()
            by_age = np.isnan(table[NUM_GROUPS, 0]).all()
            weights = np.outer(
                ages if by_age else np.ones(NUM_GROUPS + 1),
                genders if by_gender else np.ones(NUM_GENDERS + 1),
            )
            tables[name] = weights
        return replace(self, weight_tables=tables)

    def importance_weights(self, age_group: Any) -> dict[str, float]:
        """Returns loss weights of ordinal heads, larger where they have more faces.

        Head k weighs sqrt(max(n, N - n)), n of N faces being on one side of its
        question, scaled so that the largest is 1. Give them to `with_loss_weights`.

        Args:
            age_group: Age-group ids of the training faces, -1 where unknown.

        Raises:
            ValueError: If the encoding has no heads that ask one question each.

        Source: Cao et al., "Rank consistent ordinal regression for neural networks",
        2020 (arXiv 1901.07884v2, section 3.5).
        """
        if self.question is None:
            raise ValueError(
                "Invalid encoding. Importance weights belong to the ordinal encoding's "
                f"heads. Received: {self.name!r}."
            )
        ages = check_ids(age_group, NUM_GROUPS, "age_group")
        ages = ages[ages != MISSING]
        larger = {}
        for name in ORDINAL_HEAD_NAMES:
            ones = np.nansum(self.target_tables[name][ages, 0])
            larger[name] = np.sqrt(max(ones, len(ages) - ones))
        most = max(larger.values()) or 1.0
        return {name: float(value / most) for name, value in larger.items()}

    def encode(
        self,
        age_group: Any = MISSING,
        gender: Any = MISSING,
        columns: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns the target of every head, 0 where it is unknown.

        Args:
            age_group: Age-group ids in [0, 8), -1 where unknown. Shape (batch,).
            gender: Gender ids, 0 female, 1 male, -1 where unknown. Shape (batch,).
            columns: Values of the columns that heads are read from. Shape (batch,)
                each. -1 or NaN where unknown.

        Returns:
            Head name -> target: float32 (batch, 1) for binary and regression heads,
            int32 (batch,) for categorical, float32 (batch, num_classes - 1, 1) for
            coral and corn heads.

        Raises:
            ValueError: If an id is out of range or a column is missing.

        Example:
        >>> enc = get_encoding("ordinal", question="younger")
        >>> t = enc.encode(age_group=[4], gender=[1])     # group 5 of the report
        >>> [int(t[f"age{k}"][0, 0]) for k in range(1, 9)]
        [0, 0, 0, 0, 0, 1, 1, 1]
        """
        raw = self._raw_targets(age_group, gender, columns)
        targets = {}
        for head in self.heads:
            value = np.nan_to_num(raw[head.name], nan=0.0)
            if head.kind == "categorical":
                targets[head.name] = value.astype("int32")
            else:
                targets[head.name] = value.astype("float32")[..., np.newaxis]
        return targets

    def sample_weights(
        self,
        age_group: Any = MISSING,
        gender: Any = MISSING,
        columns: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns 1 where a head's target is known, 0 where it must not count.

        Takes what `encode` takes. Pass the result to `fit` as `sample_weight` and the
        metrics to `compile` as `weighted_metrics`: then a face with one usable label
        trains and scores just the heads that it has a label for.

        Returns:
            Head name -> float32 weights of shape (batch,), or, for coral and corn
            heads, (batch, num_classes - 1): corn asks a question only of the faces that
            the one before it let pass.
        """
        raw = self._raw_targets(age_group, gender, columns)
        weights = {name: (~np.isnan(v)).astype("float32") for name, v in raw.items()}
        cell = self._cells(age_group, gender)
        for name, table in self.weight_tables.items():
            factor = table[cell].astype("float32")
            weights[name] *= factor.reshape(-1, *[1] * (weights[name].ndim - 1))
        return weights

    def _cells(self, age_group: Any, gender: Any) -> tuple[np.ndarray, np.ndarray]:
        ages = check_ids(age_group, NUM_GROUPS, "age_group")
        genders = check_ids(gender, NUM_GENDERS, "gender")
        ages, genders = np.broadcast_arrays(ages, genders)  # a list before NumPy 2
        return ages, genders

    def _raw_targets(
        self, age_group: Any, gender: Any, columns: Mapping[str, Any] | None
    ) -> dict[str, np.ndarray]:
        cell = self._cells(age_group, gender)
        raw = {}
        for head in self.heads:
            if head.column is None:
                raw[head.name] = self.target_tables[head.name][cell]
            elif columns is None or head.column not in columns:
                raise ValueError(
                    f"Missing column {head.column!r} of head {head.name!r}. "
                    f"Received columns: {sorted(columns or {})}."
                )
            else:
                raw[head.name] = _column_targets(head, columns[head.column])
        return raw

    def losses(self) -> dict[str, Any]:
        """Returns head name -> Keras loss.

        Each loss is the mean over the faces that count (`mean_with_sample_weight`): a
        batch with few labelled faces is not a batch with a small loss.
        """
        import keras

        made = {
            "binary": keras.losses.BinaryCrossentropy,
            "categorical": keras.losses.SparseCategoricalCrossentropy,
            "regression": keras.losses.MeanSquaredError,
            # Over the units too, as both papers do: an output of shape (n, 1) has a
            # loss and a weight for each of its n questions.
            "coral": keras.losses.BinaryCrossentropy,
            "corn": keras.losses.BinaryCrossentropy,
        }
        return {
            h.name: made[h.kind](reduction="mean_with_sample_weight")
            for h in self.heads
        }

    def metrics(self) -> dict[str, list[Any]]:
        """Returns head name -> Keras metrics, for `compile(weighted_metrics=…)`."""
        import keras

        made = {
            "binary": (keras.metrics.BinaryAccuracy, "accuracy"),
            "categorical": (keras.metrics.SparseCategoricalAccuracy, "accuracy"),
            "regression": (keras.metrics.MeanAbsoluteError, "mae"),
            "coral": (keras.metrics.BinaryAccuracy, "accuracy"),
            "corn": (keras.metrics.BinaryAccuracy, "accuracy"),
        }
        metrics = {}
        for head in self.heads:
            metric, name = made[head.kind]
            # Keras puts the output's name in front, but not where there is only one.
            if len(self.heads) == 1:
                name = f"{head.name}_{name}"
            metrics[head.name] = [metric(name=name)]
        return metrics

    def compile_arguments(self) -> dict[str, Any]:
        """Returns `loss`, `loss_weights` and `weighted_metrics` for `model.compile`.

        Example:
        >>> model.compile("adam", **enc.compile_arguments())  # doctest: +SKIP
        """
        return {
            "loss": self.losses(),
            "loss_weights": self.loss_weights,
            "weighted_metrics": self.metrics(),
        }

    def decode(self, outputs: Mapping[str, Any]) -> Decoded:
        """Turns a model's outputs into age groups, genders and probabilities.

        Args:
            outputs: Head name -> probabilities. Shape (batch, units) each, NumPy or
                backend tensors; works inside a `tf.function` too.

        Returns:
            `Decoded`, of backend tensors.

        Raises:
            ValueError: If an output of this encoding is missing.
        """
        missing = [n for n in self.output_names if n not in outputs]
        if missing:
            raise ValueError(
                f"Invalid `outputs` for encoding {self.name!r}. Expected the keys "
                f"{list(self.output_names)}. Missing: {missing}."
            )
        age = self.age_decoder(outputs) if self.age_decoder else (None, None, None)
        gender = self.gender_decoder(outputs) if self.gender_decoder else (None, None)
        return Decoded(
            age_group=age[0],
            age_probabilities=age[1],
            gender=gender[0],
            gender_probability=gender[1],
            heads_agree=age[2],
        )


def _checked_class_weights(weights: Any, count: int, name: str) -> np.ndarray:
    """Returns class weights with a 1 behind them, for labels that are not known."""
    values = np.ones(count) if weights is None else np.asarray(weights, "float64")
    if values.shape != (count,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"Invalid `{name}`. Expected {count} weights that are not negative. "
            f"Received: {weights!r}."
        )
    return np.append(values, 1.0)


def check_head_names(given: Any, expected: Sequence[str], argument: str) -> None:
    """Raises ValueError if `given` holds a name that is not among `expected`."""
    for name in given:
        if name not in expected:
            close = difflib.get_close_matches(str(name), expected, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"Invalid `{argument}`. There is no output named {name!r}.{hint} "
                f"Outputs: {list(expected)}."
            )


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


def _column_targets(head: Head, values: Any) -> np.ndarray:
    values = np.atleast_1d(np.asarray(values, dtype="float64"))
    if head.kind == "regression":
        return values
    known = np.where(values == MISSING, np.nan, values)
    num_classes = max(head.num_classes, 2)
    wrong = ~np.isnan(known) & ~np.isin(known, np.arange(num_classes))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Invalid value of head {head.name!r}. Expected a class id in "
            f"[0, {num_classes}) or {MISSING} for unknown. Received: "
            f"{values[first]} at position {first}."
        )
    return known
