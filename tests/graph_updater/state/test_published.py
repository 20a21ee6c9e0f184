"""Nothing that is not finite is ever published."""

from __future__ import annotations

import numpy as np
import pytest
from interactions import TRAINED, exact_state, feed, interaction, trained_base
from structlog.testing import capture_logs

from schemas.messages import LATEST_MS

CLICKS = [interaction(f"user-{number % 7}", TRAINED[number * 3 % 5], number) for number in range(40)]
USERS = [f"user-{number}" for number in range(7)]


def fed(**config):
    """A state with some users, published once."""
    state = exact_state(**config)
    feed(state, CLICKS)
    state.published.take_changes()
    return state


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("table", ["sums", "pushed"])
def test_a_node_that_is_not_finite_is_computed_anew(table, damage):
    """However it came about and however far it has spread: what is published is what an undamaged state publishes."""
    whole, damaged = fed(), fed()
    getattr(damaged._nodes.propagation.tables, table)[damaged._nodes.ids.users["user-1"], 0, 0] = damage
    more = [interaction(user, TRAINED[0], 100, weight=3.0) for user in USERS[:3]]
    for state in (whole, damaged):
        feed(state, more)
    with np.errstate(all="ignore"), capture_logs() as logs:
        damaged.published.take_changes(force=True)
    whole.published.take_changes(force=True)
    for user in USERS:
        found, expected = damaged.published.user_state(user, 0), whole.published.user_state(user, 0)
        vectors = [np.frombuffer(one.embedding.data, np.float32) for one in (found, expected)]
        np.testing.assert_allclose(*vectors, atol=1e-5)
    assert damaged.published.not_finite > 0
    assert whole.published.not_finite == 0
    assert [line["log_level"] for line in logs] == ["warning"]


def test_what_cannot_be_finite_keeps_the_last_published_embedding():
    """A vector too large for float16 is not published as infinite; history and counts go out all the same."""
    state = fed(embedding_dtype="float16")
    before = state.published.user_state("user-1", 0)
    state._nodes.propagation.set_base(np.array([state._nodes.ids.users["user-1"]], np.int32), np.full((1, 6), 1e9))
    state.apply([interaction("user-1", TRAINED[2], 500)])
    with capture_logs() as logs:
        assert "user-1" in state.published.take_changes().users
    after = state.published.user_state("user-1", 0)
    assert after.embedding.data == before.embedding.data
    assert after.impressions == before.impressions + 1
    assert logs[0]["others"] == state.published.not_finite > 0


def test_weights_too_light_make_no_nan():
    """Where something other than the intake brings them, they count as the lightest."""
    state = exact_state()
    state.apply([interaction("anna", "unlisted", 1, weight=1e-40)])
    state.apply([interaction("anna", "unlisted", 2), interaction("anna", "item-0", 3)])
    state.published.take_changes()
    assert state.published.not_finite == 0
    assert np.isfinite(state.user_embeddings(["anna"])).all()
    assert state.user_embeddings(["anna"]).any()


def test_counts_at_the_end_of_their_range_are_published_and_never_wrap():
    """2**63 - 1 interactions, and more: the count stays."""
    state = fed()
    node = state._nodes.ids.users["user-1"]
    state._nodes.facts.impressions[node] = 2**63 - 1
    state._nodes.facts.version[node] = 2**63 - 1
    state.apply([interaction("user-1", TRAINED[0], LATEST_MS), interaction("user-1", TRAINED[1], LATEST_MS)])
    state.published.take_changes()
    shown = state.published.user_state("user-1", 0)
    assert shown.impressions == 2**63 - 1
    assert shown.embedding.version == 2**63 - 1
    assert shown.last_event_time_ms == LATEST_MS


def test_the_base_is_finite():
    """What the tests above start from."""
    assert np.isfinite(trained_base().item_vectors).all()
