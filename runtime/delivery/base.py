"""What both delivery guarantees share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Self

import structlog

from runtime.delivery.attempts import PartitionAttempts
from runtime.errors import BrokerError, RecordTooLarge
from runtime.kafka import RecordSource
from runtime.observability.outages import Outages
from runtime.offsets import OffsetTracker
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

_RETRY_S: Final = 0.1
log = structlog.get_logger(__name__)

_SHARE_FOR_FINISHING: Final = 0.8
"""Share of `revocation_limit_s` spent waiting for work in flight; the rest is for the commit."""


class _Assignment(NamedTuple):
    committed: int  # where it began
    attempts: PartitionAttempts


class Delivery(ABC):
    """Tracks records in flight, waits for them, stays failed after a failure. Implements `RebalanceHooks`.

    Args:
        settings: how to reach Kafka.
        source: the group member that reads the records.
        outages: shows that commits wait for the broker; those of the source if not given.

    Attributes:
        given_up: records that count as done although the broker refused every output offered for them.
    """

    def __init__(self, settings: KafkaSettings, source: RecordSource, outages: Outages | None = None) -> None:
        self._settings = settings
        self._source = source
        self._outages = outages or source.outages
        self._tracker = OffsetTracker()
        self._attempts: dict[TopicPartition, _Assignment] = {}
        self._moved = asyncio.Event()
        self.given_up = 0
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @abstractmethod
    async def finished(
        self,
        record: Record,
        outputs: Sequence[OutRecord],
        on_delivered: Callable[[], None] | None = None,
        alternatives: Iterable[Sequence[OutRecord]] = (),
    ) -> None:
        """Takes over the outputs of a record; it counts as done once they are delivered.

        Nothing is written for a record whose epoch is over, unless it is on its way already: the partition's next owner
        answers it.

        Args:
            record: one that was started.
            outputs: what is to be written for it.
            on_delivered: called when readers can have the outputs.
            alternatives: what to write instead, in this order, each time the broker refuses the outputs as too large
                (its limit for the topic is below `max_record_bytes`). Once none is left the record counts as done
                without outputs, and the log tells its place. Asked for only when needed.

        Raises:
            RecordTooLarge: if one of them exceeds `max_record_bytes`; nothing was sent, so the caller can finish the
                record with other outputs.
            BrokerError: if delivering has become impossible.
        """

    @abstractmethod
    async def run(self) -> None:
        """Commits until cancelled. Outages are waited out, and so are rights that a person has to grant again.

        Raises:
            BrokerError: if delivering or committing has become impossible for another reason.
        """

    @abstractmethod
    async def _settle(self, partitions: frozenset[TopicPartition] | None) -> bool:
        """Commits what is done in these partitions, or in all. False if that has to be tried again."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connects."""

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None:
        """Closes the connections."""

    def started(self, record: Record) -> bool:
        """Notes a record as in flight. False if the epoch in which it was read is over: drop it, the partition's next
        owner reads it again, even if that is this process.
        """
        return self._tracker.started(record.source, record.epoch, record.offset)

    def in_flight(self, partitions: Iterable[TopicPartition] | None = None) -> int:
        """Records started and not yet done, of these partitions or of all."""
        return self._tracker.in_flight(partitions)

    async def drain(self, limit_s: float) -> bool:
        """Waits until everything in flight is done and committed. False if the limit passed first: the rest is
        processed again after the restart.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + limit_s
        drained = await self._until_idle(None, limit_s)
        while True:
            if await self._settle(None):
                if drained:
                    await self._close_notes(self._attempts.keys())
                return drained
            if clock() >= give_up_at:
                return False
            await asyncio.sleep(_RETRY_S)

    async def idle(self) -> None:
        """Returns once nothing is in flight."""
        await self._until_idle(None, None)

    def attempts_of(self, partition: TopicPartition) -> PartitionAttempts | None:
        """What is known of the partition's attempts; None before `begin_attempts` in its present assignment."""
        assignment = self._attempts.get(partition)
        return None if assignment is None else assignment.attempts

    def begin_attempts(self, partition: TopicPartition, committed: int, attempts: PartitionAttempts) -> None:
        """From now on commits of the partition carry notes.

        Args:
            partition: one that is assigned.
            committed: its next offset to be read, as the group has it.
            attempts: say what to note.
        """
        self._attempts[partition] = _Assignment(committed, attempts)

    def reads_again(self, partition: TopicPartition, offset: int) -> bool:  # noqa: ARG002 - for those that lose by it
        """Compares the group's offset, before the first record of an assignment is begun, with the one that the
        assignment began with. True if it lies before that, and outputs were lost with it: no record of this assignment
        may begin then, and with the next poll another assignment begins at the group's offset.
        """
        return False

    async def commit_note(self, partition: TopicPartition) -> None:
        """Commits the partition's note at once, beside the offset that is reached. Without effect if it is not ours.

        Raises:
            BrokerError: if the broker refuses or does not answer in time.
        """
        await self._commit_notes({partition: self.note(partition)})

    def note(self, partition: TopicPartition) -> str:
        """What commits of the partition carry as of now."""
        assignment = self._attempts.get(partition)
        return "" if assignment is None else assignment.attempts.note.text()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Starts tracking these partitions."""
        for partition in partitions:
            self._attempts.pop(partition, None)
        self._tracker.assign({partition: self._source.epoch(partition) for partition in partitions})

    def split(self, partition: TopicPartition, epoch: int, offset: int) -> None:
        """See `SplitTracker` in `runtime.kafka.backlog`."""
        self._tracker.split(partition, epoch, offset)

    def earlier_read(self, partition: TopicPartition, epoch: int) -> None:
        """See `SplitTracker` in `runtime.kafka.backlog`."""
        self._tracker.earlier_read(partition, epoch)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Waits for work in flight, commits, forgets the partitions."""
        limit_s = self._settings.revocation_limit_s * _SHARE_FOR_FINISHING
        try:
            is_idle = await self._until_idle(partitions, limit_s)
            if not is_idle:
                log.warning("records in flight will be processed again", records=self._tracker.in_flight(partitions))
            if await self._settle(partitions) and is_idle:
                await self._close_notes(partitions & self._attempts.keys())
        finally:
            self._forget(partitions)

    async def _close_notes(self, partitions: Iterable[TopicPartition]) -> None:
        """An orderly end: the next owner need not suspect anything. If it fails, that one is careful for a while."""
        try:
            await self._commit_notes(dict.fromkeys(partitions, ""))
        except BrokerError as error:
            log.warning("partitions could not be handed over in order", cause=str(error))

    async def _commit_notes(self, notes: dict[TopicPartition, str]) -> None:
        offsets = {
            partition: max(assignment.committed, self._tracker.next_offset(partition))
            for partition in notes
            if (assignment := self._attempts.get(partition)) is not None
        }
        if offsets:
            self._tracker.committed(await self._source.commit(offsets, notes))

    async def _until_idle(self, partitions: frozenset[TopicPartition] | None, limit_s: float | None) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                while self._tracker.in_flight(partitions):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        self._tracker.revoke(partitions)
        for partition in partitions:
            self._attempts.pop(partition, None)
        self._moved.set()

    def _give_up(self, record: Record, error: RecordTooLarge) -> None:
        """Otherwise the record would be read, answered and refused again after every restart."""
        self.given_up += 1
        log.error("the broker refuses what is written for a record; it is skipped", place=str(record), cause=str(error))

    def _is_in_flight(self, record: Record) -> bool:
        """Whether it was started and is neither done nor of an epoch that is over."""
        return self._tracker.is_in_flight(record.source, record.epoch, record.offset)

    def _done(self, record: Record) -> None:
        partition = record.source
        was_in_flight = self._tracker.done(partition, record.epoch, record.offset)
        if was_in_flight and (attempts := self.attempts_of(partition)) is not None:
            attempts.done(record.offset)
        self._moved.set()

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # marks it as retrieved: `run` or the next call raises it

    def _raise_failure(self) -> None:
        if self._failure.done():
            self._failure.result()
