"""Validation losses as means over the faces that have a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.callbacks.loss_weight_attachment import loss_weights_in_force
from keras_agegender.encodings.encoding import Encoding

REDUCTION = "mean_with_sample_weight"


def labelled_losses(
    model: keras.Model,
    outputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    encoding: Encoding,
) -> dict[str, float]:
    """Returns a compiled model's losses, each the mean over the faces with a label.

    Keras has the mean of a batch count as often as the batch has faces, labelled or
    not. Where few faces have a label, its epoch's figure is another one than the mean
    over labelled faces: a batch without any label counts as a loss of 0.

    Args:
        model: A model compiled with `encoding.losses()`, or a dict of losses like them.
        outputs: Its predictions by output. Shape (num_faces, units) each.
        labels: Values of `encoding.columns`, -1 (NaN for regression) where unknown.
            Shape (num_faces,) each.
        encoding: What the labels become.

    Returns:
        `<output>_loss` for every output, 0 where no face has a label, and `loss`, their
        sum by the loss weights in force, but for models with regularizers. Empty if
        the model is compiled with losses that average otherwise, or a column is
        missing.
    """
    losses = model.loss if isinstance(model.loss, Mapping) else {}
    if not set(encoding.columns) <= set(labels):
        return {}
    if any(
        getattr(losses.get(name), "reduction", None) != REDUCTION
        for name in encoding.output_names
    ):
        return {}
    given = (labels.get("age_group", -1), labels.get("gender", -1), labels)
    targets, weights = encoding.encode(*given), encoding.sample_weights(*given)
    found = {
        name: _mean_loss(losses[name], targets[name], outputs[name], weights[name])
        for name in encoding.output_names
    }
    logs = {f"{name}_loss": value for name, value in found.items()}
    if set(losses) == set(found) and not model.losses:
        factors = loss_weights_in_force(model)
        logs["loss"] = sum(factors[name] * value for name, value in found.items())
    return logs


def _mean_loss(loss: Any, target: Any, output: Any, weight: np.ndarray) -> float:
    # `call` and not the loss itself, which divides by the replicas of a strategy.
    values = loss.call(
        ops.convert_to_tensor(target, dtype="float32"),
        ops.convert_to_tensor(output, dtype="float32"),
    )
    values = np.asarray(ops.convert_to_numpy(values), "float64")
    total = weight.sum(dtype="float64")
    return float((values * weight).sum() / total) if total else 0.0
