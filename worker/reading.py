"""Reading requests: fresh ones before a backlog, and never more than memory holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from runtime.clock import Clock
from runtime.delivery import Delivery
from runtime.kafka import Backlog, RecordSource
from runtime.records import Record, TopicPartition
from worker.settings import WorkerSettings

_IDLE_POLL_MS: Final = 100
_BESIDE_POLL_MS: Final = 1
_PAUSED_POLL_MS: Final = 5
"""While reading is paused, polls only keep the membership in the group and must not delay resuming."""
_BACKLOG_RECORDS: Final = 96
_BACKLOG_IN_FLIGHT: Final = 384
"""A backlog is read in small portions, and only while few records are in flight: fresh requests must find neither the
compute thread nor the producer occupied for long.
"""


class Reading:
    """Polls the group member and, after an outage, a second reader of what is old.

    Args:
        settings: of the worker.
        source: the group member.
        delivery: knows what is in flight.
        clock: tells what is old.

    Attributes:
        backlog: reads what was written longer ago than a request's budget; None where all is read in order.
        paused: partitions whose reading is paused.
    """

    def __init__(self, settings: WorkerSettings, source: RecordSource, delivery: Delivery, clock: Clock) -> None:
        self._settings = settings.worker
        self._source = source
        self._delivery = delivery
        self.backlog = _backlog(settings, source, delivery, clock)
        self.paused = 0

    async def poll(self) -> list[Record]:
        """The next records."""
        self.paused = apply_backpressure(self._source, self._delivery, self._settings.max_in_flight)
        behind = self.has_backlog
        timeout_ms = _BESIDE_POLL_MS if behind else _PAUSED_POLL_MS if self.paused else _IDLE_POLL_MS
        records = await self._source.poll(max_records=self._settings.poll_records, timeout_ms=timeout_ms)
        if self.backlog is not None and behind and self._delivery.in_flight() < _BACKLOG_IN_FLIGHT:
            records += await self.backlog.poll(max_records=_BACKLOG_RECORDS, timeout_ms=_BESIDE_POLL_MS)
        return records

    @property
    def has_backlog(self) -> bool:
        """Whether old records are still to be read."""
        return self.backlog is not None and self.backlog.left

    async def poll_backlog(self) -> list[Record]:
        """The next old records only; none while enough of them are in flight."""
        if self.backlog is None or self._delivery.in_flight() >= _BACKLOG_IN_FLIGHT:
            await asyncio.sleep(_PAUSED_POLL_MS / 1000)
            return []
        return await self.backlog.poll(max_records=_BACKLOG_RECORDS, timeout_ms=_PAUSED_POLL_MS)

    async def stop(self) -> None:
        """Stops the second reader."""
        if self.backlog is not None:
            await self.backlog.stop()


def _backlog(settings: WorkerSettings, source: RecordSource, delivery: Delivery, clock: Clock) -> Backlog | None:
    """Transactions keep a partition's order, so with them there is no second reader."""
    if not settings.worker.fresh_first or settings.kafka.delivery == "exactly_once":
        return None
    topics = [settings.topics.impression_requests]
    return Backlog(
        settings.kafka, topics, delivery, clock, older_than_ms=settings.worker.budget_ms, outages=source.outages
    )


class PausableSource(Protocol):
    """What backpressure needs of a record source."""

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions read now."""

    def paused(self) -> frozenset[TopicPartition]:
        """Those of them that are paused."""

    def pause(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Pauses partitions."""

    def resume(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Resumes partitions."""


class InFlightCounter(Protocol):
    """What backpressure needs of a delivery."""

    def in_flight(self, partitions: Iterable[TopicPartition] | None = None) -> int:
        """Records accepted and not yet done."""


def apply_backpressure(source: PausableSource, delivery: InFlightCounter, max_in_flight: int) -> int:
    """Pauses each partition that has its share of `max_in_flight` in flight, resumes it at half of that.

    Memory stays bounded at any backlog. Every partition has the same share, so that a backlog in one does not delay
    the fresh requests of another. Polling goes on meanwhile, which keeps the membership in the group.

    Returns:
        How many partitions are paused now.
    """
    assigned = source.assignment()
    if not assigned:
        return 0
    share = max(1, max_in_flight // len(assigned))
    paused = source.paused() & assigned
    full = [partition for partition in assigned - paused if delivery.in_flight([partition]) >= share]
    drained = [partition for partition in paused if delivery.in_flight([partition]) <= share // 2]
    if full:
        source.pause(full)
    if drained:
        source.resume(drained)
    return len(paused) + len(full) - len(drained)
