"""Keras losses and metrics that mask missing labels, -1 or NaN.

They are saved as the Keras classes that they derive from, so that files load without
this package. Compile a loaded model again to mask labels.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from keras_agegender.distribution import sum_over_replicas


@functools.cache
def masked_class(module: str, name: str, continuous: bool) -> type:
    """Returns a Keras loss or metric that masks missing labels.

    Args:
        module: `"losses"` or `"metrics"`.
        name: Name of a class in it.
        continuous: Whether labels are any numbers, so that only NaN is missing.
    """
    base = getattr(getattr(keras, module), name)
    mixin = {"losses": _MaskedLoss, "metrics": _MaskedMetric}[module]
    fields = {
        "__module__": f"keras.{module}",  # the name in saved files
        "_sparse": name.startswith("Sparse"),
        "_continuous": continuous,
    }
    return type(name, (mixin, base), fields)


class _Masked:
    """Separates labels into values and weights."""

    _sparse: bool
    _continuous: bool

    def _known(self, y_true: Any, y_pred: Any, weight: Any) -> tuple[Any, Any]:
        """Returns labels, 0 where missing, and weights, 0 there too."""
        y_true = ops.convert_to_tensor(y_true)
        rank = len(y_pred.shape)
        if self._sparse and len(y_true.shape) == rank:
            y_true = ops.squeeze(y_true, axis=-1)
        if not self._sparse and len(y_true.shape) == rank - 1:
            y_true = ops.expand_dims(y_true, axis=-1)
        known = ops.equal(y_true, y_true) if self._continuous else y_true >= 0
        y_true = ops.where(known, y_true, ops.zeros_like(y_true))
        if not self._sparse:
            known = ops.all(known, axis=-1)
        known = ops.cast(known, "float32")
        if weight is None:
            return y_true, known
        weight = ops.cast(ops.convert_to_tensor(weight), "float32")
        if len(weight.shape) > len(known.shape) and weight.shape[-1] == 1:
            weight = ops.squeeze(weight, axis=-1)
        while len(weight.shape) < len(known.shape):
            weight = ops.expand_dims(weight, axis=-1)
        return y_true, known * weight


class _MaskedLoss(_Masked):
    """The mean over labeled faces, of all replicas of a strategy.

    Keras averages the means of replicas, which have different numbers of labels.
    """

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_true, weight = self._known(y_true, y_pred, sample_weight)
        loss: Any = self
        with keras.name_scope(loss.name):
            y_pred = ops.convert_to_tensor(y_pred, dtype=loss.dtype)
            values = loss.call(ops.cast(y_true, loss.dtype), y_pred)
            weight = ops.cast(weight, values.dtype)
            return ops.divide_no_nan(
                ops.sum(values * weight), sum_over_replicas(ops.sum(weight))
            )


class _MaskedMetric(_Masked):
    """Updates a metric from labeled faces only."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Updates the metric."""
        y_pred = ops.convert_to_tensor(y_pred)
        y_true, weight = self._known(y_true, y_pred, sample_weight)
        metric: Any = super()
        return metric.update_state(y_true, y_pred, weight)
