"""Block files: what an unfinished preparation keeps of finished blocks.

A file is a line with the SHA-256 of what follows, a line of JSON with the records, and
their JPEGs, one behind the other. Nothing in it can be carried out, and one that was
cut off, changed, or made by another request is noticed and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.files import write_bytes

# Field of a record -> what it holds; "jpeg" is bytes or None, and its length in a file.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "key": str,
    "split": str,
    "status": str,
    "reason": str,
    "num_faces": int,
    "score": (int, float),
    "box": list,
}


class DamagedBlockError(ValueError):
    """A block file that is not what was written, or is of another request."""


@dataclass(frozen=True)
class BlockFiles:
    """The block files of an unfinished preparation.

    Args:
        folder: Where they lie.
        request: SHA-256 of what is asked for, which every file holds too.
    """

    folder: Path
    request: str

    def file(self, number: int) -> Path:
        """Returns where block `number` lies."""
        return self.folder / f"block-{number:06d}.block"

    def write(self, number: int, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes a finished block, whole or not at all."""
        jpegs = [record["jpeg"] for record in records]
        lines = [
            {**record, "jpeg": None if jpeg is None else len(jpeg)}
            for record, jpeg in zip(records, jpegs, strict=True)
        ]
        header = {"request": self.request, "records": lines}
        content = b"".join([_line(json.dumps(header)), *(j for j in jpegs if j)])
        # Two workers of a cluster may have been given the same block.
        write_bytes(self.file(number), _line(_digest(content)) + content)

    def read(self, number: int) -> list[dict[str, Any]]:
        """Returns the records of a finished block.

        Raises:
            DamagedBlockError: If it is not what was written.
        """
        file = self.file(number)
        no_file = DamagedBlockError(self._message(file, "no such file"))
        if not file.is_file():  # a pipe would be waited for
            raise no_file
        try:
            digest, _, content = file.read_bytes().partition(b"\n")
        except FileNotFoundError:  # gone since it was looked for
            raise no_file from None
        if digest.decode("ascii", "replace") != _digest(content):
            reason = "its checksum does not fit its content"
            raise DamagedBlockError(self._message(file, reason))
        header, _, jpegs = content.partition(b"\n")
        try:
            return _records(json.loads(header), jpegs, self.request)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DamagedBlockError(self._message(file, reason)) from None

    def read_all(self, num_blocks: int) -> Iterator[dict[str, Any]]:
        """Yields the records of all blocks, in the order of the manifest."""
        for number in range(num_blocks):
            yield from self.read(number)

    def is_finished(self, number: int, rows: pd.DataFrame) -> bool:
        """Returns whether a block is there, undamaged and of these rows.

        One that is older than one of its pictures is not: another call would mix what
        the pictures were with what they are.

        Args:
            number: Its number.
            rows: Its rows of the manifest.
        """
        try:
            records = self.read(number)
        except DamagedBlockError:
            return False
        found = [(record["key"], record["split"]) for record in records]
        if found != list(zip(rows["key"], rows["split"], strict=True)):
            return False
        made = self.file(number).stat().st_mtime_ns
        return all(_last_change(path) <= made for path in rows["path"])

    def _message(self, file: Path, reason: str) -> str:
        return (
            f"{file} is damaged ({reason}). The same preparation again makes it anew."
        )


def _records(header: Any, jpegs: bytes, request: str) -> list[dict[str, Any]]:
    """Puts records and pictures together; whatever is odd raises."""
    if header["request"] != request:
        raise ValueError("it was made by a preparation with other settings")
    records, start = [], 0
    for record in header["records"]:
        record = dict(record)
        length = record.pop("jpeg")
        wrong = [n for n, kind in FIELDS.items() if not isinstance(record[n], kind)]
        if wrong or set(record) != set(FIELDS):
            raise ValueError(f"expected the fields {[*FIELDS]}, received {[*record]}")
        if length is not None and not 0 < length <= len(jpegs) - start:
            raise ValueError(f"a picture of {length} bytes is not all there")
        jpeg = None if length is None else jpegs[start : start + length]
        start += length or 0
        records.append({**record, "jpeg": jpeg})
    if start != len(jpegs):
        raise ValueError(f"{len(jpegs) - start} bytes belong to no picture")
    return records


def _last_change(path: str) -> int:
    """Returns when a file's content last changed, in ns; 0 of one that is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _line(text: str) -> bytes:
    return text.encode("ascii") + b"\n"
