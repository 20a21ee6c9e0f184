"""What both delivery guarantees share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import structlog

from runtime.kafka import RecordSource
from runtime.offsets import OffsetTracker
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

log = structlog.get_logger(__name__)

_SHARE_FOR_FINISHING = 0.8
"""Share of `revocation_limit_s` spent waiting for work in flight; the rest is for the commit."""


class Delivery(ABC):
    """Tracks records in flight, waits for them, stays failed after a failure. Implements `RebalanceHooks`."""

    def __init__(self, settings: KafkaSettings, source: RecordSource) -> None:
        self._settings = settings
        self._source = source
        self._tracker = OffsetTracker()
        self._moved = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @abstractmethod
    async def finished(
        self, record: Record, outputs: Sequence[OutRecord], on_delivered: Callable[[], None] | None = None
    ) -> None:
        """Takes over the outputs of a record; it counts as done once they are delivered.

        Args:
            record: one that was started.
            outputs: what is to be written for it.
            on_delivered: called when readers can have the outputs.

        Raises:
            RecordTooLarge: if one of them exceeds `max_record_bytes`; nothing was sent, so the caller can finish the
                record with other outputs.
            BrokerError: if delivering has become impossible.
        """

    @abstractmethod
    async def run(self) -> None:
        """Commits until cancelled.

        Raises:
            BrokerError: if delivering or committing has become impossible.
        """

    @abstractmethod
    async def _settle(self, partitions: frozenset[TopicPartition] | None) -> None:
        """Commits what is done in these partitions, or in all."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connects."""

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None:
        """Closes the connections."""

    def started(self, record: Record) -> bool:
        """Notes a record as in flight. False if its partition was revoked meanwhile: drop it, the new owner has it."""
        return self._tracker.started(record.source, record.offset)

    def in_flight(self, partitions: Iterable[TopicPartition] | None = None) -> int:
        """Records started and not yet done, of these partitions or of all."""
        return self._tracker.in_flight(partitions)

    async def drain(self, limit_s: float) -> bool:
        """Waits until everything in flight is done, then commits. False if the limit passed first: the rest is
        processed again after the restart.
        """
        drained = await self._until_idle(None, limit_s)
        await self._settle(None)
        return drained

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Starts tracking these partitions."""
        self._tracker.assign(partitions)

    def split(self, partition: TopicPartition, offset: int) -> None:
        """See `SplitTracker` in `runtime.kafka.backlog`."""
        self._tracker.split(partition, offset)

    def earlier_read(self, partition: TopicPartition) -> None:
        """See `SplitTracker` in `runtime.kafka.backlog`."""
        self._tracker.earlier_read(partition)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Waits for work in flight, commits, forgets the partitions."""
        limit_s = self._settings.revocation_limit_s * _SHARE_FOR_FINISHING
        if not await self._until_idle(partitions, limit_s):
            log.warning("records in flight will be processed again", records=self._tracker.in_flight(partitions))
        try:
            await self._settle(partitions)
        finally:
            self._tracker.revoke(partitions)

    async def _until_idle(self, partitions: frozenset[TopicPartition] | None, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                while self._tracker.in_flight(partitions):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _done(self, partition: TopicPartition, offset: int) -> None:
        self._tracker.done(partition, offset)
        self._moved.set()

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # marks it as retrieved: `run` or the next call raises it

    def _raise_failure(self) -> None:
        if self._failure.done():
            self._failure.result()
