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


def ended(stream, batch, restart_at=None):
    """The state after a stream, in batches; saved and restored after so many events."""
    config = GraphConfig(epsilon=0.0, embedding_dtype="float32", user_idle_ms=25_600)
    state = UpdaterState(config, trained_base())
    for begin in range(0, len(stream), batch):
        if restart_at is not None and begin <= restart_at < begin + batch:
            state = UpdaterState.restore(config, trained_base(), *state.snapshot_arrays())
        state.apply(stream[begin : begin + batch])
        state.release_idle()
    return state


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 4), st.sampled_from([0, 0, 0, 20_000, 25_550, 26_000, 39_000])),
        min_size=1,
        max_size=200,
    ),
    st.integers(1, 4),
    st.integers(0, 9) | st.integers(0, 200),
)
def test_a_replay_and_a_restored_snapshot_forget_the_same_users(rows, batch, before_end):
    """The same records in the same order end, bit for bit, in the same embeddings; a restart forgets nobody else."""
    stream = [
        interaction(f"user-{user}", TRAINED[item], 40_000 + 30 * number - late)
        for number, (user, item, late) in enumerate(rows)
    ]
    first, again = ended(stream, batch), ended(stream, batch)
    restarted = ended(stream, batch, restart_at=max(0, len(stream) - 1 - before_end))
    users = sorted(first._nodes.ids.users)
    assert users == sorted(again._nodes.ids.users) == sorted(restarted._nodes.ids.users)
    np.testing.assert_array_equal(first.user_embeddings(users), again.user_embeddings(users))
    np.testing.assert_allclose(first.user_embeddings(users), restarted.user_embeddings(users), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_who_is_forgotten_does_not_depend_on_how_the_stream_was_read(batch):
    """Users are idle by the borders of slices, not by the end of the batch that crosses one."""
    stream = [interaction(f"user-{number}", TRAINED[number % 5], 37 * number) for number in range(1_000)]
    border_ms = 37 * 992 // 100 * 100 - 25_600
    left = {f"user-{number}" for number in range(1_000) if 37 * number >= border_ms}
    assert set(ended(stream, batch)._nodes.ids.users) == left


def test_a_restart_does_not_look_earlier_than_the_next_slice():
    """Who came in late since the last look leaves at the same record with a restart as without."""
    stream = [interaction(f"user-{number}", TRAINED[0], 40_000) for number in range(20)]
    late = [*stream, interaction("late", TRAINED[0], 10_000), interaction("last", TRAINED[0], 40_001)]
    next_slice = [interaction(f"user-{number}", TRAINED[1], 40_100) for number in range(8)]
    for restart_at in (None, 21):
        assert "late" in ended(late, 1, restart_at)._nodes.ids.users
        assert "late" not in ended([*late, *next_slice], 1, restart_at)._nodes.ids.users
