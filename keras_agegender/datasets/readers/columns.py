"""Columns of a label file: which role each has, and which become outputs."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from keras_agegender.datasets.manifest import quoted
from keras_agegender.datasets.readers import AmbiguousColumnError
from keras_agegender.encodings.head import NAME, RESERVED_NAMES
from keras_agegender.encodings.head_types import HEAD_TYPES
from keras_agegender.encodings.registry import is_encoding_output
from keras_agegender.labels import MAX_AGE, MISSING

# -- roles -----------------------------------------------------------------------------

# Role -> what a column is for, and names of columns that have it by themselves.
ROLES = {
    "image": ("image file", ("image", "file", "path", "filename")),
    "age": ("age", ("age", "age_group", "age_years")),
    "gender": ("gender", ("gender", "sex")),
    "subject": ("person: one split for each", ("subject", "identity", "person")),
    "album": ("album", ("album",)),
    "split": ("split", ("split",)),
}
NOT_USED = "not used"


class ColumnRole(NamedTuple):
    """What a column of a label file is taken for, and why."""

    column: str
    role: str
    why: str


def find_roles(
    file: Path, names: Sequence[str], given: Mapping[str, str | None]
) -> dict[str, ColumnRole]:
    """Returns role -> column, for roles that are given or that a usual name shows."""
    roles = {}
    for role, column in given.items():
        title, usual = ROLES[role]
        if column is not None:
            if column not in names:
                raise ValueError(
                    f"{file} has no column {column!r} for `{role}_column` "
                    f"(--{role}-column). Columns: {list(names)}."
                )
            roles[role] = ColumnRole(column, title, f"--{role}-column")
            continue
        found = [n for word in usual for n in names if n.lower() == word]
        if found:
            roles[role] = ColumnRole(found[0], title, "its name")
    if "image" not in roles:
        raise ValueError(
            f"{file} has no column called {', '.join(ROLES['image'][1])}. Say which "
            "holds the images with `image_column` (--image-column). "
            f"Columns: {list(names)}."
        )
    return roles


# -- people ----------------------------------------------------------------------------

FEWEST_PEOPLE = 3  # fewer different values are classes


def find_subject(
    file: Path, columns: Mapping[str, Sequence[str]], assume_yes: bool
) -> ColumnRole | None:
    """Returns the column that says who is shown, `None` if no column may do so.

    Args:
        file: The label file, for errors.
        columns: Column -> cells, of the columns without another role.
        assume_yes: Whether a column that may identify people is taken to do so.

    Raises:
        AmbiguousColumnError: If a column may identify people, or several do.
    """
    clear, possible = [], []
    for name, cells in columns.items():
        known = [text for text in cells if text.lower() not in UNKNOWN]
        different = len({text.lower() for text in known})
        if not FEWEST_PEOPLE <= different < len(known):
            continue
        if any(_is_fraction(text) for text in known):
            continue
        words = name_words(name)
        why = f"{different} different values in {len(known)} rows"
        if _names_people(words):
            clear.append(ColumnRole(name, ROLES["subject"][0], f"its name; {why}"))
        elif _may_name_people(words, different):
            possible.append(ColumnRole(name, ROLES["subject"][0], why))
    if len(clear) == 1:
        return clear[0]
    if not clear and not possible:
        return None
    candidates = clear or possible
    if assume_yes:
        return candidates[0]
    name = candidates[0].column
    listed = ", ".join(f"{c.column!r} ({c.why.split('; ')[-1]})" for c in candidates)
    others = " ".join(shlex.quote(c.column) for c in candidates)
    verb = "may identify people" if len(candidates) == 1 else "may each identify people"
    noun = "column" if len(candidates) == 1 else "columns"
    raise AmbiguousColumnError(
        f"{file}: {noun} {listed} {verb}, whose images must not be in two splits. "
        f"Name the column with `subject_column` (--subject-column {shlex.quote(name)}; "
        f"--yes takes it), or say that none does with `ignore_columns` "
        f"(--ignore-columns {others}).",
        {"subject_column": name},
        {"ignore_columns": [c.column for c in candidates]},
    )


def _names_people(words: Sequence[str]) -> bool:
    """Returns whether a name says that its values are people: `subject_id`."""
    if not words:
        return False
    if GLUED.fullmatch(words[-1]):
        return any(words[-1].startswith(person) for person in PEOPLE)
    rest = [w for w in words if w not in ID_WORDS | {"name", "label", "code", "face"}]
    return bool(rest) and set(rest) <= PEOPLE


def _may_name_people(words: Sequence[str], different: int) -> bool:
    """Returns whether a name may say so: an id of nothing else, or a person's name."""
    last = words[-1] if words else ""
    if last not in ID_WORDS | {"name", "names"}:
        return False
    others = set(words) - ID_WORDS - {"name", "names", "full", "first", "last"}
    if others & SEQUENCES or not others:
        return True
    return different > MOST_CLASSES and not others & (THINGS | FILE_WORDS)


# -- what is no label of a face --------------------------------------------------------

