"""Time as a parameter: wall time for what machines tell each other, monotonic time for durations."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds. May jump."""

    def monotonic(self) -> float:
        """Seconds since some moment. Never goes back."""


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds. May jump."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since some moment. Never goes back."""
        return time.perf_counter()


class ManualClock:
    """A clock that moves only when told to: for tests and simulations.

    Args:
        wall_ms: the Unix time it starts at, in milliseconds.
    """

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = float(wall_ms)
        self._monotonic = 0.0

    def wall_ms(self) -> int:
        """Unix time in milliseconds."""
        return int(self._wall_ms)

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward.

        Raises:
            ValueError: on negative seconds; `jump_wall` is for disagreeing clocks.
        """
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self._monotonic += seconds
        self._wall_ms += seconds * 1000

    def jump_wall(self, milliseconds: float) -> None:
        """Moves only the wall clock, in either direction, as a correction of the machine's time does."""
        self._wall_ms += milliseconds
