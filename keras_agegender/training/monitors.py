"""Monitors: the metrics that a recipe's callbacks may watch, known before training."""

from __future__ import annotations

import difflib

from keras_agegender.encodings.decoding import ORDINAL_HEAD_NAMES
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.recipes.recipe import Recipe


def logged_names(encoding: Encoding) -> list[str]:
    """Returns the names of the metrics that training with an encoding logs.

    Args:
        encoding: The model's outputs.
    """
    names = ["loss", *_decoded_names(encoding)]
    metrics = encoding.metrics()
    for head in encoding.heads:
        names.append(f"{head.name}_loss")
        # Keras puts the output's name in front, but not where there is only one.
        prefix = f"{head.name}_" if len(encoding.heads) > 1 else ""
        names += [f"{prefix}{metric_name(m)}" for m in metrics.get(head.name, [])]
    if set(encoding.output_names) & set(ORDINAL_HEAD_NAMES):
        names.append("age_loss")
    names = [*dict.fromkeys(names)]
    return names + [f"val_{name}" for name in names]


def _decoded_names(encoding: Encoding) -> list[str]:
    """Returns what `DecodedAccuracy` logs; `train` replaces a mean of nothing."""
    names = ["mean_accuracy"]
    if encoding.gender_decoder is not None:
        names.append("gender_accuracy")
    if encoding.age_decoder is not None:
        names.append("age_accuracy")
        if encoding.question is not None:
            names.append("age_all_heads_accuracy")
    return names


def metric_name(metric: object) -> str:
    """Returns the name under which Keras logs a metric."""
    return getattr(metric, "name", None) or str(metric)


def check_monitors(recipe: Recipe, encoding: Encoding) -> None:
    """Raises ValueError if a recipe watches a metric that will not be logged.

    Keras warns of such a one after an epoch, and then neither stops nor keeps a model.
    """
    training = recipe.training
    watched = {
        "training.keep_monitor": training.keep_monitor,
        **{f"training.keep.{name}": m for name, m in training.keep.items()},
    }
    if training.patience is not None:
        watched["training.stop_monitor"] = training.stop_monitor
    for number, change in enumerate(recipe.loss_weight_changes):
        if change.monitor is not None:
            watched[f"loss_weight_changes[{number}].monitor"] = change.monitor
    known = logged_names(encoding)
    for key, monitor in watched.items():
        if monitor not in known:
            close = difflib.get_close_matches(monitor, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"Invalid `{key}` of recipe {recipe.name!r}. Expected one of {known}. "
                f"Received: {monitor!r}.{hint}"
            )
