"""Output layers: one per output of a head, named like it; and what they mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
from keras import initializers, layers

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.encodings.head import Head
from keras_agegender.encodings.kinds import KINDS

# Between the name of a head and those of the layers it is made of.
PART = "_rank_"

# Name of the layer that keeps the encoding; it changes nothing and has no weights.
ENCODING_LAYER = "encoding"


def build_heads(features: Any, heads: Sequence[Head]) -> dict[str, Any]:
    """Puts an output layer per output behind the backbone's features.

    Outputs are float32 under every dtype policy: probabilities near 0 and 1, and the
    losses of them, need it.

    Args:
        features: What the heads share. Shape (batch, num_features).
        heads: Which outputs.

    Returns:
        Output name -> tensor of shape (batch, units), for coral and corn heads of shape
        (batch, num_classes - 1, 1).
    """
    outputs = {}
    for head in heads:
        if head.kind in ("coral", "corn"):
            outputs[head.name] = _build_ranks(features, head)
            continue
        units = 1 if KINDS[head.kind].several_outputs else head.num_classes
        for name in head.output_names:
            outputs[name] = layers.Dense(
                units,
                activation=KINDS[head.kind].activation,
                dtype="float32",
                name=name,
            )(features)
    return outputs


def store_encoding(features: Any, encoding: Encoding) -> Any:
    """Lets features pass through a layer whose configuration holds the encoding.

    What the outputs mean is then part of every `.keras` file, which still loads with
    plain Keras. The layer is a `Dropout` of rate 0, which does nothing, on any backend;
    Keras keeps the `seed` of one as it is given, and uses it for rates above 0 only.

    Args:
        features: What the heads share. Shape (batch, num_features).
        encoding: The model's encoding.
    """
    keep = layers.Dropout(0.0, seed=encoding.to_json(), name=ENCODING_LAYER)
    return keep(features)


def stored_encoding(model: keras.Model) -> Encoding | None:
    """Returns the encoding a model was built with; `None` if it holds none.

    Args:
        model: A model, of `build_model` or loaded from a `.keras` file.

    Example:
    >>> from keras_agegender import build_model
    >>> model = build_model("caffe_1conv", "ordinal", image_size=(32, 32))
    >>> stored_encoding(model).question
    'older'
    """
    for layer in model.layers:
        if layer.name == ENCODING_LAYER and isinstance(layer, layers.Dropout):
            return Encoding.from_dict(json.loads(layer.seed))
    return None


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
