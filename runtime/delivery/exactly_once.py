"""Exactly-once delivery: the outputs of a run of records and the offset after it, in one transaction.

Each input partition has a lane: a transactional producer of its own, and a task that commits what has become
committable since its last transaction. While one transaction is in flight the next one's records accumulate, so batches
grow with the load. A finished record waits for the unfinished ones before it in its partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Self

import structlog

from runtime.delivery.base import Delivery
from runtime.errors import TransactionFailed
from runtime.kafka import RecordSource, TransactionalSink
from runtime.kafka.sink import check_size
from runtime.offsets import PartitionProgress
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

_ATTEMPTS: Final = 3
_MAX_RECORDS: Final = 1_000
"""Input records per transaction, so that a backlog does not make one outlast its time-out."""

_OnCommitted = Callable[[TopicPartition, Sequence[int]], None]

log = structlog.get_logger(__name__)


class ExactlyOnceDelivery(Delivery):
    """Outputs and offsets in transactions, one lane per input partition.

    The order that neither loses nor repeats anything:
        1. at assignment the lane initialises the partition's transactional id, which aborts an earlier owner's open
           transaction and fences that owner; only then does the source read the committed offset;
        2. a transaction holds all outputs of an unbroken run of finished records and the offset after it;
        3. when one fails or its outcome is unknown, the lane initialises its id again, asks for the committed offset
           and repeats the transaction only if that offset lies before it.
    """

    def __init__(self, settings: KafkaSettings, source: RecordSource) -> None:
        super().__init__(settings, source)
        self._lanes: dict[TopicPartition, _Lane] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close(frozenset(self._lanes))

    def started(self, record: Record) -> bool:
        """As in `Delivery`."""
        lane = self._lanes.get(record.source)
        if lane is None or not super().started(record):
            return False
        lane.started(record.offset)
        return True

    async def finished(
        self, record: Record, outputs: Sequence[OutRecord], on_delivered: Callable[[], None] | None = None
    ) -> None:
        """As in `Delivery`; does not wait."""
        self._raise_failure()
        for output in outputs:
            check_size(output, self._settings)
        lane = self._lanes.get(record.source)
        if lane is not None:  # else the partition's new owner processes the record
            lane.finished(record.offset, outputs, on_delivered)

    async def run(self) -> None:
        """As in `Delivery`; the lanes commit by themselves."""
        await asyncio.wait([self._failure])
        self._raise_failure()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Initialises the partitions' transactional ids."""
        await super().on_assigned(partitions)
        lanes = [_Lane(partition, self._settings, self._source) for partition in partitions]
        self._lanes.update({lane.partition: lane for lane in lanes})
        await asyncio.gather(*(lane.open(self._committed, self._fail) for lane in lanes))

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Waits for work in flight and its transactions, then closes the lanes."""
        await super().on_revoked(partitions)
        await self._close(partitions)

    async def _settle(self, partitions: frozenset[TopicPartition] | None) -> None:
        """Nothing to do: a record is done only once its transaction is committed."""

    async def _close(self, partitions: frozenset[TopicPartition]) -> None:
        lanes = [lane for partition in partitions if (lane := self._lanes.pop(partition, None)) is not None]
        await asyncio.gather(*(lane.close() for lane in lanes))

    def _committed(self, partition: TopicPartition, offsets: Sequence[int]) -> None:
        for offset in offsets:
            self._done(partition, offset)


class _Lane:
    """The transactions of one input partition, one at a time."""

    def __init__(self, partition: TopicPartition, settings: KafkaSettings, source: RecordSource) -> None:
        self.partition = partition
        self._source = source
        self._sink = TransactionalSink(settings, f"{source.group_id}.{partition.topic}.{partition.partition}")
        self._progress = PartitionProgress()
        self._outputs: dict[int, Sequence[OutRecord]] = {}
        self._on_delivered: dict[int, Callable[[], None]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, committed: _OnCommitted, failed: Callable[[BaseException], None]) -> None:
        """Initialises the transactional id and starts committing."""
        await self._sink.start()
        self._task = asyncio.create_task(self._work(committed), name=f"transactions of {self.partition}")

        def report(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                failed(error)

        self._task.add_done_callback(report)

    async def close(self) -> None:
        """Stops, even inside a transaction: the broker aborts that one when the next owner initialises the id."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._sink.stop()

    def started(self, offset: int) -> None:
        """Notes a record that later ones have to wait for."""
        self._progress.started(offset)

    def finished(self, offset: int, outputs: Sequence[OutRecord], on_delivered: Callable[[], None] | None) -> None:
        """Takes over what is to be written for a record."""
        self._outputs[offset] = outputs
        if on_delivered is not None:
            self._on_delivered[offset] = on_delivered
        self._progress.done(offset)
        self._wake.set()

    async def _work(self, committed: _OnCommitted) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while offsets := self._next_run():
                await self._commit(offsets)
                for offset in offsets:
                    del self._outputs[offset]
                committed(self.partition, offsets)
                for offset in offsets:
                    self._on_delivered.pop(offset, _nothing)()

    def _next_run(self) -> list[int]:
        """The oldest finished records before the first unfinished one."""
        return sorted(offset for offset in self._outputs if offset < self._progress.next_offset)[:_MAX_RECORDS]

    async def _commit(self, offsets: list[int]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._transact(offsets)
            except TransactionFailed as error:
                log.warning("transaction failed", partition=str(self.partition), attempt=attempt, cause=str(error))
                if attempt == _ATTEMPTS:
                    raise
                if await self._was_committed(offsets):
                    return
            else:
                return

    async def _transact(self, offsets: list[int]) -> None:
        async with self._sink.transaction() as transaction:
            for offset in offsets:
                for output in self._outputs[offset]:
                    await transaction.send(output)
            await transaction.commit_offsets(self._source.group_id, {self.partition: offsets[-1] + 1})

    async def _was_committed(self, offsets: list[int]) -> bool:
        """Initialises the id again, which completes or aborts the failed transaction, then asks for the offset."""
        await self._sink.stop()
        await self._sink.start()
        committed = (await self._source.committed([self.partition]))[self.partition]
        return committed is not None and committed > offsets[-1]


def _nothing() -> None:
    """In place of an `on_delivered` that was not given."""
