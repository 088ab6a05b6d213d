"""Weights from one model to another: what fits is copied, and all is listed."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_agegender.models.inlining import copy_weights


@dataclass(frozen=True)
class WeightTransfer:
    """What `transfer_weights` did, layer by layer.

    Attributes:
        loaded: Layers whose weights were copied.
        skipped: Layer of the target -> why its weights stayed as they were.
    """

    loaded: tuple[str, ...]
    skipped: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} layers loaded, {len(self.skipped)} skipped"]
        lines += [f"  {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def transfer_weights(source: keras.Model, target: keras.Model) -> WeightTransfer:
    """Copies the weights of every layer that both models have, by name and shape.

    Args:
        source: A trained model, of CelebA's attributes for instance.
        target: The model to be trained further; its other layers are left alone.

    Returns:
        Which layers were copied, and which not and why.

    Raises:
        ValueError: If not a single layer fits.

    Example:
        >>> from keras_agegender.models.builder import build_model
        >>> old, new = (build_model("resnet34", e) for e in ("attributes", "ordinal"))
        >>> sorted(transfer_weights(old, new).skipped)[:2]
        ['age1', 'age2']
    """
    given = {layer.name: layer for layer in source.layers if layer.weights}
    loaded, skipped = [], {}
    for layer in target.layers:
        if not layer.weights:
            continue
        if layer.name not in given:
            skipped[layer.name] = "the source has no layer of that name"
            continue
        shapes = [tuple(w.shape) for w in layer.weights]
        other = [tuple(w.shape) for w in given[layer.name].weights]
        if shapes != other:
            skipped[layer.name] = f"shapes {shapes} here, {other} in the source"
            continue
        copy_weights(given[layer.name], layer)
        loaded.append(layer.name)
    if not loaded:
        raise ValueError(
            f"No layer of {source.name!r} fits one of {target.name!r}: "
            f"{next(iter(skipped.items()), 'the target has no weights')}."
        )
    return WeightTransfer(tuple(loaded), skipped)
