"""Closed-form capacity of a fleet: what each kind of process has to do, and how many of them that takes.

`today` is the product as it is: every worker holds all users and applies every state, one updater is active and a
second one stands by with the same memory. `planned` is not built: a worker holds the users of its partitions and all
items; updaters share the users, and each publishes its part of every item's neighbourhood sums, which all the others
add up. `planned_slow_items` is the same with items' parts and states published once a second instead of every 50 ms.
All reckon with today's costs per state and per byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from benchmarks.fleet_calibration import list_count, training_flops
from benchmarks.fleet_costs import Costs, FleetError

Layout = Literal["today", "planned", "planned_slow_items"]
FLUSH_S: Final = 0.05
"""Between two publications: `updater.flush_ms`."""
ITEM_FLUSH_S: Final[dict[Layout, float]] = {"today": FLUSH_S, "planned": FLUSH_S, "planned_slow_items": 1.0}
"""The same for states of items and, between updaters, for parts of their sums; by layout."""
LAYERS: Final = 3
"""Of the graph: in the planned layout a part of an item's sums is one record per layer, that costs as an item state."""
PROBES: Final = 24
"""Inverted lists that a search reads, at any number of users: an assumption. A worker measures and logs its own."""
_GROWTH: Final = 1.08
_BINS: Final = 400


@dataclass(frozen=True)
class Load:
    """What comes in.

    Attributes:
        history: past interactions of a user, each also an edge.
    """

    users: float
    items: float
    events_per_second: float
    requests_per_second: float
    candidates: int = 20
    history: float = 50

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise FleetError(f"{name} is {value}; give a number above zero")

    def scaled(self, share: float) -> Load:
        """Users, events and requests in the same proportion; items stay, so that each is met the more often."""
        return replace(
            self,
            users=self.users * share,
            events_per_second=self.events_per_second * share,
            requests_per_second=self.requests_per_second * share,
        )


@dataclass(frozen=True)
class Bounds:
    """What is available to a process, and what counts as too much."""

    memory_bytes: float = 256 * 2**30
    """Most that one process can have."""
    network_bytes_per_second: float = 1.25e9
    """Most that one process can read or write: 10 Gbit/s."""
    broker_bytes_per_second: float = 100 * 1.25e9
    """Most that all brokers together can send."""
    partition_bytes_per_second: float = 10e6
    """Written to one partition."""
    partitions: float = 200_000
    """Of one cluster."""
    utilisation: float = 0.7
    """Of a compute thread; above it queues grow quickly."""
    start_s: float = 600.0
    """Until a process started anew works as before."""
    budget_s: float = 0.2
    """Of a request."""


@dataclass(frozen=True)
class Fleet:
    """Figures of one worker and one updater in a fleet of so many. Rates are per second, shares are of one core.

    Attributes:
        states_share: a worker's share that goes to applying states.
        service_s: mean time that a request keeps the compute thread.
        retrieval_s: of it, searching for similar users.
        exchange_share: an updater's share that goes to what updaters tell one another.
    """

    workers: int
    updaters: int
    worker_users: float
    user_states: float
    item_states: float
    states_share: float
    requests_share: float
    service_s: float
    retrieval_s: float
    worker_bytes: float
    worker_read_bytes: float
    fill_s: float
    training_s: float
    updater_share: float
    exchange_share: float
    updater_bytes: float
    updater_written_bytes: float
    updater_read_bytes: float
    restore_s: float
    state_bytes: float
    """Written to the state topics in all."""
    exchange_bytes: float
    """Sent by the brokers to updaters, of what updaters tell one another."""

    @property
    def sent_bytes(self) -> float:
        """Sent by the brokers to workers and updaters, of states and of what updaters tell one another."""
        return self.workers * self.worker_read_bytes + self.exchange_bytes

    @property
    def worker_share(self) -> float:
        """Of a worker's compute thread, in all."""
        return self.states_share + self.requests_share


