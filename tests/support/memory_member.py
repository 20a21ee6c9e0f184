"""A member of a group and its delivery on the in-memory broker."""

from __future__ import annotations

from contextlib import asynccontextmanager

from memory_kafka import MemorySource

from runtime.delivery import make_delivery
from runtime.records import OutRecord, Record, TopicPartition
from runtime.settings import KafkaSettings

HERE, THERE = TopicPartition("in", 0), TopicPartition("in", 1)


def record(offset, partition=HERE, epoch=1):
    """A record of the input, read in this epoch of its partition."""
    return Record(partition.topic, partition.partition, offset, b"k", b"%d" % offset, epoch=epoch)


def outputs(*values):
    """What is to be written."""
    return [OutRecord("out", b"k", value) for value in values]


@asynccontextmanager
async def member(broker, guarantee, *partitions, **changes):
    """A member of the group and its delivery, with these partitions."""
    settings = KafkaSettings(delivery=guarantee, commit_interval_ms=1, **changes)
    source = MemorySource(settings, "in", "group", broker)
    async with make_delivery(settings, source) as delivery:
        await source.start(delivery)
        if partitions:
            await source.give(*partitions)
        yield source, delivery
