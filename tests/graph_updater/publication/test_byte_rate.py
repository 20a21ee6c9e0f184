"""Bytes a second, on a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graph_updater.publication.byte_rate import ByteRate
from runtime.clock import ManualClock


@given(st.lists(st.tuples(st.integers(1, 5_000), st.integers(1, 20_000_000), st.floats(0, 30)), min_size=1))
def test_what_is_published_stays_within_the_rate(parts):
    """Whoever waits as told publishes no more than the rate allows, but for the last part."""
    clock = ManualClock(0)
    rate = ByteRate(1_000_000, clock)
    began_s, sent = clock.monotonic(), 0
    for records, size, idle_s in parts:
        clock.advance(rate.wait_s())
        assert sent <= 1_000_000 * (clock.monotonic() - began_s) + 1
        rate.note(records, size)
        sent += size
        clock.advance(idle_s)


def test_a_part_holds_what_a_second_allows():
    """By the size of the records before; and enough to get anywhere."""
    rate = ByteRate(1_000_000, ManualClock(0))
    assert rate.part(5_000) == 5_000
    rate.note(1_000, 4_000_000)
    assert rate.part(5_000) == 250
    rate.note(10, 10_000_000)
    assert (rate.part(5_000), rate.part(7)) == (100, 7)


def test_without_a_limit_nothing_waits():
    """However much is published."""
    rate = ByteRate(0, ManualClock(0))
    rate.note(5_000, 10**12)

    assert (rate.wait_s(), rate.part(5_000)) == (0.0, 5_000)
