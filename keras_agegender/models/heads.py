"""Output layers: one per head, named like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import initializers, layers

from keras_agegender.encodings.head import Head

# Between the name of a head and those of the layers it is made of.
PART = "_rank_"
ACTIVATIONS = {"binary": "sigmoid", "categorical": "softmax", "regression": "linear"}


def build_heads(features: Any, heads: Sequence[Head]) -> dict[str, Any]:
    """Puts an output layer per head behind the backbone's features.

    Outputs are float32 under every dtype policy: probabilities near 0 and 1, and the
    losses of them, need it.

    Args:
        features: What the heads share. Shape (batch, num_features).
        heads: Which outputs.

    Returns:
        Head name -> tensor of shape (batch, units), for coral and corn heads of shape
        (batch, num_classes - 1, 1).
    """
    return {head.name: _build_head(features, head) for head in heads}


def _build_head(features: Any, head: Head) -> Any:
    if head.kind in ("coral", "corn"):
        return _build_ranks(features, head)
    return layers.Dense(
        head.num_classes,
        activation=ACTIVATIONS[head.kind],
        dtype="float32",
        name=head.name,
    )(features)


def _build_ranks(features: Any, head: Head) -> Any:
    """Returns one yes or no for each rank; shape (batch, num_classes - 1, 1).

    CORAL's questions share one weight per feature and have a bias each. Their biases
    are the beta of a normalisation of zeros: plain Keras has no layer of biases alone,
    and a file of plain layers loads without this package.
    """
    ranks = head.num_classes - 1

    def named(part: str) -> dict[str, str]:
        return {"dtype": "float32", "name": f"{head.name}{PART}{part}"}

    if head.kind == "corn":
        logits = layers.Dense(ranks, **named("logits"))(features)
    else:
        score = layers.Dense(1, use_bias=False, **named("score"))(features)
        score = layers.Concatenate(**named("scores"))([score] * ranks)
        zeros = layers.Rescaling(0.0, **named("zeros"))(score)
        thresholds = layers.LayerNormalization(
            scale=False,
            # Descending from 1, as coral-pytorch begins: the ranks start in order.
            beta_initializer=initializers.Constant(
                [(ranks - k) / ranks for k in range(ranks)]
            ),
            **named("thresholds"),
        )(zeros)
        logits = layers.Add(**named("logits"))([score, thresholds])
    logits = layers.Reshape((ranks, 1), **named("column"))(logits)
    return layers.Activation("sigmoid", dtype="float32", name=head.name)(logits)
