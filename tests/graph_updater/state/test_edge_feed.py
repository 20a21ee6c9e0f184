"""Windows and decay under any times: single wild events, silences, beginnings in 1970, clocks that ran ahead."""

from __future__ import annotations

import numpy as np
import pytest
from graph_parts import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interactions import ALPHAS, SIZE, TRAINED, exact_state, feed, interaction, trained_base

from graph_updater.state.stream_time import StreamTime
from graph_updater.state.updater_state import UpdaterState
from schemas.messages import LATEST_MS, LEAST_WEIGHT

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000
USERS = [f"user-{number}" for number in range(6)]
CONFIGS = [{"window_ms": 50 * HOUR_MS}, {"half_life_ms": 2 * HOUR_MS}, {"window_ms": HOUR_MS, "half_life_ms": HOUR_MS}]


def normal(count, first=0):
    """One click every quarter of an hour, by six users on five items in turn."""
    return [
        interaction(USERS[number % 6], TRAINED[number * 7 % 5], START_MS + number * HOUR_MS // 4)
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@settings(max_examples=25, deadline=None)
@given(
    place=st.integers(0, 150),
    time_ms=st.integers(0, LATEST_MS) | st.integers(START_MS - 99 * HOUR_MS, START_MS + 999 * HOUR_MS),
    batch=st.sampled_from([1, 7, 64]),
)
@example(place=0, time_ms=0, batch=1)
@example(place=75, time_ms=LATEST_MS, batch=7)
@example(place=150, time_ms=LATEST_MS, batch=1)
def test_a_wild_event_changes_nobody_else(config, place, time_ms, batch):
    """One event with any time anywhere among normal ones: afterwards all embeddings but its own are as without it."""
    stream = normal(150)
    wild = interaction("wild", "wild-item", time_ms)
    plain, disturbed = exact_state(**config), exact_state(**config)
    feed(plain, [*stream, *normal(70, first=150)], batch)
    feed(disturbed, [*stream[:place], wild, *stream[place:], *normal(70, first=150)], batch)
    np.testing.assert_allclose(disturbed.user_embeddings(USERS), plain.user_embeddings(USERS), atol=1e-5)
    np.testing.assert_allclose(disturbed.item_embeddings(TRAINED), plain.item_embeddings(TRAINED), atol=1e-5)
    assert plain.user_embeddings(USERS).any(axis=1).all()


@pytest.mark.parametrize("time_ms", [0, LATEST_MS])
def test_with_decay_a_wild_event_is_no_edge_of_its_neighbours_either(time_ms):
    """On a shared item it would outweigh everybody else's clicks by powers of two; it waits, or has decayed."""
    plain, disturbed = exact_state(half_life_ms=HOUR_MS), exact_state(half_life_ms=HOUR_MS)
    feed(plain, normal(150))
    feed(disturbed, [*normal(100), interaction("wild", TRAINED[0], time_ms), *normal(50, first=100)])
    np.testing.assert_allclose(disturbed.item_embeddings(TRAINED), plain.item_embeddings(TRAINED), atol=1e-5)


def test_what_waited_becomes_an_edge_when_its_time_has_come():
    """An event ten half-lives ahead; a later removal of another that waits takes that back."""
    state = exact_state(half_life_ms=HOUR_MS)
    ahead = START_MS + 100 * HOUR_MS
    feed(state, [*normal(100), interaction("early", TRAINED[0], ahead), interaction("fickle", TRAINED[0], ahead)])
    feed(state, [interaction("fickle", TRAINED[0], ahead + 1, "removal")])
    assert not state.user_embeddings(["early", "fickle"]).any()
    restored = UpdaterState.restore(state._config, trained_base(), *state.snapshot_arrays())
    for one in (state, restored):
        feed(one, normal(400, first=100))
        assert one.user_embeddings(["early"]).any()
        assert not one.user_embeddings(["fickle"]).any()


def test_time_that_ran_ahead_and_healed_gives_decay_back():
    """A thousand wild events set time to the year 9999; when the present has healed it, its edges count as ever."""
    state, plain = exact_state(half_life_ms=HOUR_MS), exact_state(half_life_ms=HOUR_MS)
    wild = [interaction(f"wild-{number}", "wild-item", LATEST_MS - number) for number in range(100)]
    feed(state, [*normal(50), *wild, *normal(2_000, first=50)])
    feed(plain, normal(2_050))
    np.testing.assert_allclose(state.user_embeddings(USERS), plain.user_embeddings(USERS), atol=1e-5)
    assert not state.user_embeddings(["wild-1"]).any()


@pytest.mark.parametrize("half_lives", [40, 500, 10**6])
def test_silence_of_any_length_leaves_finite_embeddings(half_lives):
    """After it the new edges count, and what is older than the window has left."""
    state = exact_state(half_life_ms=1_000, user_idle_ms=0)
    later = START_MS + 1_000 * half_lives
    feed(state, [interaction(user, TRAINED[0], START_MS) for user in USERS])
    feed(state, [interaction("new", TRAINED[number % 5], later + number) for number in range(20)])
    z = state.user_embeddings([*USERS, "new"])
    assert np.isfinite(z).all()
    assert z[-1].any()
    assert z[:-1].any() == (half_lives == 40)


any_streams = st.lists(
    st.builds(
        interaction,
        st.sampled_from(USERS[:4]),
        st.sampled_from([*TRAINED, "new-1"]),
        st.integers(0, LATEST_MS) | st.integers(START_MS, START_MS + 100) | st.sampled_from([0, LATEST_MS]),
        st.sampled_from(["click", "click", "dislike", "removal"]),
        weight=st.sampled_from([LEAST_WEIGHT, 1.0, 1e6]) | st.floats(LEAST_WEIGHT, 1e6),
    ),
    max_size=60,
)
any_limits = st.sampled_from([0, 1, 7, 1_000, HOUR_MS, 10**11, LATEST_MS]) | st.integers(0, LATEST_MS)


@settings(max_examples=150, deadline=None)
@given(any_streams, any_limits, any_limits, any_limits, st.sampled_from([0.0, 0.1]), st.integers(1, 20))
def test_embeddings_are_finite_whatever_times_weights_and_limits(
    stream, window_ms, half_life_ms, user_idle_ms, epsilon, batch
):
    """Any times in any order, weights at the ends of their range, any window, half-life and idle limit."""
    limits = {"window_ms": window_ms, "half_life_ms": half_life_ms, "user_idle_ms": user_idle_ms}
    state = exact_state(**{**limits, "epsilon": epsilon})
    for begin in range(0, len(stream), batch):
        state.apply(stream[begin : begin + batch])
        state.release_idle()
        state.published.take_changes()
        assert np.isfinite(state._nodes.facts.published).all()
    assert np.isfinite(state.user_embeddings(USERS)).all()
    assert np.isfinite(state.item_embeddings([*TRAINED, "new-1"])).all()
    assert state.published.not_finite == 0


def test_of_a_large_weight_replaced_by_a_tiny_one_the_tiny_one_is_left():
    """Their difference rounds to the large one, and would leave a node with an edge and no degree."""
    state = exact_state()
    for time_ms, weight in enumerate((1e6, 1e-6)):
        state.apply([interaction("user-2", "item-0", time_ms, "click", weight=weight)])
    user, item = state._nodes.ids.users["user-2"], state._nodes.ids.items["item-0"]
    np.testing.assert_array_equal(state._nodes.graph.adjacency.degree[[user, item]], np.float32(1e-6))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 4),
            st.integers(0, 900) | st.integers(0, 90_000),
            st.sampled_from([0.5, 2.0]),
        ),
        min_size=1,
        max_size=150,
    ),
    st.integers(5, 5_000),
    st.integers(1, 20),
)
def test_embeddings_equal_the_slow_reference(rows, half_life_ms, batch):
    """Against weights decayed one by one to stream time, of the edges in the window that stream time has reached."""
    beginning = [interaction("user-5", TRAINED[0], START_MS, event_id=f"{number}") for number in range(8)]
    stream = beginning + [interaction(USERS[u], TRAINED[i], START_MS + t, weight=w) for u, i, t, w in rows]
    state = exact_state(half_life_ms=half_life_ms, history_length=1_000, user_idle_ms=0)
    feed(state, stream, batch)
    time = StreamTime(48 * half_life_ms // 8)
    time.observe(np.array([one.event_time_ms for one in stream], np.int64))
    slice_ms = max(1, 48 * half_life_ms // 256)
    oldest_ms = ((time.now_ms - 48 * half_life_ms) // slice_ms + 1) * slice_ms
    latest, newest = {}, {}
    for one in stream:
        pair = USERS.index(one.user_id), len(USERS) + TRAINED.index(one.item_id)
        newest[pair] = max(newest.get(pair, 0), one.event_time_ms)
        # Behind a pair's later interaction an earlier one makes no edge, also where the later one still waits.
        if newest[pair] == one.event_time_ms <= time.now_ms + 4 * half_life_ms:
            latest[pair] = max(latest.get(pair, (0, 0)), (one.event_time_ms, one.weight))
    edges = {
        pair: weight * 2.0 ** ((time_ms - time.now_ms) / half_life_ms)
        for pair, (time_ms, weight) in latest.items()
        if time_ms >= oldest_ms
    }
    base = np.concatenate([np.zeros((len(USERS), SIZE), np.float32), trained_base().item_vectors])
    expected = reference(edges, base, ALPHAS)
    found = np.concatenate([state.user_embeddings(USERS), state.item_embeddings(TRAINED)])
    np.testing.assert_allclose(found, expected, atol=2e-4)
