"""One deadline per request, made once at intake and passed down. No step has a time-out of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.clock import Clock

Skew = Literal["none", "future", "past"]
"""Whether the created time was out of bounds: ahead of our clock, or older than `max_age_ms`."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment by which a request must be answered.

    The wall clock is looked at once, at intake; from then on only monotonic time counts, so that a jump of the
    machine's clock moves no deadline.

    Attributes:
        at: monotonic seconds of the moment itself.
        intake: monotonic seconds at intake.
        wall_ms: the deadline as Unix milliseconds, for records and logs.
        transit_ms: time from the created time until intake, bounded where the clocks disagree; never negative.
        skew: whether and how the created time was bounded; the caller counts it.
    """

    at: float
    intake: float
    wall_ms: int
    transit_ms: float
    skew: Skew

    @classmethod
    def at_intake(
        cls,
        *,
        created_time_ms: int,
        budget_ms: float,
        clock: Clock,
        max_clock_skew_ms: float = 1_000.0,
        max_age_ms: float = 86_400_000.0,
    ) -> Deadline:
        """The deadline of a request that arrived now.

        A created time up to `max_clock_skew_ms` ahead of our clock is taken as now (transit 0) without remark: clocks
        of two machines differ. Further ahead it is also taken as now, and reported as `future`: a wrong clock must not
        extend the budget. Older than `max_age_ms` it is taken as that old and reported as `past`: it is late in any
        case, and a transit time of decades would distort the metrics.

        Args:
            created_time_ms: when the request was made, Unix milliseconds of another machine's clock.
            budget_ms: how long the answer may take, counted from there.
            clock: this machine's.
            max_clock_skew_ms: how far ahead another machine's clock may be.
            max_age_ms: the greatest age that is believed.
        """
        now, wall_ms = clock.monotonic(), clock.wall_ms()
        transit_ms, skew = _bounded_transit(wall_ms - created_time_ms, max_clock_skew_ms, max_age_ms)
        left_ms = budget_ms - transit_ms
        return cls(
            at=now + left_ms / 1000,
            intake=now,
            wall_ms=max(0, round(wall_ms + left_ms)),
            transit_ms=transit_ms,
            skew=skew,
        )

    @property
    def late_at_intake(self) -> bool:
        """Whether it had passed before the request was first seen here."""
        return self.intake >= self.at


def _bounded_transit(transit_ms: float, max_clock_skew_ms: float, max_age_ms: float) -> tuple[float, Skew]:
    if transit_ms < -max_clock_skew_ms:
        return 0.0, "future"
    if transit_ms > max_age_ms:
        return max_age_ms, "past"
    return max(0.0, transit_ms), "none"
