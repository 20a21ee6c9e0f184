"""A partition's backlog at its assignment, read in parallel to the group member, which starts behind it.

After an outage every partition holds old records before the fresh ones. Read in order, the fresh ones would be old too
by the time they are read. So the member starts with the fresh ones, and this reader fetches the old ones meanwhile. No
offset behind the backlog is committed before the backlog is done: after a crash the fresh records are processed again,
which at-least-once delivery allows and exactly-once does not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple, Protocol

import structlog
from aiokafka import TopicPartition as VendorPartition

from runtime.clock import Clock
from runtime.kafka.reader import PartitionReader
from runtime.kafka.topics import require_topics
from runtime.kafka.translation import translated
from runtime.observability.outages import Outages
from runtime.records import Record, TopicPartition
from runtime.settings import KafkaSettings

_LEAST_RECORDS: Final = 1_000
_IDLE_S: Final = 5.0
log = structlog.get_logger(__name__)


class SplitTracker(Protocol):
    """Tracks the offsets that may be committed."""

    def split(self, partition: TopicPartition, epoch: int, offset: int) -> None:
        """From now on the partition is read in two places: up to this offset, and from it on."""

    def earlier_read(self, partition: TopicPartition, epoch: int) -> None:
        """All records before the split have been started."""


class Range(NamedTuple):
    """Old records of one partition."""

    next_offset: int
    split: int
    epoch: int


class Backlog(PartitionReader):
    """Reads the records before the fresh ones in a group member's partitions.

        backlog = Backlog(settings, topics, delivery, clock, older_than_ms=200)
        await source.start(delivery, backlog)     # splits partitions when they are assigned
        records = await source.poll()             # fresh ones
        if backlog.left:
            records = await backlog.poll()        # old ones
        await backlog.stop()

    Args:
        settings: how to reach Kafka.
        topics: those of the member.
        tracker: is told where partitions are split.
        clock: the time, to tell fresh from old.
        older_than_ms: records written longer than this before a partition's assignment are its backlog.
        least_records: a smaller backlog is left to the member.
        outages: where a broker that does not answer is noted and waited out; without it polls raise.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Iterable[str],
        tracker: SplitTracker,
        clock: Clock,
        *,
        older_than_ms: int,
        least_records: int = _LEAST_RECORDS,
        outages: Outages | None = None,
    ) -> None:
        super().__init__(
            settings, topics, group_id=None, start_from="earliest", out_of_range="earliest", outages=outages
        )
        self._doing = f"reading a backlog of {', '.join(self._topics)}"
        self._polled_s = -math.inf
        self._tracker = tracker
        self._clock = clock
        self._older_than_ms = older_than_ms
        self._least_records = least_records
        self._ranges: dict[TopicPartition, Range] = {}
        # A rebalance may interrupt any of the methods.
        self._lock = asyncio.Lock()

    async def assign(self, member: PartitionReader, partitions: Iterable[TopicPartition]) -> None:
        """Takes over the backlog of partitions just assigned to the member, and moves the member behind it.

        Raises:
            BrokerError: if the broker cannot be asked.
        """
        wanted = set(partitions)
        starts = {partition: start for partition, start in (await member.positions()).items() if partition in wanted}
        fresh = await member.first_since(self._clock.wall_ms() - self._older_than_ms, starts)
        split = {
            partition: Range(start, fresh[partition], member.epoch(partition))
            for partition, start in starts.items()
            if fresh[partition] - start >= self._least_records
        }
        if not split:
            return
        for partition, (start, end, epoch) in split.items():
            log.info("reading a backlog in parallel", partition=str(partition), first=start, split=end)
            self._tracker.split(partition, epoch, end)
            member.seek(partition, end)
        async with self._lock:
            self._ranges |= split
            await self._reassign()

    async def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Stops reading these: another member has them."""
        async with self._lock:
            dropped = self._ranges.keys() & set(partitions)
            for partition in dropped:
                del self._ranges[partition]
            await self._pause(dropped)

    @property
    def left(self) -> bool:
        """Whether there is something left to poll for."""
        return bool(self._ranges)

    def epoch(self, partition: TopicPartition) -> int:
        """The member's epoch under which the partition's backlog is read."""
        return self._ranges[partition].epoch if partition in self._ranges else 0

    def records_left(self) -> dict[TopicPartition, int]:
        """Records not read yet, as far as offsets tell."""
        return {partition: old.split - old.next_offset for partition, old in self._ranges.items()}

    async def poll(self, *, max_records: int = 500, timeout_ms: int = 100) -> list[Record]:
        """The next old records, in order within each partition. Those returned before must be started by now."""
        async with self._lock:
            await self._finish([partition for partition, old in self._ranges.items() if old.next_offset >= old.split])
            if not self._ranges:
                return []
            self._polled_s = self._clock.monotonic()
            records = await super().poll(max_records=max_records, timeout_ms=timeout_ms)
            positions = await super().positions()
            self._ranges = {
                partition: old._replace(next_offset=positions.get(partition, old.next_offset))
                for partition, old in self._ranges.items()
            }
            return [record for record in records if self._is_old(record)]

    async def positions(self) -> dict[TopicPartition, int]:
        """The next old record to be read, per partition with a backlog."""
        return {partition: old.next_offset for partition, old in self._ranges.items()}

    async def end_offsets(self) -> dict[TopicPartition, int]:
        """The ends of the backlogs. The broker is asked, so that an answer means that it answers.

        Raises:
            BrokerUnreachable: if the broker does not answer in time.
        """
        if not self._ranges:
            return {}
        ends = await super().end_offsets()
        return {partition: min(old.split, ends.get(partition, old.split)) for partition, old in self._ranges.items()}

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions whose backlog nobody polls for at present: fresh records come first."""
        idle_s = self._clock.monotonic() - self._polled_s
        return frozenset(self._ranges if idle_s > _IDLE_S else ())

    def _is_old(self, record: Record) -> bool:
        return record.source in self._ranges and record.offset < self._ranges[record.source].split

    async def _finish(self, read: Collection[TopicPartition]) -> None:
        """Ends the backlog of partitions that were read up to the split."""
        for partition in read:
            log.info("backlog finished", partition=str(partition))
            self._tracker.earlier_read(partition, self._ranges.pop(partition).epoch)
        await self._pause(read)

    async def _reassign(self) -> None:
        """Assigns all ranges to the consumer, each at its position."""
        if self._consumer is None:
            self._consumer = self._make_consumer(await require_topics(self._settings, self._topics))
            with translated(f"preparing to read a backlog of {', '.join(self._topics)}"):
                await self._consumer.start()
        self._consumer.assign([VendorPartition(*partition) for partition in self._ranges])
        for partition, old in self._ranges.items():
            self.seek(partition, old.next_offset)

    async def _pause(self, partitions: Iterable[TopicPartition]) -> None:
        if self._ranges:
            self.pause(partitions)
        elif self._consumer is not None:
            await self.stop()
