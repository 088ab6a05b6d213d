"""Progress bars: one look for every long piece of work, on stderr."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    shown: bool = True,
    keep: bool = True,
) -> Any:
    """Returns a tqdm bar that is calm where nobody watches it.

    On a terminal it moves once a second; in a log file it writes a line every 20
    seconds.

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
    )
