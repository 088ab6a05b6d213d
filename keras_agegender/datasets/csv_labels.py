"""Labels of a CSV file's row: what a cell of ages, genders or splits means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_agegender.datasets.cleaning_report import CleaningReport, quoted
from keras_agegender.datasets.csv_columns import UNKNOWN
from keras_agegender.datasets.splits import SPLITS
from keras_agegender.labels import GENDERS, MAX_AGE, MISSING, AgeGroups

GENDER_WORDS = {
    "f": "female", "female": "female", "woman": "female",
    "m": "male", "male": "male", "man": "male",
}  # fmt: skip
SPLIT_WORDS = {name: name for name in SPLITS} | {
    "val": "validation",
    "valid": "validation",
}
_YEARS = re.compile(r"^\d+(\.\d+)?$")


@dataclass(frozen=True)
class Cell:
    """A value and where it stands, for messages."""

    text: str
    where: str


def gender_words(values: Mapping[str, str] | None) -> dict[str, str]:
    """Returns what a gender column may hold -> `"female"` or `"male"`.

    Args:
        values: Further words, as `read_csv` takes them.

    Raises:
        ValueError: If one means something else.
    """
    for value, gender in (values or {}).items():
        if gender not in GENDERS:
            raise ValueError(
                f"Invalid `gender_values`. Expected 'female' or 'male' for {value!r}. "
                f"Received: {gender!r}."
            )
    return GENDER_WORDS | {str(k).lower(): v for k, v in (values or {}).items()}


def read_labels(
    cells: Mapping[str, Cell],
    genders: Mapping[str, str],
    groups: AgeGroups,
    gaps: str,
    report: CleaningReport,
) -> dict[str, Any]:
    """Returns a row's labels and split by column of a manifest.

    Args:
        cells: Cells by role, those that the file has.
        genders: What `gender_words` returned.
        groups: Age groups of the manifest.
        gaps: As `read_csv` takes it.
        report: Counts what is not known and ages between two groups.

    Raises:
        ValueError: If a cell cannot be understood.
    """
    labels: dict[str, Any] = {"source": "csv"}
    if "age" in cells:
        labels["age_group"], labels["age_years"] = _age(
            cells["age"], groups, gaps, report
        )
    if "gender" in cells:
        labels["gender"] = _gender(cells["gender"], genders, report)
    if "subject" in cells:
        labels["subject"] = cells["subject"].text
    if "album" in cells:
        text = cells["album"].text
        labels["album"] = "" if text.lower() in UNKNOWN else text
    if "split" in cells:
        split = SPLIT_WORDS.get(cells["split"].text.lower())
        if split is None:
            raise ValueError(
                f"{cells['split'].where}: expected train, validation or test. "
                f"Received: {quoted(cells['split'].text)}."
            )
        labels["split"] = split
    return labels


def check_not_ids(file: Path, texts: list[str]) -> None:
    """Raises ValueError where a column `age_group` holds just numbers."""
    known = [text for text in texts if text.lower() not in UNKNOWN]
    if known and all(_YEARS.match(text) for text in known):
        raise ValueError(
            f"{file}: column 'age_group' holds numbers, which may be ids or years. "
            "Expected names such as '25-32'. If they are years, name the column with "
            f"`age_column` (--age-column age_group). Received: {quoted(known[0])}."
        )


def _age(
    cell: Cell, groups: AgeGroups, gaps: str, report: CleaningReport
) -> tuple[int, float]:
    """Returns an age group and years, `MISSING` where they are not known."""
    if cell.text.lower() in UNKNOWN:
        report.rules["age", cell.text, "no age"] += 1
        return MISSING, MISSING
    if _YEARS.match(cell.text) and float(cell.text) <= MAX_AGE:
        years = float(cell.text)
        group = groups.from_years(years, gaps)
        if groups.from_years(years) == MISSING and gaps == "omit":
            report.num_between_groups += 1  # the caller leaves the row out
        elif groups.from_years(years) == MISSING:
            moved_to = None if group == MISSING else groups.names[group]
            report.find_between_groups(cell.text, moved_to)
        return group, years
    named = groups.from_text(cell.text)
    if named is not None:
        return named, MISSING
    raise ValueError(
        f"{cell.where}: expected years in [0, {MAX_AGE}] or one of the groups "
        f"{groups}. Received: {quoted(cell.text)}. Other groups: `age_groups` "
        "(--age-groups), for instance 'decades'."
    )


def _gender(cell: Cell, genders: Mapping[str, str], report: CleaningReport) -> int:
    word = cell.text.lower()
    if word in genders:
        return GENDERS.index(genders[word])
    if word in UNKNOWN:
        report.rules["gender", cell.text, "no gender"] += 1
        return MISSING
    hint = (
        " Numbers mean different things in different datasets; say which with "
        "`gender_values` (--female, --male)."
        if word.isdigit()
        else ""
    )
    raise ValueError(
        f"{cell.where}: expected one of {', '.join(genders)}.{hint} "
        f"Received: {quoted(cell.text)}."
    )
