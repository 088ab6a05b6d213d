"""Monitors: the metrics that a recipe's callbacks may watch, known before training."""

from __future__ import annotations

from keras_agegender.encodings.encoding import Encoding
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.suggestion import did_you_mean


def logged_names(encoding: Encoding) -> list[str]:
    """Returns the names of the metrics that training with an encoding logs.

    Args:
        encoding: The model's outputs.
    """
    names = ["loss", *_decoded_names(encoding)]
    for output, metrics in encoding.metrics().items():
        names.append(f"{output}_loss")
        # Keras puts the output's name in front, but not where there is only one.
        prefix = f"{output}_" if len(encoding.output_names) > 1 else ""
        names += [f"{prefix}{metric_name(m)}" for m in metrics]
    if encoding.question is not None:
        names.append("age_loss")
    names = [*dict.fromkeys(names)]
    return names + [f"val_{name}" for name in names]


def _decoded_names(encoding: Encoding) -> list[str]:
    """Returns what `DecodedAccuracy` logs; `train` replaces a mean of nothing."""
    names = ["mean_accuracy"]
    if encoding.gender_head is not None:
        names.append("gender_accuracy")
    if encoding.age_head is not None:
        names += ["age_accuracy", "age_mean_absolute_error"]
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
            hint = did_you_mean(monitor, known)
            raise ValueError(
                f"Invalid `{key}` of recipe {recipe.name!r}. Expected one of {known}. "
                f"Received: {monitor!r}.{hint}"
            )
