"""Calibration: temperature scaling and conformal prediction sets, in `keras.ops`.

A prediction set grows from the most probable class, always by the more probable of the
two neighbors. The score of a class is the probability in the set before the class joins
it, 0 for the most probable one. The set contains every class with a score of at most
the threshold, so it has no gaps and is never empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from keras import ops

from keras_agegender.encodings.decoding import Decoded, most_probable
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.errors import did_you_mean

# Predictions that have sets, and that thresholds may depend on.
GROUPINGS = ("gender", "age_group")

# Sigmoids closer to 0 or 1 are equal in float32; 1e-30 is not 0 yet.
SIGMOID_MARGIN = 1e-7
SOFTMAX_MARGIN = 1e-30


class PredictionSets(NamedTuple):
    """The prediction sets of a batch of faces; `None` without a threshold.

    Attributes:
        age_group: Whether each age group is in the set; no gaps. Shape
            (batch, num_groups), bool.
        gender: Whether each gender is in the set. Shape (batch, 2), bool.
    """

    age_group: Any = None
    gender: Any = None


@dataclass(frozen=True)
class Calibration:
    """Temperatures of heads and thresholds of prediction sets.

    `calibrate` and `fit_calibration` fit one on validation faces.

    Args:
        temperatures: Head name -> temperature, above 0, by which logits are divided; a
            value above 1 lowers the confidence. Other heads do not change.
        thresholds: `"age_group"`, `"gender"` -> one threshold in [0, 1], or with `by`
            one for each predicted class. Other predictions have no sets.
        alpha: Share of faces whose true class may be outside the set. Defaults to 0.1.
        by: The prediction that thresholds depend on, `"gender"` or `"age_group"`, or
            `None` (default).
        num_faces: Head name, `"age_group_set"`, `"gender_set"` -> number of labeled
            faces that it was fitted on; for sets one number for each threshold.
        fitted_on: Its origin: `split`, and hashes of dataset and model.
        num_changed: Prediction -> (number of faces whose prediction changed, number of
            faces), of those that it was fitted on; only predictions that can change.

    Raises:
        ValueError: If a number is out of range.

    Example:
    >>> calibration = Calibration({"gender": 2.0}, {"gender": (0.0,)})
    >>> sure = {"gender": np.array([[0.9]])}
    >>> less = calibration.apply(sure, get_encoding("gender"))
    >>> round(float(less["gender"][0, 0]), 3)  # logit ln 9, halved: ln 3
    0.75
    """

    temperatures: Mapping[str, float]
    thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    alpha: float = 0.1
    by: str | None = None
    num_faces: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    fitted_on: Mapping[str, str] = field(default_factory=dict)
    num_changed: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self.alpha, self.by)
        thresholds = {k: tuple(map(float, v)) for k, v in self.thresholds.items()}
        object.__setattr__(self, "thresholds", thresholds)
        counts = {
            k: n if isinstance(n, int) else tuple(n) for k, n in self.num_faces.items()
        }
        object.__setattr__(self, "num_faces", counts)
        changed = {k: (int(n), int(of)) for k, (n, of) in self.num_changed.items()}
        object.__setattr__(self, "num_changed", changed)
        for name, temperature in self.temperatures.items():
            if not 0 < temperature < float("inf"):
                raise ValueError(
                    f"Invalid `temperatures`. Expected a number above 0 for {name!r}. "
                    f"Received: {temperature}."
                )
        for name, values in thresholds.items():
            fits = len(values) == 1 if self.by is None else len(values) > 1
            if (
                name not in GROUPINGS
                or not fits
                or not all(0 <= v <= 1 for v in values)
            ):
                raise ValueError(
                    "Invalid `thresholds`. Expected one number in [0, 1] for each of "
                    f"{' and '.join(GROUPINGS)}, or one per class of `by`. "
                    f"Received: {values} for {name!r}, by={self.by!r}."
                )

    def apply(self, outputs: Mapping[str, Any], encoding: Encoding) -> dict[str, Any]:
        """Returns a model's outputs with calibrated probabilities.

        The predicted classes of binary and categorical heads stay the same. Those of
        ordinal, coral and corn heads may change, and so may age groups and genders that
        are sums over years or pairs, if two are about equally probable.

        Args:
            outputs: Output name -> predictions. Shape (batch, units) each, NumPy or
                backend tensors.
            encoding: The encoding of the model.

        Returns:
            All outputs, of the same shapes.

        Raises:
            ValueError: If the encoding has no head of a temperature's name.
        """
        outputs = encoding.name_outputs(outputs)
        scaled = dict(outputs)
        for name, temperature in self.temperatures.items():
            scaled |= divide_logits(encoding.head(name), outputs, temperature)
        return scaled

    def sets(self, decoded: Decoded) -> PredictionSets:
        """Returns the prediction sets of `decoded`, from calibrated outputs."""
        return PredictionSets(
            **{
                name: set_scores(probabilities) <= self._thresholds_of(name, decoded)
                for name, probabilities in class_probabilities(decoded).items()
                if name in self.thresholds
            }
        )

    def _thresholds_of(self, name: str, decoded: Decoded) -> Any:
        """Returns the threshold of each face, or of all of them. Shape (…, 1)."""
        values = ops.convert_to_tensor(self.thresholds[name], dtype="float32")
        if self.by is None:
            return values[:, None]
        return ops.take(values, getattr(decoded, self.by), axis=0)[:, None]

    def to_dict(self) -> dict[str, Any]:
        """Returns the calibration as plain values; `from_dict` reads them."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """Returns the calibration that `to_dict` wrote."""
        return cls(**fields)

    def __str__(self) -> str:
        lines = []
        for name, value in self.temperatures.items():
            faces = self.num_faces.get(name)
            lines.append(f"{name}: temperature {value:.3f}{_over(faces)}")
        for name, values in self.thresholds.items():
            shown = ", ".join(f"{value:.3f}" for value in values)
            by = f" by predicted {self.by}" if self.by else ""
            faces = self.num_faces.get(f"{name}_set")
            lines.append(
                f"{name} sets, coverage {1 - self.alpha:.0%}: threshold {shown}{by}"
                f"{_over(faces)}"
            )
        for name, (count, faces) in self.num_changed.items():
            lines.append(f"{name}: predictions change for {count} of {faces} faces")
        return "\n".join(lines)


def check_options(alpha: float, by: str | None) -> None:
    """Checks the options `alpha` and `by`."""
    if not 0 < alpha < 1:
        raise ValueError(
            f"Invalid `alpha`. Expected a share in (0, 1). Received: alpha={alpha}."
        )
    if by is not None and by not in GROUPINGS:
        raise ValueError(
            f"Invalid `by`. Expected one of {GROUPINGS} or None. Received: by={by!r}."
            + did_you_mean(by, GROUPINGS)
        )


def class_probabilities(decoded: Decoded) -> dict[str, Any]:
    """Returns the class probabilities of `age_group` and `gender`, if predicted."""
    found = {}
    if decoded.age_probabilities is not None:
        found["age_group"] = decoded.age_probabilities
    if decoded.gender_probability is not None:
        male = decoded.gender_probability
        found["gender"] = ops.stack([1.0 - male, male], axis=-1)
    return found


def divide_logits(
    head: Head, outputs: Mapping[str, Any], temperature: Any
) -> dict[str, Any]:
    """Returns a head's outputs with their logits divided by a temperature.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    scaled = {name: outputs[name] for name in head.output_names}
    if head.spec.continuous or temperature == 1.0:
        return scaled
    for name, values in scaled.items():
        values = ops.cast(ops.convert_to_tensor(values), "float32")
        if head.spec.activation == "softmax":
            logits = ops.log(ops.maximum(values, SOFTMAX_MARGIN))
            scaled[name] = ops.softmax(logits / temperature, axis=-1)
        else:
            inside = ops.clip(values, SIGMOID_MARGIN, 1.0 - SIGMOID_MARGIN)
            # Not log1p, which ONNX does not have: they differ by less than 1e-7.
            logits = ops.log(inside) - ops.log(1.0 - inside)
            scaled[name] = ops.sigmoid(logits / temperature)
    return scaled


