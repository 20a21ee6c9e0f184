"""At-least-once delivery on the embedded broker."""

from __future__ import annotations

import asyncio

import pytest
from brokers import TestBroker, read

from runtime.delivery import make_delivery
from runtime.errors import RecordTooLarge
from runtime.kafka import RecordSource
from runtime.process.lifecycle import owned_tasks
from runtime.records import OutRecord, TopicPartition


@pytest.fixture
def broker(embedded_broker, request):
    """The embedded broker, with names of this test's own."""
    return TestBroker(embedded_broker.bootstrap_servers, request.node.name)


async def test_offsets_follow_deliveries_and_never_pass_an_unfinished_record(broker):
    """Committed is what lies before the oldest unfinished record; draining waits for it, up to a limit.

    A record with outputs too large can be finished with others, and one without outputs is finished at once. Who
    asks is told when the outputs are there to be read.
    """
    topic, output = await broker.topic("in"), await broker.topic("out")
    await broker.fill(topic, 12)
    here = TopicPartition(topic, 0)
    settings = broker.settings(max_record_bytes=2_000, batch_bytes=2_000)
    source = RecordSource(settings, [topic], broker.name("group"))
    async with make_delivery(settings, source) as delivery, owned_tasks() as spawn:
        await source.start(delivery)
        spawn(delivery.run(), "commits")
        records = await read(source, 12)
        assert all(delivery.started(record) for record in records)
        first, second, third = (record for record in records if record.source == here)
        for record in records:
            if record.source != here:
                await delivery.finished(record, [OutRecord(output, record.key, record.value)])
        await delivery.finished(third, [])
        await delivery.finished(first, [OutRecord(output, b"k", b"0")])
        assert not await delivery.drain(0.3)
        assert (await source.committed([here]))[here] == 1
        assert delivery.in_flight() == delivery.in_flight([here]) == 1

        with pytest.raises(RecordTooLarge):
            await delivery.finished(second, [OutRecord(output, b"k", b"fits"), OutRecord(output, b"k", b"x" * 3_000)])
        told = []
        await delivery.finished(second, [OutRecord(output, b"k", b"shorter")], lambda: told.append("delivered"))
        assert told == []
        assert await delivery.drain(5)
        assert told == ["delivered"]
        assert (await source.committed([here]))[here] == 3
        await asyncio.sleep(0)
    await source.stop()
    values = await broker.contents(output)
    assert (len(values), b"fits" in values) == (11, False)
