"""Exactly-once delivery: the outputs of a run of records and the offset after it, in one transaction.

Each input partition has a lane: a transactional producer of its own, and a task that commits what has become
committable since its last transaction. While one transaction is in flight the next one's records accumulate, so batches
grow with the load. A finished record waits for the unfinished ones before it in its partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Self

import structlog

from runtime.delivery.attempts import PartitionAttempts
from runtime.delivery.base import Delivery
from runtime.delivery.lane import FinishedRecord, Lane
from runtime.errors import RecordTooLarge
from runtime.kafka import RecordSource
from runtime.kafka.sink import check_size
from runtime.observability.outages import Outages
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

LOST_TRANSACTIONS: Final = "the broker lost transactions that it had confirmed: their records are read again"
log = structlog.get_logger(__name__)


class ExactlyOnceDelivery(Delivery):
    """Outputs and offsets in transactions, one lane per input partition. Implements `LaneOwner`.

    The order that neither loses nor repeats anything:
        1. at assignment the lane initialises the partition's transactional id, which aborts an earlier owner's open
           transaction and fences that owner; only then does the source read the committed offset;
        2. a transaction holds all outputs of an unbroken run of finished records and the offset after it;
        3. when one fails or its outcome is unknown, the lane asks the group whether the partition is still ours,
           initialises its id again, asks for the committed offset and repeats the transaction only if that offset lies
           before it. If that offset lies even before what was confirmed, the broker has lost a transaction: the
           partition begins anew there;
        4. what was started in an earlier assignment of the partition has no lane any more and is dropped.
    """

    def __init__(self, settings: KafkaSettings, source: RecordSource, outages: Outages | None = None) -> None:
        super().__init__(settings, source, outages)
        self._lanes: dict[TopicPartition, Lane] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._carried: dict[TopicPartition, tuple[int, PartitionAttempts]] = {}
        """What is known of attempts at partitions that begin again: the note that stands in the group is our own."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._close(frozenset(self._lanes))
        if self._closing:
            await asyncio.wait(self._closing)

    def started(self, record: Record) -> bool:
        """As in `Delivery`."""
        lane = self._lanes.get(record.source)
        if lane is None or not super().started(record):
            return False
        lane.started(record.offset)
        return True

    async def finished(
        self,
        record: Record,
        outputs: Sequence[OutRecord],
        on_delivered: Callable[[], None] | None = None,
        alternatives: Iterable[Sequence[OutRecord]] = (),
    ) -> None:
        """As in `Delivery`; does not wait."""
        self._raise_failure()
        for output in outputs:
            check_size(output, self._settings)
        lane = self._lanes.get(record.source)
        if lane is not None and self._is_in_flight(record):
            lane.finished(FinishedRecord(record, outputs, on_delivered, iter(alternatives)))

    async def run(self) -> None:
        """As in `Delivery`; the lanes commit by themselves."""
        await asyncio.wait([self._failure])
        self._raise_failure()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Initialises the partitions' transactional ids."""
        self._close(partitions)
        await super().on_assigned(partitions)
        for partition in partitions & self._carried.keys():
            self.begin_attempts(partition, *self._carried.pop(partition))
        lanes = [
            Lane(partition, self._source.epoch(partition), self._settings, self._source, self._outages, self)
            for partition in partitions
        ]
        self._lanes.update({lane.partition: lane for lane in lanes})
        for outcome in await asyncio.gather(*(lane.open() for lane in lanes), return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Waits for work in flight and its transactions, then closes the lanes."""
        try:
            await super().on_revoked(partitions)
        finally:
            self._close(partitions)
            for partition in partitions & self._carried.keys():
                del self._carried[partition]

    def committed(self, records: Sequence[Record]) -> None:
        """As in `LaneOwner`."""
        for record in records:
            self._done(record)

    def refused(self, record: Record, error: RecordTooLarge) -> None:
        """As in `LaneOwner`."""
        self._give_up(record, error)

    def lost(self, lane: Lane) -> None:
        """As in `LaneOwner`."""
        if self._lanes.get(lane.partition) is not lane:
            return
        del self._lanes[lane.partition]
        log.warning(
            "a partition has another owner, who answers its records",
            partition=str(lane.partition),
            dropped=self._tracker.in_flight([lane.partition]),
        )
        self._forget([lane.partition])

    def forgotten(self, lane: Lane, offset: int | None) -> None:
        """As in `LaneOwner`. What the lane would still have written is dropped, so that nothing waits for it."""
        if self._lanes.get(lane.partition) is not lane:
            return
        if (attempts := self.attempts_of(lane.partition)) is not None:
            self._carried[lane.partition] = (offset or 0, attempts)
        del self._lanes[lane.partition]
        self._read_again(lane.partition, offset)

    def reads_again(self, partition: TopicPartition, offset: int) -> bool:
        """As in `Delivery`."""
        if offset >= self._source.first_offset(partition):
            return False
        self._read_again(partition, offset)
        return True

    def _read_again(self, partition: TopicPartition, offset: int | None) -> None:
        log.warning(LOST_TRANSACTIONS, partition=str(partition), going_on_from=offset)
        self._forget([partition])
        self._source.begin_again(partition, self._source.epoch(partition))

    def failed(self, error: BaseException) -> None:
        """As in `LaneOwner`."""
        self._fail(error)

    async def _settle(self, partitions: frozenset[TopicPartition] | None) -> bool:  # noqa: ARG002 - see below
        """Nothing to do: a record is done only once its transaction is committed."""
        return True

    def _close(self, partitions: frozenset[TopicPartition]) -> None:
        """Ends the partitions' lanes at once. They disconnect in the background: a rebalance must not wait for that."""
        for partition in partitions & self._lanes.keys():
            lane = self._lanes.pop(partition)
            lane.end()
            task = asyncio.create_task(lane.close(), name=f"closing {lane.partition}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
