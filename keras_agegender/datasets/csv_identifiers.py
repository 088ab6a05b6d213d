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
# A name that ends with one of these words, or of these, is an id's. Then different
# values in more than half of the rows are enough, or more than `MOST_CLASSES`.
ID_WORDS = {"id", "ids", "index", "idx", "no", "nr", "number", "key"}
PEOPLE = {
    "client", "customer", "employee", "identity", "member", "patient", "people",
    "person", "student", "subject", "user",
}  # fmt: skip
THINGS = {
    "album", "batch", "face", "file", "frame", "image", "img", "item", "object",
    "photo", "picture", "record", "row", "sample", "session", "track", "video",
}  # fmt: skip
OFTEN_DIFFERENT, MOST_CLASSES = 0.5, 10
# Written together, as in "userid"; not every ending is one: "grid", "humid", "casino".
GLUED = re.compile(
    f"({'|'.join(sorted(PEOPLE | THINGS))})({'|'.join(sorted(ID_WORDS))})"
)
# Words that name a row wherever they stand, however often a value repeats.
ALWAYS_WORDS = {
    "epoch", "guid", "phone", "plz", "postcode", "serial", "timestamp", "uuid", "zip",
    "zipcode",
}  # fmt: skip
# Texts are classes if there are few of them, or so many rows for each on average.
FEWEST_ROWS_PER_VALUE = 5

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
    >>> identifier_reason("city", [f"city {n // 2}" for n in range(40)])
    'too few rows per value: 20 different texts in 40 rows'
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
    counts = f"{len(different)} different values in {len(texts)} rows"
    words = name_words(name)
    if ALWAYS_WORDS & set(words) and len(different) > 2:
        return f"it looks like an id: {counts}"
    if any(_is_fraction(text) for text in different):
        return None  # measurements differ from row to row too
    share = len(different) / len(texts)
    if _is_id_name(words) and (
        (len(different) > 2 and share > OFTEN_DIFFERENT)
        or len(different) > MOST_CLASSES
    ):
        hint = (
            f"; if it says who is on a picture, --subject-column {name} keeps one "
            "person in one split"
        )
        return f"it looks like an id: {counts}" + (hint if share < 1 else "")
    if len(texts) >= FEWEST_CELLS and share >= MOSTLY_DIFFERENT:
        return f"it looks like an id: {counts}"
    if (
        len(different) > MOST_CLASSES
        and len(texts) < FEWEST_ROWS_PER_VALUE * len(different)
        and not all(_is_number(text) for text in different)
    ):
        return (
            f"too few rows per value: {len(different)} different texts in {len(texts)} "
            "rows"
        )
    return None


def name_words(name: str) -> list[str]:
    """Returns a name's words in lower case, without numbers at its end.

    Example:
    >>> name_words("PersonID_2")
    ['person', 'id']
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    while words and words[-1].isdigit():
        words.pop()
    return [word.lower() for word in words]


def _is_id_name(words: Sequence[str]) -> bool:
    last = words[-1] if words else ""
    return last in ID_WORDS | PEOPLE or GLUED.fullmatch(last) is not None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except (ValueError, OverflowError):
        return False
