"""Similarity of a title to those of a user's past."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.peers import title_similarity
from evaluation.peers.title_similarity import title_similarities
from schemas.messages import Interaction

RANDOM = np.random.default_rng(0)
TITLES = RANDOM.normal(size=(6, 4)).astype(np.float32)
TITLES /= np.linalg.norm(TITLES, axis=1, keepdims=True)
TITLES[5] = 0.0  # an item without a title


@pytest.fixture(autouse=True)
def short_pasts(monkeypatch):
    """So that pasts are cut and candidates come in several products."""
    monkeypatch.setattr(title_similarity, "MOST_PAST", 4)
    monkeypatch.setattr(title_similarity, "_AT_ONCE", 3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_similarities_are_those_of_a_plain_loop(told):
    """The mean of the n largest, none below 0, over the user's four latest events before the candidate."""
    events = [
        Interaction(event_id=str(n), user_id=f"u{user}", item_id="i", kind="rating", event_time_ms=n)
        for n, (user, _, _) in enumerate(told)
    ]
    clicked = np.array([click for _, _, click in told])
    rows = np.array([row for _, row, _ in told])
    features = title_similarities(events, clicked, TITLES, rows, nearest=(1, 2))
    for place, (user, row, _) in enumerate(told):
        past = [earlier for earlier in range(place) if told[earlier][0] == user][-4:]
        for column, outcome in enumerate((True, False)):
            similar = [max(float(TITLES[row] @ TITLES[rows[at]]), 0.0) for at in past if clicked[at] == outcome]
            best = sorted([*similar, 0.0, 0.0], reverse=True)
            assert features[0, place, column] == pytest.approx(best[0], abs=1e-6)
            assert features[1, place, column] == pytest.approx(sum(best[:2]) / 2, abs=1e-6)
