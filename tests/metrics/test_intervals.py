"""Intervals and tests with clusters: golden numbers, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm, ttest_1samp

from keras_agegender.metrics import intervals
from keras_agegender.metrics.intervals import (
    Clusters,
    bootstrap_interval,
    holm_levels,
    interval_over_runs,
    mean_interval,
    metric_intervals,
    paired_test,
    proportion_interval,
    runs_interval,
    variance_components,
)
from keras_agegender.metrics.table import METRICS, Predictions, score

# -- golden numbers --------------------------------------------------------------------


def test_faces_of_unknown_subjects_are_clusters_of_their_own():
    clusters = Clusters.of(["b", "", "a", "b", ""])
    assert clusters.num_clusters == 4
    assert sorted(clusters.sizes) == [1, 1, 1, 2]
    assert clusters.largest_share == 0.4
    assert clusters.select(np.array([1, 1, 0, 0, 1], bool)).sizes.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"shape \(5,\).*shape \(2,\)"):
        clusters.sums([1, 2])


def test_the_mean_of_independent_faces_has_the_ordinary_t_interval():
    values = np.random.default_rng(0).normal(size=30)
    found = mean_interval(values, Clusters.of([""] * 30), 0.9)
    low, high = ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_interval_of_a_clustered_mean():
    """Clusters of 2, 1 and 1 faces: 1 1 | 0 | 0.

    The mean is 1/2, sums of residuals are 1, -1/2 and -1/2: the sandwich is 1 / (1/2) +
    2 (1/4) / (3/4) = 8/3. The sum of squares is 0 within and 1 between clusters: 1/2
    per degree of freedom, of clusters with (4 - 6/4) / 2 = 5/4 effective faces, so that
    the variance of people is 2/5, and 4 + 1 + 1 = 6 times that is 12/5. The mean of
    both over 16 faces² is 19/120.
    """
    found = mean_interval([1, 1, 0, 0], Clusters.of(["a", "a", "b", "c"]))
    assert found.value == 0.5
    assert found.high - 0.5 == pytest.approx(4.302653 * np.sqrt(19 / 120))


def test_the_interval_of_a_share_of_one():
    """Four faces of two people, all correct: two independent faces.

    Design effect 8 / 4 = 2, Student's quantile of one degree of freedom 12.706:
    Wilson's lower end is 1 / (1 + 161.4 · 2 / 4) = 0.0122.
    """
    found = proportion_interval([True] * 4, Clusters.of(["a", "a", "b", "b"]))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 / (1 + 12.7062**2 / 2), rel=1e-4)


def test_one_subject_has_no_interval():
    one, empty = Clusters.of(["a", "a"]), Clusters.of([])
    for interval in (mean_interval, proportion_interval):
        found = interval([True, False], one)
        assert (found.value, found.low, found.high) == (0.5, None, None)
        assert interval([], empty).value is None


def test_copies_of_faces_change_nothing():
    """Each face three times under one subject: the interval of the faces alone."""
    correct = np.random.default_rng(1).random(60) < 0.7
    alone = Clusters.of([str(k) for k in range(60)])
    thrice = Clusters.of([str(k) for k in range(60) for _ in range(3)])
    for interval in (mean_interval, proportion_interval):
        first, second = (
            interval(correct, alone),
            interval(np.repeat(correct, 3), thrice),
        )
        assert (second.low, second.high) == pytest.approx(
            (first.low, first.high), abs=0.002
        )
    differences = correct.astype(int) - correct[::-1]
    assert paired_test(differences, alone) == pytest.approx(
        paired_test(np.repeat(differences, 3), thrice)
    )


def test_the_sign_flip_test():
    """Sums 3, 1, 1: signs give ±5, ±3, ±3, ±1; 2 of 8 reach 5, and 6 reach 3."""
    clusters = Clusters.of(["a", "a", "a", "b", "c"])
    assert paired_test([1, 1, 1, 1, 1], clusters) == pytest.approx(0.25)
    assert paired_test([1, 1, 1, -1, 1], clusters) == pytest.approx(0.75)
    assert paired_test([0] * 5, clusters) == 1.0
    with pytest.raises(ValueError, match="Expected integers"):
        paired_test([0.5, 0, 0, 0, 0], clusters)


@pytest.mark.parametrize("won", [0, 3, 10, 14])
def test_paired_test_without_clusters_is_mcnemars_exact_test(won):
    differences = [1] * won + [-1] * 14 + [0] * 9
    found = paired_test(differences, Clusters.of([""] * len(differences)))
    assert found == pytest.approx(binomtest(won, won + 14, 0.5).pvalue)


def test_holms_procedure_stops_at_the_first_larger_p_value():
    """0.01 <= 0.05/4, 0.02 > 0.05/3, which is the level of the rest as well."""
    assert holm_levels([0.02, 0.01, 0.022, 0.9]) == pytest.approx(
        [0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3]
    )
    assert holm_levels([]) == []


def test_the_interval_over_folds_and_seeds():
    """Folds' means 0.5 and 0.7: deviation 0.1414, quantile 12.706, √(1/2 + 1/4)."""
    mean, low, high = interval_over_runs([0.4, 0.6, 0.7], [0, 0, 1], test_to_train=0.25)
    assert mean == pytest.approx(0.6)
    assert high - 0.6 == pytest.approx(12.7062 * 0.141421 * np.sqrt(0.75), rel=1e-4)
    assert low == pytest.approx(1.2 - high)
    with pytest.raises(ValueError, match="2 values, 1 folds"):
        interval_over_runs([1, 2], [0])


