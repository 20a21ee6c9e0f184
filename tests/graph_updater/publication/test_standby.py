"""Elections on the embedded broker. Fencing and several members need real Kafka: see the integration tests."""

from __future__ import annotations

import asyncio

import pytest
from brokers import TestBroker
from elections import member

from runtime.errors import Fenced
from runtime.records import OutRecord, TopicPartition


@pytest.fixture
def broker(embedded_broker, request):
    """The embedded broker, with names of this test's own."""
    return TestBroker(embedded_broker.bootstrap_servers, request.node.name[:80])


async def until(condition, limit_s=30.0):
    """Waits for something that will be so."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_term_ends_with_the_election_and_with_leaving_the_group(broker):
    """Who is not elected has no term until it is again; who has left writes nothing more."""
    topic, states, group_id = await broker.topic("interactions"), await broker.topic("states"), broker.name("group")
    async with member(broker, topic, group_id) as leader:
        assert leader.term is None
        await until(lambda: leader.term)
        first = leader.term

        await leader.on_assigned(frozenset({TopicPartition(topic, 1)}))
        await until(lambda: first.is_over)
        assert leader.term is None
        await leader.on_assigned(frozenset({TopicPartition(topic, 0)}))
        await until(lambda: leader.term)
        second = leader.term
        async with second.transaction() as transaction:
            await transaction.send_all([OutRecord(states, b"u", b"from the leader")])

    for term in (first, second):
        assert term.is_over
        with pytest.raises(Fenced):
            async with term.transaction():
                pass
    assert await broker.contents(states) == [b"from the leader"]
