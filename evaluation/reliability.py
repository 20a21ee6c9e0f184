"""Reliability: predicted against observed click rates, over bins of equally many events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from evaluation.metrics import expected_calibration_error

BINS: Final = 15
Z_95: Final = 1.959963984540054
"""The normal distribution holds 95 % within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Events with similar predictions."""

    events: int
    clicks: int
    predicted: float
    """Mean predicted click rate."""
    observed: float
    """Share of clicks."""
    low: float
    """Lower end of the 95 % Wilson interval of the observed rate."""
    high: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far predictions agree with what happened."""

    events: int
    calibration_error: float | None
    """Mean distance between predicted and observed rate over the bins; None without events."""
    bins: tuple[ReliabilityBin, ...]
    """By rising prediction."""


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> Reliability:
    """Compare predictions with outcomes. The bins are those of `expected_calibration_error`.

    Args:
        labels: (n,) whether clicked.
        probabilities: (n,) predicted click rates.
        bins: how many; with fewer events there is one per event.
    """
    clicked, predicted = np.asarray(labels, bool), np.asarray(probabilities, np.float64)
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Reliability(
        events=len(predicted),
        calibration_error=expected_calibration_error(clicked, predicted, bins) if len(predicted) else None,
        bins=tuple(_bin(int(clicked[part].sum()), len(part), float(predicted[part].mean())) for part in parts),
    )


def wilson_interval(clicks: int, events: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a binomial rate; unlike the normal approximation it stays within [0, 1] and has
    a width at rates of 0 and 1 too. Without events anything is possible: (0, 1).
    """
    if not events:
        return 0.0, 1.0
    rate = clicks / events
    centre = (rate + z * z / (2 * events)) / (1 + z * z / events)
    half = z / (1 + z * z / events) * math.sqrt(rate * (1 - rate) / events + z * z / (4 * events * events))
    # Rounding must not put the interval's end on the wrong side of the rate.
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def _bin(clicks: int, events: int, predicted: float) -> ReliabilityBin:
    low, high = wilson_interval(clicks, events)
    return ReliabilityBin(events, clicks, predicted, clicks / events, low, high)
