"""Variance components and intervals over runs: golden numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_agegender.metrics.intervals import (
    Clusters,
    mean_interval,
    runs_interval,
    variance_components,
)


def test_two_folds_and_two_seeds():
    """Folds 0.1 0.2 | 0.5 0.4, seeds in columns; the mean is 0.3.

    Means of folds 0.15 and 0.45, their variance 0.045; of seeds 0.3 and 0.3, variance
    0. What is left is -0.05 and 0.05 in every fold: 4 · 0.0025 / 1 = 0.01. So folds
    have 0.045 - 0.01 / 2 = 0.04 and seeds 0 - 0.01 / 2, which is below 0.
    """
    found = variance_components([0.1, 0.2, 0.5, 0.4], [0, 0, 1, 1], [7, 8, 7, 8])
    assert found.fold == pytest.approx(0.04)
    assert found.rest == pytest.approx(0.01)
    assert found.seed == 0.0
    assert found.note == "two-way analysis of variance (below 0, set to 0: seeds)"
    assert str(found).startswith(
        "standard deviation over folds 0.2000, seeds 0.0000, fold x seed 0.1000; "
    )


def test_seeds_that_shift_every_fold_alike():
    """Each seed adds 0.1 and each fold 0.2: variances 0.005 and 0.02, no rest."""
    found = variance_components([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [0, 1, 0, 1])
    assert (found.fold, found.seed, found.rest) == pytest.approx((0.02, 0.005, 0.0))


def test_gaps_are_one_way():
    """Fold 0: 1, 3; fold 1: 5. Mean 3, n0 = (3 - 5/3) / 1 = 4/3.

    Within 2 / 1 = 2, between 2 · 1 + 1 · 4 = 6, so folds have (6 - 2) / (4/3) = 3.
    """
    found = variance_components([1, 3, 5], [0, 0, 1], [0, 1, 0])
    assert (found.fold, found.seed, found.rest) == (pytest.approx(3.0), 2.0, None)
    assert "not every fold has every seed" in found.note


@pytest.mark.parametrize(
    ("folds", "seeds", "fold", "seed", "note"),
    [
        ([0, 0], [0, 1], None, 0.5, "one fold: the variance over folds is not known"),
        ([0, 1], [0, 0], 0.5, None, "one seed in each fold"),
        ([0, 1], [0, 1], 0.5, None, "one seed in each fold"),
    ],
)
def test_one_fold_or_seed_is_said(folds, seeds, fold, seed, note):
    """Values 1 and 2: variance 0.5."""
    found = variance_components([1, 2], folds, seeds)
    assert (found.fold, found.seed, found.rest) == (fold, seed, None)
    assert note in found.note


def test_one_run_has_no_variance():
    found = variance_components([1], [0], [0])
    assert (found.fold, found.seed) == (None, None)
    assert str(found) == "one fold and one seed: no variance is known"


def test_components_are_unbiased():
    """Over 400 tables of 5 folds and 3 seeds the means are the variances drawn from."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(400):
        table = 2 * generator.normal(size=(5, 1)) + generator.normal(size=(1, 3))
        table = table + 0.5 * generator.normal(size=(5, 3)) + 10
        folds, seeds = np.divmod(np.arange(15), 3)
        one = variance_components(table.ravel(), folds.tolist(), seeds.tolist())
        found.append((one.fold, one.seed, one.rest))
    assert np.mean(found, axis=0) == pytest.approx((4, 1, 0.25), rel=0.15)


def test_wrong_input_is_said():
    with pytest.raises(ValueError, match="2 values, 1 folds, 2 seeds"):
        variance_components([1, 2], [0], [0, 1])
    with pytest.raises(ValueError, match="fold 0 with seed 3 twice"):
        variance_components([1, 2], [0, 0], [3, 3])


def test_the_interval_that_runs_allow():
    """Two folds of 0.5 and 0.7: 12.706 · 0.1414 · sqrt(1/2 + 1/4) = 1.5562."""
    folds = runs_interval([0.5, 0.7], [0, 1], test_to_train=0.25)
    assert (folds.over, folds.mean) == ("folds", pytest.approx(0.6))
    assert folds.high == pytest.approx(0.6 + 12.7062 * 0.141421 * 0.75**0.5, abs=1e-4)
    assert (folds.within(0, 1).low, folds.within(0, 1).high) == (0, 1)
    seeds = runs_interval([0.5, 0.7], [0, 0], test_to_train=0.25)  # no fold, no 1/4
    assert seeds.over == "seeds"
    assert seeds.high == pytest.approx(0.6 + 12.7062 * 0.141421 * 0.5**0.5, abs=1e-4)
    unknown = runs_interval([0.5, 0.7], [0, 1], test_to_train=None)
    assert (unknown.low, unknown.over) == (None, "")
    of_faces = mean_interval([0, 1, 2, 3], Clusters.of([""] * 4))
    alone = runs_interval([1.5], [0], faces=of_faces)
    assert (alone.over, alone.low, alone.high) == ("faces", *of_faces.interval)
    assert runs_interval([1.5], [0]).over == ""
    same = runs_interval([0.5, 0.5, 0.5], [0, 1, 2])  # no width is no interval
    assert (same.mean, same.low, same.over) == (0.5, None, "")
