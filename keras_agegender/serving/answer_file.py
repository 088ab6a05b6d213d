"""A file of predictions that is written whole, and goes on where it was interrupted.

While it is made, predictions are lines in `<name>.partial`, whose first line says what
answers and how. The same command goes on behind the last whole line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from keras_agegender.files import replacing
from keras_agegender.serving.answer_tables import csv_columns, csv_rows, json_line
from keras_agegender.serving.photo_sources import Source

ENDINGS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv"}


class AnswerFile:
    """Collects the predictions of sources, in their order.

    Used in a `with` block; `finish` makes the file.

    Args:
        file: What to make.
        sources: All photos and videos.
        request: What else determines the predictions, as plain values.
        say: Is told in a line why an interrupted file is begun anew.

    Attributes:
        num_done: How many sources an interrupted call has answered about.
    """

    def __init__(
        self,
        file: Path,
        sources: Sequence[Source],
        request: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._file = file
        self.partial = file.with_name(f"{file.name}.partial")
        header = f"{json.dumps({'request': request}, sort_keys=True)}\n".encode()
        size, self.num_done = len(header), 0
        self._stream: BinaryIO
        if self.partial.is_file():
            reason = self._difference(header, sources)
            if reason:
                say(f"{self.partial} {reason}: all is predicted anew")
            else:
                for line in _whole_lines(self.partial):
                    size += len(line)
                    self.num_done += 1
        if self.num_done:
            self._stream = self.partial.open("r+b")
            self._stream.truncate(size)  # a line may be cut off in the middle
            self._stream.seek(size)
        else:
            self._stream = self.partial.open("wb")
            self._stream.write(header)
            self._stream.flush()

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def add(self, prediction: Mapping[str, Any]) -> None:
        """Adds the prediction of the next source, as `to_dict` gave it."""
        self._stream.write(f"{json_line(prediction)}\n".encode())
        self._stream.flush()  # an interruption loses no finished answer

    def finish(self, form: str, metadata: Mapping[str, Any]) -> None:
        """Makes the file and removes the partial one.

        Args:
            form: `"json"`, a line for each source, or `"csv"`, a row for each face.
            metadata: What the model's agegender.json says.
        """
        self._stream.close()
        with (
            replacing(self._file) as new,
            new.open(
                "w",
                encoding="utf-8",
                errors="backslashreplace",  # names that are no text
                newline="" if form == "csv" else "\n",
            ) as stream,
        ):
            if form == "json":
                stream.writelines(x.decode() for x in _whole_lines(self.partial))
            else:
                writer = csv.DictWriter(stream, csv_columns(metadata))
                writer.writeheader()
                for prediction in self.predictions():
                    writer.writerows(csv_rows(prediction))
        self.partial.unlink()

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Yields what was added, by this call and those before."""
        for line in _whole_lines(self.partial):
            yield json.loads(line)

    def _difference(self, header: bytes, sources: Sequence[Source]) -> str:
        """Returns why the partial file cannot be gone on with; else nothing."""
        with self.partial.open("rb") as stream:
            if stream.readline() != header:
                return "is of another model or other options"
        begun = self.partial.stat().st_mtime
        for number, line in enumerate(_whole_lines(self.partial)):
            name = json.loads(line)["source"]
            if number >= len(sources) or sources[number].name != name:
                return f"has other files, or in another order, from {name} on"
            file = Path(name)
            if file.is_file() and file.stat().st_mtime > begun:
                return f"is older than {name}"
        return ""


def form_of(file: Path) -> str | None:
    """Returns in which form a file of that name is written; `None` if unknown."""
    return ENDINGS.get(file.suffix.lower())


def _whole_lines(partial: Path) -> Iterator[bytes]:
    """Yields the lines behind the first; the last is whole or left out."""
    with partial.open("rb") as stream:
        stream.readline()
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield line