def set_scores(probabilities: Any) -> Any:
    """Returns for each class the probability in the set before the class joins it.

    Shape (batch, num_classes).

    Source: Lu et al., "Improving Trustworthiness of AI Disease Severity Rating in
    Medical Imaging with Ordinal Conformal Prediction Sets", MICCAI 2022.
    """
    probabilities = ops.cast(ops.convert_to_tensor(probabilities), "float32")
    num_classes = probabilities.shape[-1]
    nothing = ops.full_like(probabilities[:, :1], -1.0)
    padded = ops.concatenate([nothing, probabilities, nothing], axis=-1)
    left = right = most_probable(probabilities)[:, None]
    inside = ops.max(probabilities, axis=-1, keepdims=True)
    scores = ops.zeros_like(probabilities)
    for _ in range(num_classes - 1):
        # In `padded` class k is at k + 1.
        below = ops.take_along_axis(padded, left, axis=-1)
        above = ops.take_along_axis(padded, right + 2, axis=-1)
        down = below >= above
        left = ops.where(down, left - 1, left)
        right = ops.where(down, right, right + 1)
        joins = ops.where(down, left, right)
        joining = ops.one_hot(joins[:, 0], num_classes, dtype="float32")
        scores = scores + joining * ops.minimum(inside, 1.0)
        inside = inside + ops.where(down, below, above)
    return scores


def _over(faces: int | tuple[int, ...] | None) -> str:
    if faces is None:
        return ""
    counts = (faces,) if isinstance(faces, int) else faces
    return f" (over {', '.join(map(str, counts))} faces)"
