"""The AUC of a fixed set of pages and the interval of a difference, against definitions written out in full."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paired_auc import PairCounts, difference


def auc_by_definition(labels, scores):
    """The share of pairs in which the clicked candidate has the higher score, ties counted half."""
    clicked, others = scores[labels], scores[~labels]
    pairs = [(one > other) + 0.5 * (one == other) for one in clicked for other in others]
    return sum(pairs) / len(pairs)


def pages_of(seed, pages, candidates=5, passes=1):
    """Random labels with both outcomes in them, and scores with ties."""
    random = np.random.default_rng(seed)
    labels = random.random((pages, candidates)) < 0.5
    labels[0, :2] = True, False
    return labels, random.integers(0, 6, (passes, pages, candidates)) / 6.0


@given(st.integers(0, 1000), st.integers(1, 6))
def test_the_auc_is_the_share_of_pairs_won(seed, pages):
    """Pairs within a page and across pages count alike, ties count half."""
    labels, scores = pages_of(seed, pages)
    assert PairCounts.of(labels, scores).auc() == pytest.approx(auc_by_definition(labels, scores[0]))


@given(st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_a_weight_counts_a_page_that_often(seed, weights):
    """The AUC of a resample is that of the pages repeated as often as they were drawn."""
    weights[0] += 1  # the page that has both outcomes
    labels, scores = pages_of(seed, 4)
    repeated = np.repeat(np.arange(4), weights)
    expected = auc_by_definition(labels[repeated], scores[0][repeated])
    assert PairCounts.of(labels, scores).auc(np.array(weights, float)) == pytest.approx(expected)


def test_passes_are_averaged_by_auc_not_by_score():
    """Scores of different passes are never mixed: that would be a better scorer than any single pass."""
    labels, scores = pages_of(3, 6, passes=3)
    expected = np.mean([auc_by_definition(labels, each) for each in scores])
    assert PairCounts.of(labels, scores).auc() == pytest.approx(expected)


def test_an_unanswered_page_wins_no_pair():
    """A request without answer counts against the worker, whether its candidates were clicked or not."""
    labels = np.array([[True, False], [True, False]])
    scores = np.array([[[0.9, 0.1], [np.nan, np.nan]]])
    assert PairCounts.of(labels, scores).auc() == pytest.approx(1 / 4)


def test_a_constant_gain_on_noisy_pages_is_told_from_zero():
    """Pages differ widely, but both sides are resampled together, so a small gain is told from zero."""
    random = np.random.default_rng(5)
    labels = np.tile([True, False, True, False], (200, 1))
    scores = random.random((1, 200, 4))
    better = scores + 0.02 * labels
    told = difference(PairCounts.of(labels, better), PairCounts.of(labels, scores))
    assert 0 < told.low < told.difference < told.high
    # Unpaired, the two AUCs alone spread over ten times as much.
    unpaired = difference(PairCounts.of(labels, better), PairCounts.of(labels, random.random((1, 200, 4))))
    assert unpaired.high - unpaired.low > 5 * (told.high - told.low)


def test_the_interval_covers_what_it_promises():
    """The difference of two equally good scorers is zero; the 95 % interval misses it in about one of 20 tries."""
    outside = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        labels = random.random((60, 4)) < 0.5
        signal = labels + random.normal(0, 1.5, (60, 1))  # pages differ in level
        one, other = (PairCounts.of(labels, (signal + random.normal(0, 1, (60, 4)))[None]) for _ in range(2))
        told = difference(one, other, resamples=300, seed=seed)
        outside += not told.low <= 0 <= told.high
    assert 4 <= outside <= 20


def test_a_side_against_itself_differs_by_nothing():
    """The same answers on both sides give exactly zero, in every resample."""
    labels, scores = pages_of(1, 8)
    counts = PairCounts.of(labels, scores)
    told = difference(counts, counts)
    assert (told.difference, told.low, told.high) == (0.0, 0.0, 0.0)
