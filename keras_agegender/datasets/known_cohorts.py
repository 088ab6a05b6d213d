"""Known cohorts: which faces with which labels a study used, told by one hash.

A fingerprint is a SHA-256 over keys and labels. Those of Adience's published files, as
`read_adience` cleans them, are in adience_cohorts.json, by fold and by the training
sets of cross-validation; they are hashes and counts, and hold no face and no label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.datasets.adience import NUM_FOLDS, TREES, read_adience
from keras_agegender.datasets.splits import cross_validation_splits
from keras_agegender.labels import GENDERS, AgeGroups

COHORTS_FILE = "adience_cohorts.json"
ALL = "all"
# Name -> the options of `read_adience` that make it.
ADIENCE_COHORTS: dict[str, dict[str, Any]] = {
    "Adience, age and gender known": {"keep": "both", "strict": False},
    "Adience, age and gender known, strict": {"keep": "both", "strict": True},
    "Adience, age or gender known": {"keep": "any", "strict": False},
    "Adience, age or gender known, strict": {"keep": "any", "strict": True},
}


def fingerprint(rows: pd.DataFrame, age_groups: AgeGroups) -> str:
    """Returns a hash of which faces there are, with which labels.

    It does not depend on the order of the rows, on the folder they lie in, or on their
    splits.

    Args:
        rows: Columns `key`, `age_group` and `gender`. Rows of one key count once.
        age_groups: What age-group ids stand for.

    Returns:
        32 hexadecimal digits.
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
    """Returns keys below the folder that all of them lie in, if they are absolute."""
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
    """Returns the known cohort whose numbers of faces in each fold are nearest.

    Args:
        rows: Columns `key` and `fold`.

    Returns:
        `(cohort, faces more than in it by fold)`, or `None` where rows have no folds.
    """
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
            groups = AgeGroups.from_list(manifest.attrs["age_groups"])
            known["faces"][name] = {
                part: int(manifest["split"].isin(folds).sum())
                for part, folds in parts.items()
            }
            for part, folds in parts.items():
                rows = manifest[manifest["split"].isin(folds)]
                # Folds that two cohorts share are named after the first.
                value = fingerprint(rows, groups)
                known["fingerprints"].setdefault(value, [name, part])
    return known
