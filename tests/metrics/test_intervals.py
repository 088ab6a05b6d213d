"""Clustered intervals and tests: golden numbers, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm, ttest_1samp

from keras_agegender.metrics import intervals as bootstrap
from keras_agegender.metrics.intervals import (
    Clusters,
    bootstrap_interval,
    holm_levels,
    interval_over_runs,
    mean_interval,
    metric_intervals,
    paired_test,
    proportion_interval,
)
from keras_agegender.metrics.table import Predictions

# -- golden numbers --------------------------------------------------------------------


def test_faces_of_unknown_subject_are_their_own():
    clusters = Clusters.of(["b", "", "a", "b", ""])
    assert clusters.num_clusters == 4
    assert sorted(clusters.sizes) == [1, 1, 1, 2]
    assert clusters.largest_share == 0.4
    assert clusters.select(np.array([1, 1, 0, 0, 1], bool)).sizes.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"shape \(5,\).*shape \(2,\)"):
        clusters.sums([1, 2])


def test_a_mean_of_independent_faces_has_the_ordinary_t_interval():
    values = np.random.default_rng(0).normal(size=30)
    found = mean_interval(values, Clusters.of([""] * 30), 0.9)
    low, high = ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_clustered_mean_by_hand():
    """Clusters of 2, 1 and 1 faces: 1 1 | 0 | 0.

    The mean is 1/2, sums less mean are 1, -1/2 and -1/2: the sandwich is 1 / (1/2) +
    2 (1/4) / (3/4) = 8/3. Nothing differs within, 1 between: of each of 2 degrees 1/2,
    of clusters of typically (4 - 6/4) / 2 = 5/4 faces, so 2/5 is of people, for whom
    4 + 1 + 1 = 6 counts: 12/5. The mean of both over 16 faces² is 19/120.
    """
    found = mean_interval([1, 1, 0, 0], Clusters.of(["a", "a", "b", "c"]))
    assert found.value == 0.5
    assert found.high - 0.5 == pytest.approx(4.302653 * np.sqrt(19 / 120))


def test_all_faces_right():
    """Four faces of two people, all right: two right answers at most are independent.

    Design effect 8 / 4 = 2, Student's quantile of one degree 12.706: Wilson's lower end
    is 1 / (1 + 161.4 · 2 / 4) = 0.0122.
    """
    found = proportion_interval([True] * 4, Clusters.of(["a", "a", "b", "b"]))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 / (1 + 12.7062**2 / 2), rel=1e-4)


def test_one_subject_has_no_interval():
    one, nobody = Clusters.of(["a", "a"]), Clusters.of([])
    for interval in (mean_interval, proportion_interval):
        found = interval([True, False], one)
        assert (found.value, found.low, found.high) == (0.5, None, None)
        assert interval([], nobody).value is None


def test_copies_of_a_face_add_nothing():
    """Each face three times under one subject: the interval of the faces alone."""
    right = np.random.default_rng(1).random(60) < 0.7
    alone = Clusters.of([str(k) for k in range(60)])
    thrice = Clusters.of([str(k) for k in range(60) for _ in range(3)])
    for interval in (mean_interval, proportion_interval):
        first, second = interval(right, alone), interval(np.repeat(right, 3), thrice)
        assert (second.low, second.high) == pytest.approx(
            (first.low, first.high), abs=0.002
        )
    differences = right.astype(int) - right[::-1]
    assert paired_test(differences, alone) == pytest.approx(
        paired_test(np.repeat(differences, 3), thrice)
    )


def test_the_sign_flip_test_by_hand():
    """Sums 3, 1, 1: signs give ±5, ±3, ±3, ±1; 5 or more is 2 of 8 patterns, 3 is 6."""
    clusters = Clusters.of(["a", "a", "a", "b", "c"])
    assert paired_test([1, 1, 1, 1, 1], clusters) == pytest.approx(0.25)
    assert paired_test([1, 1, 1, -1, 1], clusters) == pytest.approx(0.75)
    assert paired_test([0] * 5, clusters) == 1.0
    with pytest.raises(ValueError, match="whole numbers"):
        paired_test([0.5, 0, 0, 0, 0], clusters)


@pytest.mark.parametrize("won", [0, 3, 10, 14])
def test_without_clusters_it_is_mcnemars_exact_test(won):
    differences = [1] * won + [-1] * 14 + [0] * 9
    found = paired_test(differences, Clusters.of([""] * len(differences)))
    assert found == pytest.approx(binomtest(won, won + 14, 0.5).pvalue)


def test_holms_procedure_stops_at_the_first_that_is_large():
    """0.01 <= 0.05/4, 0.02 > 0.05/3: the rest are held against 0.05/3 as well."""
    assert holm_levels([0.02, 0.01, 0.022, 0.9]) == pytest.approx(
        [0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3]
    )
    assert holm_levels([]) == []


def test_an_interval_over_folds_and_seeds():
    """Folds' means 0.5 and 0.7: deviation 0.1414, quantile 12.706, √(1/2 + 1/4)."""
    mean, low, high = interval_over_runs([0.4, 0.6, 0.7], [0, 0, 1], test_to_train=0.25)
    assert mean == pytest.approx(0.6)
    assert high - 0.6 == pytest.approx(12.7062 * 0.141421 * np.sqrt(0.75), rel=1e-4)
    assert low == pytest.approx(1.2 - high)
    with pytest.raises(ValueError, match="2 values, 1 folds"):
        interval_over_runs([1, 2], [0])