def test_the_bootstrap_of_a_ratio():
    """With many clusters it is close to the t interval."""
    generator = np.random.default_rng(2)
    clusters = Clusters.of(np.repeat(np.arange(200), 3).astype(str))
    correct = np.repeat(generator.random(200) < 0.6, 3)
    values = np.stack([correct, np.ones(600)], axis=1)
    found = bootstrap_interval(values, lambda s: s[:, 0] / s[:, 1], clusters)
    expected = mean_interval(correct, clusters)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high), abs=0.01
    )
    with pytest.raises(ValueError, match=r"\(600, num_sums\)"):
        bootstrap_interval(values[:9], lambda s: s[:, 0], clusters)


# -- intervals of metrics --------------------------------------------------------------

NO_INTERVAL = {"auc", "expected_calibration_error"}
YEARS = {"mean_absolute_error_years", "cumulative_score_5"}


def random_predictions(num_classes, num_faces=200, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, num_faces)
    near = np.clip(truth + rng.integers(-2, 2, num_faces), 0, num_classes - 1)
    chances = rng.dirichlet(np.ones(num_classes), num_faces)
    agree = rng.random(num_faces) < 0.8
    return Predictions(truth, near, num_classes, chances, 0, agree, near)


@pytest.mark.parametrize("num_classes", [2, 8])
def test_values_of_intervals_are_those_of_metrics(num_classes):
    """Intervals contain the value, and depend on people, not faces."""
    predictions = random_predictions(num_classes)
    names = [name for name in METRICS if name not in YEARS]
    if num_classes > 2:
        names = [n for n in names if METRICS[n].needs != "two classes"]
    alone = metric_intervals(predictions, names, Clusters.of([""] * 200))
    assert set(alone) == set(names) - NO_INTERVAL
    expected = score(predictions, alone)
    for name, found in alone.items():
        assert found.value == pytest.approx(expected[name]), name
        assert found.low < found.high, name
        assert found.low <= found.value <= found.high, name
    # Each face five times, from one person: as many people, and the same intervals.
    five = predictions._replace(
        **{
            field: np.repeat(getattr(predictions, field), 5, axis=0)
            for field in ("truth", "predicted", "probabilities", "agree", "median")
        }
    )
    people = Clusters.of(np.repeat(np.arange(200), 5).astype(str))
    for name, found in metric_intervals(five, names, people).items():
        width = alone[name].high - alone[name].low
        assert found.high - found.low == pytest.approx(width, rel=0.1), name


def test_the_bootstrap_of_f1_is_close_to_its_delta_method():
    """400 faces: TP 120, FP 40, FN 40, TN 200: f1 0.75.

    f1 = 2 TP / (2 TP + errors) is a function of the shares of TP and errors: by the
    delta method, g = 2t / (2t + e) has the gradient (2e, -2t) / (2t + e)² in
    (t, e) = (0.3, 0.2): (0.625, -0.9375); with the multinomial covariance
    [[0.21, -0.06], [-0.06, 0.16]] / 400 the variance is 0.000732: ± 0.0530.
    """
    truth = np.repeat([1, 0, 1, 0], [120, 40, 40, 200])
    predicted = np.repeat([1, 1, 0, 0], [120, 40, 40, 200])
    found = metric_intervals(
        Predictions(truth, predicted, 2), ["f1"], Clusters.of([""] * 400)
    )["f1"]
    assert found.value == pytest.approx(0.75)
    variance = (0.625**2 * 0.21 + 0.9375**2 * 0.16 + 2 * 0.625 * 0.9375 * 0.06) / 400
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.08)


