"""How far the events have come, and that no few of them decide it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_updater.state.stream_time import UNKNOWN_MS, StreamTime

LATEST_MS = 253_402_300_799_999
times = st.integers(0, LATEST_MS)


def reached(events, patience_ms=1_000, cuts=()):
    """Stream time after these events, observed in parts that end at the cuts."""
    time = StreamTime(patience_ms)
    for part in np.split(np.array(events, np.int64), sorted(cuts)):
        time.observe(part)
    return time


def test_it_is_unknown_before_the_first_event():
    """And of fewer than eight it is the earliest, as every other may be wrong."""
    assert reached([]).now_ms == UNKNOWN_MS
    assert reached([7]).now_ms == 7
    assert reached([7, 5, LATEST_MS]).now_ms == 5


def test_it_is_the_eighth_latest_of_the_last_64():
    """Seven later ones are not enough, an eighth is."""
    assert reached([*range(100), *[1_000] * 7]).now_ms == 99
    assert reached([*range(100), *[1_000] * 7, 2_000]).now_ms == 1_000


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 500), st.lists(times, min_size=1, max_size=7))
def test_up_to_seven_wild_events_do_not_move_it(data, place, wild):
    """Whatever their times and wherever they stand, it moves by a few normal events; 64 events later by none."""
    normal = [1_000 * number for number in range(700)]
    disturbed = [*normal[:place], *data.draw(st.permutations(wild)), *normal[place:]]
    plain, other = StreamTime(100_000), StreamTime(100_000)
    plain.observe(np.array(normal[: place + 30], np.int64))
    other.observe(np.array(disturbed[: place + len(wild) + 30], np.int64))
    assert abs(other.now_ms - plain.now_ms) <= 1_000 * 8
    assert reached(disturbed).now_ms == reached(normal).now_ms


def test_it_does_not_go_back_for_late_events():
    """A partition that is read later says nothing about the others."""
    assert reached([*range(5_000, 5_100), *range(900)]).now_ms == 5_092


def test_it_heals_after_a_burst_of_wild_events():
    """Once more events than one poll reads have left it alone, it is theirs again."""
    ahead = [*range(1_000), *[LATEST_MS] * 100]
    assert reached(ahead).now_ms == LATEST_MS
    assert reached([*ahead, *range(1_000, 2_000)]).now_ms == LATEST_MS
    assert reached([*ahead, *range(1_000, 3_000)]).now_ms == 2_992


def test_it_heals_although_wild_events_go_on():
    """One device whose clock is wrong sends every tenth event: too few to hold the time."""
    normal = list(range(1_000, 4_000))
    mixed = [time if number % 10 else LATEST_MS for number, time in enumerate(normal)]
    assert reached([*[LATEST_MS] * 100, *mixed]).now_ms < 4_000


@settings(max_examples=100, deadline=None)
@given(st.lists(times | st.integers(0, 3_000), max_size=200), st.lists(st.integers(0, 200), max_size=9), st.data())
def test_it_does_not_depend_on_how_the_events_are_cut(events, cuts, data):
    """Batches are accidents of reading. A snapshot between them changes nothing either."""
    once = reached(events)
    assert reached(events, cuts=cuts).to_list() == once.to_list()
    border = data.draw(st.integers(0, len(events)))
    restored = StreamTime(1_000)
    restored.restore(reached(events[:border]).to_list())
    restored.observe(np.array(events[border:], np.int64))
    assert restored.to_list() == once.to_list()
