"""When to try again what has failed, in pauses that grow. Pure: the clock is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0


class Retries:
    """One activity that may fail again and again. Attempts are counted by whoever makes them.

        if retries.is_due:
            try:
                ...
            except Exception:
                retries.failed()
            else:
                retries.succeeded()

    Args:
        clock: monotonic seconds.

    Attributes:
        failures: since the start.
        pause_s: until the next attempt, as of the last failure; 0 after a success.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due_s = float("-inf")
        self._failing_since_s: float | None = None
        self.failures = 0
        self.pause_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether an attempt may be made now."""
        return self._clock() >= self._due_s

    @property
    def failing_for_s(self) -> float:
        """Seconds since the first failure after the last success; 0 if there was none."""
        since_s = self._failing_since_s
        return 0.0 if since_s is None else self._clock() - since_s

    def failed(self) -> None:
        """Notes a failed attempt; the next is due after twice the last pause."""
        now_s = self._clock()
        self.failures += 1
        self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S) or FIRST_PAUSE_S
        self._due_s = now_s + self.pause_s
        if self._failing_since_s is None:
            self._failing_since_s = now_s

    def succeeded(self) -> None:
        """Notes a success: the next attempt is due at once, and its failure would be the first again."""
        self.pause_s = 0.0
        self._due_s = float("-inf")
        self._failing_since_s = None
