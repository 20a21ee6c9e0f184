"""At-least-once delivery."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from runtime.delivery.base import Delivery
from runtime.errors import BrokerError, RecordTooLarge
from runtime.kafka import RecordSink, RecordSource
from runtime.observability.outages import Outages, is_outage
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

_ACTIVITY: Final = "commits"


@dataclass(slots=True)
class _Writing:
    """The outputs of one record on their way; `outstanding` of them are not acknowledged yet."""

    record: Record
    outstanding: int
    on_delivered: Callable[[], None] | None
    alternatives: Iterator[Sequence[OutRecord]]


class AtLeastOnceDelivery(Delivery):
    """One idempotent producer writes the outputs; offsets are committed periodically.

    The order that loses nothing:
        1. all outputs of a record are acknowledged by all replicas in sync;
        2. the record is done;
        3. every `commit_interval_ms`, the offset after each partition's unbroken run of done records is committed.
    After a crash between 1 and 3 the record is processed again; duplicate outputs have the same key.

    The broker refuses a whole batch if it is too large, or a record in it. So each refused output is written once more
    by itself, and only if it is refused again its record's next alternative is written instead.
    """

    def __init__(self, settings: KafkaSettings, source: RecordSource, outages: Outages | None = None) -> None:
        super().__init__(settings, source, outages)
        self._sink = RecordSink(settings, self._outages)
        self._refused: deque[tuple[_Writing, OutRecord]] = deque()
        self._any_refused = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._sink.start()
        self._rewriting = asyncio.create_task(self._rewrite_refused(), name="refused outputs")
        self._rewriting.add_done_callback(self._report)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._rewriting.cancel()
        await asyncio.wait([self._rewriting])
        await self._sink.stop()

    async def finished(
        self,
        record: Record,
        outputs: Sequence[OutRecord],
        on_delivered: Callable[[], None] | None = None,
        alternatives: Iterable[Sequence[OutRecord]] = (),
    ) -> None:
        """As in `Delivery`; waits only for room in the producer's buffer."""
        self._raise_failure()
        for output in outputs:
            self._sink.check_size(output)
        if not outputs:
            self._done(record)
        writing = _Writing(record, len(outputs), on_delivered, iter(alternatives))
        for output in outputs:
            if not self._is_in_flight(record):
                return
            delivery = await self._sink.send(output)
            delivery.add_done_callback(partial(self._acknowledged, writing, output))

    async def run(self) -> None:
        """As in `Delivery`."""
        while True:
            await asyncio.wait([self._failure], timeout=self._settings.commit_interval_ms / 1000)
            self._raise_failure()
            await self._settle(None)

    def _acknowledged(self, writing: _Writing, output: OutRecord, delivery: asyncio.Future[None]) -> None:
        failure = delivery.exception()
        if failure is None:
            self._note_written(writing)
        elif isinstance(failure, RecordTooLarge):
            self._refused.append((writing, output))
            self._any_refused.set()
        else:
            self._fail(failure)

    def _note_written(self, writing: _Writing) -> None:
        writing.outstanding -= 1
        if not writing.outstanding:
            self._done(writing.record)
            if writing.on_delivered is not None:
                writing.on_delivered()

    async def _rewrite_refused(self) -> None:
        while True:
            await self._any_refused.wait()
            self._any_refused.clear()
            while self._refused:
                writing, output = self._refused.popleft()
                if self._is_in_flight(writing.record):
                    await self._rewrite(writing, output)

    async def _rewrite(self, writing: _Writing, output: OutRecord) -> None:
        try:
            await self._sink.send_and_wait(output)
        except RecordTooLarge as error:
            alternative = next(writing.alternatives, None)
            if alternative is None:
                self._give_up(writing.record, error)
            for instead in alternative or ():
                writing.outstanding += 1
                self._refused.append((writing, instead))
        self._note_written(writing)

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _settle(self, partitions: frozenset[TopicPartition] | None) -> bool:
        offsets = self._tracker.committable()
        if partitions is not None:
            offsets = {partition: offset for partition, offset in offsets.items() if partition in partitions}
        if not offsets:
            return True
        try:
            committed = await self._source.commit(offsets)
        except BrokerError as error:
            if not is_outage(error):
                raise
            self._outages.note(_ACTIVITY, error)
            return False
        self._outages.over(_ACTIVITY)
        self._tracker.committed(committed)
        return committed.keys() >= offsets.keys()
