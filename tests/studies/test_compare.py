"""Comparing two runs: the paired interval, worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keras_agegender.studies.compare import _difference


def answers(right):
    """Predictions of faces that are all female, right where asked."""
    said = np.where(right, "female", "male")
    return pd.DataFrame({"gender": "female", "predicted_gender": said})


def test_the_interval_is_one_of_95_percent():
    """Of 1,000 faces 100 are right in the second run alone, 60 in the first alone.

    The difference is 0.04; its variance (0.16 - 0.04²) / 1000, so that 1.96 standard
    deviations are 0.0247. One of 50 % would be 0.0085 to each side.
    """
    first = answers(np.r_[np.zeros(100, bool), np.ones(60, bool), np.ones(840, bool)])
    second = answers(np.r_[np.ones(100, bool), np.zeros(60, bool), np.ones(840, bool)])
    found = _difference("gender", first, second, seed=0)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(0.04, abs=0.002)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.1584 / 1000), rel=0.05)
    assert (found.only_first, found.only_second) == (60, 100)
