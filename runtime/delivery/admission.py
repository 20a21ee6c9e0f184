"""Begins records as `runtime.delivery.attempts` says: together, or so that a death tells which of them is to blame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, TypeVar

import structlog

from runtime.delivery.attempts import GROUP_RECORDS, Handling, Note, PartitionAttempts
from runtime.delivery.base import Delivery
from runtime.errors import BrokerError
from runtime.kafka import RecordSource
from runtime.observability.outages import is_outage
from runtime.records import Record, TopicPartition

_RETRY_S: Final = 0.1
_ACTIVITY: Final = "notes of what is at work"
log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")


class Admission:
    """Stands between reading and work. After an orderly end of the partitions' last owners it only passes records on.

        async for handling, records in admission.admit(await source.poll()):
            # begin them, or refuse them where the handling is CONDEMNED; only then go on

    Args:
        source: the group member that reads the records.
        delivery: knows what is at work; its commits carry the notes.
    """

    def __init__(self, source: RecordSource, delivery: Delivery) -> None:
        self._source = source
        self._delivery = delivery
        self._outages = source.outages
        self._is_alone = False

    async def admit(self, records: Sequence[Record]) -> AsyncIterator[tuple[Handling, list[Record]]]:
        """The records in their order, in portions to be begun together, each as soon as it may begin.

        Raises:
            BrokerError: if the group's notes can be neither read nor written for a lasting reason.
        """
        for record in {(record.source, record.epoch): record for record in records}.values():
            await self._open(record)
        for handling, portion in _portions(records, self._delivery):
            if self._is_alone or handling in {Handling.IN_GROUP, Handling.ALONE}:
                await self._delivery.idle()
                self._is_alone = False
            if handling is Handling.IN_GROUP:
                await self._note_group(portion)
            elif handling is Handling.ALONE:
                await self._note_alone(portion[0])
            yield handling, portion

    async def _open(self, record: Record) -> None:
        """Reads what a partition's last owner has left, when its first record comes, and says that it has a new one."""
        partition = record.source
        if record.epoch != self._source.epoch(partition) or self._delivery.attempts_of(partition) is not None:
            return
        left = await self._answered(partition, lambda one: self._source.left_behind(one, record.offset))
        if left is None or record.epoch != self._source.epoch(partition):
            return
        if self._delivery.reads_again(partition, left.offset):
            return
        found = Note.read(left.metadata)
        begin = min(left.offset, record.offset)  # after a reset the group's offset lies beyond what is read
        self._delivery.begin_attempts(partition, begin, PartitionAttempts(found, begin, left.end))
        if found is not None:
            log.warning(
                "the last owner of a partition died at work; its records are begun with care",
                partition=str(partition),
                suspects=len(found.group),
                condemned=list(found.alone),
            )
        await self._write([partition])

    async def _note_group(self, records: Iterable[Record]) -> None:
        offsets: dict[TopicPartition, list[int]] = {}
        for record in records:
            offsets.setdefault(record.source, []).append(record.offset)
        for partition, own in offsets.items():
            if (attempts := self._delivery.attempts_of(partition)) is not None:
                attempts.begin_group(own)
        await self._write(offsets)

    async def _note_alone(self, record: Record) -> None:
        log.info("a suspect is begun alone", place=str(record))
        self._is_alone = True
        if (attempts := self._delivery.attempts_of(record.source)) is not None:
            attempts.begin_alone(record.offset)
        await self._write([record.source])

    async def _write(self, partitions: Iterable[TopicPartition]) -> None:
        """Commits the notes. Returns also when a rebalance has taken the partitions: then nothing of them begins."""
        for partition in partitions:
            await self._answered(partition, self._delivery.commit_note)
        self._outages.over(_ACTIVITY)

    async def _answered(
        self, partition: TopicPartition, ask: Callable[[TopicPartition], Awaitable[Answer]]
    ) -> Answer | None:
        """The broker's answer, however long it is away; None once the partition is not ours any more."""
        epoch = self._source.epoch(partition)
        while epoch and self._source.epoch(partition) == epoch:
            try:
                answer = await ask(partition)
            except BrokerError as error:
                if not is_outage(error):
                    raise
                self._outages.note(_ACTIVITY, error)
                await asyncio.sleep(_RETRY_S)
            else:
                self._outages.over(_ACTIVITY)
                return answer
        return None


def _portions(records: Sequence[Record], delivery: Delivery) -> Iterator[tuple[Handling, list[Record]]]:
    """Neighbours of one handling; groups of at most so many, and suspects one by one."""

    def handling(record: Record) -> Handling:
        attempts = delivery.attempts_of(record.source)
        return Handling.TOGETHER if attempts is None else attempts.handling(record.offset)

    most = {Handling.IN_GROUP: GROUP_RECORDS, Handling.ALONE: 1}
    for kind, neighbours in groupby(records, key=handling):
        portion = list(neighbours)
        size = most.get(kind, len(portion))
        for start in range(0, len(portion), size):
            yield kind, portion[start : start + size]
