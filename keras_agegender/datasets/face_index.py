"""The faces that a prepared dataset holds, and overlap between splits."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from keras_agegender.datasets.prepared import PreparedDataset, read_rows
from keras_agegender.errors import one_line
from keras_agegender.files import atomic_write

INDEX_COLUMNS = ("key", "subject", "source", "picture")
NUM_EXAMPLES = 3  # named in an error


@dataclass(frozen=True)
class FaceIndex:
    """The faces of a prepared dataset, without their pixels.

    Attributes:
        table: A row per face, in the order of the dataset: `split` (the one it was
            written to), `key`, `subject` (`""` if unknown), `source` and `picture` (a
            hash of its compressed bytes).
    """

    table: pd.DataFrame

    @cached_property
    def _starts(self) -> dict[str, tuple[int, int]]:
        """Split -> (row of its first face, number of its faces)."""
        groups = self.table.groupby("split", sort=False).indices
        return {name: (int(rows[0]), len(rows)) for name, rows in groups.items()}

    @property
    def sources(self) -> list[str]:
        """What the faces were read from."""
        return sorted(self.table["source"].unique())

    def faces(self, expression: str) -> pd.DataFrame:
        """Returns the rows of a TensorFlow Datasets split expression, slices too."""
        import tensorflow_datasets as tfds

        counts = {
            name: tfds.core.SplitInfo(
                name=name, shard_lengths=[count], num_bytes=0, filename_template=None
            )
            for name, (_, count) in self._starts.items()
        }
        rows: list[int] = []
        parts = tfds.core.ReadInstruction.from_spec(expression).to_absolute(counts)
        for part in parts:
            start, count = self._starts[part.splitname]
            first, last = part.from_ or 0, part.to
            rows += range(start + first, start + (count if last is None else last))
        return self.table.iloc[rows]

    def write(self, file: Path) -> None:
        """Writes the index as a compressed CSV file, atomically."""
        with atomic_write(file) as partial:
            self.table.to_csv(partial, index=False, compression="gzip")

    @classmethod
    def read(cls, file: Path) -> FaceIndex:
        """Reads a written index; ValueError if the file is damaged."""
        try:
            table = pd.read_csv(
                file, dtype=str, keep_default_na=False, compression="gzip"
            )
            return cls(table[["split", *INDEX_COLUMNS]].astype("object"))
        except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            reason = one_line(error)
            raise ValueError(
                f"{file} is damaged ({reason}). Restore it, or train again "
                "(--overwrite)."
            ) from None


def index_faces(prepared: PreparedDataset, file: Path | None = None) -> FaceIndex:
    """Returns the index of a prepared dataset without decoding images."""
    if file is not None and file.is_file():
        return FaceIndex.read(file)
    rows: dict[str, list[str]] = {name: [] for name in ("split", *INDEX_COLUMNS)}
    wanted = {"image", "key", "subject", "source"} & set(prepared.builder.info.features)
    for split in prepared.builder.info.splits:
        if not prepared.builder.info.splits[split].num_examples:
            continue
        for face in read_rows(prepared, prepared.read(split, wanted)):
            rows["split"].append(split)
            rows["picture"].append(hashlib.sha256(face["image"]).hexdigest()[:32])
            for name in ("key", "subject", "source"):
                rows[name].append(face[name].decode() if name in face else "")
    index = FaceIndex(pd.DataFrame(rows, dtype="object"))
    if file is not None:
        index.write(file)
    return index


def check_overlap(
    index: FaceIndex, splits: Mapping[str, str], allowed: tuple[str, ...] = ()
) -> None:
    """Raises ValueError if a face, subject or image is in two splits."""
    names = list(splits)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            if {first, second} == set(allowed):
                continue
            ours, theirs = index.faces(splits[first]), index.faces(splits[second])
            for column, what in _WHAT.items():
                shared = _shared(ours[column], theirs[column])
                if not len(shared):
                    continue
                rows = ours[ours[column].isin(shared[:NUM_EXAMPLES])]
                examples = rows.drop_duplicates(column)["key"].tolist()
                pairs = [
                    repr(key) if key == other else f"{key!r} and {other!r}"
                    for key in examples
                    for other in [_partner(ours, theirs, column, key)]
                ]
                raise ValueError(
                    f"Invalid splits. {len(shared)} {what} are in {first!r} "
                    f"({splits[first]}) and in {second!r} ({splits[second]}): scores "
                    "would be of faces seen in training. Examples: "
                    f"{'; '.join(pairs)}. Remove them from one split, or allow it with "
                    "--set data.allow_overlap=true."
                )


_WHAT = {"key": "faces", "subject": "subjects", "picture": "images"}


def _shared(first: pd.Series, second: pd.Series) -> np.ndarray:
    shared = np.intersect1d(first.to_numpy(str), second.to_numpy(str))
    return shared[shared != ""]


def _partner(ours: pd.DataFrame, theirs: pd.DataFrame, column: str, key: str) -> str:
    value = ours.loc[ours["key"] == key, column].iloc[0]
    return theirs.loc[theirs[column] == value, "key"].iloc[0]


def seen_before(
    faces: pd.DataFrame, trained: pd.DataFrame, *, same_dataset: bool
) -> np.ndarray:
    """Returns a boolean for each face: whether its image or subject was trained on."""
    columns = tuple(_WHAT) if same_dataset else ("picture",)
    seen = np.zeros(len(faces), bool)
    for column in columns:
        values = set(trained[column]) - {""}
        seen |= faces[column].isin(values).to_numpy()
    return seen
