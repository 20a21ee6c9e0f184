"""How long before its deadline a request must be scored so that its scores can be read in time."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

_WINDOW: Final = 512
"""Deliveries that are remembered: under load, when it matters, the last seconds."""
_LEARN_EVERY: Final = 32
_QUANTILE: Final = 0.99


class DeliveryMargin:
    """What readers need, plus what writing takes: the 99th percentile of recent deliveries.

    Written by the event loop, read by the compute thread.

    Args:
        reading_s: from the broker's acknowledgement until a reader has the scores.
        writing_s: what writing is assumed to take until enough deliveries have been observed.
        most_s: upper bound of the margin: when the broker is slower, giving up more depth gains nothing.
    """

    def __init__(self, reading_s: float, writing_s: float, most_s: float) -> None:
        self._reading_s = reading_s
        self._most_s = max(reading_s, most_s)
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._observed = 0
        self.seconds = min(reading_s + writing_s, self._most_s)

    def observe(self, seconds: float) -> None:
        """Learns from one delivery: the seconds from the score until the broker had acknowledged it."""
        self._recent.append(seconds)
        self._observed += 1
        if self._observed % _LEARN_EVERY == 0:
            writing_s = float(np.quantile(np.fromiter(self._recent, np.float64), _QUANTILE))
            self.seconds = min(self._reading_s + writing_s, self._most_s)
