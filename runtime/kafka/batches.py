"""Writes many records at once: batches them per partition here, instead of one by one in the client library.

For every single record the library looks at the cluster, hashes the key in Python, waits for room and makes
a future; this takes about a third of that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from runtime.kafka.partitioner import partition_of
from runtime.kafka.translation import translated
from runtime.records import OutRecord

_BATCH_OVERHEAD: Final = 61  # bytes of Kafka's format, at most
_RECORD_OVERHEAD: Final = 36
_HEADER_OVERHEAD: Final = 10
_ANSWER_LIMIT_S: Final = 5.0


class Batch(NamedTuple):
    """Records of one partition that travel together. Prints as what writing it is about.

    Attributes:
        records: in order; at least one.
        partition: theirs; None leaves a single record to the library, which lets it wait for others (`linger_ms`).
        places: of the records among all that were batched.
    """

    records: tuple[OutRecord, ...]
    partition: int | None = None
    places: tuple[int, ...] = (0,)

    @property
    def topic(self) -> str:
        """Theirs."""
        return self.records[0].topic


def batched(records: Iterable[OutRecord], partitions: Mapping[str, int], batch_bytes: int) -> list[Batch]:
    """Groups records by partition, in their order within each.

    Keys go to the partitions where the library's own partitioner, and Java's, send them: a compacted topic would
    otherwise keep two records of one key.

    Args:
        records: of any topics.
        partitions: how many each of these topics has.
        batch_bytes: size of a batch; a larger record has one of its own.
    """
    groups: dict[tuple[str, int], list[list[tuple[OutRecord, int]]]] = {}
    room: dict[tuple[str, int], int] = {}
    for at, record in enumerate(records):
        partition = record.partition
        if partition is None:
            partition = partition_of(record.key or b"", partitions[record.topic])
        place = record.topic, partition
        size = record.size + _RECORD_OVERHEAD + _HEADER_OVERHEAD * len(record.headers)
        if size > room.get(place, 0):
            groups.setdefault(place, []).append([])
            room[place] = batch_bytes - _BATCH_OVERHEAD
        groups[place][-1].append((record, at))
        room[place] -= size
    return [
        Batch(tuple(record for record, _ in group), partition, tuple(at for _, at in group))
        for (_, partition), parts in groups.items()
        for group in parts
    ]


async def count_partitions(producer: AIOKafkaProducer, topics: Iterable[str]) -> dict[str, int]:
    """How many partitions these topics have, as the client knows it now.

    Raises:
        BrokerError: if it cannot be learned.
    """
    with translated("looking at the topics to write to"):
        return {topic: await _count_partitions(producer, topic) for topic in topics}


async def _count_partitions(producer: AIOKafkaProducer, topic: str) -> int:
    async with _silence_told_from_absence(producer, topic):
        return len(await producer.partitions_for(topic))


async def enqueue(producer: AIOKafkaProducer, batch: Batch) -> asyncio.Future[Any]:
    """Hands records to the producer; waits only for room in its buffer. The future is aiokafka's.

    Raises:
        BrokerError: if they cannot be taken.
    """
    with translated(f"writing to {batch.topic}"):
        async with _silence_told_from_absence(producer, batch.topic):
            if batch.partition is None:
                [record] = batch.records
                return await _enqueue_one(producer, record)
            return await _enqueue_batch(producer, batch)


async def _enqueue_batch(producer: AIOKafkaProducer, batch: Batch) -> asyncio.Future[Any]:
    builder = producer.create_batch()
    for record in batch.records:
        added = builder.append(
            timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=list(record.headers)
        )
        if added is None:
            raise ValueError(f"{len(batch.records)} records for {batch.topic} do not fit into a batch")
    builder.close()
    acknowledged: asyncio.Future[Any] = await producer.send_batch(builder, batch.topic, partition=batch.partition)
    return acknowledged


async def _enqueue_one(producer: AIOKafkaProducer, record: OutRecord) -> asyncio.Future[Any]:
    acknowledged: asyncio.Future[Any] = await producer.send(
        record.topic,
        value=record.value,
        key=record.key,
        partition=record.partition,
        timestamp_ms=record.timestamp_ms,
        headers=list(record.headers),
    )
    return acknowledged


@asynccontextmanager
async def _silence_told_from_absence(producer: AIOKafkaProducer, topic: str) -> AsyncIterator[None]:
    """The library says that a topic is unknown also where no broker could be asked about it in time."""
    try:
        yield
    except UnknownTopicOrPartitionError as error:
        if await _is_missing(producer, topic):
            raise
        raise KafkaTimeoutError from error


async def _is_missing(producer: AIOKafkaProducer, topic: str) -> bool:
    """Whether a broker says now that there is no such topic."""
    async with asyncio.timeout(_ANSWER_LIMIT_S):  # of a client that is closed meanwhile no answer ever comes
        answered = await producer.client.force_metadata_update()
    return answered and producer.client.cluster.partitions_for_topic(topic) is None
