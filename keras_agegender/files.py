"""A run directory: everything one training leaves behind, and how to read it again.

recipe.toml        the resolved recipe, every setting spelled out
run.json           status, the experiment and its identity, data, versions, outputs
faces.csv.gz       who was trained on: key, subject and hash of every face's picture
history.csv        one row per epoch: losses, metrics, loss weights in force
best.keras         the model of the best epoch; last.keras of the last one
best_<name>.keras  further models that the recipe keeps, by another metric each
pretraining/       the run whose weights came first; transfer.txt says which of them
metrics.json       scores of the best model; confusion.png shows them
curves.png         the history as a picture
predictions.csv    one row per test face
backup/            training state, while the run is not finished
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "keras-agegender",
    "keras",
    "tensorflow",
    "jax",
    "numpy",
    "mtcnn",
    "tensorflow-datasets",
)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON so that a reader never sees half a file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    os.replace(partial, path)


def versions() -> dict[str, str]:
    """Returns Python's and the packages' versions, those installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Returns the time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def file_hash(file: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_DIRECTORY_HASHES: dict[tuple, str] = {}


def directory_hash(directory: Path) -> str:
    """Returns a SHA-256 over a prepared dataset's shards, by name and content.

    A process reads them once, as long as they keep their sizes and times.
    """
    files = sorted(directory.rglob("*.tfrecord*"))
    states = [(file.name, file.stat()) for file in files]
    key = (
        str(directory.resolve()),
        *((name, state.st_size, state.st_mtime_ns) for name, state in states),
    )
    if key not in _DIRECTORY_HASHES:
        _DIRECTORY_HASHES[key] = _hash_files(files)
    return _DIRECTORY_HASHES[key]


def _hash_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
