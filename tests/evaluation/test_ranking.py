"""Recall@k and NDCG@k equal what one gets by ranking one user at a time by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from evaluation import ranking
from evaluation.ranking import recall_and_ndcg

UNKNOWN, KNOWN, WANTED = range(3)


def by_hand(users, items, parts, k):
    """The definitions, user by user."""
    recalls, ndcgs = [], []
    for user, part in zip(users, parts, strict=True):
        wanted = {item for item, kind in enumerate(part) if kind == WANTED}
        if not wanted:
            continue
        candidates = [item for item, kind in enumerate(part) if kind != KNOWN]
        first = sorted(candidates, key=lambda item: -float(user @ items[item]))[:k]
        places = [place for place, item in enumerate(first, start=1) if item in wanted]
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
        recalls.append(len(places) / len(wanted))
        ndcgs.append(sum(1 / math.log2(place + 1) for place in places) / ideal)
    return (float("nan"),) * 2 if not recalls else (sum(recalls) / len(recalls), sum(ndcgs) / len(ndcgs))


@given(st.data(), st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_figures_equal_those_by_hand(data, user_count, item_count, seed):
    """For any known and wanted items, also users without either and users who know nearly everything."""
    kinds = st.lists(st.sampled_from([UNKNOWN, KNOWN, WANTED]), min_size=item_count, max_size=item_count)
    parts = np.array(data.draw(st.lists(kinds, min_size=user_count, max_size=user_count)))
    k = data.draw(st.integers(1, item_count))
    random = np.random.default_rng(seed)
    users = random.normal(size=(user_count, 3)).astype(np.float32)
    items = random.normal(size=(item_count, 3)).astype(np.float32)
    found = recall_and_ndcg(users, items, csr_matrix(parts == KNOWN), csr_matrix(parts == WANTED), k)
    np.testing.assert_allclose(found, by_hand(users, items, parts, k), rtol=1e-9)


def test_users_are_ranked_in_groups(monkeypatch):
    """The size of the groups changes nothing."""
    random = np.random.default_rng(0)
    users, items = (random.normal(size=(size, 4)).astype(np.float32) for size in (11, 30))
    kinds = random.integers(0, 3, (11, 30))
    ask = (users, items, csr_matrix(kinds == KNOWN), csr_matrix(kinds == WANTED), 5)
    whole = recall_and_ndcg(*ask)
    monkeypatch.setattr(ranking, "USERS_AT_ONCE", 3)
    assert recall_and_ndcg(*ask) == pytest.approx(whole, rel=1e-12)
