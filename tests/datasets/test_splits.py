"""Splits: exact shares, subjects kept together, every fold tested once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.splits import (
    check_subject_exclusive,
    cross_validation_splits,
    random_splits,
    report_splits,
)
from keras_agegender.labels import AGE_GROUP_PRESETS


def manifest_of(count, per_subject=1, folds=False):
    return make_manifest(
        {
            "key": f"{n}",
            "path": f"{n}",
            "subject": f"s{n // per_subject}",
            "age_group": n // per_subject % 8,
            "gender": n // per_subject % 2,
            "split": f"fold_{n // per_subject % 5}" if folds else "train",
        }
        for n in range(count)
    )


def test_the_report_s_split():
    assert report_splits() == {
        "train": "fold_0+fold_1+fold_2",
        "validation": "fold_3",
        "test": "fold_4",
    }


def test_cross_validation_tests_and_validates_every_fold_once():
    rounds = [cross_validation_splits(k) for k in range(5)]
    assert sorted(r["test"] for r in rounds) == [f"fold_{k}" for k in range(5)]
    assert sorted(r["validation"] for r in rounds) == [f"fold_{k}" for k in range(5)]
    for r in rounds:
        parts = [r["test"], r["validation"], *r["train"].split("+")]
        assert sorted(parts) == [f"fold_{k}" for k in range(5)]
        check_subject_exclusive(manifest_of(40, folds=True), r)


@pytest.mark.parametrize("fold", [-1, 5])
def test_no_such_fold(fold):
    with pytest.raises(ValueError, match="test_fold"):
        cross_validation_splits(fold)


@given(
    st.integers(60, 200), st.integers(1, 4), st.sampled_from([0.1, 0.2, 0.25]),
    st.integers(0, 5),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_random_splits_keep_subjects_together(count, per_subject, share, seed):
    manifest = random_splits(manifest_of(count, per_subject), share, share, seed)
    check_subject_exclusive(manifest)
    subjects = manifest.drop_duplicates("subject")
    for name in ("validation", "test"):
        assert abs((subjects["split"] == name).sum() - share * len(subjects)) <= 1
    again = random_splits(manifest_of(count, per_subject), share, share, seed)
    assert list(again["split"]) == list(manifest["split"])


def test_another_seed_is_another_split():
    a, b = (random_splits(manifest_of(80), seed=seed)["split"] for seed in (0, 1))
    assert list(a) != list(b)


def test_groups_are_spread_evenly():
    manifest = random_splits(manifest_of(800), 0.1, 0.1)
    counts = manifest[manifest["split"] == "test"].groupby("age_group").size()
    assert counts.min() >= 9 and counts.max() <= 11  # 100 of each, a tenth of them


def test_splits_of_known_years_are_the_same_for_any_age_groups():
    years = [n * 7 % 100 for n in range(300)]
    first, second = (
        random_splits(
            make_manifest(
                (
                    {
                        "key": f"{n}",
                        "path": f"{n}",
                        "age_group": groups.from_years(age),
                        "gender": n % 2,
                        "age_years": age,
                    }
                    for n, age in enumerate(years)
                ),
                age_groups=groups,
            )
        )
        for groups in (AGE_GROUP_PRESETS["adience"], AGE_GROUP_PRESETS["fairface"])
    )
    assert list(first["split"]) == list(second["split"])


@pytest.mark.parametrize("shares", [(0.6, 0.5), (-0.1, 0.1), (0.5, 0.5)])
def test_impossible_shares(shares):
    with pytest.raises(ValueError, match="Invalid shares"):
        random_splits(manifest_of(20), *shares)


def test_too_few_subjects():
    with pytest.raises(ValueError, match="Too few subjects"):
        random_splits(manifest_of(3), 0.1, 0.1)


def test_leaks_and_empty_splits_are_errors():
    manifest = manifest_of(40, folds=True)
    with pytest.raises(ValueError, match=r"Empty split. 'test' \(fold_9\)"):
        check_subject_exclusive(manifest, {"train": "fold_0", "test": "fold_9"})
    with pytest.raises(ValueError, match="'fold_0' is in 'train' and 'test'"):
        check_subject_exclusive(manifest, {"train": "fold_0", "test": "fold_0"})
    manifest.loc[1, "subject"] = manifest.loc[0, "subject"]
    with pytest.raises(ValueError, match="1 subjects are in more than one split"):
        check_subject_exclusive(manifest, {"train": "fold_0", "test": "fold_1"})
    # A subject of a fold that no split uses leaks nowhere.
    check_subject_exclusive(manifest, {"train": "fold_0", "test": "fold_2"})


def repeated(tmp_path, change):
    """120 pictures; the last 40 rows repeat the first 40 as `change` says."""
    rows = []
    for n in range(120):
        file = tmp_path / f"{n}.jpg"
        file.write_bytes(b"%03d" % n)
        row = {"key": f"{n}", "path": str(file), "age_group": n % 8}
        if n >= 80:
            change(row, n - 80, file)
        rows.append(row)
    return make_manifest(rows)


def test_rows_of_one_picture_stay_in_one_split(tmp_path):
    """The same path, or two files of the same bytes."""

    def same_path(row, first, file):
        row["path"] = str(tmp_path / f"{first}.jpg")

    def same_content(row, first, file):
        file.write_bytes(b"%03d" % first)

    for change in (same_path, same_content):
        split = list(random_splits(repeated(tmp_path, change), 0.2, 0.2)["split"])
        assert split[80:] == split[:40]
        assert {split.count(name) for name in ("validation", "test")} <= set(
            range(16, 33)
        )
    alone = list(random_splits(repeated(tmp_path, lambda *a: None), 0.2, 0.2)["split"])
    assert alone[80:] != alone[:40]


def test_a_subject_s_pictures_pull_their_copies_along(tmp_path):
    """0 and 1 show s; 1 and 2 are one picture; so 0, 1 and 2 are in one split."""
    rows = [
        {"key": f"{n}", "path": f"{n}", "subject": "s" if n < 2 else "", "age_group": 0}
        for n in range(30)
    ]
    rows[2]["path"] = "1"
    for seed in range(8):
        split = random_splits(make_manifest(rows), 0.3, 0.3, seed)["split"]
        assert split[0] == split[1] == split[2]
