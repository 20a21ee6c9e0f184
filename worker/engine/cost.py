"""How long a stage takes for so many tokens: measured in warm-up, kept current by every stage that runs.

Per stage a curve through the measured points, straight between them and proportional beyond, times a drift: an
exponential average of measured over predicted. A slower machine (a noisy neighbour, heat) moves the drift alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

DRIFT_WEIGHT: Final = 0.1
"""Share of one measurement in the new average: half forgotten after about seven stages."""
LARGEST_SURPRISE: Final = 4.0
"""One measurement counts as at most so many times slower or faster than predicted: a paused process is no trend."""


class CostTable:
    """Predicted seconds by stage and tokens.

    Args:
        token_counts: (points,) ascending sizes that were measured.
        seconds: (stages, points) measured seconds.

    Raises:
        ValueError: shapes do not match, sizes do not ascend, or a time is not positive.
    """

    def __init__(self, token_counts: Sequence[int], seconds: NDArray[np.float64]) -> None:
        self._tokens = np.asarray(token_counts, np.float64)
        # Noise can make a larger batch look cheaper; a prediction must not.
        self._seconds = np.maximum.accumulate(np.asarray(seconds, np.float64), axis=1)
        if self._seconds.ndim != 2 or self._seconds.shape[1] != len(self._tokens) or len(self._tokens) == 0:
            raise ValueError(f"{len(self._tokens)} sizes but times of shape {self._seconds.shape}")
        if (np.diff(self._tokens, prepend=0.0) <= 0).any() or not (self._seconds > 0).all():
            raise ValueError("sizes must ascend and times must be positive")
        self._drift = np.ones(len(self._seconds))

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self._seconds)

    def seconds(self, stage: int, tokens: int) -> float:
        """Predicted seconds of one run of a stage over so many tokens."""
        return float(self._curve(stage, np.float64(tokens)) * self._drift[stage])

    def seconds_to_end(self, depth: int, tokens: int) -> float:
        """Predicted seconds of all stages from a depth on, no candidate leaving."""
        return sum(self.seconds(stage, tokens) for stage in range(depth, self.stages))

    def tokens_per_second(self, stage: int) -> float:
        """Throughput of a stage at the largest size measured."""
        return float(self._tokens[-1] / (self._seconds[stage, -1] * self._drift[stage]))

    def observe(self, stage: int, tokens: int, seconds: float) -> None:
        """Learn from one run of a stage."""
        surprise = seconds / max(self.seconds(stage, tokens), 1e-9)
        surprise = min(max(surprise, 1 / LARGEST_SURPRISE), LARGEST_SURPRISE)
        # In logarithms twice as slow and twice as fast weigh the same.
        self._drift[stage] *= surprise**DRIFT_WEIGHT

    def _curve(self, stage: int, tokens: np.float64) -> float:
        points = self._seconds[stage]
        if tokens > self._tokens[-1]:
            return float(points[-1] * tokens / self._tokens[-1])
        return float(np.interp(tokens, self._tokens, points))
