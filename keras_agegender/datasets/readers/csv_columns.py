"""Columns of a CSV file: roles and heads."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keras_agegender.datasets.manifest import quoted
from keras_agegender.encodings.head import NAME, RESERVED_NAMES
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.registry import is_encoding_output
from keras_agegender.labels import MAX_AGE, MISSING

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


UNKNOWN = ("", "na", "nan", "none", "unknown", "-1", "?")
NO = ("0", "false", "no", "n")
YES = ("1", "true", "yes", "y")
MAX_CLASSES = 50
# Words that have an order, lowest first; a column of three or more of one line may too.
ORDERED_WORDS = (
    ("xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl"),
    ("tiny", "small", "medium", "large", "huge"),
    ("short", "medium", "long"),
    ("very low", "low", "medium", "moderate", "high", "very high"),
    ("no", "mild", "moderate", "severe"),
    ("light", "medium", "dark"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("very bad", "bad", "poor", "fair", "ok", "good", "very good", "excellent"),
    ("first", "second", "third", "fourth", "fifth"),
)
KEEP = "to group faces by it: --keep-columns (`keep_columns`)"


@dataclass(frozen=True)
class ExtraColumn:
    """A column that becomes an output.

    Attributes:
        kind: As `Head.kind`.
        classes: Names of a categorical column's classes, by id; else empty.
        values: One per row: ids, 0 and 1, or numbers; -1 or NaN where unknown.
    """

    kind: str
    classes: tuple[str, ...]
    values: list[float]

    @property
    def num_known(self) -> int:
        """Rows with a value."""
        if HEAD_TYPES[self.kind].continuous:
            return sum(not math.isnan(v) for v in self.values)
        return sum(v != MISSING for v in self.values)


def read_extra_column(
    name: str,
    cells: Sequence[tuple[str, str]],
    kind: str | None = None,
    *,
    classes: Sequence[str] = (),
    named: bool = False,
) -> ExtraColumn | str:
    """Returns a column as targets, or the reason why it cannot be one.

    Args:
        name: The column's name.
        cells: (text, where it stands) of every row.
        kind: As `Head.kind`. `None` takes the evident one: yes and no, 1 and 0, and
            CelebA's 1 and -1 are binary, fractions and whole numbers beyond 50 values
            regression, at most 50 different texts or whole numbers from 0 on
            categorical.
        classes: Names of the classes in their order; every value must be one of them.
            Defaults to those that are there, in the order of their numbers or of the
            alphabet.
        named: Whether the caller asked for this column. One that was not asked for is
            no output if it seems to name rows: ids, dates, file names.

    Raises:
        ValueError: If a value does not fit the kind that was asked for.
    """
    taken = name in RESERVED_NAMES or is_encoding_output(name)
    if taken:
        return f"the name {name!r} is taken; rename the column"
    if not NAME.fullmatch(name):
        return (
            f"{name!r} cannot name an output (letters, digits, '_', '.', '-'); rename "
            "the column"
        )
    if kind is not None and kind not in HEAD_TYPES:
        raise ValueError(
            f"Invalid kind of column {name!r}. Expected one of {tuple(HEAD_TYPES)}. "
            f"Received: {kind!r}."
        )
    if classes:
        kind = kind or "categorical"
        if HEAD_TYPES[kind].column_values != "classes":
            raise ValueError(
                f"Invalid classes of column {name!r}. Expected none for the kind "
                f"{kind!r}. Received: {', '.join(classes)}."
            )
        return replace(_categorical(cells, classes), kind=kind)
    written = {t.lower() for t, _ in cells}
    may_be_binary = kind is None or HEAD_TYPES[kind].binary
    if may_be_binary and written - {"", "na", "nan"} == {"-1", "1"}:
        cells = [("0" if t == "-1" else t, where) for t, where in cells]  # as CelebA
        written = {t.lower() for t, _ in cells}
    if kind is None and not named:
        known = [t.lower() for t, _ in cells if t.lower() not in UNKNOWN]
        reason = identifier_reason(name, known)
        if reason is not None:
            return f"{reason}; name it with --extra (`extra`) to use it"
    numbers = [_number(t) for t in written - (set(UNKNOWN) - {"-1"})]
    if (
        kind is None
        and all(n is not None for n in numbers)
        and (any(n != int(n) for n in numbers if n is not None))
    ):
        kind = "regression"  # and -1 a number like another
    texts = sorted(
        written
        - (set(UNKNOWN) - ({"-1"} if kind and HEAD_TYPES[kind].continuous else set()))
    )
    if len(texts) < 2:
        return "it holds fewer than two different values"
    kind = kind or _evident_kind(texts)
    if kind is None:
        return f"it holds {len(texts)} different texts"
    return replace(_CELL_READERS[HEAD_TYPES[kind].column_values](cells), kind=kind)


def check_kept(columns: Sequence[str], free: Sequence[str], file: Path) -> None:
    """Raises a `ValueError` if a column cannot stay beside the faces.

    Args:
        columns: Those to keep.
        free: Columns of the file without another role.
        file: Where they are.
    """
    for name in columns:
        if name not in free:
            raise ValueError(
                "Invalid `keep_columns` (--keep-columns). Expected columns without "
                f"another role of {file}: {list(free)}. Received: {name!r}."
            )
        if name in RESERVED_NAMES or not NAME.fullmatch(name):
            raise ValueError(
                "Invalid `keep_columns` (--keep-columns). Expected a name of letters, "
                "digits, '_', '.' and '-' that datasets do not use themselves. "
                f"Received: {name!r}: rename the column."
            )


def known_text(cell: str) -> str:
    """Returns the text of a cell, `""` where it says that nobody knows."""
    text = cell.strip()
    return "" if text.lower() in UNKNOWN else text


def order_hint(name: str, classes: Sequence[str]) -> str:
    """Returns how to declare the order of classes that look ordered, or `""`.

    Args:
        name: The column's name.
        classes: Names of its classes.

    Example:
    >>> order_hint("size", ["large", "medium", "small"])
    '; if ordered: --extra size:coral:small,medium,large, and other outputs behind it'
    >>> order_hint("colour", ["blue", "green", "red"])
    ''
    """
    words = {text.lower().replace("_", " "): text for text in classes}
    for order in ORDERED_WORDS:
        if len(words) == len(classes) >= 3 and set(words) <= set(order):
            ordered = ",".join(words[word] for word in order if word in words)
            option = shlex.quote(f"{name}:coral:{ordered}")
            return f"; if ordered: --extra {option}, and other outputs behind it"
    return ""


def _evident_kind(texts: Sequence[str]) -> str | None:
    if set(texts) <= {*NO, *YES}:
        return "binary"
    numbers = [_number(t) for t in texts]
    if all(n is not None for n in numbers):
        whole = sorted(int(n) for n in numbers if n == int(n or 0))
        if whole == list(range(len(texts))) and len(texts) <= MAX_CLASSES:
            return "categorical"
        return "regression"
    return "categorical" if len(texts) <= MAX_CLASSES else None


def _binary(cells: Sequence[tuple[str, str]]) -> ExtraColumn:
    values: list[float] = []
    for text, where in cells:
        word = text.lower()
        if word in YES or word in NO:
            values.append(int(word in YES))
        elif word in UNKNOWN:
            values.append(MISSING)
        else:
            raise ValueError(
                f"{where}: expected one of {', '.join((*YES, *NO))}. "
                f"Received: {quoted(text)}."
            )
    return ExtraColumn("binary", (), values)


def _regression(cells: Sequence[tuple[str, str]]) -> ExtraColumn:
    values = []
    for text, where in cells:
        number = _number(text)
        if number is None and text.lower() not in UNKNOWN:
            raise ValueError(f"{where}: expected a number. Received: {quoted(text)}.")
        values.append(math.nan if number is None else number)
    return ExtraColumn("regression", (), values)


def _years(cells: Sequence[tuple[str, str]]) -> ExtraColumn:
    column = _regression(cells)
    values = [MISSING if math.isnan(v) else v for v in column.values]
    for value, (text, where) in zip(values, cells, strict=True):
        if value != MISSING and not 0 <= value <= MAX_AGE:
            raise ValueError(
                f"{where}: expected years in [0, {MAX_AGE}]. Received: {quoted(text)}."
            )
    return ExtraColumn("years", (), values)


def _categorical(
    cells: Sequence[tuple[str, str]], classes: Sequence[str] = ()
) -> ExtraColumn:
    if classes:
        for text, where in cells:
            if text not in classes and text.lower() not in UNKNOWN:
                raise ValueError(
                    f"{where}: expected one of {', '.join(classes)}. Received: "
                    f"{quoted(text)}."
                )
    else:
        known = {t for t, _ in cells if t.lower() not in UNKNOWN}
        numeric = all(_number(t) is not None for t in known)
        classes = sorted(known, key=lambda t: (_number(t) if numeric else 0, t))
    lookup = {text: index for index, text in enumerate(classes)}
    return ExtraColumn(
        "categorical", tuple(classes), [lookup.get(t, MISSING) for t, _ in cells]
    )


# By `HeadType.column_values`.
_CELL_READERS = {
    "classes": _categorical,
    "yes or no": _binary,
    "numbers": _regression,
    "years": _years,
}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
