"""A Keras model's layers, put one by one into another model's graph.

Inlined layers can be counted, frozen, transferred and exported like any other; nested
in a model of their own they were one layer to all of these.
"""

from __future__ import annotations

from typing import Any

import keras


def inline_model(model: keras.Model, image: Any) -> Any:
    """Calls copies of a model's layers, weights included, on an image tensor.

    The model itself is left as it is.

    Args:
        model: A functional or Sequential model of one input. A subclassed one has no
            graph of layers: it is called as it is, as one layer.
        image: A tensor of the shape that the model takes.

    Returns:
        The model's output for that tensor.

    Raises:
        ValueError: If it has more inputs or outputs than one, or is not built.

    Example:
        >>> source = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> image = keras.Input((4,))
        >>> copy = keras.Model(image, inline_model(source, image))
        >>> [type(layer).__name__ for layer in copy.layers]
        ['InputLayer', 'Dense']
    """
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "Invalid `backbone`. Expected a model that is built: begin the Sequential "
            f"model {model.name!r} with keras.Input."
        )
    if not getattr(model, "outputs", None):  # subclassed
        return model(image)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "Invalid `backbone`. Expected a model of one input and one output. "
            f"Received: {model.name!r} with {len(model.inputs)} and "
            f"{len(model.outputs)}."
        )
    end = keras.layers.Identity(name="end_of_inlined_model")
    copies: list[tuple[Any, Any]] = []
    features: list[Any] = []

    def copy(layer: Any) -> Any:
        if layer is end or not isinstance(layer, keras.layers.Layer):
            return layer
        copies.append((layer, type(layer).from_config(layer.get_config())))
        return copies[-1][1]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer is end:
            features.append(args[0])
        return layer(*args, **kwargs)

    # `clone_model` is asked to walk the graph; the model that it makes is not needed.
    keras.models.clone_model(
        keras.Model(model.inputs[0], end(model.outputs[0])),
        input_tensors=image,
        clone_function=copy,
        call_function=call,
    )
    for layer, made in copies:
        copy_weights(layer, made)
    return features[0]


def copy_weights(source: Any, target: Any) -> None:
    """Gives a layer the weights of another one of the same shapes."""
    target.set_weights(source.get_weights())
    if isinstance(target, keras.layers.Normalization):
        # What it takes off is worked out from its weights only then.
        target.finalize_state()
