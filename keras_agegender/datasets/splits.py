"""Splits: which pictures train, validate and test, with no subject in two of them.

A dataset with folds is prepared fold by fold; a protocol is then a dict of TensorFlow
Datasets split expressions over those folds, and needs no second copy of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from keras_agegender.datasets.cleaning_report import CleaningReport
from keras_agegender.datasets.manifest import check_subjects, keep_cleaning
from keras_agegender.datasets.near_duplicates import EXACT, NEAR
from keras_agegender.datasets.same_pictures import (
    UNREADABLE,
    connected,
    find_same_pictures,
)
from keras_agegender.labels import MISSING

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
    manifest: pd.DataFrame,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    *,
    pictures: np.ndarray | None = None,
) -> pd.DataFrame:
    """Returns the manifest with random splits that keep each subject in one.

    Pictures of an unknown subject count as a subject each, rows of one picture as one.
    Ages (decades where years are known, age groups else) and genders are spread evenly:
    subjects are dealt out in the order of their first picture's labels, shuffled
    within.

    Args:
        manifest: A manifest; its `split` column is replaced.
        validation: Share of subjects that validate, in [0, 1).
        test: Share of subjects that test, in [0, 1).
        seed: Seed of the shuffle. Defaults to 0.
        pictures: A number for each row, the same where rows show one picture. `None`
            looks for the same path or the same bytes.

    Raises:
        ValueError: If the shares are impossible or leave a split empty.
    """
    check_shares(validation, test)
    if pictures is None:
        pictures = find_same_pictures(list(manifest["path"])).groups()
    subject = pd.Series(_connected(manifest, pictures), index=manifest.index)
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
    split.attrs = dict(manifest.attrs)
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
    """Raises ValueError unless shares of validation and test leave one to train on."""
    if validation < 0 or test < 0 or not validation + test < 1:
        raise ValueError(
            "Invalid shares. Expected `validation` (--validation) and `test` (--test) "
            f"in [0, 1) with a sum below 1. Received: validation={validation}, "
            f"test={test}."
        )


def draw_splits(
    manifest: pd.DataFrame,
    report: CleaningReport,
    *,
    validation: float,
    test: float,
    seed: int,
    duplicates: str | None = None,
    cache: str | Path | None = None,
) -> pd.DataFrame:
    """Returns random splits that no picture is in two of, and reports on them.

    Args:
        manifest: A manifest; its `split` column is replaced.
        report: Where groups that were kept together are counted and named; the
            manifest keeps what it says.
        validation: As in `random_splits`.
        test: As in `random_splits`.
        seed: As in `random_splits`.
        duplicates: `"exact"` keeps pictures of the same bytes together, which `None`
            (default) does too; `"near"` those that look the same, too.
        cache: File in which perceptual hashes are kept; `None` (default) keeps none.

    Raises:
        ValueError: If the shares are impossible or leave a split empty.
        ImportError: If near duplicates are searched and `imagehash` is absent.
    """
    check_shares(validation, test)
    if not validation and not test:
        return random_splits(manifest, 0, 0, seed)
    duplicates = duplicates or EXACT
    same = find_same_pictures(list(manifest["path"]), duplicates, cache=cache)
    pictures = same.groups()
    members = manifest["key"].groupby(pictures).agg(list)
    repeated = members[members.map(len) > 1]
    name = KEPT_TOGETHER[duplicates]
    report.totals[name] = len(repeated)
    report.items += [(", ".join(keys), name) for keys in repeated]
    if same.num_unreadable:
        report.totals[UNREADABLE] = same.num_unreadable
    drawn = random_splits(manifest, validation, test, seed, pictures=pictures)
    keep_cleaning(drawn, report)
    return drawn


def _connected(manifest: pd.DataFrame, pictures: np.ndarray) -> np.ndarray:
    """Returns a number for each row, the same where rows share subject or picture."""
    rows = pd.Series(np.arange(len(manifest)))
    subjects = manifest["subject"].to_numpy()
    # The first row of the same value; nobody knows who "" is.
    same_person = rows.groupby(subjects).transform("min").where(subjects != "", rows)
    same_picture = rows.groupby(pictures).transform("min")
    firsts = [same_person.to_numpy(), same_picture.to_numpy()]
    return connected(len(rows), [(rows.to_numpy(), first) for first in firsts])


def _takes(position: np.ndarray, share: float) -> np.ndarray:
    """Returns whether each position is taken, so that a share of all is, evenly spread.

    Position k, counted from 1, is taken if k * share reaches the next whole number.
    """
    rounding = 1e-9  # 10 * 0.3 must be 3
    before = np.floor((position - 1) * share + rounding)
    return np.floor(position * share + rounding) > before


def check_subject_exclusive(
    manifest: pd.DataFrame, splits: Mapping[str, str] | None = None
) -> None:
    """Raises ValueError if a subject is in two splits, or a split has no picture.

    Args:
        manifest: A manifest.
        splits: Name -> split expression of whole splits joined by `+`, such as
            `report_splits()`; `None` checks the manifest's own splits.
    """
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
                f"Empty split. {name!r} ({expression}) holds no picture; splits there "
                f"are: {sorted(own.unique())}."
            )
    used = own.isin(belongs)
    check_subjects(manifest["subject"][used], own[used].map(belongs))