def fleet(layout: Layout, load: Load, costs: Costs, workers: int, updaters: int) -> Fleet:
    """Figures of a fleet of so many workers, and of so many active updaters (one in the layout of today)."""
    held = load.users / (workers if layout != "today" else 1)
    owned = load.users / (updaters if layout != "today" else 1)
    events, shard_events = load.events_per_second, load.events_per_second / updaters
    item_flush_s = ITEM_FLUSH_S[layout]
    user_states = distinct(load.users, events * FLUSH_S) / FLUSH_S + costs.turned_users_per_event * events
    item_states = distinct_items(load.items, events * item_flush_s) / item_flush_s
    item_states += costs.turned_items_per_event * events
    parts = LAYERS * distinct_items(load.items, shard_events * item_flush_s) / item_flush_s if updaters > 1 else 0.0
    retrieval_s = costs.search_s_per_user * held * _probed(held)
    service_s = costs.score_s * load.candidates + retrieval_s
    taken = user_states / (workers if layout != "today" else 1)
    states_share = taken * costs.user_state_apply_s + item_states * costs.item_state_apply_s
    fill_s = held * costs.user_state_apply_s + load.items * costs.item_state_apply_s
    exchange_share = parts * (costs.item_state_encode_s + (updaters - 1) * costs.item_state_apply_s)
    user_bytes, item_bytes = user_states * costs.user_state_bytes, item_states * costs.item_state_bytes
    nodes = owned + load.items
    return Fleet(
        workers=workers,
        updaters=updaters,
        worker_users=held,
        user_states=user_states,
        item_states=item_states,
        states_share=states_share,
        requests_share=load.requests_per_second / workers * service_s,
        service_s=service_s,
        retrieval_s=retrieval_s,
        worker_bytes=costs.worker_base_bytes + held * costs.worker_user_bytes + load.items * costs.worker_item_bytes,
        worker_read_bytes=taken * costs.user_state_bytes + item_bytes,
        # What comes in meanwhile has to be applied, too.
        fill_s=fill_s / (1 - states_share) if states_share < 1 else math.inf,
        training_s=costs.train_s_per_flop * training_flops(held),
        updater_share=shard_events * costs.event_s
        + user_states / updaters * costs.user_state_encode_s
        + item_states / updaters * costs.item_state_encode_s
        + exchange_share,
        exchange_share=exchange_share,
        updater_bytes=costs.updater_base_bytes
        + nodes * costs.updater_node_bytes
        + owned * load.history * (costs.updater_past_bytes + costs.updater_edge_bytes),
        updater_written_bytes=(user_bytes + item_bytes) / updaters + parts * costs.item_state_bytes,
        updater_read_bytes=(updaters - 1) * parts * costs.item_state_bytes,
        restore_s=nodes * costs.restore_s_per_node,
        state_bytes=user_bytes + item_bytes,
        exchange_bytes=updaters * (updaters - 1) * parts * costs.item_state_bytes,
    )


def ratios(layout: Layout, fleet: Fleet, bounds: Bounds) -> dict[str, float]:
    """Demand ÷ what there is, per limit: above 1 the fleet does not work."""
    partitions = partition_count(layout, fleet, bounds)
    read_or_written = max(fleet.updater_written_bytes, fleet.updater_read_bytes)
    return {
        "worker_states": fleet.states_share / bounds.utilisation,
        "worker_memory": fleet.worker_bytes / bounds.memory_bytes,
        "worker_network": fleet.worker_read_bytes / bounds.network_bytes_per_second,
        "worker_start": (fleet.fill_s + fleet.training_s) / bounds.start_s,
        "request_time": fleet.service_s / bounds.budget_s,
        "updater_compute": fleet.updater_share / bounds.utilisation,
        "updater_memory": fleet.updater_bytes / bounds.memory_bytes,
        "updater_network": read_or_written / bounds.network_bytes_per_second,
        "updater_start": fleet.restore_s / bounds.start_s,
        "broker_network": fleet.sent_bytes / bounds.broker_bytes_per_second,
        "partitions": partitions / bounds.partitions,
    }


