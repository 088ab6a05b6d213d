"""What a misspelled name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Of difflib's ratio: one wrong letter in three is near, "race" is not "source".
LIKENESS = 0.65


def did_you_mean(name: object, known: Iterable[str], prefix: str = "") -> str:
    """Returns " Did you mean …?" with the name nearest to one; `""` if none is near.

    Args:
        name: What was given.
        known: What there is.
        prefix: Stands before the name in the answer.

    Example:
    >>> did_you_mean("ordinl", ["ordinal", "joint"])
    " Did you mean 'ordinal'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=LIKENESS)
    return f" Did you mean {prefix + close[0]!r}?" if close else ""
