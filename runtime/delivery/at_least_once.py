"""At-least-once delivery."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Self

from runtime.delivery.base import Delivery
from runtime.errors import BrokerError, RecordTooLarge
from runtime.kafka import RecordSink, RecordSource
from runtime.observability.outages import Outages, is_outage
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

_ACTIVITY: Final = "commits"
_FEW: Final = 8
"""Below so many outputs at once a batch of our own saves nothing."""


@dataclass(slots=True)
class _Writing:
    """The outputs of one record on their way; `outstanding` of them are not acknowledged yet."""

    record: Record
    outstanding: int
    on_delivered: Callable[[], None] | None
    alternatives: Iterator[Sequence[OutRecord]]


class _Output(NamedTuple):
    """One of the outputs, not acknowledged yet."""

    writing: _Writing
    output: OutRecord


class AtLeastOnceDelivery(Delivery):
    """One idempotent producer writes the outputs; offsets are committed periodically.

    The order that loses nothing:
        1. all outputs of a record are acknowledged by all replicas in sync;
        2. the record is done;
        3. every `commit_interval_ms`, the offset after each partition's unbroken run of done records is committed.
    After a crash between 1 and 3 the record is processed again; duplicate outputs have the same key.

    Outputs that finish while others are being handed to the producer are handed over together, so batches grow with the
    load; a few at a time go one by one, and wait for each other in the producer (`linger_ms`).

    The broker refuses a whole batch if it is too large, or a record in it. So each refused output is written once more
    by itself, and only if it is refused again its record's next alternative is written instead.
    """

    def __init__(self, settings: KafkaSettings, source: RecordSource, outages: Outages | None = None) -> None:
        super().__init__(settings, source, outages)
        self._sink = RecordSink(settings, self._outages)
        self._unsent: list[_Output] = []
        self._any_unsent = asyncio.Event()
        self._refused: deque[_Output] = deque()
        self._any_refused = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._sink.start()
        for work, name in ((self._send_unsent(), "outputs"), (self._rewrite_refused(), "refused outputs")):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._report)
            self._tasks.append(task)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._sink.stop()

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
            self._sink.check_size(output)
        if not outputs:
            self._done(record)
        writing = _Writing(record, len(outputs), on_delivered, iter(alternatives))
        self._unsent += [_Output(writing, output) for output in outputs]
        self._any_unsent.set()

    async def run(self) -> None:
        """As in `Delivery`."""
        while True:
            await asyncio.wait([self._failure], timeout=self._settings.commit_interval_ms / 1000)
            self._raise_failure()
            await self._settle(None)

    async def _send_unsent(self) -> None:
        while True:
            await self._any_unsent.wait()
            self._any_unsent.clear()
            unsent, self._unsent = self._unsent, []
            if len(unsent) < _FEW:
                for one in unsent:
                    if self._is_in_flight(one.writing.record):
                        self._watch([one], await self._sink.send(one.output))
            else:
                await self._send_together([one for one in unsent if self._is_in_flight(one.writing.record)])

    async def _send_together(self, outputs: Sequence[_Output]) -> None:
        for batch, delivery in await self._sink.send_all([one.output for one in outputs]):
            self._watch([outputs[place] for place in batch.places], delivery)

    def _watch(self, outputs: Sequence[_Output], delivery: asyncio.Future[None]) -> None:
        delivery.add_done_callback(partial(self._acknowledged, outputs))

    def _acknowledged(self, outputs: Sequence[_Output], delivery: asyncio.Future[None]) -> None:
        failure = delivery.exception()
        if failure is None:
            for one in outputs:
                self._note_written(one.writing)
        elif isinstance(failure, RecordTooLarge):
            self._refused.extend(outputs)
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
                self._refused.append(_Output(writing, instead))
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
            committed = await self._source.commit(offsets, {partition: self.note(partition) for partition in offsets})
        except BrokerError as error:
            if not is_outage(error):
                raise
            self._outages.note(_ACTIVITY, error)
            return False
        self._outages.over(_ACTIVITY)
        self._tracker.committed(committed)
        return committed.keys() >= offsets.keys()