def partition_count(layout: Layout, fleet: Fleet, bounds: Bounds) -> int:
    """Of each topic keyed by user: one per worker (per updater too, once they share) and enough for the states."""
    written = math.ceil(fleet.state_bytes / bounds.partition_bytes_per_second)
    return max(fleet.workers, fleet.updaters if layout != "today" else 1, written)


def sized(layout: Layout, load: Load, costs: Costs, bounds: Bounds) -> tuple[Fleet, bool]:
    """The smallest fleet that keeps all limits, and True; if there is none, the smallest that breaks fewest, and False.

    Updaters and workers are counted apart: the states to be taken over do not depend on how many updaters made them.
    """
    counts = _counts(bounds.partitions) if layout != "today" else iter((1,))
    updaters = _smallest(
        (fleet(layout, load, costs, 1, count) for count in counts),
        lambda one: _broken(ratios(layout, one, bounds), of_updaters=True),
    ).updaters
    best = _smallest(
        (fleet(layout, load, costs, count, updaters) for count in _counts(bounds.partitions)),
        lambda one: (
            _broken(ratios(layout, one, bounds), of_updaters=False)
            + (one.requests_share > _left_for_requests(one, bounds))
        ),
    )
    return best, max(ratios(layout, best, bounds).values()) <= 1


def _broken(limits: dict[str, float], *, of_updaters: bool) -> int:
    """How many limits are broken, of updaters or of all else."""
    return sum(ratio > 1 for name, ratio in limits.items() if name.startswith("updater_") == of_updaters)


def _left_for_requests(fleet: Fleet, bounds: Bounds) -> float:
    """Share of a worker's core that states leave; where they leave nothing, requests are counted alone."""
    left = bounds.utilisation - fleet.states_share
    return left if left > 0 else bounds.utilisation


def _smallest(fleets: Iterable[Fleet], broken: Callable[[Fleet], int]) -> Fleet:
    """The first one with the fewest broken limits."""
    best: tuple[int, Fleet] | None = None
    for one in fleets:
        number = broken(one)
        if best is None or number < best[0]:
            best = number, one
        if not number:
            break
    assert best is not None
    return best[1]


def _counts(most: float) -> Iterator[int]:
    """1, 2, 3 … and then in steps of eight per cent."""
    count = 1
    while count <= most:
        yield count
        count = max(count + 1, math.floor(count * _GROWTH))


def distinct(of: float, drawn: float) -> float:
    """How many different ones are expected among so many drawn alike: what a flush publishes once."""
    return -of * math.expm1(-drawn / of)


@lru_cache(maxsize=4_096)
def distinct_items(items: float, drawn: float) -> float:
    """The same, drawn by Zipf's law: the n-th item is met 1/n times as often as the first. Ranks are binned."""
    edges = np.unique(np.floor(np.geomspace(1, items + 1, min(_BINS, int(items) + 1))))
    counts = np.diff(edges)
    sums = np.log((edges[1:] - 0.5) / (edges[:-1] - 0.5))  # of 1/n over the ranks of a bin
    chances = sums / sums.sum() / counts
    return float((counts * -np.expm1(-drawn * chances)).sum())


def sustained_events(costs: Costs, users: float, items: float) -> float:
    """Events per second at which today's updater would be busy all the time, of so many users and items."""
    low, high = 1.0, 1e9
    for _ in range(60):
        middle = math.sqrt(low * high)
        busy = fleet("today", Load(users, items, middle, 1.0), costs, 1, 1).updater_share
        low, high = (middle, high) if busy < 1 else (low, middle)
    return low


def _probed(users: float) -> float:
    """Share of the users that a search with trained inverted lists compares with."""
    return min(1.0, PROBES / list_count(users))
