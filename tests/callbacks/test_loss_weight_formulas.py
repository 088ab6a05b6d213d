"""Weights from losses: numbers worked by hand, and what must hold for any losses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from keras_agegender.callbacks.balancer import (
    dynamic_weight_average,
    uncertainty_weights,
)

LOSSES = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=9)


def test_dynamic_average_by_hand():
    # r = (1, 0.5); r / 2 = (0.5, 0.25); exp = (1.648721, 1.284025), sum 2.932747;
    # 2 * exp / sum = (1.124353, 0.875647).
    weights = dynamic_weight_average([1.0, 1.0], [1.0, 2.0])
    np.testing.assert_allclose(weights, [1.124353, 0.875647], atol=1e-6)


def test_dynamic_average_of_three_at_temperature_one_by_hand():
    # r = (1, 2, 0.5); exp = (2.718282, 7.389056, 1.648721), sum 11.756059;
    # 3 * exp / sum = (0.693672, 1.885595, 0.420733).
    weights = dynamic_weight_average([0.3, 4.0, 1.0], [0.3, 2.0, 2.0], temperature=1.0)
    np.testing.assert_allclose(weights, [0.693672, 1.885595, 0.420733], atol=1e-6)


def test_uncertainty_by_hand():
    np.testing.assert_allclose(uncertainty_weights([0.5, 4.0]), [2.0, 0.25])


def test_soft_uncertainty_by_hand():
    # 1 / L / 2 = (1, 0.5); exp = (2.718282, 1.648721), sum 4.367003;
    # 2 * exp / sum = (1.244919, 0.755081).
    weights = uncertainty_weights([0.5, 1.0], temperature=2.0)
    np.testing.assert_allclose(weights, [1.244919, 0.755081], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(LOSSES, st.floats(0.01, 100))
def test_dynamic_average_does_not_see_scales(losses, scale):
    earlier = np.asarray(losses)
    latest = earlier[::-1] / 2
    weights = dynamic_weight_average(latest, earlier)
    scales = np.linspace(1, scale, len(losses))
    np.testing.assert_allclose(
        dynamic_weight_average(latest * scales, earlier * scales), weights, rtol=1e-6
    )
    assert weights.sum() == pytest.approx(len(losses))


@settings(max_examples=50, deadline=None)
@given(LOSSES)
def test_uncertainty_makes_weighted_losses_equal(losses):
    np.testing.assert_allclose(uncertainty_weights(losses) * losses, 1.0)


@settings(max_examples=50, deadline=None)
@given(LOSSES)
def test_a_high_temperature_makes_weights_equal(losses):
    ones = np.ones(len(losses))
    near = uncertainty_weights(losses, temperature=1e9)
    np.testing.assert_allclose(near, ones, atol=1e-3)
    near = dynamic_weight_average(losses, losses[::-1], temperature=1e12)
    np.testing.assert_allclose(near, ones, atol=1e-3)


def test_a_loss_of_zero_gives_finite_weights():
    assert np.isfinite(uncertainty_weights([0.0, 1.0])).all()
    assert np.isfinite(uncertainty_weights([0.0, 1.0], temperature=0.1)).all()
    assert np.isfinite(dynamic_weight_average([1.0, 0.0], [0.0, 0.0])).all()