def test_classes_without_faces_are_ignored():
    """Balanced accuracy of a single class is 1, its kappa undefined."""
    predictions = Predictions(np.zeros(20, int), np.zeros(20, int), 3)
    names = ["balanced_accuracy", "quadratic_kappa", "negative_log_likelihood"]
    found = metric_intervals(predictions, names, Clusters.of([""] * 20))
    assert found["balanced_accuracy"].value == 1.0
    assert found["quadratic_kappa"].value is None
    assert "negative_log_likelihood" not in found


def test_constant_predictions_have_intervals():
    """Ten men and ten women, all predicted as men: all bootstrap samples are equal.

    Wilson's interval of 10 of 10 faces of one person each, with Student's quantile of 9
    degrees of freedom, 2.262157: 1 / (1 + 2.262157² / 10) = 0.661519 to 1. Balanced
    accuracy lies between the means of the ends of both recalls. Half of 20 are correct:
    precision equals accuracy.
    """
    predictions = Predictions(np.repeat([0, 1], 10), np.ones(20, int), 2)
    names = ["accuracy", "balanced_accuracy", "precision", "recall"]
    found = metric_intervals(predictions, names, Clusters.of([""] * 20))
    low = 1 / (1 + 2.262157**2 / 10)
    assert found["recall"].interval == pytest.approx((low, 1))
    ends = (low / 2, (1 - low + 1) / 2)
    assert found["balanced_accuracy"].interval == pytest.approx(ends)
    assert found["balanced_accuracy"].value == 0.5
    assert found["precision"].interval == found["accuracy"].interval
    # No face is predicted as female: recall and f1 are 0.
    women = metric_intervals(
        predictions._replace(positive=0), ["precision", "recall", "f1"],
        Clusters.of([""] * 20),
    )  # fmt: skip
    assert women["recall"].interval == pytest.approx((0, 1 - low))
    assert women["precision"].value is None
    both = (0, 2 * (1 - low) / (2 - low))
    assert women["f1"].interval == pytest.approx(both)


def test_perfect_predictions_have_intervals():
    predictions = Predictions(np.repeat([0, 1], 10), np.repeat([0, 1], 10), 2)
    names = ["balanced_accuracy", "precision", "recall", "f1", "quadratic_kappa"]
    found = metric_intervals(predictions, names, Clusters.of([""] * 20))
    low = pytest.approx(1 / (1 + 2.262157**2 / 10))
    for name in names[:-1]:
        assert found[name].value == 1.0
        assert found[name].interval == (low, 1.0), name
    assert found["quadratic_kappa"].value == 1.0
    assert found["quadratic_kappa"].interval is None
    # All women are one person: their recall can be anything.
    people = Clusters.of(["a"] * 10 + [""] * 10)
    found = metric_intervals(predictions, names[:1], people)["balanced_accuracy"]
    assert found.interval == (pytest.approx(low.expected / 2), 1.0)
    one = metric_intervals(predictions, names, Clusters.of(["a"] * 20))
    assert all(estimate.interval is None for estimate in one.values())


# -- folds and seeds -------------------------------------------------------------------


def test_variances_of_two_folds_and_two_seeds():
    """Folds 0.1 0.2 | 0.5 0.4, seeds in columns; the mean is 0.3.

    Means of folds 0.15 and 0.45, their variance 0.045; of seeds 0.3 and 0.3, variance
    0. Residuals are -0.05 and 0.05 in every fold: 4 · 0.0025 / 1 = 0.01. So folds
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


def test_variances_of_additive_folds_and_seeds():
    """Each seed adds 0.1 and each fold 0.2: variances 0.005 and 0.02, no rest."""
    found = variance_components([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [0, 1, 0, 1])
    assert (found.fold, found.seed, found.rest) == pytest.approx((0.02, 0.005, 0.0))


def test_variances_with_missing_runs():
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
def test_variances_of_one_fold_or_seed(folds, seeds, fold, seed, note):
    """Values 1 and 2: variance 0.5."""
    found = variance_components([1, 2], folds, seeds)
    assert (found.fold, found.seed, found.rest) == (fold, seed, None)
    assert note in found.note


def test_one_run_has_no_variance():
    found = variance_components([1], [0], [0])
    assert (found.fold, found.seed) == (None, None)
    assert str(found) == "one fold and one seed: no variance is known"


def test_variances_are_unbiased():
    """Means over 400 tables of 5 folds and 3 seeds are the true variances."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(400):
        table = 2 * generator.normal(size=(5, 1)) + generator.normal(size=(1, 3))
        table = table + 0.5 * generator.normal(size=(5, 3)) + 10
        folds, seeds = np.divmod(np.arange(15), 3)
        one = variance_components(table.ravel(), folds.tolist(), seeds.tolist())
        found.append((one.fold, one.seed, one.rest))
    assert np.mean(found, axis=0) == pytest.approx((4, 1, 0.25), rel=0.15)


