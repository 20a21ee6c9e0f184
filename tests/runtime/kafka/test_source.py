"""What a group member does at a rebalance, on an in-memory client."""

from __future__ import annotations

import asyncio

import pytest
from brokers import Hooks
from memory_kafka import MemoryBroker, MemorySource

from runtime.errors import BrokerUnreachable
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


async def test_preparing_for_partitions_waits_for_a_broker_that_does_not_answer():
    """The attempt is repeated until it succeeds; meanwhile the partitions stay paused, whoever resumes them."""
    hooks = Hooks()
    source = await member(hooks)
    attempts, on_assigned = [], hooks.on_assigned

    async def answer_late(partitions):
        source.resume(partitions)
        attempts.append((source.paused(), source.outages.is_out))
        if len(attempts) < 3:
            raise BrokerUnreachable("no answer")
        await on_assigned(partitions)

    hooks.on_assigned = answer_late
    await source.give(HERE)
    assert attempts == [({HERE}, False), ({HERE}, True), ({HERE}, True)]
    assert (source.paused(), source.outages.is_out, len(hooks.events)) == (frozenset(), False, 1)


async def test_who_is_excluded_while_preparing_gives_up():
    """The next assignment begins anew; nothing is read until then."""
    hooks = Hooks()
    source = await member(hooks)

    async def exclude(_):
        source.membership.member_id = ""
        raise BrokerUnreachable("no answer")

    hooks.on_assigned = exclude
    await source.give(HERE)
    assert source.paused() == {HERE}


async def test_every_assignment_has_an_epoch_of_its_own():
    """Epochs grow, whichever partitions come back; without an assignment there is none."""
    source = await member(None)
    await source.give(HERE)
    await source.give(THERE)
    await source.take_away(HERE)
    assert (source.epoch(HERE), source.epoch(THERE)) == (0, 2)
    await source.give(HERE)
    assert (source.epoch(HERE), source.epoch(THERE)) == (3, 2)


async def test_the_group_is_asked_whether_an_assignment_still_stands():
    """It stands in its own epoch, as long as the group agrees; a group that does not answer says neither."""
    source = await member(None)
    await source.give(HERE)
    assert await source.confirms(HERE, 1)
    assert not await source.confirms(HERE, 2)
    source.membership.silent = True
    with pytest.raises(BrokerUnreachable, match="does not answer"):
        await source.confirms(HERE, 1)
    source.membership.silent, source.membership.excluded = False, True
    assert not await source.confirms(HERE, 1)


async def test_offsets_that_begin_anew_begin_an_epoch():
    """After a reset, as when a topic was made again, smaller offsets are no repetition of what was read before."""
    broker, hooks = MemoryBroker(), Hooks()
    broker.offsets[HERE] = broker.offsets[THERE] = 1_000
    source = await member(hooks, broker)
    await source.give(HERE, THERE)
    assert (source.first_offset(HERE), source.first_offset(THERE)) == (1_000, 1_000)
    await source._recover({HERE: 1_000})
    assert (source.epoch(HERE), source.epoch(THERE)) == (2, 1)
    assert (source.first_offset(HERE), source.first_offset(THERE)) == (0, 1_000)
    assert hooks.events == [("assigned", {HERE, THERE}), ("assigned", {HERE})]
    assert source.starts[HERE] == 0


async def test_a_first_offset_is_the_one_of_the_last_attempt_to_begin():
    """An attempt that failed after it had asked is repeated; by then the group may have no offset any more."""
    broker = MemoryBroker()
    broker.offsets[HERE] = 7
    source = await member(None, broker)
    await source.give(HERE)
    assert source.first_offset(HERE) == 7
    del broker.offsets[HERE]
    await source._start_at_committed([HERE])
    assert source.first_offset(HERE) == 0


async def test_a_confirmation_counts_for_its_own_epoch_only():
    """What the group says after a revocation is said of another assignment."""
    source = await member(None)
    await source.give(HERE)
    asking = asyncio.create_task(source.confirms(HERE, 1))
    await asyncio.sleep(0)
    await source.take_away(HERE)
    await source.give(HERE)
    assert not await asking
