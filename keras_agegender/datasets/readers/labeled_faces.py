"""Labeled faces, which a reader yields one by one, become a manifest."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_agegender import labels
from keras_agegender.datasets.duplicates import check_duplicates, find_same_images
from keras_agegender.datasets.manifest import (
    BOX_COLUMNS,
    GAP,
    NOT_TEXT,
    CleaningReport,
    Manifest,
    make_manifest,
    quoted,
)
from keras_agegender.datasets.splits import SPLITS, check_shares, draw_splits
from keras_agegender.files import is_text

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
UNASSIGNED = "all"  # the split of rows that no source assigns to one
COPY = "copy of another image, with the same labels"
OTHER_LABELS = "copies with other labels or splits, kept"
NO_LABEL = "neither age nor gender"


@dataclass(frozen=True)
class LabeledFace:
    """An image file and what is known about its face.

    Args:
        path: The image file.
        years: Age in years, in [0, 130]. Defaults to `None`, unknown.
        age_group: Name of the age group if the age in years is unknown: `"20-29"`.
            Defaults to `""`, unknown.
        gender: `"female"`, `"male"`, or `""` (default) if unknown.
        subject: Who is shown, so that nobody is in two splits. Defaults to `""`,
            unknown.
        split: `"train"`, `"validation"` or `"test"` if the source assigns one.
            Defaults to `""`: splits are drawn.
        box: Left, top, right and bottom of the face in pixels of the upright image.
            Defaults to `None`: the face is searched.
        metadata: Column -> text that stays beside the face, for `evaluate(by=…)`, or
            number. No column becomes an output. Defaults to none.
        problem: Why the face cannot be used: it is dropped, counted and listed.
            Defaults to `""`.

    Example:
    >>> LabeledFace("ben/1.jpg", years=27, gender="male", subject="ben").years
    27
    """

    path: str | Path
    years: float | None = None
    age_group: str = ""
    gender: str = ""
    subject: str = ""
    split: str = ""
    box: Sequence[float] | None = None
    metadata: Mapping[str, str | float] = field(default_factory=dict)
    problem: str = ""


def read_labeled_faces(
    faces: Iterable[LabeledFace],
    directory: str | Path,
    *,
    source: str = "faces",
    age_groups: labels.AgeGroups | str | Sequence[tuple[int, int]] | None = None,
    unmapped_ages: str = "mask",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    duplicates: str | None = None,
    cache: str | Path | None = None,
    as_is: bool = False,
) -> tuple[Manifest, CleaningReport]:
    """Returns the manifest of labeled faces: what every reader of a dataset ends with.

    Drops, counts and lists faces without an image file or label, with an impossible
    age, or that are a copy of another one with the same labels. Draws splits by subject
    if the source has none.

    Args:
        faces: The faces, from a function that reads one layout of files.
        directory: Folder of the images: keys are paths below it.
        source: Name of the dataset: letters, digits and underscores. Defaults to
            `"faces"`.
        age_groups: Age groups of the manifest, as `get_age_groups` takes them. Defaults
            to Adience's eight.
        unmapped_ages: What to do with ages between two groups: `"mask"` (default) keeps
            the face and its years without an age group, `"nearest"` uses the nearer
            group, `"drop"` drops the face.
        validation: Share of subjects that validate, in [0, 1), if splits are drawn.
            Defaults to 0.1.
        test: Share of subjects that test, in [0, 1), if splits are drawn. Defaults to
            0.1.
        seed: Seed of the splits. Defaults to 0.
        duplicates: Images that are never in two drawn splits: those of the same bytes
            (`"exact"`, as does `None`, the default), or also those that look the same
            (`"near"`, needs the extra `audit`).
        cache: File that stores perceptual hashes by content. `None` (default) stores
            none.
        as_is: Whether no splits are drawn and a subject may be in two splits, as an
            audit needs it. Defaults to `False`.

    Returns:
        `(manifest, report)`.

    Raises:
        ValueError: If no face is usable, or a label or split is unknown.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> faces = [LabeledFace("data/27.jpg", years=27)]
    >>> manifest, report = read_labeled_faces(faces, "data")  # doctest: +SKIP
    """
    labels.check_unmapped_ages(unmapped_ages)
    check_duplicates(duplicates)
    check_shares(validation, test)
    groups = labels.get_age_groups(age_groups)
    report = CleaningReport(source)
    rows = []
    seen: Counter[str] = Counter()
    for face in faces:
        report.rows_read += 1
        row = _row(face, Path(directory), groups, unmapped_ages, report)
        if row is not None:
            seen[row["key"]] += 1
            if seen[row["key"]] > 1:  # faces of one image
                row["key"] += f"#{seen[row['key']]}"
            rows.append({**row, "source": source})
    if not rows:
        raise ValueError(
            f"No image of {report.rows_read} in {directory} is usable. Dropped: "
            f"{dict(report.dropped)}."
        )
    rows = _drop_copies(rows, report)
    has_splits = any(row["split"] for row in rows)
    if has_splits and not all(row["split"] for row in rows):
        key = next(row["key"] for row in rows if not row["split"])
        raise ValueError(f"{directory}: {key!r} has no split, other images have one.")
    for row in rows if not has_splits else ():
        row["split"] = UNASSIGNED
    for column, unknown in (("age_years", labels.MISSING), (BOX_COLUMNS[0], None)):
        if all(row.get(column, unknown) == unknown for row in rows):
            for row in rows:
                row.pop(column, None)
    manifest = make_manifest(
        rows,
        age_groups=groups,
        cleaning=report,
        shared_subjects=as_is or not has_splits,
        keep_columns=_fill_text_columns(rows),
    )
    if has_splits or as_is:
        return manifest, report
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


def _row(
    face: LabeledFace,
    directory: Path,
    groups: labels.AgeGroups,
    unmapped_ages: str,
    report: CleaningReport,
) -> dict[str, Any] | None:
    path = Path(face.path)
    inside = path.is_relative_to(directory)
    key = (path.relative_to(directory) if inside else path).as_posix()
    if not is_text(key):
        report.drop(ascii(key), NOT_TEXT)
        return None
    years = labels.MISSING if face.years is None else face.years
    problem = face.problem
    if not problem and years != labels.MISSING and not 0 <= years <= labels.MAX_AGE:
        problem = "impossible age"
    if not problem and years == labels.MISSING and not (face.age_group or face.gender):
        problem = NO_LABEL
    # `Path.is_file` raises an error of names that are longer than any file's.
    if not problem and not os.path.isfile(path):
        problem = "no image file"
    if problem:
        report.drop(key, problem)
        return None
    group = labels.MISSING
    if years != labels.MISSING:
        group = groups.from_years(years, unmapped_ages)
        if groups.from_years(years) == labels.MISSING:
            if unmapped_ages == "drop":
                report.num_between_groups += 1
                report.drop(key, GAP)
                return None
            moved_to = None if group == labels.MISSING else groups.names[group]
            report.count_unmapped(f"{years:g}", moved_to)
    elif face.age_group:
        group = _group(face.age_group, groups, key, report)
    for what, value, known in (
        ("gender", face.gender, labels.GENDERS),
        ("split", face.split, SPLITS),
    ):
        if value not in ("", *known):
            raise ValueError(
                f"{path}: expected the {what} {', '.join(known)} or ''. "
                f"Received: {quoted(value)}."
            )
    box = [float(pixels) for pixels in face.box or ()]
    return {
        "key": key,
        "path": str(path),
        "subject": face.subject,
        "split": face.split,
        "age_group": group,
        "gender": labels.GENDERS.index(face.gender) if face.gender else labels.MISSING,
        "age_years": years,
        **dict(zip(BOX_COLUMNS, box, strict=bool(box))),
        **face.metadata,
    }


def _group(
    text: str, groups: labels.AgeGroups, key: str, report: CleaningReport
) -> int:
    """Returns the group of a name, also of one that a spreadsheet made a date."""
    group = groups.from_text(text)
    if group is None:
        group = groups.from_spreadsheet_date(text)
        if group is not None:
            name = f"{groups.names[group]} (a spreadsheet made a date of it)"
            report.rules["age", text, name] += 1
    if group is None:
        raise ValueError(
            f"{key}: expected one of the age groups {groups}. Received: {quoted(text)}."
        )
    return group


def _fill_text_columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the columns of metadata that hold texts; `""` where a row has none."""
    own = {"key", "path", "subject", "split", "source"}
    texts = dict.fromkeys(
        n for row in rows for n, v in row.items() if isinstance(v, str) and n not in own
    )
    for row in rows:
        row |= {name: row.get(name, "") for name in texts}
    return list(texts)


def _drop_copies(
    rows: list[dict[str, Any]], report: CleaningReport
) -> list[dict[str, Any]]:
    """Returns one row of each image; all of them if their labels differ."""
    contents = find_same_images([row["path"] for row in rows]).contents
    copies: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row, content in zip(rows, contents, strict=True):
        copies[content, *(row.get(name) for name in BOX_COLUMNS)].append(row)
    dropped = set()
    for same in copies.values():
        if len(same) == 1:
            continue
        columns = [
            name
            for name in ("age_group", "age_years", "gender", "subject", "split")
            if len({row[name] for row in same}) > 1
        ]
        if columns:
            keys = ", ".join(row["key"] for row in same)
            report.items.append((f"{keys} ({', '.join(columns)})", OTHER_LABELS))
            report.totals[OTHER_LABELS] = report.totals.get(OTHER_LABELS, 0) + 1
            continue
        for row in same[1:]:
            report.drop(f"{row['key']} ({same[0]['key']})", COPY)
            dropped.add(row["key"])
    return [row for row in rows if row["key"] not in dropped]
