"""Plots of groups, calibration and training."""

from keras_agegender.evaluation.plots import (
    plot_groups as plot_groups,
    plot_of_age as plot_of_age,
    plot_reliability as plot_reliability,
    reliability_bins as reliability_bins,
)
