"""The transactions of one input partition, one at a time, for as long as the partition is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import structlog

from runtime.errors import BrokerError, RecordTooLarge
from runtime.kafka import RecordSource, TransactionalSink
from runtime.observability.outages import Outages
from runtime.offsets import PartitionProgress
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

_MAX_RECORDS: Final = 1_000
"""Input records per transaction, so that a backlog does not make one outlast its time-out."""
_PAUSES_S: Final = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Between attempts at a transaction or its id, the last one from then on: no storm while a right is missing."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class FinishedRecord:
    """What is to be written for a record.

    Attributes:
        record: as it was read.
        outputs: in the next transaction.
        on_delivered: called once they can be read; None: nobody asks.
        alternatives: what to write instead, in this order, if the broker refuses the outputs as too large.
    """

    record: Record
    outputs: Sequence[OutRecord]
    on_delivered: Callable[[], None] | None
    alternatives: Iterator[Sequence[OutRecord]]


class LaneOwner(Protocol):
    """Is told what becomes of a lane's records."""

    def note(self, partition: TopicPartition) -> str:
        """What is to stand beside the partition's committed offset."""

    def committed(self, records: Sequence[Record]) -> None:
        """Their outputs can be read, and the offset after them is the group's."""

    def refused(self, record: Record, error: RecordTooLarge) -> None:
        """The broker refused every output offered for it; it goes on without any."""

    def lost(self, lane: Lane) -> None:
        """The partition has another owner. The lane has ended; its records are that owner's."""

    def forgotten(self, lane: Lane, offset: int | None) -> None:
        """The broker has lost transactions that it had confirmed: the group's offset is back at this one. The lane has
        ended; the partition is to be read from there again.
        """

    def failed(self, error: BaseException) -> None:
        """The lane cannot go on, and waiting does not help."""


class _Outcome(Enum):
    COMMITTED = auto()
    NOT_COMMITTED = auto()
    ENDED = auto()


