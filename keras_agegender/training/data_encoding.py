"""An encoding, changed by what the training faces have: labels, mean and deviation."""

from __future__ import annotations

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.encodings.encoding import Encoding
from keras_agegender.input_pipeline.labels import columns_without_labels, read_labels


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
            f"the split {train_split!r} of {prepared.directory}. Received: none."
        )
    return left


def standardized(
    encoding: Encoding, prepared: PreparedDataset, train_split: str
) -> Encoding:
    """Returns the encoding with regression heads standardized by training data."""
    columns = [h.columns[0] for h in encoding.heads if h.kind == "regression"]
    if not columns:
        return encoding
    return encoding.with_statistics(read_labels(prepared, train_split, columns))
