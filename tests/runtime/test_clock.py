"""Clocks."""

from __future__ import annotations

import pytest

from runtime.clock import ManualClock, SystemClock


def test_the_system_clock_never_goes_back():
    """Monotonic time only grows, and wall time is Unix milliseconds."""
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert clock.wall_ms() > 1_700_000_000_000


def test_a_manual_clock_moves_only_when_told():
    """Advancing moves both times; a jump moves only the wall's."""
    clock = ManualClock(wall_ms=1_000)
    clock.advance(0.5)
    clock.jump_wall(-200)
    assert (clock.wall_ms(), clock.monotonic()) == (1_300, 0.5)


def test_a_manual_clock_refuses_to_go_back():
    """Monotonic time cannot be turned back."""
    with pytest.raises(ValueError, match="go back"):
        ManualClock().advance(-1)