class Lane:
    """Writes the outputs of one partition's records in transactions of its own transactional id.

    A transaction that failed may have been committed all the same, and a producer that was fenced may have been fenced
    by the partition's new owner, by a transaction that expired at the broker, or by the broker's restart. So after
    every failure the lane asks the group whether the partition is still ours. If so it initialises its id again, which
    completes or aborts the failed transaction, and repeats the transaction unless the committed offset says that it
    took place. If not it ends. Outages, and rights that were withdrawn, are waited out.

    A broker that is shut down can confirm a commit and yet write no marker of it; the next abort then takes that
    transaction back, outputs and offset (seen with Kafka 4.3.1). So an offset before what was confirmed, to this lane
    or to those before it, ends the lane as well, and the records from there on are read again.

    Args:
        partition: of the input.
        epoch: the assignment that the lane belongs to.
        settings: how to reach Kafka.
        source: the group member that reads the partition.
        outages: shows that the lane waits for the broker.
        owner: is told what becomes of the records.
    """

    def __init__(
        self,
        partition: TopicPartition,
        epoch: int,
        settings: KafkaSettings,
        source: RecordSource,
        outages: Outages,
        owner: LaneOwner,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self._source = source
        self._outages = outages
        self._owner = owner
        self._activity = f"transactions of {partition}"
        self._sink = TransactionalSink(settings, f"{source.group_id}.{partition.topic}.{partition.partition}")
        self._progress = PartitionProgress()
        self._finished: dict[int, FinishedRecord] = {}
        self._most_records = _MAX_RECORDS
        self._confirmed = 0
        self._failures = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    async def open(self) -> None:
        """Takes the transactional id over and starts committing, if the partition is ours.

        Raises:
            BrokerError: if the broker does not answer.
        """
        try:
            is_ours = await self._take_over()
        except BaseException:
            await self._sink.stop()
            raise
        if self._ended:
            await self._sink.stop()
        elif not is_ours:
            self._owner.lost(self)
        else:
            self._task = asyncio.create_task(self._work(), name=self._activity)
            self._task.add_done_callback(self._report)

    def end(self) -> None:
        """Stops at once, even inside a transaction: the broker aborts it when the next owner initialises the id."""
        self._ended = True
        self._outages.over(self._activity)
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Ends and disconnects."""
        self.end()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self._sink.stop()

    def started(self, offset: int) -> None:
        """Notes a record that later ones have to wait for."""
        self._progress.started(offset)

    def finished(self, finished: FinishedRecord) -> None:
        """Takes over what is to be written for a record; without effect for one that is not in flight."""
        offset = finished.record.offset
        if self._progress.is_in_flight(offset):
            self._finished[offset] = finished
            self._progress.done(offset)
            self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while run := self._next_run():
                outcome = await self._attempt(run)
                if outcome is _Outcome.ENDED:
                    self._outages.over(self._activity)
                    await self._sink.stop()
                    return
                if outcome is _Outcome.COMMITTED:
                    self._note_committed(run)

    def _report(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._ended:
                self._owner.failed(BrokerError(f"{self._activity}: the client library cancelled them"))
        elif (error := task.exception()) is not None:
            self._owner.failed(error)

    def _next_run(self) -> list[FinishedRecord]:
        """The oldest finished records before the first unfinished one."""
        offsets = sorted(offset for offset in self._finished if offset < self._progress.next_offset)
        return [self._finished[offset] for offset in offsets[: self._most_records]]

    async def _attempt(self, run: list[FinishedRecord]) -> _Outcome:
        try:
            await self._transact(run)
        except RecordTooLarge as error:
            self._make_smaller(run, error)
        except BrokerError as error:
            await self._pause(error)
        else:
            return _Outcome.COMMITTED
        return await self._find_out(run)

    async def _transact(self, run: list[FinishedRecord]) -> None:
        async with self._sink.transaction() as transaction:
            await transaction.send_all(output for finished in run for output in finished.outputs)
            offsets = {self.partition: run[-1].record.offset + 1}
            await transaction.commit_offsets(
                self._source.group_id, offsets, {self.partition: self._owner.note(self.partition)}
            )

    def _make_smaller(self, run: list[FinishedRecord], error: RecordTooLarge) -> None:
        """The broker does not say which record it refuses: halves the run until one is left, which is then written
        differently or, in the end, not at all.
        """
        if len(run) > 1:
            self._most_records = len(run) // 2
            return
        alternative = next(run[0].alternatives, None)
        if alternative is None:
            self._owner.refused(run[0].record, error)
        run[0].outputs = alternative or ()

    async def _find_out(self, run: list[FinishedRecord]) -> _Outcome:
        """What became of a transaction. Afterwards the id is ours again, unless the lane has ended; then the owner has
        been told why.
        """
        while True:
            try:
                await self._sink.stop()
                if not await self._take_over():
                    self._owner.lost(self)
                    return _Outcome.ENDED
                offset = (await self._source.committed([self.partition]))[self.partition]
            except BrokerError as error:
                await self._pause(error)
            else:
                if (offset or 0) < max(self._confirmed, self._source.first_offset(self.partition)):
                    self._owner.forgotten(self, offset)
                    return _Outcome.ENDED
                took_place = offset == run[-1].record.offset + 1  # a larger one was committed before a reset
                return _Outcome.COMMITTED if took_place else _Outcome.NOT_COMMITTED

    async def _pause(self, error: BrokerError) -> None:
        """Between attempts. One failure is an incident, more in a row are an outage."""
        if self._failures == 0:
            log.warning("transaction failed", partition=str(self.partition), cause=str(error))
        else:
            self._outages.note(self._activity, error)
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._failures += 1
        await asyncio.sleep(pause_s)

    async def _take_over(self) -> bool:
        """Initialises the transactional id. False if the partition is not ours.

        The group is asked before: a member that lost its partition without knowing must not fence off the rightful
        owner. And again after it: who is still the owner then cannot have fenced off a later one.
        """
        if not await self._source.confirms(self.partition, self.epoch):
            return False
        await self._sink.start()
        if await self._source.confirms(self.partition, self.epoch):
            return True
        await self._sink.stop()
        return False

    def _note_committed(self, run: list[FinishedRecord]) -> None:
        self._outages.over(self._activity)
        self._failures = 0
        self._confirmed = run[-1].record.offset + 1
        self._most_records = min(_MAX_RECORDS, 2 * self._most_records)
        for finished in run:
            del self._finished[finished.record.offset]
        self._owner.committed([finished.record for finished in run])
        for finished in run:
            if finished.on_delivered is not None:
                finished.on_delivered()
