"""`LossWeightBalancer`: loss weights computed from the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_agegender.callbacks import loss_weights

EPSILON = 1e-7  # Keras' own; a loss of 0 is replaced by it.

METHODS = ("dwa", "uncertainty")

UNKNOWN = -1.0  # in place of an unknown loss


def dynamic_weight_average(
    latest: Any, earlier: Any, temperature: float = 2.0
) -> np.ndarray:
    """Returns more weight for the outputs whose loss falls more slowly. Shape (K,).

    `w_k = K softmax(r / T)_k` with `r_k = latest_k / earlier_k`. They sum to K.

    >>> dynamic_weight_average([1.0, 1.0], [1.0, 2.0]).round(3)
    array([1.124, 0.876])

    Source: Liu et al. 2019, End-to-End Multi-Task Learning with Attention,
    https://arxiv.org/abs/1803.10704, equation 7.
    """
    ratios = _positive(latest) / _positive(earlier)
    return len(ratios) * _softmax(ratios / temperature)


def uncertainty_weights(losses: Any, temperature: float | None = None) -> np.ndarray:
    """Returns weights that make losses of any scale count the same. Shape (K,).

    Kendall et al. learn an uncertainty for each output, whose inverse weights the loss.
    Kirchdorfer et al. solve for it: the weight is `1 / L_k` (their UW-O), and with a
    temperature `K softmax((1 / L) / T)_k` (their UW-SO, here times K for a mean of 1).

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


