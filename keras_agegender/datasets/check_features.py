"""Whether the files that describe a prepared dataset ask for more than data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_agegender.files import read_json


def check_features(directory: Path, remedy: str) -> None:
    """Makes sure that opening a dataset imports nothing and reads from its folder only.

    TensorFlow Datasets imports whatever module features.json names, and reads shards
    from wherever dataset_info.json says.

    Args:
        directory: A prepared dataset.
        remedy: What to do about a damaged file, as a sentence.

    Raises:
        ValueError: If they name anything else than its own features and files.
    """
    for name in ("features.json", "dataset_info.json"):
        file = directory / name
        if not file.is_file():
            continue
        for key, value in _texts(read_json(file, remedy)):
            if key in ("pythonClassName", "type") and "." in value:
                expected = "features of tensorflow_datasets"
                is_wrong = not value.startswith("tensorflow_datasets.")
            elif key == "filepathTemplate":
                expected = "files of the folder"
                is_wrong = "/" in value or "\\" in value
            else:
                continue
            if is_wrong:
                raise ValueError(
                    f"{file} asks for more than data. Expected {expected}. Received: "
                    f"{key}={value!r}."
                )


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Yields key and text wherever a dict inside of a value holds a text."""
    items = value.items() if isinstance(value, dict) else [("", value)]
    if isinstance(value, list):
        items = [("", item) for item in value]
    for key, item in items:
        if isinstance(item, str):
            yield key, item
        elif isinstance(item, (dict, list)):
            yield from _texts(item)