def test_a_bootstrap_of_a_ratio():
    """A share by the bootstrap is that of the t interval where clusters are many."""
    generator = np.random.default_rng(2)
    clusters = Clusters.of(np.repeat(np.arange(200), 3).astype(str))
    right = np.repeat(generator.random(200) < 0.6, 3)
    values = np.stack([right, np.ones(600)], axis=1)
    found = bootstrap_interval(values, lambda s: s[:, 0] / s[:, 1], clusters)
    expected = mean_interval(right, clusters)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high), abs=0.01
    )
    with pytest.raises(ValueError, match=r"\(600, num_sums\)"):
        bootstrap_interval(values[:9], lambda s: s[:, 0], clusters)


# -- coverage --------------------------------------------------------------------------

SHARES = {0.85: ([0, 1], [0.15, 0.85]), 0.6: ([0, 1], [0.4, 0.6])}
DIFFERENCE = ([-1, 0, 1], [0.08, 0.84, 0.08])
GROUPS_OFF = (list(range(6)), [0.6, 0.28, 0.08, 0.025, 0.01, 0.005])
# Quantiles of a lognormal distribution, as of losses: the largest is 33, the mean 1.6.
LOSSES = (np.exp(norm.ppf((np.arange(2000) + 0.5) / 2000)), np.full(2000, 1 / 2000))


def fold_like_sizes():
    """519 subjects, 3,463 faces; the 20 largest hold 37 %, as on Adience's fold 4."""
    generator = np.random.default_rng(2)
    weights = generator.lognormal(0, 1.5, 519)
    return 1 + generator.multinomial(3463 - 519, weights / weights.sum())


def test_sizes_are_like_those_of_fold_4():
    sizes = np.sort(fold_like_sizes())
    assert (len(sizes), sizes.sum()) == (519, 3463)
    assert sizes[-20:].sum() / sizes.sum() == pytest.approx(0.37, abs=0.01)


def draw(generator, sizes, values, chances, agreement):
    """A value per face: two of a subject correlate by `agreement`.

    A face takes its subject's value with probability √agreement, else one of its own.
    """
    values = np.array(values)
    of_subject = generator.choice(values, len(sizes), p=chances)
    own = generator.choice(values, sizes.sum(), p=chances)
    takes = generator.random(sizes.sum()) < np.sqrt(agreement)
    return np.where(takes, np.repeat(of_subject, sizes), own)


def coverage(interval, values, chances, agreement, rounds, seed=0):
    generator = np.random.default_rng(seed)
    sizes = fold_like_sizes()
    clusters = Clusters.of(np.repeat(np.arange(len(sizes)), sizes).astype(str))
    truth = float(np.dot(values, chances))
    covered = 0
    for _ in range(rounds):
        found = interval(draw(generator, sizes, values, chances, agreement), clusters)
        covered += found.low <= truth <= found.high
    return covered / rounds