RATINGS = {
    "annotation", "annotations", "annotator", "annotators", "guess", "guesses", "rater",
    "raters", "rating", "ratings", "vote", "votes",
}  # fmt: skip
COUNTS = {"count", "counts", "n", "no", "nr", "num", "number", "total"}
SPREADS = {"sd", "sigma", "std", "stddev", "stdev", "var", "variance"}
DETECTOR_WORDS = {"bbox", "box", "detection", "detector", "det", "face", "landmark"}
SPLIT_NAMES = {"fold", "folds", "partition", "phase", "split", "subset", "usage"}
USES = {"test", "testing", "train", "training", "val", "valid", "validation"}
DATES = {
    "birthdate", "birthday", "created", "date", "datetime", "doa", "dob", "modified",
    "taken", "timestamp",
}  # fmt: skip
FILE_FACTS = {"dataset", "licence", "license", "source", "url"}
SIZES = ("width", "height", "w", "h")


def metadata_reason(
    name: str, texts: Sequence[str], names: Sequence[str], genders: Mapping[str, str]
) -> str | None:
    """Returns why a column is no label of a face, by its name, or `None`.

    Args:
        name: The column.
        texts: Its known cells, in lower case.
        names: All columns of the file.
        genders: Words for genders, in lower case.

    Example:
    >>> metadata_reason("apparent_age_std", ["1.2"], [], {})
    'a spread of ratings'
    >>> metadata_reason("smile", ["0", "1"], [], {}) is None
    True
    """
    words = name_words(name)
    known, different = set(words), set(texts)
    if known & SPREADS:
        return "a spread of ratings"
    if known & RATINGS and (known & COUNTS or known <= RATINGS):
        return "a number of ratings"
    if known & {"score", "scores", "confidence", "conf"} and (
        known & DETECTOR_WORDS or known <= {"confidence", "conf"}
    ):
        return "the confidence of a detector"
    if "age" in known and known & {"diff", "difference", "delta", "gap", "error"}:
        return "computed from ages"
    if "age" in known or "ages" in known:
        return "another age"
    if different and different <= set(genders) and len(different) > 1:
        return "another gender"
    if known & SPLIT_NAMES or words[-1:] and words[-1] in USES:
        return "a use of the data, not of a face"
    if len(words) > 1 and words[-1] in ID_WORDS and {*words[:-1]} <= THINGS:
        return "the number of an image"
    if known & DATES:
        return "a date"
    if known & FILE_FACTS:
        return "a fact about the file"
    if words and words[-1] in SIZES:
        prefix = name[: len(name) - len(words[-1])].lower()
        pairs = (("width", "height"), ("w", "h"))
        lower = {n.lower() for n in names}
        if any({f"{prefix}{a}", f"{prefix}{b}"} <= lower for a, b in pairs):
            return "the size of an image"
    return None


# -- identifiers -----------------------------------------------------------------------

