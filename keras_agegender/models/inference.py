"""Graph changes for inference: inlined submodels and folded batch normalization."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

# Layers of exactly these classes: a subclass may do something else.
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


class _Call(NamedTuple):
    """The call of a layer; keeps the output tensor alive, so that its id is unique."""

    layer: keras.layers.Layer
    inputs: Any
    outputs: Any


def fold_for_inference(model: keras.Model) -> keras.Model:
    """Returns a faster model with the same predictions, up to rounding.

    Batch normalization after a convolution becomes part of its weights, and zero
    padding before one that equals "same" padding part of its arguments. All other
    layers are those of the model. It cannot be trained: the statistics are fixed.
    Nested models are folded too. A Sequential or subclassed model has no graph of calls
    to rebuild and is returned unchanged.
    """
    if not hasattr(model, "operations"):
        return model
    made: dict[int, _Call] = {}

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        # Such as training=None, which saved models contain.
        is_plain = all(value is None or value is False for value in kwargs.values())
        if len(args) != 1 or not is_plain:
            return layer(*args, **kwargs)
        merged = _merged(layer, made.get(id(args[0])))
        inputs = args[0]
        if merged is None:
            outputs = layer(inputs, **kwargs)
        else:
            layer, inputs = merged
            outputs = layer(inputs)
        made[id(outputs)] = _Call(layer, inputs, outputs)
        return outputs

    return keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            fold_for_inference(layer) if isinstance(layer, keras.Model) else layer
        ),
        call_function=call,
    )


def _merged(
    layer: keras.layers.Layer, before: _Call | None
) -> tuple[keras.layers.Layer, Any] | None:
    """Returns one layer for two consecutive ones, and its input, if possible."""
    if before is None:
        return None
    kinds, inputs = (type(before.layer), type(layer)), before.inputs
    if kinds[0] is layers.ZeroPadding2D and kinds[1] in CONVOLUTIONS:
        if _is_same_padding(before, layer):
            weights = layer.get_weights()
            return _copy(layer, inputs, weights, padding="same"), inputs
    if kinds[0] in CONVOLUTIONS and kinds[1] is layers.BatchNormalization:
        if _takes_normalization(before.layer, layer):
            weights = _normalized(before.layer, layer)
            # The name of the normalization: other uses of the convolution remain.
            changes = {"use_bias": True, "name": layer.name}
            return _copy(before.layer, inputs, weights, **changes), inputs
    return None


def _copy(
    layer: keras.layers.Layer, inputs: Any, weights: list[np.ndarray], **changes: Any
) -> keras.layers.Layer:
    """Returns a layer with other weights and arguments."""
    copy = type(layer).from_config({**layer.get_config(), **changes})
    copy.build(inputs.shape)
    copy.set_weights(weights)
    return copy


def _is_same_padding(padding: _Call, layer: Any) -> bool:
    """Whether zero padding equals "same" padding."""
    if layer.padding != "valid" or layer.data_format != "channels_last":
        return False
    if padding.layer.data_format != "channels_last":
        return False
    for axis in (0, 1):
        size, stride = padding.inputs.shape[1 + axis], layer.strides[axis]
        if size is None:
            return False
        reach = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        if tuple(padding.layer.padding[axis]) != (total // 2, total - total // 2):
            return False
    return True


def _takes_normalization(layer: Any, normalization: Any) -> bool:
    """Whether a batch normalization acts on the output channels of a convolution."""
    return (
        layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and normalization.axis in (-1, 3)
    )


def _normalized(layer: Any, normalization: Any) -> list[np.ndarray]:
    """Returns kernel and bias of a convolution with the normalization folded in."""
    # In this order, if present: gamma, beta, mean, variance.
    values = [np.asarray(w, float) for w in normalization.get_weights()]
    mean, variance = values[-2:]
    gamma = values[0] if normalization.scale else 1.0
    beta = values[-3] if normalization.center else 0.0
    scale = gamma / np.sqrt(variance + normalization.epsilon)
    kernel, *bias = (np.asarray(w, float) for w in layer.get_weights())
    shift = (bias[0] if bias else 0.0) - mean
    # The output channels of a depthwise kernel are its last two axes.
    is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
    factors = scale.reshape(kernel.shape[2:]) if is_depthwise else scale
    return [kernel * factors, shift * scale + beta]


def inline_model(model: keras.Model, image: Any) -> Any:
    """Calls copies of a model's layers, weights included, on an image tensor.

    A subclassed model has no graph of layers: it is called as one layer.
    """
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "Invalid `backbone`. Expected a model that is built: put keras.Input first "
            f"in the Sequential model {model.name!r}."
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

    # `clone_model` walks the graph; the model that it returns is not needed.
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
        # Computes mean and variance from the weights.
        target.finalize_state()
