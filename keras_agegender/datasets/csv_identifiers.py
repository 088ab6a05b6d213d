"""Columns that name a row rather than describe it: ids, dates, file names.

Numbers in such a column look like a regression, and its texts like classes; a model
would learn them by heart. They become outputs only if the column is named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# From so many known cells on, a share of different values above the next means that
# (nearly) every row has its own.
FEWEST_CELLS, MOSTLY_DIFFERENT = 10, 0.9
# With a name like these, different values in more than half of the rows are enough.
ID_NAME = re.compile(
    r"(^|[_\W])(id|ids|index|idx|no|nr|number|key|uuid|guid)$|[a-z]I[dD]$"
)
OFTEN_DIFFERENT = 0.5

PATTERNS = {
    "a date": (
        r"(19|20)\d\d([-/.])(0?[1-9]|1[0-2])\2(0?[1-9]|[12]\d|3[01])([T ][\d:.]+)?"
        r"(Z|[+-]\d\d:?\d\d)?",  # ISO 8601
        r"(0?[1-9]|1[0-2])/(0?[1-9]|[12]\d|3[01])/(19|20)?\d\d( .*)?",  # American
        # European
        r"(0?[1-9]|[12]\d|3[01])([-/.])(0?[1-9]|1[0-2])\2(19|20)?\d\d( .*)?",
        r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])",
    ),
    "a time": (r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?",),
    "an id": (
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",  # a UUID
        r"(?=.*[a-f])(?=.*\d)([0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})",
    ),
    "file names": (
        r"https?://.+",
        r".*[^\s.]\.(jpe?g|png|webp|bmp|gif|tiff?|heic|txt|json|xml|csv|npy|mat|pts)",
    ),
}


def identifier_reason(name: str, texts: Sequence[str]) -> str | None:
    """Returns why a column seems to name rows, or `None` if it does not.

    Args:
        name: The column's name.
        texts: Its known cells, one per row; upper and lower case count as the same.

    Example:
    >>> identifier_reason("taken", ["2019-03-01", "2019-03-02"])
    'it looks like a date'
    >>> identifier_reason("row", [str(1000 + n) for n in range(40)])
    'it looks like an id: 40 different values in 40 rows'
    >>> identifier_reason("stars", ["1", "2", "3", "2", "1"])
    """
    if not texts:
        return None
    different = {text.lower() for text in texts}
    for what, patterns in PATTERNS.items():
        if any(
            all(re.fullmatch(p, t, re.IGNORECASE) for t in different) for p in patterns
        ):
            return f"it looks like {what}"
    if any(_is_fraction(text) for text in different):
        return None  # measurements differ from row to row too
    share = len(different) / len(texts)
    if (
        len(texts) >= FEWEST_CELLS
        and share >= MOSTLY_DIFFERENT
        or (ID_NAME.search(name) and share > OFTEN_DIFFERENT and len(different) > 2)
    ):
        return (
            f"it looks like an id: {len(different)} different values in {len(texts)} "
            "rows"
        )
    return None


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except (ValueError, OverflowError):
        return False
