"""Bytes a second, on a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graph_updater.publication.byte_rate import ByteRate
from runtime.clock import ManualClock


@given(st.lists(st.tuples(st.integers(1, 20_000_000), st.floats(0, 30)), min_size=1))
def test_what_is_published_stays_within_the_rate(parts):
    """Whoever waits as told publishes no more than the rate allows, but for the last part."""
    clock = ManualClock(0)
    rate = ByteRate(1_000_000, clock)
    began_s, sent = clock.monotonic(), 0
    for size, idle_s in parts:
        clock.advance(rate.wait_s())
        assert sent <= 1_000_000 * (clock.monotonic() - began_s) + 1
        rate.note(size)
        sent += size
        clock.advance(idle_s)


def test_without_a_limit_nothing_waits():
    """However much is published."""
    rate = ByteRate(0, ManualClock(0))
    rate.note(10**12)

    assert rate.wait_s() == 0.0
