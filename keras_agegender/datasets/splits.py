"""Training, validation and test splits."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_agegender.datasets.duplicates import (
    EXACT,
    NEAR,
    UNREADABLE,
    connected,
    find_same_images,
)
from keras_agegender.datasets.manifest import (
    CleaningReport,
    Manifest,
    check_subjects,
    keep_cleaning,
)
from keras_agegender.datasets.readers.adience import NUM_FOLDS, TREES, read_adience
from keras_agegender.errors import counted
from keras_agegender.labels import GENDERS, MISSING, AgeGroups

SPLITS = ("train", "validation", "test")
KEPT_TOGETHER = {
    EXACT: "groups of exact duplicates, in one split each (near: --duplicates near)",
    NEAR: "groups of exact and near duplicates, in one split each",
}
YEARS_PER_CELL = 10  # ages that are spread evenly over splits together


def report_splits() -> dict[str, str]:
    """Returns the report's splits: folds 0-2 train, 3 validation, 4 test."""
    return {"train": "fold_0+fold_1+fold_2", "validation": "fold_3", "test": "fold_4"}


def cross_validation_splits(test_fold: int, num_folds: int = 5) -> dict[str, str]:
    """Returns one round of cross-validation over folds.

    Args:
        test_fold: The fold that tests, in [0, num_folds). The next one, cyclically,
            validates; the others train.
        num_folds: How many folds there are, at least 3. Defaults to Adience's 5.

    Raises:
        ValueError: If there is no such fold.

    Example:
    >>> cross_validation_splits(4)["validation"]
    'fold_0'
    """
    if num_folds < 3 or not 0 <= test_fold < num_folds:
        raise ValueError(
            f"Invalid `test_fold`. Expected a fold in [0, {num_folds}) of at least 3. "
            f"Received: test_fold={test_fold}, num_folds={num_folds}."
        )
    validation = (test_fold + 1) % num_folds
    rest = [k for k in range(num_folds) if k not in (test_fold, validation)]
    return {
        "train": "+".join(f"fold_{k}" for k in rest),
        "validation": f"fold_{validation}",
        "test": f"fold_{test_fold}",
    }