def false_positives(agreement, rounds, seed=0):
    generator = np.random.default_rng(seed)
    sizes = fold_like_sizes()
    clusters = Clusters.of(np.repeat(np.arange(len(sizes)), sizes).astype(str))
    tests = [
        paired_test(draw(generator, sizes, *DIFFERENCE, agreement), clusters)
        for _ in range(rounds)
    ]
    return np.mean(np.array(tests) <= 0.05)


# Over 300 rounds the standard deviation of a coverage of 95 % is 1.3 %.
@pytest.mark.parametrize("agreement", [0, 0.3, 0.8])
def test_intervals_cover_in_a_few_hundred_rounds(agreement):
    found = coverage(proportion_interval, *SHARES[0.85], agreement, 300)
    assert 0.92 <= found <= 0.98
    assert 0.92 <= coverage(mean_interval, *DIFFERENCE, agreement, 300) <= 0.99
    for skewed in (GROUPS_OFF, LOSSES):
        assert 0.92 <= coverage(mean_interval, *skewed, agreement, 300) <= 0.98


def test_the_bootstrap_is_as_wide_as_the_interval_of_means():
    """Losses that agree, where the sandwich, and percentiles with it, is too small."""
    generator = np.random.default_rng(4)
    sizes = fold_like_sizes()
    clusters = Clusters.of(np.repeat(np.arange(len(sizes)), sizes).astype(str))
    values = draw(generator, sizes, *LOSSES, 0.8)
    pairs = np.stack([values, np.ones(len(values))], axis=1)
    found = bootstrap_interval(pairs, lambda s: s[:, 0] / s[:, 1], clusters)
    expected = mean_interval(values, clusters)
    sums = clusters.sums(values - values.mean())
    sandwich = 2 * 1.96 * np.sqrt((sums**2).sum()) / len(values)
    assert expected.high - expected.low > 1.1 * sandwich
    width = pytest.approx(expected.high - expected.low, rel=0.05)
    assert found.high - found.low == width
    short = bootstrap_interval(
        pairs, lambda s: s[:, 0] / s[:, 1], clusters, limits=(found.value, 99)
    )
    assert (short.low, short.high) == (found.value, found.high)


@pytest.mark.parametrize("agreement", [0, 0.3, 0.8])
def test_false_positives_in_a_few_hundred_rounds(agreement):
    assert 0.02 <= false_positives(agreement, 300) <= 0.08


def test_faces_taken_for_independent_are_covered_far_too_seldom():
    """What the clusters are for: the same interval, each face a cluster of its own."""

    def naive(values, clusters):
        return mean_interval(values, Clusters.of([""] * len(values)))

    assert coverage(naive, *DIFFERENCE, 0.8, 100) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("agreement", [0, 0.3, 0.8])
def test_coverage_is_93_to_97_percent(agreement):
    for chances in SHARES.values():
        found = coverage(proportion_interval, *chances, agreement, 3000, seed=1)
        assert 0.93 <= found <= 0.97
    for skewed in (GROUPS_OFF, LOSSES):
        found = coverage(mean_interval, *skewed, agreement, 3000, seed=1)
        assert 0.93 <= found <= 0.97
    # 97.1 % over 20,000 rounds where much agrees: a little wide.
    found = coverage(mean_interval, *DIFFERENCE, agreement, 3000, seed=1)
    assert 0.93 <= found <= 0.98
    assert 0.03 <= false_positives(agreement, 3000, seed=1) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("agreement", [0, 0.3, 0.8])
def test_balanced_accuracy_is_covered(monkeypatch, agreement):
    """Of women 95 % are right, of men 85 %: 0.9. Percentiles alone covered 87 %."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 500)
    generator = np.random.default_rng(1)
    sizes = fold_like_sizes()
    people = np.repeat(np.arange(len(sizes)), sizes)
    clusters = Clusters.of(people.astype(str))
    covered = 0
    for _ in range(500):
        gender = generator.integers(0, 2, len(sizes))[people]
        right = np.choose(
            gender,
            [
                draw(generator, sizes, [0, 1], [1 - share, share], agreement)
                for share in (0.95, 0.85)
            ],
        )
        answers = Predictions(gender, np.where(right, gender, 1 - gender), 2)
        found = metric_intervals(answers, ["balanced_accuracy"], clusters)
        found = found["balanced_accuracy"]
        covered += found.low <= 0.9 <= found.high
    assert 0.92 <= covered / 500 <= 0.98
