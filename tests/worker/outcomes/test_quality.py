"""AUC, log loss and calibration of judged scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss as reference_log_loss
from sklearn.metrics import roc_auc_score

from worker.engine.scoring_job import FINAL, GRAPH
from worker.outcomes.quality import BINS, OutcomeWindow, auc, log_loss, quality_of
from worker.outcomes.waiting import Judged

SCORES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]) | st.floats(0, 1), st.booleans()), min_size=2)


def columns(scores):
    """Scores and outcomes as arrays; both outcomes occur."""
    ctr = np.array([ctr for ctr, _ in scores])
    positive = np.array([positive for _, positive in scores])
    assume(positive.any() and not positive.all())
    return ctr, positive


def judged(ctr, positive, made_by=FINAL):
    """As handed out by the join."""
    return Judged("m", np.array(ctr, np.float64), np.array(positive, np.bool_), np.full(len(ctr), made_by, np.int8), 0)


@given(SCORES)
def test_auc_is_scikit_learns_and_that_of_all_pairs(scores):
    """With ties, of which each counts half."""
    ctr, positive = columns(scores)
    above = np.sign(ctr[positive][:, None] - ctr[~positive][None, :])

    assert auc(ctr, positive) == pytest.approx(roc_auc_score(positive, ctr))
    assert auc(ctr, positive) == pytest.approx((above / 2 + 0.5).mean())


@given(SCORES)
def test_log_loss_is_scikit_learns(scores):
    """Where predictions keep away from 0 and 1; at these it stays finite."""
    ctr, positive = columns(scores)
    inside = np.clip(ctr, 0.001, 0.999)
    assert log_loss(inside, positive) == pytest.approx(reference_log_loss(positive, inside))
    assert math.isfinite(log_loss(ctr, positive))


@given(SCORES)
def test_bins_hold_all_scores_in_the_order_of_their_predictions(scores):
    """Nearly equally many each; their means, weighted, are the means of all."""
    ctr, positive = columns(scores)
    told = quality_of(ctr, positive, np.full(len(ctr), FINAL, np.int8), least=2)
    counts = [one.scores for one in told.bins]

    assert sum(counts) == told.scores == len(ctr)
    assert len(counts) == min(BINS, len(ctr))
    assert max(counts) - min(counts) <= 1
    predicted = [one.predicted for one in told.bins]
    assert predicted == pytest.approx(sorted(predicted))
    assert np.dot(counts, predicted) / len(ctr) == pytest.approx(told.predicted) == pytest.approx(ctr.mean())
    assert np.dot(counts, [one.observed for one in told.bins]) / len(ctr) == pytest.approx(positive.mean())
    assert told.calibration_ratio == pytest.approx(ctr.mean() / positive.mean())


def test_each_rung_is_told_apart():
    """Those that made a score, by name."""
    made_by = np.array([FINAL, GRAPH, FINAL, GRAPH], np.int8)
    told = quality_of(np.array([0.5, 0.1, 0.7, 0.3]), np.array([True, False, False, False]), made_by, least=2)

    assert set(told.made_by) == {"final", "graph"}
    assert told.made_by["final"].predicted == pytest.approx(0.6)
    assert told.made_by["final"].observed == 0.5
    assert told.made_by["graph"].scores == 2


@pytest.mark.parametrize("positive", [[True] * 9, [True] * 100, [False] * 100, []])
def test_too_few_scores_or_outcomes_of_one_kind_tell_nothing(positive):
    """An AUC needs both, and a ratio of a handful is noise."""
    told = quality_of(np.full(len(positive), 0.5), np.array(positive, np.bool_), np.zeros(len(positive), np.int8), 10)

    assert told.scores == len(positive)
    assert math.isnan(told.auc)
    assert math.isnan(told.calibration_ratio)
    assert math.isnan(told.log_loss)
    assert not told.bins


@given(st.lists(st.integers(0, 12), max_size=8), arrays(np.float64, 100, elements=st.floats(0, 1)))
def test_the_window_holds_the_latest_scores(portions, ctr):
    """However they came, also more at once than it holds."""
    window, size = OutcomeWindow(5, least=2), 5
    added = 0
    for count in portions:
        part = ctr[added : added + count]
        window.add(judged(part, part > 0.5))
        added += count
    latest = ctr[max(0, added - size) : added]
    expected = quality_of(latest, latest > 0.5, np.full(len(latest), FINAL, np.int8), 2)
    told = window.quality()

    assert told.scores == expected.scores
    for name in ("auc", "log_loss", "predicted", "observed"):
        assert getattr(told, name) == pytest.approx(getattr(expected, name), nan_ok=True)
