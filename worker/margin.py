"""How long before its deadline a request must be scored so that its scores can be read in time: learned from what
handing over, writing and acknowledging took lately.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

_WINDOW: Final = 512
"""Deliveries that are remembered: seconds of them under load, when it matters."""
_LEARN_EVERY: Final = 32
_QUANTILE: Final = 0.99


class DeliveryMargin:
    """A high quantile of recent deliveries' times, within bounds.

    Written by the event loop, read by the compute thread.

    Args:
        least_s: what it begins with and never falls below.
        most_s: never more, however slow the broker is: beyond, giving up depth buys nothing.
    """

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s = least_s
        self._most_s = max(least_s, most_s)
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._observed = 0
        self.seconds = least_s

    def observe(self, seconds: float) -> None:
        """Takes one delivery into account: from its score until the broker had acknowledged it."""
        self._recent.append(seconds)
        self._observed += 1
        if self._observed % _LEARN_EVERY == 0:
            usual_s = float(np.quantile(np.fromiter(self._recent, np.float64), _QUANTILE))
            self.seconds = min(max(usual_s, self._least_s), self._most_s)
