"""What Adience's label files write, and which age group or gender each text means.

Corrections are tables, the report's Table 0 first; nothing is guessed.
"""

from __future__ import annotations

from keras_agegender.labels import AGE_GROUPS, MISSING

# The report, Table 0: label in Adience's files -> age group.
TABLE_0: dict[str, tuple[int, int]] = {
    "2": (0, 2),
    "3": (0, 2),
    "(8, 23)": (8, 12),
    "13": (8, 12),
    "22": (15, 20),
    "23": (25, 32),
    "(27, 32)": (25, 32),
    "29": (25, 32),
    "32": (25, 32),
    "34": (25, 32),
    "(38, 42)": (38, 43),
    "(38, 48)": (38, 43),
    "35": (38, 43),
    "36": (38, 43),
    "42": (38, 43),
    "45": (38, 43),
    "46": (48, 53),
    "56": (48, 53),
    "55": (60, 100),
    "57": (60, 100),
    "58": (60, 100),
}

# 72 rows of fold 0 that Table 0 does not list: an evident misprint of (25, 32).
MISPRINTS: dict[str, tuple[int, int]] = {"(25, 23)": (25, 32)}

# What Adience writes where a label is absent.
NO_AGE = ("None", "")
NO_GENDER = ("u", "")
ADIENCE_GENDERS = {"f": 0, "m": 1}


def age_group_from_adience(label: str, strict: bool = False) -> int:
    """Returns the id of the age group that an Adience label stands for.

    Args:
        label: The text of the file's `age` column.
        strict: Whether exactly the report's Table 0 corrects labels; by default the
            misprint `(25, 23)` is corrected too.

    Returns:
        Id in [0, 8), or -1 for `None` (and, when strict, for the misprint).

    Raises:
        ValueError: If the label is in none of the tables.

    Example:
    >>> age_group_from_adience("(8, 23)"), age_group_from_adience("None")
    (2, -1)
    """
    group = corrected_group(label, strict)
    if group is None:
        return MISSING
    return AGE_GROUPS.index(group)


def corrected_group(label: str, strict: bool = False) -> tuple[int, int] | None:
    """Returns the (low, high) years behind an Adience label, `None` for no age.

    Raises:
        ValueError: If the label is in none of the tables.
    """
    if label in NO_AGE or (strict and label in MISPRINTS):
        return None
    for low, high in AGE_GROUPS:
        if label == f"({low}, {high})":
            return low, high
    for table in (TABLE_0, MISPRINTS):
        if label in table:
            return table[label]
    raise ValueError(f"Unknown age label {label!r}.")
