"""Output layers: one per head, named like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from keras_agegender.encodings import Head

ACTIVATIONS = {"binary": "sigmoid", "categorical": "softmax", "regression": "linear"}


def build_heads(features: Any, heads: Sequence[Head]) -> dict[str, Any]:
    """Puts an output layer per head behind the backbone's features.

    Outputs are float32 under every dtype policy: probabilities near 0 and 1, and the
    losses of them, need it.

    Args:
        features: What the heads share. Shape (batch, num_features).
        heads: Which outputs.

    Returns:
        Head name -> tensor of shape (batch, units).
    """
    return {
        head.name: layers.Dense(
            head.num_classes,
            activation=ACTIVATIONS[head.kind],
            dtype="float32",
            name=head.name,
        )(features)
        for head in heads
    }
