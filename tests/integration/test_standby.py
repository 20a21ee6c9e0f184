"""Elections and fencing among updaters, on real Kafka."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from elections import member

from runtime.errors import Fenced
from runtime.kafka import TopicFollower, TransactionalSink
from runtime.records import OutRecord, TopicPartition


@pytest.fixture
async def group(broker):
    """A group and the topic that it elects by; makes members and runs them."""
    topic, group_id = await broker.topic("interactions"), broker.name("group")

    members = partial(member, broker, topic, group_id)
    members.topic, members.group_id = topic, group_id
    return members


async def until(condition, limit_s=20.0):
    """Waits for something that will be so."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_of_two_members_one_leads(group):
    """Whoever it is, the other follows when it leaves; there is never a term in both."""
    async with group() as first:
        await until(lambda: first.term)
        async with group() as second:
            for _ in range(100):
                assert not (first.term and second.term)
                await asyncio.sleep(0.02)
            await until(lambda: first.term or second.term)
        await until(lambda: first.term)


async def test_a_leader_term_writes_states_and_offsets_together(broker, group):
    """What was published can be asked for by every follower; the next election moves no offsets."""
    place = TopicPartition(group.topic, 0)
    states = await broker.topic("states")
    follower = TopicFollower(broker.settings(), [group.topic], group_id=group.group_id)
    await follower.start()
    async with group() as leader:
        await until(lambda: leader.term)
        async with leader.term.transaction() as transaction:
            await transaction.send_all([OutRecord(states, b"u", b"state")])
            await transaction.commit_offsets(group.group_id, {place: 7}, {place: "space=a"})
    async with group() as next_one:
        await until(lambda: next_one.term)

        assert await follower.committed([place]) == {place: 7}
        other = TopicPartition(group.topic, 1)
        assert await follower.committed_with_metadata([place, other]) == {place: (7, "space=a")}
    await follower.stop()
    assert await broker.contents(states) == [b"state"]


async def test_a_leader_fenced_off_wrongly_begins_again(broker, group):
    """A stranger that takes the transactional id ends the term; as the group still agrees, a new one begins."""
    states = await broker.topic("states")
    async with group() as leader:
        await until(lambda: leader.term)
        term = leader.term
        async with TransactionalSink(broker.settings(), f"{group.group_id}.publisher"):
            with pytest.raises(Fenced):
                async with term.transaction() as transaction:
                    await transaction.send_all([OutRecord(states, b"u", b"from the fenced one")])
        assert term.is_over

        await until(lambda: leader.term)
        async with leader.term.transaction() as transaction:
            await transaction.send_all([OutRecord(states, b"u", b"from the rightful one")])
    assert await broker.contents(states) == [b"from the rightful one"]
