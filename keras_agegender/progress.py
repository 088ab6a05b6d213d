"""Progress bars: one look for every long piece of work, on stderr."""

from __future__ import annotations

import sys
from typing import Any, TextIO

# A line of a log: what is done, how much of it, time so far and time to come.
LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} to go"


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    shown: bool = True,
    keep: bool = True,
) -> Any:
    """Returns a tqdm bar that is calm where nobody watches it.

    On a terminal it moves once a second; elsewhere, in a log file for instance, there
    is no bar but a line of its own every 20 seconds.

    Args:
        total: How many units there are; `None` if unknown.
        description: What is done.
        unit: What is counted, `"image"` for instance.
        shown: Whether to show it at all.
        keep: Whether it stays on the screen when done.
    """
    from tqdm import tqdm

    watched = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=f"      {description}",
        unit=unit,
        disable=not shown,
        leave=keep and watched,
        mininterval=1 if watched else 20,
        delay=0 if watched else 20,
        dynamic_ncols=watched,
        file=sys.stderr if watched else _Lines(sys.stderr),
        bar_format=None if watched else LINE,
    )


class _Lines:
    """Takes what tqdm writes over its last text, and writes a line for each text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes a line; nothing where tqdm just clears its own."""
        if line := text.strip("\r\n").rstrip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """Writes what waits."""
        self._stream.flush()
