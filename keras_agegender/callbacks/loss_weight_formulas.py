"""How losses become the weights that balance them.

In: the losses of K outputs. Out: K weights. Plain NumPy: nothing here knows a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EPSILON = 1e-7  # Keras' own; a loss of 0 is taken as this.


def dynamic_weight_average(
    latest: Any, earlier: Any, temperature: float = 2.0
) -> np.ndarray:
    """Returns more weight for the outputs whose loss falls more slowly.

    `w_k = K softmax(r / T)_k` with `r_k = latest_k / earlier_k`. They sum to K. Shape
    (K,).

    Args:
        latest: Mean losses of the epoch before this one. Shape (K,), not negative.
        earlier: Mean losses of the epoch before that. Shape (K,), not negative.
        temperature: T, above 0; the higher, the more equal the weights. Defaults to 2.

    Example:
    >>> dynamic_weight_average([1.0, 1.0], [1.0, 2.0]).round(3)
    array([1.124, 0.876])

    Source: Liu et al. 2019, End-to-End Multi-Task Learning with Attention,
    https://arxiv.org/abs/1803.10704, equation 7.
    """
    falling = _positive(latest) / _positive(earlier)
    return len(falling) * _softmax(falling / temperature)


def uncertainty_weights(losses: Any, temperature: float | None = None) -> np.ndarray:
    """Returns weights with which losses of any scale count the same.

    Kendall et al. weigh a loss by the inverse of the output's uncertainty, which is
    learned. Kirchdorfer et al. solve for it: the best uncertainty is the loss itself,
    so the weight is `1 / L_k` (their UW-O). With a temperature it is
    `K softmax((1 / L) / T)_k` (their UW-SO, here times K, so that the weights' mean is
    1). Shape (K,).

    Args:
        losses: Current losses. Shape (K,), not negative.
        temperature: T of UW-SO, above 0, to be tuned to the size of `1 / L`; the
            higher, the more equal the weights. `None` (default) gives UW-O.

    Example:
    >>> uncertainty_weights([0.5, 4.0])
    array([2.  , 0.25])

    Source: Kendall et al. 2018, https://arxiv.org/abs/1705.07115; Kirchdorfer et al.
    2024, Analytical Uncertainty-Based Loss Weighting in Multi-Task Learning,
    https://arxiv.org/abs/2408.07985.
    """
    inverse = 1 / _positive(losses)
    if temperature is None:
        return inverse
    return len(inverse) * _softmax(inverse / temperature)


def _positive(losses: Any) -> np.ndarray:
    return np.maximum(np.asarray(losses, "float64"), EPSILON)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
