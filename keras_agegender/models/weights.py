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

    @property
    def summary(self) -> str:
        """How many layers were loaded and skipped, in a line."""
        return f"{len(self.loaded)} layers loaded, {len(self.skipped)} skipped"

    def __str__(self) -> str:
        lines = [self.summary]
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
        ValueError: If not a single layer fits, or a frozen one (`trainable` is False)
            finds no weights: it would never learn any. Nothing is copied then.

    Example:
        >>> from keras_agegender.models.builder import build_model
        >>> old, new = (build_model("resnet34", e) for e in ("attributes", "ordinal"))
        >>> sorted(transfer_weights(old, new).skipped)[:2]
        ['age1', 'age2']
    """
    given = {layer.name: layer for layer in source.layers if layer.weights}
    fitting, skipped = [], {}
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
        fitting.append(layer)
    frozen = {layer.name for layer in target.layers if not layer.trainable}
    missing = [name for name in skipped if name in frozen]
    if missing:
        num_frozen = len(missing) + sum(layer.name in frozen for layer in fitting)
        raise ValueError(
            f"The weights are those of {source.name!r}, another trunk than "
            f"{target.name!r}: {len(missing)} of {num_frozen} frozen layers found none "
            f"there. {missing[0]!r}: {skipped[missing[0]]}."
        )
    if not fitting:
        raise ValueError(
            f"No layer of {source.name!r} fits one of {target.name!r}: "
            f"{next(iter(skipped.items()), 'the target has no weights')}."
        )
    for layer in fitting:
        copy_weights(given[layer.name], layer)
    return WeightTransfer(tuple(layer.name for layer in fitting), skipped)
