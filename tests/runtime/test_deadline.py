"""Deadlines: made once, monotonic after, sceptical of other machines' clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import ManualClock
from runtime.deadline import Deadline

NOW_MS = 1_700_000_000_000


def deadline(clock, *, age_ms, budget_ms=200.0, **bounds):
    """The deadline of a request made `age_ms` ago."""
    return Deadline.at_intake(created_time_ms=NOW_MS - age_ms, budget_ms=budget_ms, clock=clock, **bounds)


def test_the_budget_counts_from_the_created_time():
    """Time spent on the way here is part of the budget."""
    clock = ManualClock(NOW_MS)
    made = deadline(clock, age_ms=50)
    assert made.at - clock.monotonic() == pytest.approx(0.15)
    assert (made.transit_ms, made.skew, made.wall_ms) == (50, "none", NOW_MS + 150)


def test_a_jump_of_the_wall_clock_moves_no_deadline():
    """After intake only monotonic time counts."""
    clock = ManualClock(NOW_MS)
    made = deadline(clock, age_ms=0)
    clock.jump_wall(3_600_000)
    assert made.at - clock.monotonic() == pytest.approx(0.2)
    clock.advance(0.15)
    assert made.at - clock.monotonic() == pytest.approx(0.05)


def test_a_request_that_was_late_before_it_came_says_so():
    """A deadline that passes after intake was not late at intake."""
    clock = ManualClock(NOW_MS)
    late, timely = deadline(clock, age_ms=500), deadline(clock, age_ms=0)
    clock.advance(1)
    assert late.late_at_intake
    assert timely.at < clock.monotonic()
    assert not timely.late_at_intake


@pytest.mark.parametrize(
    ("age_ms", "transit_ms", "skew"),
    [(-900, 0, "none"), (-1_500, 0, "future"), (9_000, 9_000, "none"), (50_000, 10_000, "past")],
)
def test_clocks_that_disagree_are_bounded_and_reported(age_ms, transit_ms, skew):
    """A future created time does not extend the budget, one in the far past is bounded, and both are reported."""
    made = deadline(ManualClock(NOW_MS), age_ms=age_ms, max_clock_skew_ms=1_000, max_age_ms=10_000)
    assert (made.transit_ms, made.skew) == (transit_ms, skew)
    assert made.at - made.intake == pytest.approx((200 - transit_ms) / 1000)


@given(created=st.integers(0, 253_402_300_799_999), budget=st.integers(0, 3_600_000))
def test_no_created_time_gives_more_than_the_budget(created, budget):
    """Whatever the other machine's clock says, time left at intake is never more than the budget."""
    made = Deadline.at_intake(created_time_ms=created, budget_ms=budget, clock=ManualClock(NOW_MS))
    assert made.at - made.intake <= budget / 1000 + 1e-9
    assert made.wall_ms >= 0
