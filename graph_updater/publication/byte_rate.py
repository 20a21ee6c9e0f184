"""Keeps what is published within a number of bytes a second."""

from __future__ import annotations

from typing import Final

from runtime.clock import Clock

_PART_S: Final = 1.0
"""A part holds at most what may be published in so long, so that the newest changes do not wait behind it."""
_LEAST_PART: Final = 100


class ByteRate:
    """How long to wait after what has been published, and how many records to publish at once.

    Args:
        bytes_per_s: most bytes a second on average; 0 for no limit.
        clock: the time.
    """

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at_s = clock.monotonic()
        self._record_bytes = 0.0

    def note(self, records: int, size: int) -> None:
        """So many records of so many bytes in all have been published."""
        if self._bytes_per_s and records:
            self._free_at_s = max(self._free_at_s, self._clock.monotonic()) + size / self._bytes_per_s
            self._record_bytes = size / records

    def wait_s(self) -> float:
        """Seconds until more may be published."""
        return max(0.0, self._free_at_s - self._clock.monotonic())

    def part(self, most: int) -> int:
        """How many records may be published at once, `most` at most; by the size of the last ones."""
        if not self._bytes_per_s or not self._record_bytes:
            return most
        return max(min(most, _LEAST_PART), min(most, int(_PART_S * self._bytes_per_s / self._record_bytes)))
