"""At-least-once delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from runtime.delivery.base import Delivery
from runtime.kafka import RecordSink, RecordSource
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings


class AtLeastOnceDelivery(Delivery):
    """One idempotent producer writes the outputs; offsets are committed periodically.

    The order that loses nothing:
        1. all outputs of a record are acknowledged by all replicas in sync;
        2. the record is done;
        3. every `commit_interval_ms`, the offset after each partition's unbroken run of done records is committed.
    After a crash between 1 and 3 the record is processed again; duplicate outputs have the same key.
    """

    def __init__(self, settings: KafkaSettings, source: RecordSource) -> None:
        super().__init__(settings, source)
        self._sink = RecordSink(settings)

    async def __aenter__(self) -> Self:
        await self._sink.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._sink.stop()

    async def finished(
        self, record: Record, outputs: Sequence[OutRecord], on_delivered: Callable[[], None] | None = None
    ) -> None:
        """As in `Delivery`; waits only for room in the producer's buffer."""
        self._raise_failure()
        for output in outputs:
            self._sink.check_size(output)
        deliveries = [await self._sink.send(output) for output in outputs]
        outstanding = len(deliveries)
        if not outstanding:
            self._done(record.source, record.offset)

        def acknowledged(delivery: asyncio.Future[None]) -> None:
            nonlocal outstanding
            if (failure := delivery.exception()) is not None:
                self._fail(failure)
                return
            outstanding -= 1
            if not outstanding:
                self._done(record.source, record.offset)
                if on_delivered is not None:
                    on_delivered()

        for delivery in deliveries:
            delivery.add_done_callback(acknowledged)

    async def run(self) -> None:
        """As in `Delivery`."""
        while True:
            await asyncio.wait([self._failure], timeout=self._settings.commit_interval_ms / 1000)
            self._raise_failure()
            await self._settle(None)

    async def _settle(self, partitions: frozenset[TopicPartition] | None) -> None:
        offsets = self._tracker.committable()
        if partitions is not None:
            offsets = {partition: offset for partition, offset in offsets.items() if partition in partitions}
        if offsets:
            self._tracker.committed(await self._source.commit(offsets))
