"""What the latency budget buys: how deep candidates may go, and which requests cannot be answered by a head in time.

Pure numbers: no torch, no Kafka, no clock of its own, so that a simulated clock can test it.

A request waits for the work ahead of it (earliest deadline first) and then for its own. Some of that work is done at
any threshold (`fixed`: preparing, the next head), the rest (`work`, in seconds at full depth) only as far as candidates
go. With `slack` the seconds until its deadline, it is in time if candidates execute no more of their token-layers than

    share = (slack - fixed) / (work + headroom)

The smallest such share over all that waits is what can be afforded; the calibrated frontier says which exit threshold
costs that much. `headroom`, a part of the request's own budget, keeps answers clear of the deadline when there is time,
and keeps a request that is nearly due from swinging the threshold by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.calibration import FrontierPoint


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """How the threshold follows what can be afforded. It falls at once and rises slowly, so that it does not swing."""

    headroom: float = 0.4
    """Share of a request's budget that its answer should stay clear of the deadline by."""
    rise_time_s: float = 0.3
    """Time constant of the way back to base."""
    band: float = 0.04
    """The affordable share may move by so much before the threshold rises."""


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What one request, or a part of it, still asks for."""

    deadline_s: float
    """Monotonic seconds."""
    budget_s: float
    work_s: float
    """Predicted seconds of computing between its next head and full depth."""
    fixed_s: float = 0.0
    """Predicted seconds until its next head, preparation included: no threshold saves these."""


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
        self._thresholds, self._shares = _between(base, floor, frontier)
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
        """The threshold for what is waiting and under way now."""
        affordable = min(affordable_share(now_s, demands, self._settings.headroom), self._highest_share)
        passed_s = max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        # Play with a band of one side: down at once, up towards the lower edge of the band, in between not at all.
        # Both steps are monotone in what is affordable and in where the share stood.
        step = 1 - math.exp(-passed_s / self._settings.rise_time_s)
        rising = self._share + step * (affordable - self._settings.band - self._share)
        self._share = min(affordable, max(self._share, rising))
        return self.threshold


def affordable_share(now_s: float, demands: Sequence[Demand], headroom: float) -> float:
    """The largest share of token-layers with which every demand whose deadline lies ahead can be met; may exceed 1.

    What is past its deadline is passed over: no threshold can save it.
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
    needed = np.cumsum(work_s) + headroom * budget_s
    return float((left[ahead] / np.maximum(needed[ahead], 1e-9)).min())


class Candidature(msgspec.Struct, frozen=True, gc=False):
    """What admission has to know of a request, or a part of it, that waits."""

    deadline_s: float
    first_head_s: float
    """Predicted seconds from its start until the first head has answered."""
    least_work_s: float
    """Predicted seconds that it keeps the engine busy at the lowest threshold."""
    may_wait: bool = False
    """Its sender would rather have it late than answered by the graph."""


def admissible(now_s: float, busy_s: float, candidatures: Sequence[Candidature], margin_s: float) -> NDArray[np.bool_]:
    """Which of those that wait can still reach the first head in time, served in the given order.

    Args:
        now_s: monotonic seconds.
        busy_s: seconds until the engine is through with what it has.
        candidatures: in the order in which they would be served.
        margin_s: how long before the deadline the first head must have answered.

    Returns:
        (candidatures,) whether to keep it; the others are to be answered from the graph.
    """
    kept = np.zeros(len(candidatures), np.bool_)
    free_at_s = now_s + busy_s
    for place, candidature in enumerate(candidatures):
        in_time = free_at_s + candidature.first_head_s + margin_s <= candidature.deadline_s
        if in_time or candidature.may_wait:
            kept[place] = True
            free_at_s += candidature.least_work_s
    return kept


def _between(
    base: float, floor: float, frontier: Sequence[FrontierPoint]
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
