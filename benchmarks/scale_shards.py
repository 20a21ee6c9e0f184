"""How many events several updaters take together that share the users, each with a core of its own.

In one process, one shard after the other, each with its own processor time. A round is what comes in 50 ms at 20,000
events a second and shard. In it every shard decodes and applies the events of its users, writes their states and those
of the items that it publishes, writes the parts that it owes, and reads what the others have told in the round before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

import numpy as np

from benchmarks.scale_population import MOST_PAST, NOW_MS, Population
from benchmarks.scale_updater import BATCH, ROUNDS, events
from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import Shard
from graph_updater.part_intake import PartIntake
from graph_updater.state.updater_state import UpdaterState
from graph_updater.telling import Telling
from runtime.clock import ManualClock
from runtime.records import Record
from schemas.codec import MessageDecoder, encode, headers_for
from schemas.messages import Interaction

_ALPHAS: Final = (0.25, 0.25, 0.25, 0.25)
_HEADERS: Final = tuple(headers_for("msgpack"))
_ROUND_S: Final = 0.05
_PARTS_INTERVAL_S: Final = 1.0
_TOPIC: Final = "item-parts"


@dataclass
class Updater:
    """One of the shards, with the processor time that it has taken."""

    state: UpdaterState
    telling: Telling
    intake: PartIntake
    clock: ManualClock
    decoder: MessageDecoder[Interaction] = field(default_factory=lambda: MessageDecoder(Interaction))
    inbox: list[Record] = field(default_factory=list)
    spent_s: list[float] = field(default_factory=list)
    told: int = 0

    def round(self, values: Sequence[bytes]) -> list[Record]:
        """What happens in one; the parts told."""
        started_s = time.thread_time()
        self.receive()
        self.state.apply([self.decoder.decode(value, _HEADERS) for value in values])
        told = self.publish()
        self.spent_s.append(time.thread_time() - started_s)
        self.told += len(told)
        self.clock.advance(_ROUND_S)
        return told

    def receive(self) -> None:
        """Takes in what others have told."""
        self.state.receive_parts(self.intake.read(self.inbox)[0])
        self.inbox = []

    def publish(self) -> list[Record]:
        """Writes what has changed; the parts."""
        owed = self.telling.take(self)
        changes, published, shared = self.state.published.take_changes(), self.state.published, self.state.shared
        published.packed_users(changes.users, NOW_MS)
        published.packed_items(changes.items, NOW_MS)
        if shared is None:
            return []
        return [
            Record(_TOPIC, 0, 0, shared.shard.key_of(name).encode(), None if part is None else encode(part), _HEADERS)
            for name, part in shared.parts(owed).items()
        ]


def figures(users: int, items: int, counts: Sequence[int] = (1, 2)) -> dict[str, list[float]]:
    """By number of shards: events a second of all of them together, and parts told per event."""
    rates, parts = [], []
    for count in counts:
        rate, told = _measured(users, items, count)
        rates.append(rate)
        parts.append(told)
    return {"updater_events_per_second": rates, "parts_told_per_event": parts}


def _measured(users: int, items: int, count: int) -> tuple[float, float]:
    population, random = Population(users, items), np.random.default_rng(0)
    names = [f"item-{item:08d}" for item in range(items)]
    base = BaseEmbeddings(names, random.standard_normal((items, 64)).astype(np.float32), _ALPHAS)
    updaters = [_updater(base, Shard(number, count)) for number in range(count)]
    for round_ in range(MOST_PAST):
        _apply(updaters, events(population, random.permutation(users), round_))
        _exchange(updaters, lambda updater: updater.publish())
    for updater in updaters:
        updater.clock.advance(_PARTS_INTERVAL_S)
    for _ in range(3):
        _exchange(updaters, lambda updater: updater.publish())
    for round_ in range(MOST_PAST, MOST_PAST + 2 * ROUNDS):
        batch = events(population, random.permutation(users)[: BATCH * count], round_)
        shares = [[encode(one) for one in batch if _owner(one, count) == number] for number in range(count)]
        for updater, values in zip(updaters, shares, strict=True):
            _send(updaters, updater, updater.round(values))
    rounds = 2 * ROUNDS
    slowest_s = max(sum(updater.spent_s) / rounds for updater in updaters)
    return count * BATCH / slowest_s, sum(updater.told for updater in updaters) / (rounds * BATCH * count)


def _updater(base: BaseEmbeddings, shard: Shard) -> Updater:
    state, clock = UpdaterState(GraphConfig(), base, shard), ManualClock(NOW_MS)
    intake = PartIntake(_TOPIC, shard, "", (len(_ALPHAS) - 1, base.dim), 1_000_000)
    return Updater(state, Telling(state.shared, _PARTS_INTERVAL_S, clock), intake, clock)


def _owner(event: Interaction, count: int) -> int:
    return crc32(event.user_id.encode()) % count


def _apply(updaters: Sequence[Updater], batch: Sequence[Interaction]) -> None:
    for number, updater in enumerate(updaters):
        updater.state.apply([event for event in batch if _owner(event, len(updaters)) == number])


def _exchange(updaters: Sequence[Updater], told_by: Callable[[Updater], list[Record]]) -> None:
    for updater in updaters:
        _send(updaters, updater, told_by(updater))
    for updater in updaters:
        updater.receive()


def _send(updaters: Sequence[Updater], sender: Updater, told: Sequence[Record]) -> None:
    for updater in updaters:
        if updater is not sender:
            updater.inbox += told
