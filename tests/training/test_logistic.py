"""Logistic regression."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from models.calibration import sigmoid
from training.logistic import fit_logistic


def test_true_weights_are_found():
    """On data drawn from a logistic model the fit comes near its weights."""
    random = np.random.default_rng(0)
    features = np.column_stack([random.normal(size=(20_000, 2)), np.ones(20_000)])
    truth = np.array([1.5, -0.7, 0.3])
    clicks = random.random(20_000) < sigmoid(features @ truth)
    np.testing.assert_allclose(fit_logistic(features, clicks), truth, atol=0.1)


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_gradient_vanishes_at_the_fit(seed):
    """What is returned is the optimum of the penalised likelihood."""
    random = np.random.default_rng(seed)
    features, targets = random.normal(size=(60, 3)) * 3, random.random(60) < 0.4
    weights = fit_logistic(features, targets, penalty=0.5)
    gradient = features.T @ (sigmoid(features @ weights) - targets) + 0.5 * weights
    assert np.abs(gradient).max() < 1e-5


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_the_fit_is_scikit_learns(penalty):
    """Targets between 0 and 1 count as a click and a skip of that weight."""
    random = np.random.default_rng(2)
    features, targets = random.normal(size=(300, 4)) * [1.0, 3.0, 0.1, 1.0] + 0.5, random.random(300)
    reference = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10, max_iter=1_000)
    reference.fit(np.tile(features, (2, 1)), np.repeat([1, 0], 300), np.concatenate([targets, 1 - targets]))
    np.testing.assert_allclose(fit_logistic(features, targets, penalty), reference.coef_[0], rtol=1e-4)


def test_separable_classes_stay_finite():
    """Where the likelihood has no maximum the penalty gives one."""
    weights = fit_logistic([[-1.0, 1], [-2.0, 1], [1.0, 1], [2.0, 1]], [0, 0, 1, 1], penalty=1e-3)
    assert np.isfinite(weights).all()
    assert weights[0] > 0
