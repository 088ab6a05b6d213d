"""Texts: one-line errors, suggestions for misspelled names, singular and plural."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Of difflib's ratio: one wrong letter in three is close, "race" is not "source".
LIKENESS = 0.65


def did_you_mean(name: object, known: Iterable[str], prefix: str = "") -> str:
    """Returns " Did you mean …?" with the closest name; `""` if none is close.

    Example:
    >>> did_you_mean("ordinl", ["ordinal", "joint"])
    " Did you mean 'ordinal'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=LIKENESS)
    return f" Did you mean {prefix + close[0]!r}?" if close else ""


def one_line(error: BaseException, most: int | None = None) -> str:
    """Returns an error's message on one line, or its type's name if it has no message.

    Example:
    >>> one_line(ValueError("two " + chr(10) + " lines"))
    'two lines'
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def counted(count: int, singular: str, plural: str = "") -> str:
    """Returns a number with its noun in the singular or plural.

    Example:
    >>> counted(1, "face"), counted(1200, "face"), counted(2, "person", "people")
    ('1 face', '1,200 faces', '2 people')
    """
    noun = singular if count == 1 else plural or f"{singular}s"
    return f"{count:,} {noun}"