class LossWeightBalancer(loss_weights.LossWeightCallback):
    """Sets the loss weights of a compiled model from its losses during `fit`.

    - `"dwa"`, dynamic weight averaging (Liu et al. 2019): an output whose loss fell
      more slowly over the last two epochs gets more weight. All weights are 1 in the
      first two epochs.
    - `"uncertainty"`, uncertainty weighting in its analytic form (Kendall et al. 2018,
      Kirchdorfer et al. 2024): an output's weight is `1 / loss`, so that losses of any
      scale count the same. All weights are 1 until there is a loss. With a
      `temperature`, the weights are a softmax of `1 / loss / temperature`.

    The weights of `"dwa"` and of the softmax have mean 1. `base_weights` multiply the
    weights, which replace those that the model was compiled with. They are computed
    from the *unweighted* training losses, including sample weights. If a loss is not
    finite, the weights do not change.

    Weights are logged, saved and resumed like those of `LossWeightScheduler`, together
    with the losses that they are computed from. In a second `fit` of the same model,
    the same callback continues; a new one starts over. Place callbacks that save, such
    as `BackupAndRestore`, after it in the list. It sets its outputs' weights at the
    beginning of every epoch (or after every step). Give schedulers in the same `fit`
    other outputs; if two set a weight at the same time, the later one in the list wins.

    `val_loss` changes with the weights: let callbacks monitor a metric of an output.

    Args:
        method: `"dwa"` or `"uncertainty"`.
        outputs: Names of the outputs to balance, two or more; `None` (default) balances
            all. The others keep their weights.
        temperature: Above 0; the higher, the more equal the weights. `None` (default)
            is 2 for `"dwa"` and no softmax for `"uncertainty"`.
        by: `"epoch"` or `"step"`: when weights are set. `"dwa"` supports epochs only.
            By step, the losses of every step are read back from the device, which takes
            time; with `steps_per_execution` above 1, of every execution. Defaults to
            `"epoch"`.
        momentum: For `"uncertainty"`, the share of the old running average that stays
            when a loss is added, in [0, 1). `None` (default) is 0 by epoch and 0.9 by
            step.
        base_weights: Output name -> factor of its weight; 1 for the other outputs.
        verbose: 1 prints a line at every change. Defaults to 0.

    Raises:
        ValueError: If an argument is invalid, or, when training starts, if the model
            has fewer than two of the outputs; while training, if a loss is negative.

    Example:
    >>> balancer = LossWeightBalancer("dwa", outputs=["age", "gender"])
    >>> model.fit(train_ds, epochs=10, callbacks=[balancer])  # doctest: +SKIP

    Source: https://arxiv.org/abs/1803.10704, https://arxiv.org/abs/1705.07115,
    https://arxiv.org/abs/2408.07985.
    """

    def __init__(
        self,
        method: str,
        outputs: Sequence[str] | None = None,
        temperature: float | None = None,
        by: str = "epoch",
        momentum: float | None = None,
        base_weights: Mapping[str, float] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose=verbose)
        if method not in METHODS:
            raise ValueError(
                f"Invalid `method`. Expected one of {METHODS}. Received: {method!r}."
            )
        if outputs is not None and (
            isinstance(outputs, str)
            or len(set(outputs)) != len(outputs)
            or len(outputs) < 2
        ):
            raise ValueError(
                "Invalid `outputs`. Expected two or more distinct names. Received: "
                f"{outputs!r}."
            )
        if temperature is not None and not 0 < temperature < float("inf"):
            raise ValueError(
                "Invalid `temperature`. Expected a number above 0. Received: "
                f"{temperature!r}."
            )
        if by not in ("epoch", "step") or (by == "step" and method == "dwa"):
            raise ValueError(
                "Invalid `by`. Expected 'epoch', or 'step' with method 'uncertainty'. "
                f"Received: by={by!r} with method={method!r}."
            )
        if momentum is not None and (method == "dwa" or not 0 <= momentum < 1):
            raise ValueError(
                "Invalid `momentum`. Expected a number in [0, 1), with method "
                f"'uncertainty'. Received: {momentum!r} with method={method!r}."
            )
        self.method = method
        self.outputs = None if outputs is None else tuple(outputs)
        self.temperature = temperature
        self.by = by
        default = 0.9 if by == "step" else 0.0
        self.momentum = default if momentum is None else momentum
        self.base_weights = loss_weights.checked_weights(
            base_weights or {}, "in `base_weights`"
        )
        # Rows: the latest losses (or their running averages), those before them.
        self._losses: Any = None
        self._num_epochs: Any = None
        self._totals: dict[str, np.ndarray] = {}

    def changed_outputs(self) -> set[str]:
        """Returns the balanced outputs."""
        return set(self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return self.outputs or tuple(self._state.loss_weights)

    def set_model(self, model: keras.Model) -> None:
        """Attaches the weights to the model."""
        continues = self._losses is not None and self._state.model() is model
        super().set_model(model)
        names = self._names
        if len(names) < 2:
            raise ValueError(
                "Balancing requires two or more outputs with a loss. Received a model "
                f"with {sorted(self._state.loss_weights)}."
            )
        loss_weights.check_names(self.base_weights, dict.fromkeys(names))
        losses = np.full((2, len(names)), UNKNOWN, "float32")
        if continues:
            losses = _numpy(self._losses)
        self._losses = self._state.add_value(losses, "balanced_losses")
        self._num_epochs = self._state.add_value(UNKNOWN, "balanced_epochs")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the weights of this epoch."""
        super().on_epoch_begin(epoch, logs)
        self.sync_model()
        self._totals = {}
        saved = int(_numpy(self._num_epochs))
        if self._state.restored and self.by == "epoch" and saved != epoch:
            raise ValueError(
                "The losses of the last epoch are missing in the backup. Place the "
                "callback that saves after LossWeightBalancer. Expected epoch "
                f"{epoch}. Received: {saved}."
            )
        self._balance(f"epoch {epoch}")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Reads this step's losses and sets the next step's weights."""
        super().on_train_batch_end(batch, logs)
        if self.by == "step":
            self.sync_model()
            self._add(self._losses_since_last_read())
            self._balance(f"step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reads this epoch's losses."""
        if self.by == "epoch":
            values = logs or {}
            keys = self._state.log_names()
            losses = [sum(float(values[key]) for key in keys[n]) for n in self._names]
            self._add(losses)
            self._num_epochs.assign(float(epoch + 1))

    def _losses_since_last_read(self) -> list[float]:
        totals = self._state.loss_totals()
        losses = []
        for name in self._names:
            new = totals[name] - self._totals.get(name, 0.0)
            losses.append(float(np.sum(new[:, 0] / new[:, 1])))
        self._totals = totals
        return losses

    def _add(self, losses: Sequence[float]) -> None:
        """Adds losses to the running averages, unless one of them is not finite."""
        added = np.asarray(losses, "float32")
        if not np.isfinite(added).all():
            return
        if (added < 0).any():
            raise ValueError(
                "Balancing requires non-negative losses. Received: "
                f"{dict(zip(self._names, losses, strict=True))}."
            )
        latest = _numpy(self._losses)[0]
        if self.method == "uncertainty" and (latest != UNKNOWN).all():
            added = self.momentum * latest + (1 - self.momentum) * added
        self._losses.assign(np.stack([added, latest]).astype("float32"))

    def _balance(self, when: str) -> None:
        latest, earlier = _numpy(self._losses)
        needed = latest if self.method == "uncertainty" else earlier
        if (needed == UNKNOWN).any():
            weights = np.ones(len(latest))
        elif self.method == "uncertainty":
            weights = uncertainty_weights(latest, self.temperature)
        else:
            weights = dynamic_weight_average(latest, earlier, self.temperature or 2.0)
        balanced = {
            name: float(weight) * self.base_weights.get(name, 1.0)
            for name, weight in zip(self._names, weights, strict=True)
        }
        self.change(balanced, when)


def _numpy(variable: Any) -> np.ndarray:
    return ops.convert_to_numpy(variable.value)
