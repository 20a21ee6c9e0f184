"""What fresh state is worth: the same events scored with state that is refreshed more or less often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

HOUR_MS: Final = 3_600_000
INTERVALS: Final[tuple[tuple[str, int | None], ...]] = (
    ("frozen at the split", None),
    ("every 24 h", 24 * HOUR_MS),
    ("every hour", HOUR_MS),
    ("every minute", 60_000),
)
PER_EVENT: Final = "per event"


@dataclass(frozen=True, slots=True)
class FreshnessPoint:
    """Quality with embeddings, counts and histories refreshed at one interval."""

    refreshed: str
    interval_ms: int | None
    """Of event time; None: never, 0: after every event."""
    auc: float
    log_loss: float


def refresh_ticks(times_ms: Sequence[int], interval_ms: int | None, start_ms: int) -> Iterator[slice]:
    """Events in order of time, cut where the state is refreshed: a slice's events see nothing of one another.

    Args:
        times_ms: event times, rising.
        interval_ms: refreshes are at start, start + interval, …; None: none after the start.
        start_ms: when the state was last refreshed before these events.
    """
    begin = 0
    for place in range(1, len(times_ms) + 1):
        ended = place == len(times_ms)
        if ended or _window(times_ms[place], interval_ms, start_ms) != _window(times_ms[begin], interval_ms, start_ms):
            yield slice(begin, place)
            begin = place


def _window(time_ms: int, interval_ms: int | None, start_ms: int) -> int:
    return 0 if interval_ms is None else (time_ms - start_ms) // interval_ms
