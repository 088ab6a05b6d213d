"""Reads Adience."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from keras_agegender.datasets.manifest import (
    CleaningReport,
    Manifest,
    make_manifest,
    quoted,
)
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
    """Returns the id of the age group of an Adience label.

    Example:
    >>> age_group_from_adience("(8, 23)"), age_group_from_adience("None")
    (2, -1)
    """
    group = corrected_group(label, strict)
    if group is None:
        return MISSING
    return AGE_GROUPS.index(group)


def corrected_group(label: str, strict: bool = False) -> tuple[int, int] | None:
    """Returns the (low, high) years of an Adience label, or `None`."""
    if label in NO_AGE or (strict and label in MISPRINTS):
        return None
    for low, high in AGE_GROUPS:
        if label == f"({low}, {high})":
            return low, high
    for table in (TABLE_0, MISPRINTS):
        if label in table:
            return table[label]
    raise ValueError(f"Unknown age label {label!r}.")


COLUMNS = (
    "user_id",
    "original_image",
    "face_id",
    "age",
    "gender",
    "x",
    "y",
    "dx",
    "dy",
    "tilt_ang",
    "fiducial_yaw_angle",
    "fiducial_score",
)
NUM_FOLDS = 5
# Tree -> path of an image in it.
TREES = {
    "faces": "faces/{user_id}/coarse_tilt_aligned_face.{face_id}.{original_image}",
    "aligned": "aligned/{user_id}/landmark_aligned_face.{face_id}.{original_image}",
}
_SAFE_NAME = re.compile(r"^(?!\.{1,2}$)[^/\\\x00-\x1f]+$")


class _Row(NamedTuple):
    file: str
    line: int
    fold: int
    values: dict[str, str]

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.line}"


def read_adience(
    labels_dir: str | Path,
    images_dir: str | Path | None = None,
    *,
    tree: str = "auto",
    strict: bool = False,
    require_labels: str = "both",
    shared_subjects: bool = False,
) -> tuple[Manifest, CleaningReport]:
    """Reads Adience's fold files, cleaned by the report's rules.

    Ages are corrected by the report's Table 0, and the misprint `(25, 23)` to 25-32;
    genders `u` and empty are unknown. Images without a file are dropped, counted and
    listed in the report.

    Args:
        labels_dir: Folder with `fold_0_data.txt` … `fold_4_data.txt`.
        images_dir: Folder with the trees `faces/` or `aligned/`. `None` (default) reads
            labels only; `path` is then relative to a folder that is not checked.
        tree: `"faces"`, `"aligned"`, or `"auto"` (default), which takes `faces` if it
            exists and `aligned` if not.
        strict: Whether exactly Table 0 applies, so that `(25, 23)` has no age.
        require_labels: `"both"` (default) drops images without age or gender; `"any"`
            drops those without either, and the missing label is -1, which training
            masks.
        shared_subjects: Whether a person may be in two folds, which an audit reports.
            Defaults to `False`: that is an error. The published files have none.

    Returns:
        `(manifest, report)`. Splits are `fold_0` … `fold_4`, the subject is `face_id`,
        as Adience numbers people, the album `user_id`, the owner of the images.

    Raises:
        ValueError: If a file is absent or damaged, a label unknown, a name unsafe, or
            a person in two folds.

    Example:
    >>> manifest, report = read_adience("data/adience")  # doctest: +SKIP
    """
    if require_labels not in ("both", "any"):
        raise ValueError(
            "Invalid `require_labels`. Expected 'both' or 'any'. "
            f"Received: require_labels={require_labels!r}."
        )
    if not Path(labels_dir).is_dir():
        raise ValueError(f"There is no folder {labels_dir} with Adience's fold files.")
    tree = _find_tree(images_dir, tree)
    report = CleaningReport("adience")
    rows = []
    seen: Counter[str] = Counter()
    for row in _read_folds(Path(labels_dir)):
        report.rows_read += 1
        made = _clean(row, tree, images_dir, strict, require_labels, report)
        if made is not None:
            rows.append(_number_repeats(made, seen, report))
    if not rows:
        raise ValueError(
            f"No image of {report.rows_read} rows in {labels_dir} is usable: "
            f"{dict(report.dropped)}."
        )
    manifest = make_manifest(rows, cleaning=report, shared_subjects=shared_subjects)
    return manifest, report


def _number_repeats(
    row: dict[str, Any], seen: Counter[str], report: CleaningReport
) -> dict[str, Any]:
    """Makes keys unique: the public files list 117 rows two or three times.

    The published counts include these rows, so they are kept and counted.
    """
    key = row["key"]
    seen[key] += 1
    if seen[key] == 1:
        return row
    repeats = "repeated rows, kept"
    report.totals[repeats] = report.totals.get(repeats, 0) + 1
    return {**row, "key": f"{key}#{seen[key]}"}


def _read_folds(labels_dir: Path) -> Iterator[_Row]:
    names = [f"fold_{k}_data.txt" for k in range(NUM_FOLDS)]
    absent = [name for name in names if not (labels_dir / name).exists()]
    if absent:
        raise ValueError(f"{labels_dir} lacks {', '.join(absent)}.")
    for fold, name in enumerate(names):
        yield from _read_fold(labels_dir / name, fold)


def _read_fold(file: Path, fold: int) -> Iterator[_Row]:
    if not file.is_file():
        raise ValueError(f"{file} is not a file.")
    try:
        # Excel puts a mark before the first letter. A name may hold what Python takes
        # for further ends of lines (`str.splitlines`).
        lines = file.read_text("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file: {error.reason}.") from error
    if tuple(lines[0].split("\t")) != COLUMNS:
        raise ValueError(
            f"{file}, line 1: expected the tab-separated columns {' '.join(COLUMNS)}. "
            f"Received: {quoted(lines[0] or 'an empty line')}."
        )
    for number, line in enumerate(lines[1:], start=2):
        values = line.split("\t")
        if len(values) != len(COLUMNS):
            raise ValueError(
                f"{file}, line {number}: expected {len(COLUMNS)} tab-separated values, "
                f"received {len(values)}. Is the file truncated?"
            )
        yield _Row(str(file), number, fold, dict(zip(COLUMNS, values, strict=True)))


def _clean(
    row: _Row,
    tree: str,
    images_dir: str | Path | None,
    strict: bool,
    require_labels: str,
    report: CleaningReport,
) -> dict[str, Any] | None:
    values = row.values
    for column in ("user_id", "original_image", "face_id"):
        if not _SAFE_NAME.match(values[column]):
            raise ValueError(
                f"{row.where}: {column} must be a plain name, not a path. "
                f"Received: {quoted(values[column])}."
            )
    age, gender = _age(row, strict, report), _gender(row, report)
    for name, usable in (
        ("usable gender", gender != MISSING),
        ("usable age", age != MISSING),
        ("both usable", MISSING not in (age, gender)),
    ):
        report.totals[name] = report.totals.get(name, 0) + usable
    key = TREES[tree].format(**values)
    if age == MISSING and gender == MISSING:
        report.drop(key, "neither age nor gender")
        return None
    if require_labels == "both" and MISSING in (age, gender):
        report.drop(key, "no age" if age == MISSING else "no gender")
        return None
    path = Path(images_dir or ".") / key
    # `Path.is_file` raises an error of names that are longer than any file's.
    if images_dir is not None and not os.path.isfile(path):
        report.drop(key, "no image file")
        return None
    return {
        "key": key,
        "path": str(path),
        "subject": values["face_id"],
        "fold": row.fold,
        "split": f"fold_{row.fold}",
        "age_group": age,
        "gender": gender,
        "source": "adience",
        "album": values["user_id"],
    }


def _age(row: _Row, strict: bool, report: CleaningReport) -> int:
    label = row.values["age"]
    try:
        group = corrected_group(label, strict)
    except ValueError:
        raise ValueError(
            f"{row.where}: unknown age label {quoted(label)}. Expected one of the "
            "eight groups, a label of the report's Table 0, or None."
        ) from None
    if group is None:
        report.rules["age", label, "no age"] += 1
        return MISSING
    if label != f"({group[0]}, {group[1]})":
        report.rules["age", label, f"({group[0]}, {group[1]})"] += 1
    return AGE_GROUPS.index(group)


def _gender(row: _Row, report: CleaningReport) -> int:
    label = row.values["gender"]
    if label in NO_GENDER:
        report.rules["gender", label, "no gender"] += 1
        return MISSING
    if label not in ADIENCE_GENDERS:
        raise ValueError(
            f"{row.where}: unknown gender label {quoted(label)}. Expected 'm', "
            "'f', 'u' or nothing."
        )
    return ADIENCE_GENDERS[label]


def _find_tree(images_dir: str | Path | None, tree: str) -> str:
    if tree not in (*TREES, "auto"):
        raise ValueError(
            f"Invalid `tree`. Expected one of {sorted(TREES)} or 'auto'. "
            f"Received: tree={tree!r}."
        )
    if images_dir is None:
        return "faces" if tree == "auto" else tree
    for name in TREES if tree == "auto" else (tree,):
        if (Path(images_dir) / name).is_dir():
            return name
    looked = " or ".join(f"{name}/" for name in (TREES if tree == "auto" else (tree,)))
    raise ValueError(f"There is no {looked} in {images_dir}.")
