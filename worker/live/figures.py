"""Rolling figures of a worker: what it answered in the last seconds. Plain numbers in and out.

`note` is called for every answered request and only puts numbers aside; they are counted once a second, by `tick`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.observability.distribution import bucket_quantile
from worker.engine.scoring_job import MADE_BY
from worker.job import Job

WINDOW: Final = 10
"""Figures are of this many latest seconds: enough requests for a 99th percentile, and still what happens now."""
HISTORY: Final = 180
"""Seconds that the charts show."""
KEPT_PER_SECOND: Final = 5_000
"""Latencies kept of one second; beyond, requests are only counted."""

Buckets = Mapping[float, float]
"""A cumulative histogram: how many values, ever, lay up to each bound."""


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker's parts show at this moment."""

    threshold: float
    waiting: int
    """Parts of requests that wait to be prepared."""
    in_flight: int
    request_lag: int
    """Requests in Kafka that have not been read yet."""
    state_lag: int
    """The same for states of users and items."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One second in the charts. Latencies and rate are of the window that ends with it, NaN without an answer."""

    at_ms: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    budget_ms: float
    """The median budget."""
    threshold: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is counted, of the window; shares are of its candidates."""

    point: Point
    gauges: Gauges
    answered: int
    """Requests since the start."""
    within_budget: float
    """Share of the window's requests; NaN without one."""
    candidates_per_s: float
    exits: Mapping[int, float]
    """By decoder layers run; 0 for the graph."""
    made_by: Mapping[str, float]
    freshness_p50_ms: float
    """From an event until its effect could be served; NaN where no state arrived."""
    freshness_p99_ms: float


@dataclass(slots=True)
class _Second:
    """What was answered in (about) one second."""

    elapsed_s: float = 0.0
    requests: int = 0
    latencies_s: list[float] = field(default_factory=list)
    budgets_s: list[float] = field(default_factory=list)
    exit_layers: list[NDArray[np.int32]] = field(default_factory=list)
    made_by: list[NDArray[np.int8]] = field(default_factory=list)


@dataclass(slots=True)
class _Counted:
    """A second that is over: everything but the latencies as counts."""

    elapsed_s: float
    requests: int
    latencies_s: NDArray[np.float64]
    budgets_s: NDArray[np.float64]
    exits: Counter[int]
    made_by: Counter[str]

    @classmethod
    def of(cls, second: _Second, elapsed_s: float) -> _Counted:
        return cls(
            elapsed_s=elapsed_s,
            requests=second.requests,
            latencies_s=np.array(second.latencies_s),
            budgets_s=np.array(second.budgets_s),
            exits=_counts(second.exit_layers),
            made_by=Counter({MADE_BY[code]: count for code, count in _counts(second.made_by).items()}),
        )


class LiveFigures:
    """Collects answered requests and counts them once a second; owned by the event loop.

    Args:
        now_s: monotonic seconds, when it begins.

    Attributes:
        history: the points of the last minutes, oldest first.
        latest: the request answered last since the last tick; an example to show.
    """

    def __init__(self, now_s: float) -> None:
        self.history: deque[Point] = deque(maxlen=HISTORY)
        self.latest: Job | None = None
        self._ticked_s = now_s
        self._answered = 0
        self._second = _Second()
        self._window: deque[_Counted] = deque(maxlen=WINDOW)
        self._freshness: deque[Buckets] = deque(maxlen=WINDOW + 1)

    def note(self, job: Job) -> None:
        """Takes in an answered request."""
        second = self._second
        second.requests += 1
        self.latest = job
        if len(second.latencies_s) < KEPT_PER_SECOND:
            second.latencies_s.append(job.latency_s)
            second.budgets_s.append(job.budget_s)
            second.exit_layers.append(job.exit_layer)
            second.made_by.append(job.made_by)

    def tick(self, now_s: float, wall_ms: int, gauges: Gauges, freshness_s: Buckets) -> Figures:
        """Ends a second and gives the figures of the window.

        Args:
            now_s: monotonic seconds.
            wall_ms: Unix time, for the charts.
            gauges: as they are now.
            freshness_s: the histogram of freshness in seconds, as it stands now.
        """
        self._answered += self._second.requests
        self._window.append(_Counted.of(self._second, now_s - self._ticked_s))
        self._freshness.append(freshness_s)
        self._second, self.latest, self._ticked_s = _Second(), None, now_s
        return self._figures(wall_ms, gauges)

    def _figures(self, wall_ms: int, gauges: Gauges) -> Figures:
        window = self._window
        elapsed_s = max(sum(second.elapsed_s for second in window), 1e-9)
        latencies_s = np.concatenate([second.latencies_s for second in window])
        budgets_s = np.concatenate([second.budgets_s for second in window])
        exits = sum((second.exits for second in window), Counter[int]())
        made_by = sum((second.made_by for second in window), Counter[str]())
        point = Point(
            at_ms=wall_ms,
            requests_per_s=sum(second.requests for second in window) / elapsed_s,
            p50_ms=_quantile(latencies_s, 0.5) * 1000,
            p99_ms=_quantile(latencies_s, 0.99) * 1000,
            budget_ms=_quantile(budgets_s, 0.5) * 1000,
            threshold=gauges.threshold,
        )
        self.history.append(point)
        fresh = self._fresh()
        return Figures(
            point=point,
            gauges=gauges,
            answered=self._answered,
            within_budget=float((latencies_s <= budgets_s).mean()) if len(latencies_s) else math.nan,
            candidates_per_s=exits.total() / elapsed_s,
            exits={layer: exits[layer] / exits.total() for layer in sorted(exits)},
            made_by={made: made_by[made] / made_by.total() for made in MADE_BY if made_by[made]},
            freshness_p50_ms=bucket_quantile(fresh, 0.5) * 1000,
            freshness_p99_ms=bucket_quantile(fresh, 0.99) * 1000,
        )

    def _fresh(self) -> Buckets:
        """The histogram of the window alone."""
        before, now = self._freshness[0], self._freshness[-1]
        return {bound: count - before.get(bound, 0.0) for bound, count in now.items()}


def _counts(arrays: Sequence[NDArray[np.int32] | NDArray[np.int8]]) -> Counter[int]:
    if not arrays:
        return Counter()
    values, counts = np.unique(np.concatenate(arrays), return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _quantile(values: NDArray[np.float64], share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else math.nan
