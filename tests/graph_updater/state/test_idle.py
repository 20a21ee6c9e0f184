"""Who has not been seen for long is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interactions import TRAINED, exact_state, interaction, pass_time, trained_base

from graph_updater.graph.config import GraphConfig
from graph_updater.state.idle import idle_limit_ms
from graph_updater.state.updater_state import UpdaterState

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("config", "days"),
    [
        ({}, 90),
        ({"user_idle_ms": 0}, 0),
        ({"user_idle_ms": 0, "window_ms": 7 * DAY_MS}, 7),
        ({"window_ms": 7 * DAY_MS}, 7),
        ({"window_ms": 365 * DAY_MS}, 90),
        ({"half_life_ms": DAY_MS}, 48),
    ],
)
def test_the_shortest_limit_decides(config, days):
    """A user whose edges have left the window is idle at the latest then."""
    assert idle_limit_ms(GraphConfig(**config)) == days * DAY_MS


@pytest.mark.parametrize("config", [{"user_idle_ms": 256_000}, {"window_ms": 256_000}, {"half_life_ms": 6_000}])
def test_idle_users_leave_with_their_edges_and_a_tombstone(config):
    """And the unlisted items that only they kept; who was seen within the limit stays."""
    state = exact_state(**config)
    state.apply([interaction("anna", "new-1", 1_000), interaction("bert", "item-0", 1_000)])
    state.apply([interaction("bert", "item-1", 800_000)])
    pass_time(state, 900_000)
    gone = state.published.take_changes()
    assert (gone.expired_users, gone.expired_items) == (["anna"], ["new-1"])
    assert not state.user_embeddings(["anna"]).any()
    assert state.user_embeddings(["bert"]).any()


def test_without_a_limit_everybody_stays():
    """As the setting says."""
    state = exact_state(user_idle_ms=0)
    state.apply([interaction("anna", "item-0", 0)])
    pass_time(state, 10**13)
    assert state.user_embeddings(["anna"]).any()


def test_one_wild_event_makes_nobody_idle():
    """However far ahead it lies."""
    state = exact_state()
    state.apply([interaction("anna", "item-0", START_MS)])
    pass_time(state, START_MS)
    state.apply([interaction("wild", "item-0", START_MS + 1_000 * DAY_MS)])
    state.release_idle()
    assert state.published.take_changes().expired_users == []
    assert state.user_embeddings(["anna"]).any()


def test_a_stream_of_one_time_users_takes_no_more_memory_than_the_limit_holds():
    """Ten thousand users who come once, a hundred a day: rows and cells of those who left are used again."""
    state = exact_state(user_idle_ms=10 * DAY_MS)
    rows, held = [], []
    for day in range(100):
        state.apply(
            [
                interaction(f"user-{day}-{number}", TRAINED[number % 5], START_MS + day * DAY_MS + number)
                for number in range(100)
            ]
        )
        state.release_idle()
        state.published.take_changes()
        rows.append(len(state._nodes))
        held.append(state.memory_report().total)
    assert rows[-1] <= 5 + 100 * 13
    assert rows[-1] == rows[20]
    assert held[-1] == held[30]
    assert state._nodes.graph.edge_count <= 100 * 12
    assert len(state._nodes.ids.users) <= 100 * 12


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 5_000)), min_size=1, max_size=200),
    st.integers(1, 30),
    st.integers(0, 200),
)
def test_a_replay_and_a_restored_snapshot_forget_the_same_users(rows, batch, border):
    """The same records in the same order end, bit for bit, in the same embeddings and the same users."""
    stream = [interaction(f"user-{u}", TRAINED[i], 20 * n + t) for n, (u, i, t) in enumerate(rows)]
    config = GraphConfig(epsilon=0.0, embedding_dtype="float32", user_idle_ms=1_024)

    def ended(restart):
        state = UpdaterState(config, trained_base())
        for begin in range(0, len(stream), batch):
            if restart and begin <= border < begin + batch:
                state = UpdaterState.restore(config, trained_base(), *state.snapshot_arrays())
            state.apply(stream[begin : begin + batch])
            state.release_idle()
        return state

    first, again, restarted = ended(False), ended(False), ended(True)
    users = sorted(first._nodes.ids.users)
    assert users == sorted(again._nodes.ids.users) == sorted(restarted._nodes.ids.users)
    np.testing.assert_array_equal(first.user_embeddings(users), again.user_embeddings(users))
    np.testing.assert_allclose(first.user_embeddings(users), restarted.user_embeddings(users), atol=1e-5)
