"""A discrete-event model (SimPy) of one updater and one worker of a fleet, and the queueing formula beside it.

One of each is enough. Requests come at random times and are split at random among workers, so that every worker sees
the same kind of stream; and each gets its states from the same publications.

1. Events gather at the updater. It applies what has come and encodes the states, publishes them, and begins again when
   `flush_s` has passed since it last began, or at once if it is late.
2. The worker's feed takes a publication slice by slice: each waits its turn for the compute thread, and the next is
   handed over only then.
3. Requests wait their turn for the same thread, first come, first served, and keep it for a time of their own.

Not in the model: exits that fall under load and late requests answered by the graph score (the worker's own defence
against queues), batches of several requests, Kafka's own delays except for the time that a publication takes.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import simpy

from benchmarks.fleet_capacity import FLUSH_S, Fleet, Load
from benchmarks.fleet_costs import Costs

SLICE: Final = 100
"""States applied between two requests: `worker.tables.update_batch`."""
PUBLISH_S: Final = 0.01
"""Of a transaction on one broker, from docs/decisions/updater-leadership.md."""
WARM_UP: Final = 0.1
"""Share of the time that is not looked at."""
LONGEST_S: Final = 3_600.0
"""Of simulated time."""
_SAMPLES: Final = 8
"""Events of a publication whose freshness is noted."""
Steps = Generator[simpy.Event, Any, None]
"""Of a process in SimPy."""
_STILL_BUSY: Final = 0.98
"""Beyond this utilisation there is no stable queue to be looked at."""


@dataclass(frozen=True)
class Flow:
    """What one worker and one updater have to do; rates per second.

    Attributes:
        request_s: mean time of a request on the compute thread.
        request_cv: its standard deviation ÷ its mean (log-normal); 0 for a constant.
        states_per_event: states that this worker takes over, per event that this updater applies.
        event_s: the updater's time per event, its states' encoding included.
    """

    requests_per_second: float
    request_s: float
    request_cv: float = 0.0
    events_per_second: float = 0.0
    event_s: float = 0.0
    states_per_event: float = 0.0
    state_s: float = 0.0

    @classmethod
    def of(cls, fleet: Fleet, load: Load, costs: Costs) -> Flow:
        """Of a fleet under a load. What all updaters publish reaches a worker as if it came from one, all at once."""
        events = load.events_per_second / fleet.updaters
        taken = fleet.user_states * fleet.worker_users / load.users + fleet.item_states
        return cls(
            requests_per_second=load.requests_per_second / fleet.workers,
            request_s=fleet.service_s,
            request_cv=costs.score_cv,
            events_per_second=events,
            event_s=fleet.updater_share / events,
            states_per_event=taken / events,
            state_s=fleet.states_share / taken,
        )

    @property
    def worker_share(self) -> float:
        """Utilisation of the compute thread."""
        return self.requests_per_second * self.request_s + self.events_per_second * self.states_per_event * self.state_s

    @property
    def updater_share(self) -> float:
        """Utilisation of the updater."""
        return self.events_per_second * self.event_s

    @property
    def is_stable(self) -> bool:
        """Whether queues stay."""
        return max(self.worker_share, self.updater_share) < _STILL_BUSY


def mean_wait_s(flow: Flow) -> float:
    """Mean time that a request waits, by Pollaczek and Khinchine's formula for M/G/1.

    Slices of states count as arrivals of constant length at random times. They come in bursts, one after the other, so
    with states this is a reference and no identity.
    """
    states = flow.events_per_second * flow.states_per_event
    slice_s = SLICE * flow.state_s
    second_moments = (
        flow.requests_per_second * flow.request_s**2 * (1 + flow.request_cv**2) + states / SLICE * slice_s**2
    )
    return second_moments / (2 * (1 - flow.worker_share))


def simulate(flow: Flow, *, jobs: int, seed: int) -> dict[str, float] | None:
    """Runs the model for about so many jobs, at most `LONGEST_S` of its own time.

    Returns:
        `seconds` simulated, `requests`, utilisations `worker_share` and `updater_share`, `mean_wait_ms`, the latency of
        requests `p50_ms` and `p99_ms`, and `freshness_p50_ms` and `freshness_p99_ms`, from an event until the worker
        can serve it; None if the queues would grow without end.
    """
    if not flow.is_stable:
        return None
    slices = flow.events_per_second * flow.states_per_event / SLICE + (1 / FLUSH_S if flow.events_per_second else 0)
    seconds = min(LONGEST_S, jobs / (flow.requests_per_second + slices))
    model = _Model(flow, np.random.default_rng(seed), WARM_UP * seconds)
    model.environment.run(until=seconds)
    return model.figures(seconds)


@dataclass
class _Model:
    flow: Flow
    random: np.random.Generator
    warm_up_s: float
    environment: simpy.Environment = field(default_factory=simpy.Environment)
    waits: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    freshness: list[float] = field(default_factory=list)
    worker_s: float = 0.0
    updater_s: float = 0.0

    def __post_init__(self) -> None:
        self.thread = simpy.Resource(self.environment)
        self.published = simpy.Store(self.environment)
        self.environment.process(self._requests())
        if self.flow.events_per_second:
            self.environment.process(self._updater())
            self.environment.process(self._feed())

    def figures(self, seconds: float) -> dict[str, float]:
        looked_at_s = seconds - self.warm_up_s
        figures = {
            "seconds": seconds,
            "requests": len(self.latencies),
            "worker_share": self.worker_s / looked_at_s,
            "updater_share": self.updater_s / looked_at_s,
            "mean_wait_ms": 1e3 * float(np.mean(self.waits)) if self.waits else 0.0,
        }
        for name, times in (("", self.latencies), ("freshness_", self.freshness)):
            for percentile in (50, 99):
                figures[f"{name}p{percentile}_ms"] = 1e3 * float(np.percentile(times, percentile)) if times else 0.0
        return figures

    def _requests(self) -> Steps:
        while True:
            yield self.environment.timeout(self.random.exponential(1 / self.flow.requests_per_second))
            self.environment.process(self._request())

    def _request(self) -> Steps:
        came = self.environment.now
        with self.thread.request() as turn:
            yield turn
            wait = self.environment.now - came
            service = self._service_s()
            yield from self._busy(service)
        if came >= self.warm_up_s:
            self.waits.append(wait)
            self.latencies.append(wait + service)

    def _updater(self) -> Steps:
        begun = self.environment.now
        while True:
            yield self.environment.timeout(max(0.0, begun + FLUSH_S - self.environment.now))
            since, begun = begun, self.environment.now
            events = int(self.random.poisson(self.flow.events_per_second * (begun - since)))
            spent_s = events * self.flow.event_s
            yield self.environment.timeout(spent_s)
            self.updater_s += self._looked_at(spent_s)
            self.environment.process(self._publish((since, begun, events * self.flow.states_per_event)))

    def _publish(self, publication: tuple[float, float, float]) -> Steps:
        """While it is being written, the next events are applied."""
        yield self.environment.timeout(PUBLISH_S)
        yield self.published.put(publication)

    def _feed(self) -> Steps:
        while True:
            since, until, states = yield self.published.get()
            for number in range(math.ceil(states / SLICE)):
                with self.thread.request() as turn:
                    yield turn
                    yield from self._busy(min(SLICE, states - number * SLICE) * self.flow.state_s)
            if since >= self.warm_up_s:
                happened = self.random.uniform(since, until, _SAMPLES)
                self.freshness.extend((self.environment.now - happened).tolist())

    def _busy(self, spent_s: float) -> Steps:
        yield self.environment.timeout(spent_s)
        self.worker_s += self._looked_at(spent_s)

    def _looked_at(self, spent_s: float) -> float:
        """How much of a time that ends now lies after the warm-up."""
        return min(spent_s, max(0.0, self.environment.now - self.warm_up_s))

    def _service_s(self) -> float:
        if not self.flow.request_cv:
            return self.flow.request_s
        variance = math.log1p(self.flow.request_cv**2)
        return float(self.random.lognormal(math.log(self.flow.request_s) - variance / 2, math.sqrt(variance)))
