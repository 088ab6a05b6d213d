"""Freezing: which layers train."""

from __future__ import annotations

from collections.abc import Collection

import keras

from keras_agegender.models.heads import ENCODING_LAYER, PART


def freeze_all_but_last(
    model: keras.Model, num_layers: int, outputs: Collection[str]
) -> list[str]:
    """Lets just the outputs and some layers before them train.

    Layers without weights count too, as in the report, and those of an inlined backbone
    one by one; a subclassed model is one layer. Frozen batch normalisations use the
    statistics they have. Call it before `compile`.

    Args:
        model: The model; its layers are changed.
        num_layers: Layers before the outputs that train; all of them if there are no
            more.
        outputs: Names of output layers, and of layers that belong to them.

    Returns:
        Names of the layers that have weights and train.

    Raises:
        ValueError: If `num_layers` is negative.

    Example:
        >>> from keras_agegender.models.builder import build_model
        >>> model = build_model("resnet34", "categorical")
        >>> freeze_all_but_last(model, 3, ("gender", "age"))[:1]
        ['age']
    """
    if num_layers < 0:
        raise ValueError(
            "Invalid `num_layers`. Expected a number that is not negative. "
            f"Received: num_layers={num_layers}."
        )
    # A coral or corn head is several layers, named after it.
    parts = tuple(f"{name}{PART}" for name in outputs)
    before = [
        layer
        for layer in model.layers
        if layer.name not in {*outputs, ENCODING_LAYER}
        and not layer.name.startswith(parts)
    ]
    for layer in before[: max(len(before) - num_layers, 0)]:
        layer.trainable = False
    return [layer.name for layer in model.layers if layer.trainable_weights]
