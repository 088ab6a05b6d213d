"""An encoding, changed by what the training faces have: labels, mean and deviation."""

from __future__ import annotations

from dataclasses import replace

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.input_pipeline.labels import columns_without_labels, read_labels
from keras_agegender.recipes.recipe import Recipe
from keras_agegender.training.monitors import logged_names


def labelled(
    encoding: Encoding, prepared: PreparedDataset, train_split: str
) -> Encoding:
    """Returns the encoding without heads that no training face has a label for.

    They would answer all the same, with what they began with.
    """
    missing = columns_without_labels(prepared, train_split, encoding.columns)
    left = encoding.without_columns(missing)
    if not left.heads:
        raise ValueError(
            f"Invalid dataset. Expected labels of {' or '.join(encoding.columns)} in "
            f"the split {train_split!r} of {prepared.directory}, all that one "
            f"output of the encoding {encoding.name!r} asks for. "
            f"Received: none of {', '.join(sorted(missing))}."
        )
    return left


def without_left_out(recipe: Recipe, asked: Encoding, encoding: Encoding) -> Recipe:
    """Returns a recipe without what it says of outputs that were left out.

    Args:
        recipe: As it was asked for.
        asked: Its encoding.
        encoding: What is left of that.
    """
    gone = set(asked.output_names) - set(encoding.output_names)
    if not gone:
        return recipe
    unlogged = set(logged_names(asked)) - set(logged_names(encoding))
    changes = [
        replace(change, set={n: w for n, w in change.set.items() if n not in gone})
        for change in recipe.loss_weight_changes
        if change.monitor not in unlogged
    ]
    keep = {n: m for n, m in recipe.training.keep.items() if m not in unlogged}
    return replace(
        recipe,
        loss_weights={n: w for n, w in recipe.loss_weights.items() if n not in gone},
        loss_weight_changes=tuple(change for change in changes if change.set),
        training=replace(recipe.training, keep=keep),
    )


def standardized(
    encoding: Encoding, prepared: PreparedDataset, train_split: str
) -> Encoding:
    """Returns the encoding with regression heads standardized by training data."""
    columns = [h.columns[0] for h in encoding.heads if h.kind == "regression"]
    if not columns:
        return encoding
    return encoding.with_statistics(read_labels(prepared, train_split, columns))
