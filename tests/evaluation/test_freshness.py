"""Refreshes cut the events where a clock of event time says."""

from hypothesis import given
from hypothesis import strategies as st

from evaluation.freshness import INTERVALS, refresh_ticks

times = st.lists(st.integers(0, 500), max_size=40).map(sorted)


@given(times, st.integers(1, 100))
def test_two_events_share_a_state_exactly_if_no_refresh_lies_between_them(times_ms, interval_ms):
    """A refresh at a time is seen by the events of that time and later; every event is in one tick, in order."""
    ticks = list(refresh_ticks(times_ms, interval_ms, 0))

    assert [time for tick in ticks for time in times_ms[tick]] == times_ms
    tick_of = [number for number, tick in enumerate(ticks) for _ in times_ms[tick]]
    refreshes = range(interval_ms, 600, interval_ms)
    for place in range(1, len(times_ms)):
        between = any(times_ms[place - 1] < refresh <= times_ms[place] for refresh in refreshes)
        assert (tick_of[place - 1] != tick_of[place]) == between


@given(times, st.integers(0, 50))
def test_refreshes_are_counted_from_the_start(times_ms, start_ms):
    """Moving all times and the start together changes nothing."""
    moved = [time + start_ms for time in times_ms]
    assert list(refresh_ticks(moved, 7, start_ms)) == list(refresh_ticks(times_ms, 7, 0))


@given(times)
def test_frozen_state_is_never_refreshed(times_ms):
    """All events are one tick."""
    assert [times_ms[tick] for tick in refresh_ticks(times_ms, None, 0)] == ([times_ms] if times_ms else [])


def test_intervals_go_from_stale_to_fresh():
    """First never, then ever more often."""
    lengths = [interval for _, interval in INTERVALS]
    assert lengths[0] is None
    assert lengths[1:] == sorted(lengths[1:], reverse=True)
