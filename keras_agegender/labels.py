"""Labels: age groups, genders, CelebA's attributes, and the texts that stand for them.

In: what a label file says (`"(8, 23)"`, `"35"`, `"m"`, 27 years). Out: class ids, -1
where there is no label. Corrections are tables; nothing is guessed.
"""

from __future__ import annotations

# Adience's eight groups, both ends included, in years. The gaps are Adience's too.
AGE_GROUPS = (
    (0, 2),
    (4, 6),
    (8, 12),
    (15, 20),
    (25, 32),
    (38, 43),
    (48, 53),
    (60, 100),
)
AGE_GROUP_NAMES = tuple(f"{low}-{high}" for low, high in AGE_GROUPS)

# The id of a gender is its place here; the sigmoid head `gender` is P(male).
GENDERS = ("female", "male")

# A label that is not known, in manifests, prepared datasets and tf.data alike.
MISSING = -1

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

# CelebA's 40 attributes in the order of list_attr_celeba.txt.
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald",
    "Bangs", "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair",
    "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair",
    "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose",
    "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair",
    "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip

GAPS = ("omit", "nearest")


def age_group_from_years(years: float, gaps: str = "omit") -> int:
    """Returns the id of the age group an age lies in.

    Args:
        years: Age in completed years, 0 to 130; a fraction counts for the whole year.
        gaps: What an age between two groups becomes: `"omit"` (default) is `MISSING`,
            `"nearest"` the nearer group, the younger of two equally near. Ages above
            100 belong to the last group.

    Returns:
        Id in [0, 8), or -1.

    Raises:
        ValueError: If the age or the option is impossible.

    Example:
    >>> [age_group_from_years(35, gaps=gaps) for gaps in ("omit", "nearest")]
    [-1, 4]
    """
    if gaps not in GAPS:
        raise ValueError(
            f"Invalid `gaps`. Expected one of {GAPS}. Received: gaps={gaps!r}."
        )
    if not 0 <= years <= 130:
        raise ValueError(f"Invalid age. Expected years in [0, 130]. Received: {years}.")
    age = int(years)
    distances = [max(low - age, age - high, 0) for low, high in AGE_GROUPS]
    distances[-1] = max(AGE_GROUPS[-1][0] - age, 0)
    nearest = min(range(len(AGE_GROUPS)), key=distances.__getitem__)
    if distances[nearest] == 0 or gaps == "nearest":
        return nearest
    return MISSING


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
