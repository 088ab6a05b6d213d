"""Hash cache: perceptual hashes by content, so that no picture is decoded twice.

It holds hashes and nothing else: no picture, name or label can be read from it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection, Mapping
from pathlib import Path

_AT_ONCE = 500  # SQLite takes no more than 999 values in one question, in old versions


def default_cache_file() -> Path:
    """Returns where the command line keeps perceptual hashes."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "keras_agegender" / "picture_hashes.sqlite"


class HashCache:
    """Hashes by content in an SQLite file, written as they are made.

    What was interrupted goes on behind the last hashes written; several processes may
    use one file.

    Args:
        file: The file; made, with its folder, if it is not there.
        method: How hashes are made. Those made otherwise are not seen.

    Raises:
        ValueError: If the file is something else, or cannot be written.
    """

    def __init__(self, file: str | Path, method: str) -> None:
        self.file = Path(file)
        self._table = f'"{method}"'
        with contextlib.ExitStack() as undo:
            self._open = self._connect(undo)
            undo.pop_all()

    def _connect(self, undo: contextlib.ExitStack) -> sqlite3.Connection:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            connection = undo.enter_context(
                contextlib.closing(sqlite3.connect(self.file, timeout=60))
            )
            with connection:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {self._table} "
                    "(content TEXT PRIMARY KEY, hash BLOB) WITHOUT ROWID"
                )
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f"Invalid hash cache {self.file}: {error}. Expected a file that an "
                "audit wrote, or a new one. Choose another (--cache FILE), or none "
                "(--no-cache)."
            ) from error
        return connection

    def read(self, contents: Collection[str]) -> dict[str, bytes]:
        """Returns the hashes of those contents that are known."""
        wanted = list(contents)
        found: dict[str, bytes] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(part))
            found |= self._open.execute(
                f"SELECT content, hash FROM {self._table} WHERE content IN ({marks})",
                part,
            ).fetchall()
        return found

    def write(self, hashes: Mapping[str, bytes]) -> None:
        """Adds hashes by content."""
        with self._open:
            self._open.executemany(
                f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?)", hashes.items()
            )

    def close(self) -> None:
        """Closes the file."""
        self._open.close()
