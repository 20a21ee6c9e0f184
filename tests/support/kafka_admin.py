"""What operators and retention do to topics: deleting records and topics, and making topics again."""

from __future__ import annotations

import asyncio
import contextlib

from aiokafka import TopicPartition as VendorPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from runtime.kafka import TopicFollower, create_missing_topics, topic_ids


@contextlib.asynccontextmanager
async def admin(broker):
    """An admin client of the test's broker."""
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def expire(broker, topic):
    """Deletes everything that a topic holds, as retention would; how many records that were."""
    follower = TopicFollower(broker.settings(), [topic])
    await follower.start()
    ends = await follower.end_offsets()
    begins = await follower.positions()
    await follower.stop()
    async with admin(broker) as client:
        await client.delete_records({VendorPartition(*place): RecordsToDelete(end) for place, end in ends.items()})
    return sum(ends.values()) - sum(begins.values())


async def make_again(broker, topics, specs):
    """Deletes topics and makes them again under the same names."""
    async with admin(broker) as client:
        await client.delete_topics(topics)
    while await topic_ids(broker.settings(), topics):
        await asyncio.sleep(0.1)
    while True:
        report = await create_missing_topics(broker.settings(), specs)
        if set(topics) <= {*report.created, *report.present}:
            return
