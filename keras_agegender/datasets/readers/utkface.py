"""UTKFace: images whose names hold the labels become a manifest.

Zhang, Song & Qi, "Age Progression/Regression by Conditional Adversarial Autoencoder",
CVPR 2017. An image is named `<age>_<gender>_<race>_<time>.jpg`, with gender 0 for male
and 1 for female; here, as everywhere in this library, it becomes 1 for male.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from keras_agegender import labels
from keras_agegender.datasets.duplicates import check_duplicates
from keras_agegender.datasets.manifest import (
    GAP,
    NOT_TEXT,
    CleaningReport,
    Manifest,
    make_manifest,
)
from keras_agegender.datasets.splits import check_shares, draw_splits
from keras_agegender.files import is_text

SUFFIXES = (".jpg", ".jpeg", ".png")
_NAME = re.compile(r"^(\d{1,3})_([01])_([0-4])_(\d+)\.")
_MALE = "0"
# The number in a file's name is the index, as the dataset's page has it.
RACES = ("white", "black", "asian", "indian", "other")


def read_utkface(
    directory: str | Path,
    *,
    age_groups: labels.AgeGroups | str | Sequence[tuple[int, int]] | None = None,
    unmapped_ages: str = "drop",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    duplicates: str | None = None,
    cache: str | Path | None = None,
) -> tuple[Manifest, CleaningReport]:
    """Reads UTKFace's labels from the file names.

    Files with other names than published are dropped, counted and listed in the report.
    UTKFace does not identify people, so that one person may be in two splits: scores
    are slightly optimistic.

    Args:
        directory: Folder of images; folders in it are searched too.
        age_groups: Age groups of the manifest, as `get_age_groups` takes them. Defaults
            to Adience's eight.
        unmapped_ages: What to do with ages between two groups: `"drop"` (default) drops
            the image, `"mask"` keeps its gender and years without an age group,
            `"nearest"` uses the nearer group, the younger of two equally near.
        validation: Share of images that validate, in [0, 1). Defaults to 0.1.
        test: Share of images that test, in [0, 1). Defaults to 0.1.
        seed: Seed of the split. Defaults to 0.
        duplicates: Which images are never in two splits: those of the same bytes
            (`"exact"`; `None`, the default, does so too), or those that look the same
            as well (`"near"`; UTKFace has hundreds), which needs the extra `audit`.
            It is not the default, as splits must not depend on what is installed.
        cache: File that stores perceptual hashes by content. `None` (default) stores
            none.

    Returns:
        `(manifest, report)`. The column `age_years` holds the age, `race` the index in
        `RACES`; neither is an output unless asked for. The report counts ages that
        were moved to the nearer group (`num_moved`) or have none.

    Raises:
        ValueError: If there is no such folder, or no usable image in it.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> manifest, report = read_utkface("data/UTKFace")  # doctest: +SKIP
    """
    labels.check_unmapped_ages(unmapped_ages)
    check_duplicates(duplicates)
    check_shares(validation, test)
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"There is no folder {directory} of UTKFace images.")
    groups = labels.get_age_groups(age_groups)
    report = CleaningReport("utkface")
    rows = []
    for file in sorted(directory.rglob("*")):
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        report.rows_read += 1
        row = _read_name(file.relative_to(directory), groups, unmapped_ages, report)
        if row is not None:
            rows.append({**row, "path": str(file)})
    if not rows:
        raise ValueError(
            f"No image of {report.rows_read} in {directory} is usable: expected "
            "names such as 27_1_0_20170116220224657.jpg."
        )
    manifest = make_manifest(rows, age_groups=groups, cleaning=report)
    drawn = draw_splits(
        manifest,
        report,
        validation=validation,
        test=test,
        seed=seed,
        duplicates=duplicates,
        cache=cache,
    )
    return drawn, report


def _read_name(
    file: Path, groups: labels.AgeGroups, unmapped_ages: str, report: CleaningReport
) -> dict | None:
    key = file.as_posix()
    if not is_text(key):
        report.drop(ascii(key), NOT_TEXT)
        return None
    match = _NAME.match(file.name)
    if match is None:
        report.drop(key, "malformed name")
        return None
    years = int(match[1])
    if years > labels.MAX_AGE:
        report.drop(key, "impossible age")
        return None
    group = groups.from_years(years, unmapped_ages)
    if groups.from_years(years) == labels.MISSING:
        if unmapped_ages == "drop":
            report.num_between_groups += 1
            report.drop(key, GAP)
            return None
        moved_to = None if group == labels.MISSING else groups.names[group]
        report.count_unmapped(str(years), moved_to)
    return {
        "key": key,
        "age_group": group,
        "gender": labels.GENDERS.index("male" if match[2] == _MALE else "female"),
        "source": "utkface",
        "age_years": years,
        "race": int(match[3]),
    }
