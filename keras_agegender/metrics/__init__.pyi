"""Public names of `kag.metrics`, typed."""

from .intervals import (
    Clusters as Clusters,
    Estimate as Estimate,
    bootstrap_interval as bootstrap_interval,
    holm_levels as holm_levels,
    interval_over_runs as interval_over_runs,
    mean_interval as mean_interval,
    paired_test as paired_test,
    proportion_interval as proportion_interval,
)
from .keras_metrics import (
    AgeYearsError as AgeYearsError,
    AllHeadsAccuracy as AllHeadsAccuracy,
    BalancedAccuracy as BalancedAccuracy,
    BrierScore as BrierScore,
    CumulativeScore as CumulativeScore,
    ExactAccuracy as ExactAccuracy,
    ExpectedCalibrationError as ExpectedCalibrationError,
    MeanAbsoluteGroupError as MeanAbsoluteGroupError,
    NegativeLogLikelihood as NegativeLogLikelihood,
    OneOffAccuracy as OneOffAccuracy,
    PositiveClassMetric as PositiveClassMetric,
    QuadraticKappa as QuadraticKappa,
    RankViolationRate as RankViolationRate,
    detailed_metrics as detailed_metrics,
)
