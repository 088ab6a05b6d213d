"""Dicts by output name: whether their keys, and the arrays in them, are possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_agegender.suggestion import did_you_mean


def check_output_names(given: Any, expected: Sequence[str], argument: str) -> None:
    """Raises ValueError if `given` holds a name that is not among `expected`."""
    for name in given:
        if name not in expected:
            hint = did_you_mean(name, expected)
            raise ValueError(
                f"Invalid `{argument}`. There is no output named {name!r}.{hint} "
                f"Outputs: {list(expected)}."
            )


def check_outputs(outputs: Mapping[str, Any], names: Sequence[str], name: str) -> None:
    """Raises ValueError if an output is missing, or an array of them holds NaN."""
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
                    f"{len(values)} faces, first at position {wrong[0]}: the model's "
                    "weights, or its input, are no numbers (did training diverge?)."
                )
