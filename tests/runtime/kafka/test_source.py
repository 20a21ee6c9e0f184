"""What a group member does at a rebalance, on an in-memory client."""

from __future__ import annotations

import asyncio

import pytest
from brokers import Hooks
from memory_kafka import MemoryBroker, MemorySource

from runtime.records import TopicPartition
from runtime.settings import KafkaSettings

HERE, THERE = TopicPartition("in", 0), TopicPartition("in", 1)


async def member(hooks, broker=None, **changes):
    """A member of the group with these hooks, without partitions yet."""
    source = MemorySource(KafkaSettings(**changes), "in", "group", broker or MemoryBroker())
    await source.start(hooks)
    return source


async def test_reading_starts_at_the_offset_committed_when_the_hooks_have_run():
    """What an earlier owner commits until it is fenced is not read again; a new partition starts at the earliest."""
    broker, hooks = MemoryBroker(), Hooks()
    source = await member(hooks, broker)
    on_assigned = hooks.on_assigned

    async def fence(partitions):
        assert source.paused() == partitions
        broker.offsets[HERE] = 7
        await on_assigned(partitions)

    hooks.on_assigned = fence
    await source.give(HERE, THERE)
    assert source.starts == {HERE: 7, THERE: 0}
    assert source.paused() == frozenset()


async def test_an_error_of_a_hook_is_raised_and_the_partitions_stay_paused():
    """The client library would log and forget it; nothing is read of partitions that nobody has prepared for."""
    source = await member(Hooks(assigned=RuntimeError("no room")))
    with pytest.raises(RuntimeError, match="no room"):
        await source.give(HERE)
    assert source.paused() == {HERE}


async def test_an_error_at_a_revocation_is_raised_once():
    """The partitions are let go, and the owner learns what went wrong."""

    async def fail():
        raise RuntimeError("no commit")

    source = await member(Hooks(before_revoked=fail))
    await source.give(HERE)
    with pytest.raises(RuntimeError, match="no commit"):
        await source.take_away(HERE)
    assert source.assignment() == frozenset()
    await source.give(THERE)


async def test_a_revocation_waits_no_longer_than_its_limit():
    """A hook that does not end is cancelled, so that the member keeps its place in the group."""
    cancelled = []

    async def hang():
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    source = await member(Hooks(before_revoked=hang), revocation_limit_s=0.01)
    await source.give(HERE)
    async with asyncio.timeout(10):
        await source.take_away(HERE)
    assert cancelled == [True]


async def test_an_offset_of_a_partition_that_is_not_ours_is_not_committed():
    """The commit says which offsets it holds."""
    broker = MemoryBroker()
    source = await member(None, broker)
    await source.give(HERE)
    assert await source.commit({HERE: 3, THERE: 9}) == {HERE: 3}
    assert broker.offsets == {HERE: 3}