def test_invalid_runs():
    with pytest.raises(ValueError, match="2 values, 1 folds, 2 seeds"):
        variance_components([1, 2], [0], [0, 1])
    with pytest.raises(ValueError, match="fold 0 with seed 3 twice"):
        variance_components([1, 2], [0, 0], [3, 3])


def test_intervals_over_folds_seeds_or_faces():
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


# -- coverage --------------------------------------------------------------------------

SHARES = {0.85: ([0, 1], [0.15, 0.85]), 0.6: ([0, 1], [0.4, 0.6])}
DIFFERENCE = ([-1, 0, 1], [0.08, 0.84, 0.08])
GROUPS_OFF = (list(range(6)), [0.6, 0.28, 0.08, 0.025, 0.01, 0.005])
# Quantiles of a lognormal distribution, as of losses: the largest is 33, the mean 1.6.
LOSSES = (np.exp(norm.ppf((np.arange(2000) + 0.5) / 2000)), np.full(2000, 1 / 2000))


def fold_like_sizes():
    """519 subjects, 3,463 faces; the 20 largest have 37 %, as in Adience's fold 4."""
    generator = np.random.default_rng(2)
    weights = generator.lognormal(0, 1.5, 519)
    return 1 + generator.multinomial(3463 - 519, weights / weights.sum())


def test_simulated_sizes_resemble_fold_4():
    sizes = np.sort(fold_like_sizes())
    assert (len(sizes), sizes.sum()) == (519, 3463)
    assert sizes[-20:].sum() / sizes.sum() == pytest.approx(0.37, abs=0.01)


def draw(generator, sizes, values, chances, agreement):
    """Draws a value per face, with intraclass correlation `agreement`.

    A face has its subject's value with probability √agreement, else one of its own.
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
def test_coverage_in_300_rounds(agreement):
    found = coverage(proportion_interval, *SHARES[0.85], agreement, 300)
    assert 0.92 <= found <= 0.98
    assert 0.92 <= coverage(mean_interval, *DIFFERENCE, agreement, 300) <= 0.99
    for skewed in (GROUPS_OFF, LOSSES):
        assert 0.92 <= coverage(mean_interval, *skewed, agreement, 300) <= 0.98


def test_the_bootstrap_is_as_wide_as_the_mean_interval():
    """For correlated losses, where the sandwich and percentiles are too narrow."""
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
def test_false_positives_in_300_rounds(agreement):
    assert 0.02 <= false_positives(agreement, 300) <= 0.08


def test_intervals_without_clusters_are_too_narrow():
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
    # 97.1 % over 20,000 rounds with a correlation of 0.8: a little wide.
    found = coverage(mean_interval, *DIFFERENCE, agreement, 3000, seed=1)
    assert 0.93 <= found <= 0.98
    assert 0.03 <= false_positives(agreement, 3000, seed=1) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("agreement", [0, 0.3, 0.8])
def test_balanced_accuracy_is_covered(monkeypatch, agreement):
    """95 % of women, 85 % of men are correct: 0.9. Percentiles alone covered 87 %."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    generator = np.random.default_rng(1)
    sizes = fold_like_sizes()
    people = np.repeat(np.arange(len(sizes)), sizes)
    clusters = Clusters.of(people.astype(str))
    covered = 0
    for _ in range(500):
        gender = generator.integers(0, 2, len(sizes))[people]
        correct = np.choose(
            gender,
            [
                draw(generator, sizes, [0, 1], [1 - share, share], agreement)
                for share in (0.95, 0.85)
            ],
        )
        predictions = Predictions(gender, np.where(correct, gender, 1 - gender), 2)
        found = metric_intervals(predictions, ["balanced_accuracy"], clusters)
        found = found["balanced_accuracy"]
        covered += found.low <= 0.9 <= found.high
    assert 0.92 <= covered / 500 <= 0.98