def random_splits(
    manifest: Manifest,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    *,
    images: np.ndarray | None = None,
) -> Manifest:
    """Returns the manifest with random splits, each subject in a single one.

    Images of an unknown subject count as a subject each, rows of one image as one.
    Ages (decades where years are known, age groups else) and genders are spread evenly:
    subjects are dealt out in the order of their first image's labels, shuffled
    within.
    """
    check_shares(validation, test)
    if images is None:
        images = find_same_images(list(manifest["path"])).groups()
    subject = pd.Series(_connected(manifest, images), index=manifest.index)
    ages = manifest["age_group"]
    if "age_years" in manifest:
        # The same splits whatever the age groups: runs with others can be compared.
        years = manifest["age_years"]
        ages = (years // YEARS_PER_CELL).where(years != MISSING, -2 - ages)
    first = pd.DataFrame(
        {"subject": subject, "cell": ages * 4 + manifest["gender"]}
    ).drop_duplicates("subject")
    order = np.random.default_rng(seed).permutation(len(first))
    ordered = first.iloc[order].sort_values("cell", kind="stable")["subject"]
    # With a share of 0.25 every fourth subject in that order is taken, so that shares
    # are exact among equal labels too.
    is_test = _takes(np.arange(1, len(ordered) + 1), test)
    rest = np.cumsum(~is_test)
    is_validation = ~is_test & _takes(rest, validation / (1 - test))
    names = np.where(is_test, "test", np.where(is_validation, "validation", "train"))
    lookup = dict(zip(ordered, names, strict=True))
    split = manifest.copy()
    split["split"] = subject.map(lookup)
    wanted = ["train"] + ["validation"] * (validation > 0) + ["test"] * (test > 0)
    empty = sorted(set(wanted) - set(split["split"]))
    if empty:
        raise ValueError(
            f"Too few subjects ({len(ordered)}) for the splits asked for: {empty} "
            "would be empty."
        )
    return split


def check_shares(validation: float, test: float) -> None:
    """Checks the shares of validation and test."""
    if validation < 0 or test < 0 or not validation + test < 1:
        raise ValueError(
            "Invalid shares. Expected `validation` (--validation) and `test` (--test) "
            f"in [0, 1) with a sum below 1. Received: validation={validation}, "
            f"test={test}."
        )


def draw_splits(
    manifest: Manifest,
    report: CleaningReport,
    *,
    validation: float,
    test: float,
    seed: int,
    duplicates: str | None = None,
    cache: str | Path | None = None,
) -> Manifest:
    """Returns random splits without an image in two of them, and reports on them."""
    check_shares(validation, test)
    if not validation and not test:
        return manifest.assign(split="train")
    duplicates = duplicates or EXACT
    same = find_same_images(list(manifest["path"]), duplicates, cache=cache)
    images = same.groups()
    members = manifest["key"].groupby(images).agg(list)
    # Rows of one file are several faces of it, not duplicates.
    repeated = members[manifest["path"].groupby(images).nunique() > 1]
    name = KEPT_TOGETHER[duplicates]
    report.totals[name] = len(repeated)
    report.items += [(", ".join(keys), name) for keys in repeated]
    if same.num_unreadable:
        report.totals[UNREADABLE] = same.num_unreadable
    drawn = random_splits(manifest, validation, test, seed, images=images)
    keep_cleaning(drawn, report)
    return drawn


def _connected(manifest: Manifest, images: np.ndarray) -> np.ndarray:
    """Returns a number for each row, the same where rows share subject or image."""
    rows = pd.Series(np.arange(len(manifest)))
    subjects = manifest["subject"].to_numpy()
    # The first row of the same value; "" is unknown.
    same_person = rows.groupby(subjects).transform("min").where(subjects != "", rows)
    same_image = rows.groupby(images).transform("min")
    firsts = [same_person.to_numpy(), same_image.to_numpy()]
    return connected(len(rows), [(rows.to_numpy(), first) for first in firsts])


def _takes(position: np.ndarray, share: float) -> np.ndarray:
    """Returns whether each position is taken, so that a share of all is, evenly spread.

    Position k, counted from 1, is taken if k * share reaches the next whole number.
    """
    rounding = 1e-9  # 10 * 0.3 must be 3
    before = np.floor((position - 1) * share + rounding)
    return np.floor(position * share + rounding) > before


def check_subject_exclusive(
    manifest: Manifest, splits: Mapping[str, str] | None = None
) -> None:
    """Raises ValueError if a subject is in two splits, or a split has no image."""
    own = manifest["split"]
    if splits is None:
        check_subjects(manifest["subject"], own)
        return
    belongs: dict[str, str] = {}
    for name, expression in splits.items():
        for part in expression.split("+"):
            if part in belongs:
                raise ValueError(
                    f"Invalid splits. {part!r} is in {belongs[part]!r} and {name!r}."
                )
            belongs[part] = name
        if not own.isin(expression.split("+")).any():
            raise ValueError(
                f"Empty split. {name!r} ({expression}) has no images; existing "
                f"splits: {sorted(own.unique())}."
            )
    used = own.isin(belongs)
    check_subjects(manifest["subject"][used], own[used].map(belongs))


def count_shared(manifest: Manifest, splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Counts the people, albums and identical images of each pair of splits.

    Each row has `splits`, and `people`, `albums` and `images` that are in both; `None`
    where no row says who, or which album, it is.
    """
    names = {part: n for n, text in splits.items() for part in text.split("+")}
    split = manifest["split"].map(names)
    groups = {
        "people": manifest["subject"],
        "albums": manifest.get("album", pd.Series("", manifest.index)),
        "images": pd.Series(
            find_same_images(list(manifest["path"])).groups().astype(str),
            manifest.index,
        ),
    }
    members = {
        what: {name: set(values[split == name]) - {""} for name in splits}
        for what, values in groups.items()
        if values.ne("").any()
    }
    return [
        {"splits": [a, b]}
        | {
            what: len(members[what][a] & members[what][b]) if what in members else None
            for what in groups
        }
        for a, b in itertools.combinations(splits, 2)
    ]


def shared_text(shared: Iterable[Mapping[str, Any]]) -> str:
    """Returns what pairs of splits share, a line for each, or one if all are alike.

    Example:
    >>> row = {"people": 0, "albums": None, "images": 2}
    >>> shared_text([{"splits": ["train", "test"], **row}])
    'train and test share: 0 people, albums unknown, 2 identical images'
    """
    texts = {
        f"{row['splits'][0]} and {row['splits'][1]}": ", ".join(
            f"{plural} unknown"
            if row[what] is None
            else counted(row[what], singular, plural)
            for what, singular, plural in (
                ("people", "person", "people"),
                ("albums", "album", "albums"),
                ("images", "identical image", "identical images"),
            )
        )
        for row in shared
    }
    if len(texts) > 1 and len(set(texts.values())) == 1:
        return f"Any two splits share: {next(iter(texts.values()))}"
    return "\n".join(f"{pair} share: {text}" for pair, text in texts.items())


COHORTS_FILE = "adience_cohorts.json"
ALL = "all"
# Name -> the options of `read_adience` that make it.
ADIENCE_COHORTS: dict[str, dict[str, Any]] = {
    "Adience, age and gender known": {"require_labels": "both", "strict": False},
    "Adience, age and gender known, strict": {"require_labels": "both", "strict": True},
    "Adience, age or gender known": {"require_labels": "any", "strict": False},
    "Adience, age or gender known, strict": {"require_labels": "any", "strict": True},
}


def fingerprint(rows: pd.DataFrame, age_groups: AgeGroups) -> str:
    """Returns a hash of faces and their labels.

    It does not depend on the order of the rows, on the folder they lie in, or on their
    splits.
    """
    ages, genders = [*age_groups.names, ""], [*GENDERS, ""]  # the last is -1, unknown
    lines = {
        f"{key}\t{ages[age]}\t{genders[gender]}\n"
        for key, age, gender in zip(
            _relative(rows["key"]), rows["age_group"], rows["gender"], strict=True
        )
    }
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:32]


def _relative(keys: Iterable[str]) -> list[str]:
    """Returns keys relative to their common folder, if they are absolute."""
    paths = list(keys)
    if not paths or not all(path.startswith("/") for path in paths):
        return paths
    folder = _shared_folder(paths)
    return [path.removeprefix(folder) for path in paths]


def _shared_folder(paths: list[str]) -> str:
    first, last = min(paths), max(paths)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same].rpartition("/")[0] + "/"


def find_cohort(value: str) -> tuple[str, str] | None:
    """Returns the known cohort of a fingerprint, and which part of it: `"all"`, a fold.

    Example:
    >>> find_cohort("0" * 32) is None
    True
    """
    found = _known()["fingerprints"].get(value)
    return (found[0], found[1]) if found else None


def nearest_cohort(rows: pd.DataFrame) -> tuple[str, dict[str, int]] | None:
    """Returns the known cohort whose numbers of faces in each fold are nearest."""
    counts = rows.drop_duplicates("key")["fold"].value_counts()
    if not set(counts.index) <= set(range(NUM_FOLDS)):
        return None
    differences = {
        name: {
            f"fold_{k}": int(counts.get(k, 0)) - known[f"fold_{k}"]
            for k in range(NUM_FOLDS)
        }
        for name, known in _known()["faces"].items()
    }
    name = min(differences, key=lambda n: sum(map(abs, differences[n].values())))
    return name, differences[name]


@cache
def _known() -> dict[str, Any]:
    file = resources.files("keras_agegender.datasets") / COHORTS_FILE
    return json.loads(file.read_text("utf-8"))


def make_known_cohorts(labels_dir: str | Path) -> dict[str, Any]:
    """Returns what adience_cohorts.json holds, from Adience's published label files."""
    parts = {f"fold_{k}": {f"fold_{k}"} for k in range(NUM_FOLDS)}
    for k in range(NUM_FOLDS):
        train = cross_validation_splits(k)["train"]
        parts[train] = set(train.split("+"))
    parts[ALL] = set().union(*parts.values())
    known: dict[str, Any] = {"faces": {}, "fingerprints": {}}
    for name, options in ADIENCE_COHORTS.items():
        for tree in TREES:
            manifest, _ = read_adience(labels_dir, tree=tree, **options)
            known["faces"][name] = {
                part: int(manifest["split"].isin(folds).sum())
                for part, folds in parts.items()
            }
            for part, folds in parts.items():
                rows = manifest[manifest["split"].isin(folds)]
                # Folds that two cohorts share are named after the first.
                value = fingerprint(rows, manifest.age_groups)
                known["fingerprints"].setdefault(value, [name, part])
    return known
