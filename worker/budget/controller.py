"""The exit threshold that the latency budget can afford.

A request waits for the work ahead of it (earliest deadline first) and then for its own. Some of that work is done at
any threshold (`fixed`: preparing, the next head), the rest (`work`, in seconds at full depth) only as far as candidates
go. With `slack` seconds until its deadline, a request is in time if candidates execute no more of their token-layers
than

    share = (slack - fixed) / (work + reserve)

The smallest such share over all requests is what can be afforded; the calibrated frontier says which exit threshold
costs that much. The reserve, a part of the request's own budget, keeps answers clear of the deadline when there is
time, and keeps a request that is nearly due from moving the threshold by itself.

Plain numbers: no torch, no Kafka, no clock of its own, so that a simulated clock can test it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.calibration import FrontierPoint
from runtime.settings import SettingsSection


class ControllerSettings(SettingsSection):
    """The exit threshold under load, `[worker.controller]`. It drops at once and rises slowly."""

    base_threshold: float | None = Field(None, ge=0, le=1, description="threshold without load; None: as calibrated")
    floor_threshold: float | None = Field(
        None, ge=0, le=1, description="lowest threshold; None: as calibrated, but never above base_threshold"
    )
    deadline_reserve: float = Field(
        0.4, ge=0, le=1, description="share of a request's budget that its answer should stay clear of the deadline by"
    )
    rise_time_s: float = Field(0.3, gt=0, description="time constant of the way back to base_threshold")
    band: float = Field(0.04, ge=0, le=0.5, description="dead band of the affordable share, before the threshold rises")


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What one request, or a part of it, still asks for."""

    deadline_s: float
    """Monotonic seconds."""
    budget_s: float
    work_s: float
    """Predicted seconds of computing between its next head and full depth."""
    fixed_s: float = 0.0
    """Predicted seconds until its next head, preparation included: no threshold saves these."""


class Threshold(Protocol):
    """What the engine asks at every step."""

    @property
    def threshold(self) -> float:
        """The threshold in force."""

    @property
    def floor_share(self) -> float:
        """The share of token-layers executed at the lowest threshold."""

    def update(self, now_s: float, demands: Sequence[Demand]) -> float:
        """The threshold for what is waiting and in progress now."""


class FixedThreshold:
    """The same threshold whatever the load: for benchmarks and evaluation.

    Args:
        threshold: it; above 1 no candidate leaves before the final head.
    """

    floor_share = 1.0

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def update(self, now_s: float, demands: Sequence[Demand]) -> float:  # noqa: ARG002 - see `Threshold`
        """See `Threshold`."""
        return self.threshold


class ThresholdController:
    """Chooses the exit threshold: `base` while every deadline can be met with it, else as much lower as is needed.

    More demand never gives a higher threshold, nor does the same demand at a later time (slack only shrinks); at a
    constant load it settles.

    Args:
        base: the threshold without load.
        floor: the lowest threshold.
        frontier: what each threshold costs, by rising threshold.
        settings: how it follows.
    """

    def __init__(
        self,
        base: float,
        floor: float,
        frontier: Sequence[FrontierPoint],
        settings: ControllerSettings | None = None,
    ) -> None:
        self._settings = settings or ControllerSettings()
        self._thresholds, self._shares = _frontier_between(floor, base, frontier)
        self._highest_share = self._shares[-1] * (1 + self._settings.band) + self._settings.band
        self._share = self._highest_share
        self._updated_s = -math.inf

    @property
    def threshold(self) -> float:
        """The threshold in force."""
        return float(np.interp(self._share, self._shares, self._thresholds))

    @property
    def floor_share(self) -> float:
        """The share of token-layers executed at the lowest threshold."""
        return float(self._shares[0])

    def update(self, now_s: float, demands: Sequence[Demand]) -> float:
        """The threshold for what is waiting and in progress now."""
        affordable = min(affordable_share(now_s, demands, self._settings.deadline_reserve), self._highest_share)
        passed_s = max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        # One-sided hysteresis: drop at once; rise slowly, and only towards the lower edge of the dead band. Both steps
        # are monotone in what is affordable and in where the share stood.
        step = 1 - math.exp(-passed_s / self._settings.rise_time_s)
        rising = self._share + step * (affordable - self._settings.band - self._share)
        self._share = min(affordable, max(self._share, rising))
        return self.threshold


def affordable_share(now_s: float, demands: Sequence[Demand], deadline_reserve: float) -> float:
    """The largest share of token-layers with which every demand whose deadline lies ahead can be met; may exceed 1.

    A demand past its deadline does not count: no threshold can save it.
    """
    if not demands:
        return math.inf
    numbers = np.array([(each.deadline_s, each.budget_s, each.work_s, each.fixed_s) for each in demands])
    deadline_s, budget_s, work_s, fixed_s = numbers[np.argsort(numbers[:, 0], kind="stable")].T  # (demands,) each
    slack = deadline_s - now_s
    ahead = slack > 0
    if not ahead.any():
        return math.inf
    left = np.maximum(slack - np.cumsum(fixed_s), 0.0)
    needed = np.cumsum(work_s) + deadline_reserve * budget_s
    return float((left[ahead] / np.maximum(needed[ahead], 1e-9)).min())


def _frontier_between(
    floor: float, base: float, frontier: Sequence[FrontierPoint]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds from floor to base and what they cost, neither ever falling; of equal cost the highest threshold last.

    A frontier with fewer than two points tells nothing; then half the token-layers at the floor are assumed.
    """
    if len(frontier) < 2:
        return np.array([floor, base]), np.array([0.5, 1.0])
    thresholds = np.array([point.threshold for point in frontier])
    shares = np.maximum.accumulate([point.token_layer_share for point in frontier])
    inner = (thresholds > floor) & (thresholds < base)
    ends = np.interp([floor, base], thresholds, shares)
    return (
        np.concatenate(([floor], thresholds[inner], [base])),
        np.concatenate((ends[:1], shares[inner], ends[1:])),
    )
