"""Labels: age groups, genders, CelebA's attributes, and the value for "unknown"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# An unknown label, in manifests, prepared datasets and tf.data.
MISSING = -1

MAX_AGE = 130  # years, beyond the oldest known age
UNMAPPED_AGES = ("drop", "mask", "nearest")  # options for ages between two groups

_RANGE = re.compile(r"^[(\[]?\s*(\d{1,3})\s*(?:-|–|,|\.\.|to)\s*(\d{1,3})\s*[)\]]?$")
_OPEN = re.compile(r"^(?:(?:more than|over|>)\s*(\d{1,3})|(\d{1,3})\s*\+)$")


@dataclass(frozen=True)
class AgeGroups:
    """Names and bounds of the age groups of labels and predictions.

    Groups are ordered and do not overlap. There may be gaps between them: an age in a
    gap has no group. Ages above the last bound belong to the last group.

    Args:
        bounds: (youngest, oldest) of each group in completed years, both included, in
            ascending order. Shape (num_groups, 2), at least 2 groups.
        names: Name of each group. Defaults to `"<youngest>-<oldest>"`.

    Raises:
        ValueError: If bounds overlap or descend, or the number of names differs.

    Example:
    >>> groups = AgeGroups(((0, 17), (18, 64), (65, 120)), ("child", "adult", "senior"))
    >>> groups.names[groups.from_years(30)]
    'adult'
    """

    bounds: tuple[tuple[int, int], ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds = tuple(_whole_years(pair) for pair in self.bounds)
        object.__setattr__(self, "bounds", bounds)
        names = tuple(self.names) or tuple(f"{low}-{high}" for low, high in bounds)
        object.__setattr__(self, "names", names)
        flat = [year for pair in bounds for year in pair]
        ascending = all(a <= b for a, b in zip(flat[::2], flat[1::2], strict=True))
        apart = all(a < b for a, b in zip(flat[1::2], flat[2::2], strict=False))
        possible = all(0 <= year <= MAX_AGE for year in flat)
        if len(bounds) < 2 or not ascending or not apart or not possible:
            raise ValueError(
                "Invalid `bounds` of age groups (--age-groups). Expected at least two "
                f"(youngest, oldest) pairs of years in [0, {MAX_AGE}], ascending and "
                f"not overlapping. Received: bounds={bounds}."
            )
        if len(names) != len(bounds) or len(set(names)) != len(names):
            raise ValueError(
                f"Invalid `names` of age groups. Expected {len(bounds)} distinct "
                f"names. Received: names={names}."
            )

    def __len__(self) -> int:
        return len(self.bounds)

    def __str__(self) -> str:
        return ", ".join(self.names)

    @property
    def centers(self) -> tuple[float, ...]:
        """The middle of each group, in years."""
        return tuple((low + high) / 2 for low, high in self.bounds)

    def from_years(self, years: float, unmapped_ages: str = "drop") -> int:
        """Returns the id of the group that contains an age in completed years.

        Args:
            years: Age in [0, 130]; fractions of a year are ignored.
            unmapped_ages: Treatment of an age between two groups: -1 for `"drop"`
                (default; readers skip the face) and `"mask"` (readers keep it), the
                nearer group, or the younger of two equally near, for `"nearest"`.
        """
        check_unmapped_ages(unmapped_ages)
        if not 0 <= years <= MAX_AGE:
            raise ValueError(
                f"Invalid age. Expected years in [0, {MAX_AGE}]. Received: {years}."
            )
        age = int(years)
        distances = [max(low - age, age - high, 0) for low, high in self.bounds]
        distances[-1] = max(self.bounds[-1][0] - age, 0)
        nearest = min(range(len(self)), key=distances.__getitem__)
        if distances[nearest] == 0 or unmapped_ages == "nearest":
            return nearest
        return MISSING

    def from_text(self, text: str) -> int | None:
        """Returns the id of the group with this label, or `None` if no group has it.

        Labels are names and bounds: `"adult"`, `"20-29"`, `"(20, 29)"`, `"70+"`.
        """
        for index, name in enumerate(self.names):
            if text.strip().lower() == name.lower():
                return index
        found = _parse_range(text)
        if found is None:
            return None
        low, high = found
        last = len(self) - 1
        for index, bounds in enumerate(self.bounds):
            if (low, high) == bounds or (high is None and index == last):
                return index if low == bounds[0] else None
        return None

    def from_spreadsheet_date(self, text: str) -> int | None:
        """Returns the id of the only group that a spreadsheet turns into this date.

        Spreadsheets read `3-9` as a day and a month, `10-19` as a month and a year.
        Returns `None` if the text is no date, or may be no group or several.

        Example:
        >>> groups = get_age_groups("fairface")
        >>> [groups.names[groups.from_spreadsheet_date(t)] for t in ("9-Mar", "Oct-19")]
        ['3-9', '10-19']
        """
        pairs = _numbers_of_date(text)
        found = [
            index
            for index, (low, high) in enumerate(self.bounds)
            if low < high and (low, high) in pairs
        ]
        return found[0] if len(found) == 1 else None

    def to_list(self) -> list[dict[str, Any]]:
        """Returns the groups as plain values, for JSON; `from_list` reads them."""
        return [
            {"name": name, "years": list(bounds)}
            for name, bounds in zip(self.names, self.bounds, strict=True)
        ]

    @classmethod
    def from_list(cls, groups: Sequence[Any]) -> AgeGroups:
        """Returns the groups that `to_list` wrote."""
        return cls(
            tuple((low, high) for low, high in (group["years"] for group in groups)),
            tuple(group["name"] for group in groups),
        )


def _whole_years(pair: Any) -> tuple[int, int]:
    """Returns bounds as two ints."""
    years = tuple(pair) if isinstance(pair, Sequence) else ()
    numbers = all(isinstance(year, (int, float)) for year in years)
    if len(years) != 2 or not numbers or years != tuple(map(int, years)):
        raise ValueError(
            "Invalid `bounds` of age groups. Expected pairs (youngest, oldest) of "
            f"whole years. Received: {pair!r}."
        )
    return int(years[0]), int(years[1])


def check_unmapped_ages(unmapped_ages: str) -> None:
    """Checks an `unmapped_ages` option: the treatment of ages between two groups."""
    if unmapped_ages not in UNMAPPED_AGES:
        raise ValueError(
            f"Invalid `unmapped_ages`. Expected one of {UNMAPPED_AGES}. "
            f"Received: unmapped_ages={unmapped_ages!r}."
        )


# First letters of months in English, German, French, Spanish, Italian, Portuguese,
# Dutch, Swedish and Polish; the longest that fits counts.
_MONTHS = {
    start: month
    for month, starts in enumerate(
        (
            "jan ene gen sty", "feb fév fev lut", "mar mär mrz mrt", "apr avr abr kwi",
            "may mai mei maj mag", "jun juin giu cze", "jul juil lug lip",
            "aug aoû aou ago sie", "sep set wrz", "oct okt ott out paź", "nov lis",
            "dec dez déc dic gru",
        ),
        start=1,
    )
    for start in starts.split()
}  # fmt: skip


def _numbers_of_date(text: str) -> set[tuple[int, int]]:
    """Returns the ascending pairs among day, month and year of two digits of a date."""
    date = re.sub(r"[T ]+0?0:00(:00)?(\.0+)?$", "", text.strip().lower())
    numbers = []
    for part in re.findall(r"[^\W\d_]+|\d+", date):
        starts = [start for start in _MONTHS if part.startswith(start)]
        if part.isdigit():
            numbers.append(int(part) % 100 if len(part) == 4 else int(part))
        elif starts:
            numbers.append(_MONTHS[max(starts, key=len)])
        else:
            return set()
    has_word = re.search(r"[^\W\d_]", date) is not None
    if len(numbers) != 3 and not (len(numbers) == 2 and has_word):
        return set()
    return {(a, b) for a in numbers for b in numbers if a < b}


def _parse_range(text: str) -> tuple[int, int | None] | None:
    match = _RANGE.match(text.strip())
    if match:
        return int(match[1]), int(match[2])
    match = _OPEN.match(text.strip().lower())
    if match:
        return int(match[1] or match[2]), None
    return None


AGE_GROUP_PRESETS: dict[str, AgeGroups] = {
    # Both ends included, in years. The gaps are Adience's too.
    "adience": AgeGroups(
        ((0, 2), (4, 6), (8, 12), (15, 20), (25, 32), (38, 43), (48, 53), (60, 100))
    ),
    # Karkkainen & Joo, "FairFace", WACV 2021, whose last label is "more than 70".
    "fairface": AgeGroups(
        ((0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69),
         (70, 120)),
        ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"),
    ),
    "decades": AgeGroups(
        tuple((low, low + 9) for low in range(0, 90, 10)) + ((90, 120),),
        (*(f"{low}-{low + 9}" for low in range(0, 90, 10)), "90+"),
    ),
}  # fmt: skip

ADIENCE_AGE_GROUPS = AGE_GROUP_PRESETS["adience"]
AGE_GROUPS = ADIENCE_AGE_GROUPS.bounds
AGE_GROUP_NAMES = ADIENCE_AGE_GROUPS.names


def get_age_groups(
    groups: AgeGroups | str | Sequence[tuple[int, int]] | None = None,
) -> AgeGroups:
    """Returns age groups by name or bounds.

    Args:
        groups: A preset (`"adience"`, `"fairface"`, `"decades"`); bounds as text,
            `"0-9,10-19,20+"`; bounds as pairs of years; or an `AgeGroups`. `None`
            (default) is Adience's eight.

    Raises:
        ValueError: If there is no such preset, or the text cannot be read.

    Example:
    >>> get_age_groups("0-17, 18-64, 65+").bounds[-1]
    (65, 120)
    """
    if groups is None:
        return ADIENCE_AGE_GROUPS
    if isinstance(groups, AgeGroups):
        return groups
    if not isinstance(groups, str):
        return AgeGroups(tuple(groups))
    if groups in AGE_GROUP_PRESETS:
        return AGE_GROUP_PRESETS[groups]
    bounds, names = [], []
    for text in groups.split(","):
        found = _parse_range(text)
        if found is None:
            raise ValueError(
                "Invalid `age_groups` (--age-groups). Expected one of "
                f"{sorted(AGE_GROUP_PRESETS)} or ranges of years such as "
                "'0-9,10-19,20+'. "
                f"Received: {text.strip()!r} in {groups!r}."
            )
        low, high = found
        # The last group includes all higher ages, whatever its upper bound.
        bounds.append((low, max(low, 120) if high is None else high))
        names.append(text.strip())
    return AgeGroups(tuple(bounds), tuple(names))


# Gender ids are indices; the sigmoid head `gender` is P(male).
GENDERS = ("female", "male")

# The oldest year of a years head: 0 … 100, as in Rothe et al. 2018.
OLDEST_YEAR = 100

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
