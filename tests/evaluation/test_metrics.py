"""Metrics agree with their plain definitions."""

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics import auc, expected_calibration_error, log_loss

scored = st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])), min_size=1, max_size=40)


@given(scored)
def test_auc_is_the_share_of_pairs_in_the_right_order(examples):
    """AUC counts, over all clicked and unclicked pairs, those in the right order, ties half."""
    labels, scores = zip(*examples, strict=True)
    pairs = [
        1.0 if up > down else 0.5 if up == down else 0.0
        for clicked, up in examples
        if clicked
        for other, down in examples
        if not other
    ]
    if pairs:
        assert auc(labels, scores) == pytest.approx(sum(pairs) / len(pairs))
    else:
        assert math.isnan(auc(labels, scores))


@given(scored)
def test_log_loss_is_the_mean_negative_log_likelihood(examples):
    """Log loss equals its definition."""
    expected = np.mean([-math.log(score if clicked else 1 - score) for clicked, score in examples])
    assert log_loss(*zip(*examples, strict=True)) == pytest.approx(expected)


@given(scored)
def test_log_loss_agrees_with_scikit_learn(examples):
    """Away from 0 and 1 it is scikit-learn's log loss."""
    labels, scores = zip(*examples, strict=True)
    expected = sklearn.metrics.log_loss(labels, scores, labels=[False, True])
    assert log_loss(labels, scores) == pytest.approx(expected)


def test_a_certain_mistake_costs_a_finite_loss():
    """A score of exactly 0 for a click does not make the loss infinite."""
    assert math.isfinite(log_loss([True], [0.0]))


def test_calibration_error_is_zero_for_true_rates_and_the_gap_otherwise():
    """Scores that equal the click rates have no calibration error; scores that are 0.2 too high have 0.2."""
    labels = [True, False] * 50
    assert expected_calibration_error(labels, [0.5] * 100, bins=1) == pytest.approx(0.0)
    assert expected_calibration_error(labels, [0.7] * 100, bins=1) == pytest.approx(0.2)


def test_calibration_error_weighs_bins_of_equally_many_examples_by_score():
    """Examples are sorted by score, whatever their order; a bin counts by its number of examples."""
    labels, scores = [True, False, False], [0.9, 0.1, 0.4]  # bins: 0.1 and 0.4, then 0.9
    assert expected_calibration_error(labels, scores, bins=2) == pytest.approx((0.25 * 2 + 0.1 * 1) / 3)
