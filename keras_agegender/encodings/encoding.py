"""Encodings: the heads of a model, their targets, losses and decoding."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_agegender.encodings.head import (
    ANSWER,
    LABEL_COLUMNS,
    Head,
    check_ids,
    head_targets,
    known_numbers,
    known_targets,
    split_outputs,
)
from keras_agegender.errors import did_you_mean
from keras_agegender.labels import ADIENCE_AGE_GROUPS, GENDERS, MISSING, AgeGroups

if TYPE_CHECKING:
    from keras_agegender.encodings.decoding import Decoded, HeadPrediction

LOSS_WEIGHT_SUFFIX = "_loss_weight"  # of the names under which loss weights are logged


def check_output_names(given: Any, expected: Sequence[str], argument: str) -> None:
    """Checks that names are those of outputs."""
    for name in given:
        if name not in expected:
            raise ValueError(
                f"Invalid `{argument}`. Unknown output {name!r}."
                f"{did_you_mean(name, expected)} Outputs: {list(expected)}."
            )


def _check_outputs(outputs: Mapping[str, Any], names: Sequence[str], name: str) -> None:
    """Checks that all outputs exist and that arrays do not contain NaN."""
    missing = [n for n in names if n not in outputs]
    if missing:
        raise ValueError(
            f"Invalid `outputs` for encoding {name!r}. Expected the keys "
            f"{list(names)}. Missing: {missing}."
        )
    for key in names:
        values = outputs[key]  # tensors of a graph have no values yet
        if isinstance(values, (list, tuple)):
            values = np.asarray(values, "float64")
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            wrong = np.flatnonzero(np.isnan(values.reshape(len(values), -1)).any(1))
            if len(wrong):
                raise ValueError(
                    f"Invalid `outputs`. Output {key!r} is NaN for {len(wrong)} of "
                    f"{len(values)} faces, first at position {wrong[0]}: the weights "
                    "or inputs of the model are NaN or infinite (did training diverge?)"
                )


@dataclass(frozen=True)
class Encoding:
    """Heads over age groups: their outputs, targets, losses and decoding.

    Get one with `get_encoding`; add outputs of your own with `with_heads`.

    Args:
        name: Its name, `"ordinal"` for example.
        heads: The heads, in the order of the model's outputs.
        age_groups: The age groups of age-group ids. Defaults to Adience's eight.
        class_weights: (column, weight of each class). See `with_class_weights`.
        output_loss_weights: (output, weight) if it differs from the head's. See
            `with_loss_weights`.
    """

    name: str
    heads: tuple[Head, ...]
    age_groups: AgeGroups = ADIENCE_AGE_GROUPS
    class_weights: tuple[tuple[str, tuple[float, ...]], ...] = ()
    output_loss_weights: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        # Lists differ from tuples and have no hash.
        object.__setattr__(self, "heads", tuple(self.heads))
        for name in ("class_weights", "output_loss_weights"):
            pairs = tuple(
                (key, tuple(value) if isinstance(value, Sequence) else value)
                for key, value in getattr(self, name)
            )
            object.__setattr__(self, name, pairs)
        names: list[str] = []
        for head in self.heads:
            for name in {head.name, *head.output_names}:
                if name in names:
                    raise ValueError(
                        f"Invalid `heads`. Duplicate output name {name!r}. "
                        f"Outputs so far: {names}."
                    )
            names += [*head.output_names]
            self._check_classes(head)
        for head in self.heads:
            if head.name + ANSWER in names:
                raise ValueError(
                    f"Invalid `heads`. The name {head.name + ANSWER!r} is reserved for "
                    f"the exported prediction of {head.name!r}."
                )

    def _check_classes(self, head: Head) -> None:
        """Checks the number of classes of heads for age groups and genders."""
        sizes = {"age_group": len(self.age_groups), "gender": len(GENDERS)}
        if head.spec.continuous or not set(head.columns) <= set(sizes):
            return
        expected = math.prod(sizes[column] for column in head.columns)
        if max(head.num_classes, 2) != expected:
            raise ValueError(
                f"Invalid `num_classes` of head {head.name!r}. Expected {expected} for "
                f"the column {head.column!r} with the age groups {self.age_groups}. "
                f"Received: head_type={head.head_type!r}, "
                f"num_classes={head.num_classes}."
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, in order."""
        return tuple(name for head in self.heads for name in head.output_names)

    @property
    def question(self) -> str | None:
        """`"older"` or `"younger"` for ordinal age heads, else `None`."""
        age = self.age_head
        return age.question if age is not None and age.spec.has_direction else None

    @property
    def age_head(self) -> Head | None:
        """The head that predicts the age group, if there is one."""
        return self._head_of("age_group") or self._head_of("age_years")

    @property
    def gender_head(self) -> Head | None:
        """The head that predicts gender, if there is one."""
        return self._head_of("gender") or self._head_of("Male")

    def _head_of(self, column: str) -> Head | None:
        fits = (h for h in self.heads if column in h.columns and not h.spec.continuous)
        return next(fits, None)

    @property
    def extra_heads(self) -> tuple[Head, ...]:
        """Heads other than those of age group and gender."""
        main = {
            head.name
            for head in (self.age_head, self.gender_head)
            if head is not None and set(head.columns) & set(LABEL_COLUMNS)
        }
        return tuple(head for head in self.heads if head.name not in main)

    @property
    def columns(self) -> tuple[str, ...]:
        """Manifest columns of the targets."""
        names = [column for head in self.heads for column in head.columns]
        return tuple(dict.fromkeys(names))

    @property
    def loss_weights(self) -> dict[str, float]:
        """Output name -> factor of its loss, as `model.compile` takes it."""
        own = {name: h.loss_weight for h in self.heads for name in h.output_names}
        return own | dict(self.output_loss_weights)

    def head(self, name: str) -> Head:
        """Returns the head of that name."""
        for head in self.heads:
            if head.name == name:
                return head
        raise ValueError(
            f"Invalid head. Expected one of {[h.name for h in self.heads]}. "
            f"Received: {name!r}."
        )

    # -- variants ----------------------------------------------------------------------

    def with_heads(self, heads: Sequence[Head]) -> Encoding:
        """Returns this encoding with additional heads, whose names must be unique."""
        return replace(self, heads=self.heads + tuple(heads))

    def without_columns(self, columns: Collection[str]) -> Encoding:
        """Returns this encoding without the heads of these manifest columns."""
        heads = tuple(h for h in self.heads if not set(h.columns) & set(columns))
        names = {name for head in heads for name in head.output_names}
        weights = tuple(pair for pair in self.output_loss_weights if pair[0] in names)
        return replace(self, heads=heads, output_loss_weights=weights)

    def with_loss_weights(self, loss_weights: Mapping[str, float]) -> Encoding:
        """Returns this encoding with other loss weights.

        Args:
            loss_weights: Output name -> non-negative weight. Other outputs do not
                change.
        """
        check_output_names(loss_weights, self.output_names, "loss_weights")
        for name, weight in loss_weights.items():
            if not 0 <= float(weight) < float("inf"):
                raise ValueError(
                    f"Invalid `loss_weights`. Expected a non-negative number for "
                    f"{name!r}. Received: {weight!r}."
                )
        weights = {
            **dict(self.output_loss_weights),
            **{name: float(weight) for name, weight in loss_weights.items()},
        }
        return replace(self, output_loss_weights=tuple(sorted(weights.items())))

    def with_class_weights(
        self,
        age_group: Sequence[float] | None = None,
        gender: Sequence[float] | None = None,
    ) -> Encoding:
        """Returns this encoding with sample weights by label.

        A face of group g has the weight `age_group[g]` in every head that predicts age;
        in the joint head both weights multiply. Heads of other columns do not change.

        Args:
            age_group: Non-negative weight of each age group, as
                `balanced_class_weights` returns them; `None` is 1 for all.
            gender: Weights of female and male.
        """
        given = (
            ("age_group", age_group, len(self.age_groups)),
            ("gender", gender, len(GENDERS)),
        )
        weights = tuple(
            (name, _checked_class_weights(values, count, name))
            for name, values, count in given
            if values is not None
        )
        return replace(self, class_weights=weights)

    def with_statistics(self, columns: Mapping[str, Any]) -> Encoding:
        """Returns this encoding with regression heads standardized by training data.

        Args:
            columns: Values of the heads' columns, NaN where unknown. Shape (num_faces,)
                each.
        """
        heads = []
        for head in self.heads:
            values = columns.get(head.columns[0])
            if head.spec.standardized and values is not None:
                known = known_numbers(head, values)
                known = known[~np.isnan(known)]
                if len(known):
                    spread = float(known.std()) or 1.0
                    head = replace(head, mean=float(known.mean()), scale=spread)
            heads.append(head)
        return replace(self, heads=tuple(heads))

    def importance_weights(self, age_group: Any) -> dict[str, float]:
        """Returns loss weights of ordinal outputs, larger for less balanced ones.

        The weight of output k is sqrt(max(n, N - n)) if its target is 1 for n of N
        faces, scaled so that the largest is 1. Pass them to `with_loss_weights`.

        Args:
            age_group: Age-group ids of the training faces, -1 where unknown.

        Source: Cao et al., "Rank consistent ordinal regression for neural networks",
        2020 (arXiv 1901.07884v2, section 3.5).
        """
        head = self.age_head
        if head is None or not head.spec.several_outputs:
            raise ValueError(
                "Invalid encoding. Expected ordinal outputs for age. "
                f"Received: {self.name!r}."
            )
        ages = check_ids(age_group, len(self.age_groups), "age_group")
        ages = ages[ages != MISSING]
        ones = np.asarray(head.spec.targets(head))[ages].sum(axis=0)
        larger = np.sqrt(np.maximum(ones, len(ages) - ones))
        scaled = larger / (larger.max() or 1.0)
        return {
            name: float(value)
            for name, value in zip(head.output_names, scaled, strict=True)
        }

    # -- targets -----------------------------------------------------------------------

    def encode(
        self,
        age_group: Any = MISSING,
        gender: Any = MISSING,
        columns: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns the target of every output, 0 where it is unknown.

        Args:
            age_group: Age-group ids, -1 where unknown. Shape (batch,).
            gender: Gender ids, 0 female, 1 male, -1 where unknown. Shape (batch,).
            columns: Values of further columns of heads, such as `age_years`. Shape
                (batch,) each. -1 or NaN where unknown; NaN for regression heads.

        Returns:
            Output name -> target: float32 (batch, 1) for binary, ordinal and regression
            heads, int32 (batch,) for categorical, float32 (batch, num_classes - 1, 1)
            for coral and corn, float32 (batch, num_classes) for years.

        Raises:
            ValueError: If an id is out of range or a column is missing.

        Example:
        >>> from keras_agegender import get_encoding
        >>> enc = get_encoding("ordinal", question="younger")
        >>> t = enc.encode(age_group=[4], gender=[1])     # group 5 of the report
        >>> [int(t[f"age{k}"][0, 0]) for k in range(1, 9)]
        [0, 0, 0, 0, 0, 1, 1, 1]
        """
        targets: dict[str, np.ndarray] = {}
        for head, raw in self._raw_targets(age_group, gender, columns):
            targets |= split_outputs(head, np.nan_to_num(raw, nan=0.0))
        return {
            name: value.astype("int32" if value.ndim == 1 else "float32")
            for name, value in targets.items()
        }

    def sample_weights(
        self,
        age_group: Any = MISSING,
        gender: Any = MISSING,
        columns: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns 1 if the target of an output is known and 0 if not.

        The arguments are those of `encode`. Pass the result to `fit` as `sample_weight`
        and the metrics to `compile` as `weighted_metrics`: then a face trains and
        scores only the heads for which it has a label.

        Returns:
            Output name -> float32 weights of shape (batch,), or, for coral and corn
            heads, (batch, num_classes - 1): unit k of corn counts only for faces that
            are above the rank before it.
        """
        labels = {"age_group": age_group, "gender": gender}
        weights: dict[str, np.ndarray] = {}
        for head, raw in self._raw_targets(age_group, gender, columns):
            known = known_targets(head, ~np.isnan(raw)).astype("float32")
            for column, table in self.weight_tables(head):
                count = len(table) - 1
                factor = table[check_ids(labels[column], count, column)]
                known = known * factor.reshape(-1, *[1] * (known.ndim - 1))
            weights |= dict.fromkeys(head.output_names, known)
        return weights

    def weight_tables(self, head: Head) -> list[tuple[str, np.ndarray]]:
        """Returns (column, weight of each id, 1 for `MISSING`) for a head."""
        columns = set(head.columns)
        if "age_years" in columns:
            columns.add("age_group")
        return [
            (column, np.array([*weights, 1.0], "float32"))
            for column, weights in self.class_weights
            if column in columns
        ]

    def _raw_targets(
        self, age_group: Any, gender: Any, columns: Mapping[str, Any] | None
    ) -> list[tuple[Head, np.ndarray]]:
        """Returns each head's target, NaN where it is unknown."""
        ages = check_ids(age_group, len(self.age_groups), "age_group")
        genders = check_ids(gender, len(GENDERS), "gender")
        given: dict[str, Any] = {**(columns or {})}
        given["age_group"], given["gender"] = np.broadcast_arrays(ages, genders)
        raw = []
        for head in self.heads:
            for column in head.columns:
                if column not in given:
                    raise ValueError(
                        f"Missing column {column!r} of head {head.name!r}. "
                        f"Received columns: {sorted(columns or {})}."
                    )
            raw.append((head, head_targets(head, [given[c] for c in head.columns])))
        return raw

    # -- compiling ---------------------------------------------------------------------

    def losses(self) -> dict[str, Any]:
        """Returns output name -> Keras loss.

        Each loss is the mean over labeled faces, of all replicas together. Labels of -1
        or NaN are masked; in regression heads only NaN.
        """
        from keras_agegender.encodings.masked import masked_class

        return {
            name: masked_class("losses", head.spec.loss, head.spec.continuous)(
                reduction="mean_with_sample_weight"
            )
            for head in self.heads
            for name in head.output_names
        }

    def metrics(self) -> dict[str, list[Any]]:
        """Returns output name -> Keras metrics, for `compile(weighted_metrics=…)`.

        Labels are masked as by `losses()`.
        """
        from keras_agegender.encodings.masked import masked_class

        metrics = {}
        for head in self.heads:
            metric, short = head.spec.metric
            for name in head.output_names:
                # Keras adds the name of the output as prefix unless it is the only one.
                logged = short if len(self.output_names) > 1 else f"{name}_{short}"
                made = masked_class("metrics", metric, head.spec.continuous)
                metrics[name] = [made(name=logged)]
        return metrics

    def compile_arguments(self) -> dict[str, Any]:
        """Returns `loss`, `loss_weights` and `weighted_metrics` for `model.compile`.

        Losses and metrics mask labels of -1 or NaN, so that `fit` needs no sample
        weights for them. Saved files contain the plain Keras losses: compile again
        after loading. For a model with a list of outputs, pass `list(d.values())` of
        each dict.

        Example:
        >>> model.compile("adam", **enc.compile_arguments())  # doctest: +SKIP
        """
        return {
            "loss": self.losses(),
            "loss_weights": self.loss_weights,
            "weighted_metrics": self.metrics(),
        }

    # -- decoding ----------------------------------------------------------------------

    def name_outputs(self, outputs: Any) -> Mapping[str, Any]:
        """Returns a model's outputs as a dict, also those of a model with a list."""
        if isinstance(outputs, Mapping):
            return outputs
        values = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        if len(values) != len(self.output_names):
            raise ValueError(
                f"Invalid `outputs` for encoding {self.name!r}. Expected a dict, or a "
                f"list of the {len(self.output_names)} outputs "
                f"{list(self.output_names)}. Received: {len(values)}."
            )
        return dict(zip(self.output_names, values, strict=True))

    def decode(self, outputs: Mapping[str, Any] | Sequence[Any]) -> Decoded:
        """Decodes outputs to age groups, years, genders and probabilities.

        Every encoding predicts the most probable class of the probabilities that are
        returned with it. `median_age_group` is the count of ordinal outputs (Niu et al.
        2016).

        Args:
            outputs: Output name -> probabilities, or a list of them in the order of
                `output_names`. Shape (batch, units) each, NumPy or backend tensors;
                also inside a `tf.function`.

        Returns:
            `Decoded`, of backend tensors.

        Raises:
            ValueError: If an output of this encoding is missing, or is an array with
                NaN.
        """
        from keras_agegender.encodings.decoding import decode

        outputs = self.name_outputs(outputs)
        _check_outputs(outputs, self.output_names, self.name)
        return decode(outputs, self.age_head, self.gender_head, self.age_groups)

    def decode_head(
        self, name: str, outputs: Mapping[str, Any] | Sequence[Any]
    ) -> HeadPrediction:
        """Returns the prediction of a head: classes, or numbers in their unit.

        Args:
            name: Name of a head.
            outputs: Output name -> predictions, or a list, as in `Encoding.decode`.
        """
        from keras_agegender.encodings.decoding import decode_head

        return decode_head(self.head(name), self.name_outputs(outputs))

    # -- storage -----------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Returns the encoding as plain values; `from_dict` reads them."""
        return {
            "name": self.name,
            "heads": [head.to_dict() for head in self.heads],
            "age_groups": self.age_groups.to_list(),
            "class_weights": [[c, list(w)] for c, w in self.class_weights],
            "output_loss_weights": [list(pair) for pair in self.output_loss_weights],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Encoding:
        """Returns the encoding that `to_dict` wrote."""
        return cls(
            name=fields["name"],
            heads=tuple(Head.from_dict(head) for head in fields["heads"]),
            age_groups=AgeGroups.from_list(fields["age_groups"]),
            class_weights=tuple(
                (c, tuple(w)) for c, w in fields.get("class_weights", ())
            ),
            output_loss_weights=tuple(
                (name, float(w)) for name, w in fields.get("output_loss_weights", ())
            ),
        )

    def to_json(self) -> str:
        """Returns the encoding as one line of JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


def _checked_class_weights(weights: Any, count: int, name: str) -> tuple[float, ...]:
    values = np.asarray(weights, "float64")
    if values.shape != (count,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"Invalid `{name}`. Expected {count} non-negative weights. "
            f"Received: {weights!r}."
        )
    return tuple(float(value) for value in values)


def balanced_class_weights(ids: Any, num_classes: int) -> list[float]:
    """Returns class weights that give every class the same total: N / (classes · n).

    Args:
        ids: Class ids, -1 where unknown. Shape (batch,).
        num_classes: Number of classes; those without a face have weight 0.

    Example:
    >>> balanced_class_weights([0, 0, 0, 1, -1], 2)
    [0.6666666666666666, 2.0]
    """
    known = check_ids(ids, num_classes, "ids")
    counts = np.bincount(known[known != MISSING], minlength=num_classes)
    present = max(int((counts > 0).sum()), 1)
    return [float(counts.sum() / (present * n)) if n else 0.0 for n in counts]
