"""The difference of two AUCs and its confidence interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.auc_difference import auc_difference
from evaluation.metrics import auc

rows = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=2)


def share_won(score, rivals):
    """The textbook's placement value: pairs won, ties half."""
    return float(np.mean([(score > rival) + 0.5 * (score == rival) for rival in rivals]))


def by_pairs(labels, scores, clusters):
    """Influence of each cluster on the AUC, from all pairs."""
    clicked, others = scores[labels], scores[~labels]
    area = auc(labels, scores)
    sums = dict.fromkeys(clusters, 0.0)
    for label, score, cluster in zip(labels, scores, clusters, strict=True):
        if label:
            sums[cluster] += (share_won(score, others) - area) / len(clicked)
        else:
            sums[cluster] += (np.mean([share_won(click, [score]) for click in clicked]) - area) / len(others)
    return np.array([sums[cluster] for cluster in sorted(sums)])


@given(rows)
def test_difference_and_interval_are_those_of_all_pairs(drawn):
    """Ranks give what counting every pair of a clicked and an unclicked example gives."""
    labels, scores, others, clusters = map(np.array, zip(*drawn, strict=True))
    told = auc_difference(labels, scores, others, clusters.tolist())
    if len(set(labels.tolist())) < 2 or len(set(clusters.tolist())) < 2:
        assert math.isnan(told.difference)
        assert not told.is_a_gain
        return
    sums = by_pairs(labels, scores, clusters.tolist()) - by_pairs(labels, others, clusters.tolist())
    count = len(sums)
    margin = 1.959964 * math.sqrt(count / (count - 1) * (sums**2).sum())
    assert told.difference == pytest.approx(auc(labels, scores) - auc(labels, others), abs=1e-12)
    assert told.high - told.difference == pytest.approx(margin, abs=1e-12)
    assert told.difference - told.low == pytest.approx(margin, abs=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of two equally good scores, shared noise within users included, about 5 % of the intervals miss zero."""
    random = np.random.default_rng(1)
    missed, draws = 0, 400
    for _ in range(draws):
        users = np.repeat(np.arange(60), 8)
        labels = random.random(len(users)) < 0.4
        shared = labels + random.normal(0, 1, len(users))
        one, other = (shared + random.normal(0, 0.7, 60)[users] for _ in range(2))
        told = auc_difference(labels, one, other, users.tolist())
        missed += not told.low <= 0 <= told.high
    assert 0.02 < missed / draws < 0.09


def test_a_clear_gain_is_told_from_none():
    """Knowing the label beats noise; noise does not beat noise by much."""
    random = np.random.default_rng(2)
    labels = random.random(500) < 0.5
    noise, users = random.random((2, 500)), list(range(500))
    assert auc_difference(labels, labels + noise[0], noise[1], users).is_a_gain
    assert not auc_difference(labels, noise[0], noise[0], users).is_a_gain
