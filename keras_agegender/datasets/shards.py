"""Reading shards: examples as NumPy values, and which file it is that is damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_agegender.checksums import CHECKSUMS_FILE, verify
from keras_agegender.datasets.prepared import AGAIN, PreparedDataset


def read_rows(prepared: PreparedDataset, examples: Any) -> Iterator[dict[str, Any]]:
    """Yields the examples of a prepared dataset as NumPy values.

    Args:
        prepared: The dataset.
        examples: A `tf.data.Dataset` of dicts that reads it.

    Raises:
        ValueError: If a shard is damaged; it says which.
    """
    with naming_damage(prepared):
        yield from examples.as_numpy_iterator()


@contextlib.contextmanager
def naming_damage(prepared: PreparedDataset) -> Iterator[None]:
    """Turns what TensorFlow says of a damaged shard into an error that names it.

    Args:
        prepared: The dataset that is read.

    Raises:
        ValueError: If a shard is damaged.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.DataLossError as error:
        directory = prepared.directory
        what = _damaged_shard(directory) or error.message.partition("\n")[0]
        raise ValueError(
            f"{directory} is damaged. {what}. `agegender verify {directory}` lists all "
            f"that is. {AGAIN}"
        ) from None


def _damaged_shard(directory: Path) -> str:
    """Says which shard is not as it was written; empty where no checksums tell."""
    if not (directory / CHECKSUMS_FILE).is_file():
        return ""
    found = [d for d in verify(directory).differences if ".tfrecord" in d.file]
    return str(found[0]) if found else ""
