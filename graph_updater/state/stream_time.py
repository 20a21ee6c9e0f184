"""Stream time: how far the events have come. It decides what has left the window, and it comes from the events alone.

It is the 8th latest of the last 64 event times, so that up to seven wrong ones among them do not move it; of fewer than
eight events it is the earliest. It does not go back when events are merely late. Should it have run ahead after all (a
whole burst of wrong times), it heals: once 1,024 events in a row leave it without its witnesses, it is set anew.

The clock is not used, and every event is looked at by itself: a log that is read again, however it is cut into batches,
gives the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNKNOWN_MS: Final = -1
"""The time before the first event."""
_SPAN: Final = 64
_WITNESSES: Final = 8
_HEAL_AFTER: Final = 1024
"""More than the records of one poll: a backlog read partition by partition must not set the time back and forth."""
_NOW, _SEEN, _BEHIND = 0, 1, 2
_COUNTERS: Final = 3
_END_MS: Final = 2**53


class StreamTime:
    """The time that the events have reached.

    Args:
        patience_ms: lateness that says nothing about the time; 0 for any lateness.
    """

    def __init__(self, patience_ms: int) -> None:
        self._patience_ms = patience_ms or np.iinfo(np.int64).max // 2
        self._recent = np.full(_SPAN, UNKNOWN_MS, np.int64)
        self._counters = np.array([UNKNOWN_MS, 0, 0], np.int64)

    @property
    def now_ms(self) -> int:
        """Stream time in Unix milliseconds, or UNKNOWN_MS."""
        return int(self._counters[_NOW])

    def observe(self, times: NDArray[np.int64]) -> None:
        """Takes in event times, in order of arrival; times: (events,)."""
        _observe(self._recent, self._counters, times, self._patience_ms)

    def to_list(self) -> list[int]:
        """All of it, for a snapshot."""
        return [*self._counters.tolist(), *self._recent.tolist()]

    def restore(self, saved: Sequence[int]) -> None:
        """Takes over what `to_list` returned."""
        self._counters[:] = saved[: self._counters.size]
        self._recent[:] = saved[self._counters.size :]


def is_stream_time(saved: Sequence[int]) -> bool:
    """Whether `to_list` may have returned this; nothing at all is the time of earlier releases' snapshots."""
    if not saved:
        return True
    if len(saved) != _COUNTERS + _SPAN:
        return False
    now, seen, behind, *recent = saved
    in_range = all(UNKNOWN_MS <= time < _END_MS for time in (now, *recent))
    return in_range and 0 <= seen < _END_MS and 0 <= behind < _HEAL_AFTER


@njit(cache=True, nogil=True)
def _observe(
    recent: NDArray[np.int64], counters: NDArray[np.int64], times: NDArray[np.int64], patience_ms: int
) -> None:
    for time in times:
        recent[counters[_SEEN] % _SPAN] = time
        counters[_SEEN] += 1
        now = counters[_NOW]
        if counters[_SEEN] <= _WITNESSES:
            counters[_NOW] = time if now == UNKNOWN_MS else min(now, time)
        elif time > now:
            counters[_NOW] = _witnessed(recent, now)
        if time < now - patience_ms or counters[_BEHIND] > 0:
            _look_back(recent, counters, patience_ms)


@njit(cache=True, nogil=True)
def _witnessed(recent: NDArray[np.int64], now: int) -> int:
    """The earliest of the times after `now` if they are enough, else `now`."""
    later, earliest = 0, np.iinfo(np.int64).max
    for time in recent:
        if time > now:
            later += 1
            earliest = min(earliest, time)
    return earliest if later >= _WITNESSES else now


@njit(cache=True, nogil=True)
def _look_back(recent: NDArray[np.int64], counters: NDArray[np.int64], patience_ms: int) -> None:
    """Counts events during which too few of the recent ones come near the time, and sets it anew after many."""
    witnesses = 0
    for time in recent:
        witnesses += time >= counters[_NOW] - patience_ms
    counters[_BEHIND] = counters[_BEHIND] + 1 if witnesses < _WITNESSES else 0
    if counters[_BEHIND] >= _HEAL_AFTER:
        counters[_NOW] = np.sort(recent)[-_WITNESSES]
        counters[_BEHIND] = 0
