"""Audits: what is wrong with data before anybody trains on it or is scored on it.

People or pictures that are in two splits make scores better than the model; copies with
two labels make training worse. An audit finds both, and says which faces there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.datasets.face_table import FaceTable, read_faces
from keras_agegender.datasets.hash_cache import HashCache
from keras_agegender.datasets.known_cohorts import (
    ALL,
    find_cohort,
    fingerprint,
    nearest_cohort,
)
from keras_agegender.datasets.manifest import summarize
from keras_agegender.datasets.near_duplicates import (
    EXACT,
    METHOD,
    NEAR,
    PictureHashes,
    check_imagehash,
    hash_pictures,
)
from keras_agegender.evaluation.audit_text import audit_text
from keras_agegender.evaluation.duplicates import (
    PairCounts,
    exact_pairs,
    near_pairs,
)
from keras_agegender.labels import MISSING

FORMAT = 1  # of the JSON


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        data: What was audited.
        kind: `"manifest"`, `"csv"`, `"adience"` or `"prepared"`.
        num_faces: Rows, each face once for each split it is in.
        counts: Faces by split and gender (rows) and age group (columns).
        age_group_names: Names of the age groups, by id.
        num_subjects: Subjects that are named.
        shared_subjects: Subject -> the splits it is in, of those in more than one.
        exact: Pairs of rows of the same bytes; `None` where no picture is there.
        near: Pairs of rows of other bytes that look the same; `None` where that was
            not asked for, or no picture is there.
        duplicates: A row per pair found: `kind`, `distance` in bits, and `key`,
            `split`, `age_group`, `age_years`, `gender` of both (`key_1`, `key_2`, …).
            Of a picture that is there many times, the first is beside each other one.
        pictures: `there`, `absent`, `unreadable`, and `of one color`, which are not
            compared.
        unreadable: Key -> why its picture cannot be read.
        status: Split -> status -> pictures, from a prepared dataset: `ok`, `no_face`,
            `several_faces`, …
        cleaning: What the reader did (`CleaningReport.counts`); `None` if not known.
        left_out: (item, reason) of rows left out, where they are known one by one.
        fingerprints: `"all"` and each split -> hash of keys and labels.
        cohorts: `"all"` and splits -> the known cohort with that fingerprint.
        nearest: Known cohort with the nearest numbers of faces -> faces more than in
            it, by fold; of Adience's faces that are no known cohort.
    """

    data: str
    kind: str
    num_faces: int
    counts: pd.DataFrame
    age_group_names: tuple[str, ...]
    num_subjects: int
    shared_subjects: dict[str, list[str]]
    exact: PairCounts | None
    near: PairCounts | None
    duplicates: pd.DataFrame
    pictures: dict[str, int]
    unreadable: dict[str, str]
    status: dict[str, dict[str, int]]
    cleaning: Mapping[str, Any] | None
    left_out: list[tuple[str, str]]
    fingerprints: dict[str, str]
    cohorts: dict[str, str]
    nearest: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def leaks(self) -> list[str]:
        """What is in more than one split, in words; empty where nothing is."""
        exact, near = (c.num_across if c else 0 for c in (self.exact, self.near))
        found = [
            _counted(len(self.shared_subjects), "subject"),
            _counted(exact, "pair", " of exact duplicates"),
            _counted(near, "pair", " of near duplicates"),
        ]
        return [text for text in found if text]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, for JSON."""
        counts = self.counts.reset_index().to_dict("records")
        return {
            "format": FORMAT,
            "data": self.data,
            "kind": self.kind,
            "num_faces": self.num_faces,
            "leaks": self.leaks,
            "counts": [{str(k): v for k, v in row.items()} for row in counts],
            "age_group_names": list(self.age_group_names),
            "num_subjects": self.num_subjects,
            "shared_subjects": self.shared_subjects,
            EXACT: _pair_values(self.exact),
            NEAR: _pair_values(self.near),
            "duplicates": self.duplicates.to_dict("records"),
            "pictures": self.pictures,
            "unreadable": self.unreadable,
            "status": self.status,
            "cleaning": self.cleaning,
            "left_out": [list(item) for item in self.left_out],
            "fingerprints": self.fingerprints,
            "cohorts": self.cohorts,
            "nearest": self.nearest,
        }

    def __str__(self) -> str:
        return audit_text(self)


def _counted(count: int, what: str, of: str = "") -> str:
    return f"{count:,} {what}{'s' if count > 1 else ''}{of}" if count else ""


def audit(
    data: str | Path | pd.DataFrame,
    *,
    splits: Mapping[str, str] | None = None,
    near_duplicates: bool = True,
    cache: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Audit:
    """Looks for leakage, duplicates and doubtful labels in any data of faces.

    Leakage is a subject, a picture, or a near duplicate of a picture in two splits.
    Near duplicates are one photo saved again, resized, recolored or cropped by about
    2 %; mirrored ones are not found, and two photos of one person are none.

    Args:
        data: A manifest or its CSV file (`write_manifest`), any other CSV file, as
            `read_csv` reads it, a folder with Adience's label files, or a prepared
            dataset. A CSV file without splits is one split, `all`.
        splits: Name -> split expression, such as `report_splits()`. `None` takes the
            data's own: of Adience's label files each fold is one.
        near_duplicates: Whether near duplicates are searched, which takes about a
            minute for 60,000 small pictures, and needs the extra `audit`. Defaults to
            `True`.
        cache: File in which perceptual hashes are kept by content, for the next audit
            of these pictures and to go on after an interruption. `None` keeps none.
        progress: Whether a progress bar is shown on stderr.
        options: Further arguments of `read_csv` (`age_column`, `images_dir`, …), or of
            `read_adience` (`images_dir`, `strict`, `keep`), if the data is of theirs.

    Raises:
        ValueError: If the data cannot be read.
        ImportError: If near duplicates are searched and `imagehash` is absent.

    Example:
    >>> found = audit("data/adience_prepared")  # doctest: +SKIP
    >>> found.leaks, found.near.pairs  # doctest: +SKIP
    ([], 12)
    """
    if near_duplicates:
        check_imagehash()
    faces = read_faces(data, splits, **options)
    hashes = _hash(faces, near_duplicates, cache, progress)
    rows = faces.rows.assign(content=hashes.contents)
    rows.attrs["age_groups"] = faces.age_groups.to_list()
    if "age_years" not in rows:
        rows["age_years"] = MISSING
    exact = near = None
    listed = {EXACT: _NO_PAIRS, NEAR: _NO_PAIRS}
    if any(hashes.contents):
        exact, listed[EXACT] = exact_pairs(rows)
        if near_duplicates:
            near, listed[NEAR] = near_pairs(rows, hashes.looks)
    subjects = rows[rows["subject"] != ""].groupby("subject")["split"].unique()
    return Audit(
        data="manifest" if isinstance(data, pd.DataFrame) else str(data),
        kind=faces.kind,
        num_faces=len(rows),
        counts=summarize(rows),
        age_group_names=faces.age_groups.names,
        num_subjects=len(subjects),
        shared_subjects={s: sorted(x) for s, x in subjects.items() if len(x) > 1},
        exact=exact,
        near=near,
        duplicates=_describe(rows, listed),
        pictures=_count_pictures(hashes, near_duplicates),
        unreadable={
            key: hashes.unreadable[content]
            for key, content in zip(rows["key"], rows["content"], strict=True)
            if content in hashes.unreadable
        },
        status=faces.status,
        cleaning=faces.cleaning,
        left_out=faces.left_out,
        **_cohorts(faces),
    )


_NO_PAIRS = pd.DataFrame({"first": [], "second": [], "distance": []}, dtype="int64")


def _hash(
    faces: FaceTable, looks: bool, cache: str | Path | None, progress: bool
) -> PictureHashes:
    opened = HashCache(cache, METHOD) if looks and cache is not None else None
    try:
        return hash_pictures(
            faces.pictures(),
            len(faces.rows),
            looks=looks,
            cache=opened,
            progress=progress,
        )
    finally:
        if opened is not None:
            opened.close()


def _count_pictures(hashes: PictureHashes, looks: bool) -> dict[str, int]:
    there = [content for content in hashes.contents if content]
    counts = {"there": len(there), "absent": len(hashes.contents) - len(there)}
    if looks:
        unreadable = sum(content in hashes.unreadable for content in there)
        known = sum(content in hashes.looks for content in there)
        counts |= {
            "unreadable": unreadable,
            "of one color": len(there) - unreadable - known,
        }
    return counts


def _describe(rows: pd.DataFrame, listed: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns listed pairs with the keys, splits and labels of both rows."""
    columns = ["key", "split", "age_group", "age_years", "gender"]
    parts = []
    for kind, pairs in listed.items():
        sides = [
            rows[columns].iloc[pairs[end]].add_suffix(f"_{number}")
            for number, end in ((1, "first"), (2, "second"))
        ]
        part = pd.concat([side.reset_index(drop=True) for side in sides], axis=1)
        part.insert(0, "kind", kind)
        part.insert(1, "distance", pairs["distance"].to_numpy())
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _pair_values(counts: PairCounts | None) -> dict[str, Any] | None:
    if counts is None:
        return None
    return {
        **asdict(counts),
        "num_within": counts.num_within,
        "num_across": counts.num_across,
    }


def _cohorts(faces: FaceTable) -> dict[str, Any]:
    rows = faces.rows
    parts = {ALL: rows} | {str(name): part for name, part in rows.groupby("split")}
    values = {n: fingerprint(part, faces.age_groups) for n, part in parts.items()}
    found = {name: find_cohort(value) for name, value in values.items()}
    known = {
        name: cohort[0] + (f", {cohort[1]}" if cohort[1] != ALL else "")
        for name, cohort in found.items()
        if cohort is not None
    }
    nearest = None
    if not known and set(rows["source"]) == {"adience"}:
        nearest = nearest_cohort(rows)
    return {
        "fingerprints": values,
        "cohorts": known,
        "nearest": dict([nearest]) if nearest else {},
    }
