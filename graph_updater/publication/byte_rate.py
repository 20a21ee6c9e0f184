"""Keeps what is published within a number of bytes a second, on average."""

from __future__ import annotations

from runtime.clock import Clock


class ByteRate:
    """How long to wait after what has been published.

    All that has changed is published at once, as ever, and then nothing for as long as the rate asks: what changes
    meanwhile gathers in the state, many changes of one id as one.

    Args:
        bytes_per_s: most bytes a second on average; 0 for no limit.
        clock: the time.
    """

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at_s = clock.monotonic()

    def note(self, size: int) -> None:
        """So many bytes have been published."""
        if self._bytes_per_s:
            self._free_at_s = max(self._free_at_s, self._clock.monotonic()) + size / self._bytes_per_s

    def wait_s(self) -> float:
        """Seconds until more may be published."""
        return max(0.0, self._free_at_s - self._clock.monotonic())
