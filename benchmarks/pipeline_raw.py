"""The bare loops that `benchmarks.pipeline` compares the worker with: aiokafka's own consumer and producer.

They neither decode nor score: for each record read, one of fixed bytes is written, as large as the worker's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from programs.topics import TopicSettings
from runtime.kafka.connection import connection_arguments
from runtime.kafka.sink import make_producer
from runtime.settings import KafkaSettings
from schemas.codec import headers_for

POLL_RECORDS: Final = 500
TRANSACTION_RECORDS: Final = 1_000
_HEADERS: Final = headers_for("msgpack")
Batches = Mapping[TopicPartition, Sequence[Any]]


class Loop:
    """A consumer and a producer with the worker's settings.

    Args:
        settings: of both.
        topics: what is read and written.
        group: the consumer's.
        value: what is written for every record.
        more: further arguments of the producer.
    """

    def __init__(
        self, settings: KafkaSettings, topics: TopicSettings, group: str, value: bytes, **more: object
    ) -> None:
        self.consumer = AIOKafkaConsumer(
            topics.impression_requests,
            **connection_arguments(settings),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=settings.session_timeout_ms,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
        )
        self.producer: AIOKafkaProducer = make_producer(settings, **more)
        self.group = group
        self._topic = topics.ctr_scores
        self._value = value
        self._written = 0

    async def start(self) -> None:
        """Connects both, and waits for the partitions."""
        await self.producer.start()
        await self.consumer.start()
        while not self.consumer.assignment():  # noqa: ASYNC110 - aiokafka sets no event
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Closes both."""
        await self.consumer.stop()
        await self.producer.stop()

    async def copy(self, batches: Batches) -> tuple[list[asyncio.Future[Any]], dict[TopicPartition, int]]:
        """Writes a record for each one read.

        Returns:
            the futures of the acknowledgements, and the next offset of each partition.
        """
        sent = []
        for records in batches.values():
            for _ in records:
                # As the worker's: a request's id for a key, so the partition is another one each time.
                key = b"request-%08d" % self._written
                sent.append(await self.producer.send(self._topic, self._value, key, headers=_HEADERS))
                self._written += 1
        return sent, {partition: records[-1].offset + 1 for partition, records in batches.items()}


async def at_least_once(
    settings: KafkaSettings, topics: TopicSettings, group: str, records: int, value: bytes
) -> float:
    """Copies records and commits their offsets at the worker's interval; the seconds that it takes."""
    loop = Loop(settings, topics, group, value)
    await loop.start()
    try:
        started_s = committed_s = time.perf_counter()
        copied = 0
        sent: list[asyncio.Future[Any]] = []
        offsets: dict[TopicPartition, int] = {}
        while copied < records:
            batches = await loop.consumer.getmany(timeout_ms=100, max_records=POLL_RECORDS)
            more, ends = await loop.copy(batches)
            sent += more
            offsets |= ends
            copied += len(more)
            if time.perf_counter() - committed_s >= settings.commit_interval_ms / 1000:
                await asyncio.gather(*sent)
                await loop.consumer.commit(offsets)
                committed_s, sent = time.perf_counter(), []
        await asyncio.gather(*sent)
        await loop.consumer.commit(offsets)
        return time.perf_counter() - started_s
    finally:
        await loop.stop()


async def exactly_once(settings: KafkaSettings, topics: TopicSettings, group: str, records: int, value: bytes) -> float:
    """Copies records in transactions of what a poll returns, with the offsets; the seconds that it takes."""
    loop = Loop(settings, topics, group, value, transactional_id=group)
    await loop.start()
    try:
        started_s = time.perf_counter()
        copied = 0
        while copied < records:
            batches = await loop.consumer.getmany(timeout_ms=100, max_records=TRANSACTION_RECORDS)
            if not batches:
                continue
            async with loop.producer.transaction():
                sent, offsets = await loop.copy(batches)
                await loop.producer.send_offsets_to_transaction(offsets, group)
                await asyncio.gather(*sent)
            copied += len(sent)
        return time.perf_counter() - started_s
    finally:
        await loop.stop()