# From so many known cells on, a share of different values above the next means that
# (nearly) every row has its own.
FEWEST_CELLS, MOSTLY_DIFFERENT = 10, 0.9
# A name that ends with one of these words, or of these, is an id's. Then different
# values in more than half of the rows are enough, or more than `MOST_CLASSES`.
ID_WORDS = {
    "id", "ids", "index", "idx", "key", "no", "nr", "num", "number", "uid",
}  # fmt: skip
PEOPLE = {
    "actor", "celeb", "celebrity", "client", "customer", "donor", "employee", "human",
    "identity", "individual", "inmate", "member", "participant", "patient", "people",
    "person", "player", "prisoner", "student", "subject", "user", "volunteer", "who",
}  # fmt: skip
THINGS = {
    "album", "batch", "face", "file", "frame", "image", "img", "item", "object",
    "photo", "picture", "record", "row", "sample", "session", "track", "video",
}  # fmt: skip
OFTEN_DIFFERENT, MOST_CLASSES = 0.5, 10
# Frames and images that follow each other show the same people.
SEQUENCES = {"burst", "clip", "sequence", "session", "track", "video"}
FILE_WORDS = {"dataset", "file", "folder", "path", "url"}
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
    """Returns why a column looks like an identifier, or `None` if it does not.

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
        return f"it looks like an id: {counts}"
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


# -- outputs ---------------------------------------------------------------------------

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
    (
        "infant",
        "baby",
        "toddler",
        "child",
        "kid",
        "teen",
        "teenager",
        "adolescent",
        "young",
        "young adult",
        "adult",
        "middle",
        "middle aged",
        "middle-aged",
        "old",
        "elderly",
        "senior",
    ),
)


@dataclass(frozen=True)
class ExtraColumn:
    """A column that becomes an output.

    Attributes:
        head_type: As `Head.head_type`.
        classes: Names of a categorical column's classes, by id; else empty.
        values: One per row: ids, 0 and 1, or numbers; -1 or NaN where unknown.
    """

    head_type: str
    classes: tuple[str, ...]
    values: list[float]

    @property
    def num_known(self) -> int:
        """Number of rows with a value."""
        if HEAD_TYPES[self.head_type].continuous:
            return sum(not math.isnan(v) for v in self.values)
        return sum(v != MISSING for v in self.values)


def is_taken(name: str) -> bool:
    """Returns whether a name has another meaning in datasets and exports."""
    return name in RESERVED_NAMES or is_encoding_output(name)


def read_extra_column(
    name: str,
    cells: Sequence[tuple[str, str]],
    head_type: str | None = None,
    *,
    classes: Sequence[str] = (),
    named: bool = False,
) -> ExtraColumn | str:
    """Returns a column as targets, or the reason why it cannot be an output."""
    if is_taken(name):
        return f"the name {name!r} is taken; rename the column"
    if not NAME.fullmatch(name):
        return (
            f"{name!r} cannot name an output (letters, digits, '_', '.', '-'); rename "
            "the column"
        )
    if head_type is not None and head_type not in HEAD_TYPES:
        raise ValueError(
            f"Invalid type of column {name!r}. Expected one of {tuple(HEAD_TYPES)}. "
            f"Received: {head_type!r}."
        )
    if classes:
        head_type = head_type or "categorical"
        if HEAD_TYPES[head_type].column_values != "classes":
            raise ValueError(
                f"Invalid classes of column {name!r}. Expected none for the type "
                f"{head_type!r}. Received: {', '.join(classes)}."
            )
        return replace(_categorical(cells, classes), head_type=head_type)
    written = {t.lower() for t, _ in cells}
    may_be_binary = head_type is None or HEAD_TYPES[head_type].binary
    if may_be_binary and written - {"", "na", "nan"} == {"-1", "1"}:
        cells = [("0" if t == "-1" else t, where) for t, where in cells]  # as CelebA
        written = {t.lower() for t, _ in cells}
    if head_type is None and not named:
        known = [t.lower() for t, _ in cells if t.lower() not in UNKNOWN]
        reason = identifier_reason(name, known)
        if reason is not None:
            return f"{reason}; name it with --extra (`extra`) to use it"
    numbers = [_number(t) for t in written - (set(UNKNOWN) - {"-1"})]
    if (
        head_type is None
        and all(n is not None for n in numbers)
        and (any(n != int(n) for n in numbers if n is not None))
    ):
        head_type = "regression"  # and -1 a number like another
    texts = sorted(
        written
        - (
            set(UNKNOWN)
            - ({"-1"} if head_type and HEAD_TYPES[head_type].continuous else set())
        )
    )
    if len(texts) < 2:
        return "it holds fewer than two different values"
    head_type = head_type or _evident_type(texts)
    if head_type is None:
        return f"it holds {len(texts)} different texts"
    return replace(
        _CELL_READERS[HEAD_TYPES[head_type].column_values](cells), head_type=head_type
    )


def check_kept(
    columns: Sequence[str],
    free: Sequence[str],
    file: Path,
    argument: str = "keep_columns",
    option: str = "--keep-columns",
) -> None:
    """Checks columns to keep as metadata, or to ignore."""
    for name in columns:
        if name not in free:
            raise ValueError(
                f"Invalid `{argument}` ({option}). Expected columns without another "
                f"role of {file}: {list(free)}. Received: {name!r}."
            )
        wrong = name in RESERVED_NAMES or not NAME.fullmatch(name)
        if argument == "keep_columns" and wrong:
            raise ValueError(
                "Invalid `keep_columns` (--keep-columns). Expected a name of letters, "
                "digits, '_', '.' and '-' that datasets do not use themselves. "
                f"Received: {name!r}: rename the column."
            )


def known_text(cell: str) -> str:
    """Returns the text of a cell, `""` for an unknown value."""
    text = cell.strip()
    return "" if text.lower() in UNKNOWN else text


def order_hint(name: str, classes: Sequence[str]) -> str:
    """Returns how to declare the order of classes that look ordered, or `""`.

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


def _evident_type(texts: Sequence[str]) -> str | None:
    if set(texts) <= {*NO, *YES}:
        return "binary"
    numbers = [_number(t) for t in texts]
    if all(n is not None for n in numbers):
        return "categorical" if _are_class_ids(numbers) else "regression"
    return "categorical" if len(texts) <= MAX_CLASSES else None


def _are_class_ids(numbers: Sequence[float | None]) -> bool:
    """Returns whether numbers are class ids: whole, from 0 or 1 on, with few gaps.

    A missing id changes nothing: {0, 1, 3} are ids as {0, 1, 2, 3} are.
    """
    whole = sorted(int(n) for n in numbers if n is not None and n.is_integer())
    if len(whole) < len(numbers) or whole[0] < 0:
        return False
    count = whole[-1] + (whole[0] == 0)
    return count <= MAX_CLASSES and (
        count == len(whole) or len(whole) <= MOST_CLASSES and count <= 2 * MOST_CLASSES
    )


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
        numbers = [_number(t) for t in classes]
        if numeric and _are_class_ids(numbers) and all(t.isdigit() for t in classes):
            first = min(int(classes[0]), 1)  # ids of no row are classes too
            classes = [str(n) for n in range(first, int(classes[-1]) + 1)]
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
