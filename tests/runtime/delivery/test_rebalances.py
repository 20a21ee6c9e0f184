"""Work that outlasts a rebalance, and members that the group has excluded, on an in-memory broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from memory_kafka import turns
from memory_member import HERE, THERE, member, outputs, record

BOTH = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


@BOTH
async def test_what_began_before_a_rebalance_ends_without_effect_where_the_partition_comes_back(broker, guarantee):
    """The records are read again; only their second answers are written, and offsets never go back."""
    async with member(broker, guarantee, HERE, revocation_limit_s=0.01) as (source, delivery):
        for offset in range(3):
            assert delivery.started(record(offset))
        await source.take_away(HERE)
        await source.give(HERE)
        for offset in range(6):
            assert delivery.started(record(offset, epoch=2))
        for offset in range(3):
            await delivery.finished(record(offset), outputs(b"first answer to %d" % offset))
        await turns()
        assert (broker.log, delivery.in_flight()) == ([], 6)
        for offset in (3, 4, 5, 0, 1, 2):
            await delivery.finished(record(offset, epoch=2), outputs(b"%d" % offset))
        assert await delivery.drain(5)
    assert sorted(broker.outputs) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert broker.offsets == {HERE: 6}


@BOTH
async def test_records_of_before_a_rebalance_are_not_started_after_it(broker, guarantee):
    """The rest of an earlier poll lies behind records that are read again: it may neither be worked on nor count."""
    broker.offsets[HERE] = 900
    async with member(broker, guarantee, HERE) as (source, delivery):
        await source.take_away(HERE)
        await source.give(HERE)
        assert not delivery.started(record(1_000))
        assert delivery.started(record(900, epoch=2))
        await delivery.finished(record(1_000), outputs(b"stale"))
        assert not await delivery.drain(0.01)
    assert (broker.offsets, broker.outputs) == ({HERE: 900}, [])


async def test_an_acknowledgement_of_before_a_rebalance_does_not_count_after_it(broker):
    """The output was written, but the record has been read again and is in flight."""
    broker.holds = True
    async with member(broker, "at_least_once", HERE, revocation_limit_s=0.01) as (source, delivery):
        assert delivery.started(record(0))
        await delivery.finished(record(0), outputs(b"first"))
        await turns()
        await source.take_away(HERE)
        await source.give(HERE)
        assert delivery.started(record(0, epoch=2))
        broker.acknowledge()
        assert not await delivery.drain(0.01)
        assert (broker.offsets, delivery.in_flight()) == ({}, 1)


@pytest.mark.parametrize("count", [1, 20])
async def test_outputs_not_yet_handed_over_are_held_back_once_the_epoch_is_over(broker, count):
    """A rebalance while an output waits for room in the buffer keeps back those after it, few or many."""
    async with member(broker, "at_least_once", HERE, THERE, revocation_limit_s=0.01) as (source, delivery):
        for offset in range(count + 1):
            assert delivery.started(record(offset))
        room, send = asyncio.Event(), delivery._sink.send

        async def wait_for_room(output):
            await room.wait()
            return await send(output)

        delivery._sink.send = wait_for_room
        await delivery.finished(record(0), outputs(b"on its way", b"held back"))
        await turns()
        for offset in range(1, count + 1):
            await delivery.finished(record(offset), outputs(b"held back, too"))
        await source.take_away(HERE)
        await source.give(HERE)
        room.set()
        await turns()
    assert broker.outputs == [b"on its way"]


async def test_what_was_refused_is_not_written_again_once_the_epoch_is_over(broker):
    """The partition's next owner answers the record, and will find out for itself."""
    broker.holds = True
    async with member(broker, "at_least_once", HERE, revocation_limit_s=0.01) as (source, delivery):
        for offset in range(2):
            assert delivery.started(record(offset))
            await delivery.finished(record(offset), outputs(b"%d" % offset))
        await turns()
        for _ in range(2):
            broker.refuse(MessageSizeTooLargeError())
        async with asyncio.timeout(10):
            while not broker.waiting:  # until a new producer is made
                await asyncio.sleep(0.001)
        await source.take_away(HERE)
        broker.acknowledge()
        await turns()
        assert not broker.waiting
    assert broker.outputs == [b"0"]


async def test_a_commit_under_way_ends_with_the_epoch(broker):
    """It would be repeated under the next membership, behind what another owner has committed meanwhile."""
    async with member(broker, "at_least_once", HERE, revocation_limit_s=0.01) as (source, delivery):
        assert delivery.started(record(0))
        await delivery.finished(record(0), [])
        broker.commit_gate.clear()
        committing = asyncio.create_task(delivery.drain(0))
        await turns()
        async with asyncio.timeout(5):
            await source.take_away(HERE)
        broker.offsets[HERE] = 7
        await source.give(HERE)
        broker.commit_gate.set()
        await committing
        await turns()
    assert broker.offsets == {HERE: 7}


async def test_commits_arrive_in_the_order_of_their_calls(broker):
    """An older offset never replaces a newer one."""
    async with member(broker, "at_least_once", HERE) as (source, _):
        broker.commit_gate.clear()
        commits = [asyncio.create_task(source.commit({HERE: offset})) for offset in (3, 5)]
        await turns()
        broker.commit_gate.set()
        assert await asyncio.gather(*commits) == [{HERE: 3}, {HERE: 5}]
    assert broker.log == [("offset", HERE, 3), ("offset", HERE, 5)]


async def test_who_is_no_member_commits_nothing(broker):
    """A broker accepts commits without membership once the group is empty: they are not even sent."""
    async with member(broker, "at_least_once", HERE) as (source, delivery):
        assert delivery.started(record(0))
        await delivery.finished(record(0), [])
        source.membership.member_id = ""
        assert not await delivery.drain(0.01)
    assert broker.offsets == {}


async def test_an_owner_that_was_frozen_does_not_take_its_id_back(broker):
    """The group has given its partition to another member, whose transactions go on undisturbed. What the frozen one
    had in flight is dropped; its next assignment begins cleanly.
    """
    async with (
        member(broker, "exactly_once", HERE) as (frozen, its_delivery),
        member(broker, "exactly_once") as (_, delivery),
    ):
        for offset in range(3):
            assert its_delivery.started(record(offset))
        frozen.membership.excluded = True
        await delivery._source.give(HERE)
        holder = broker.holders["group.in.0"]
        for offset in range(3):
            await its_delivery.finished(record(offset), outputs(b"%d by the frozen one" % offset))
        assert await its_delivery.drain(5)
        assert not its_delivery.started(record(3))
        assert broker.holders["group.in.0"] is holder
        for offset in range(3):
            assert delivery.started(record(offset))
            await delivery.finished(record(offset), outputs(b"%d" % offset))
        assert await delivery.drain(5)
        await delivery._source.take_away(HERE)

        await frozen.take_away(HERE)
        await frozen.give(HERE)
        assert its_delivery.started(record(3, epoch=2))
        await its_delivery.finished(record(3, epoch=2), outputs(b"3"))
        assert await its_delivery.drain(5)
    assert (broker.outputs, broker.offsets) == ([b"0", b"1", b"2", b"3"], {HERE: 4})


@pytest.mark.parametrize("last_heartbeat", [1, 2, 3])
async def test_one_who_loses_the_partition_while_taking_its_id_over_lets_go_of_it(broker, last_heartbeat):
    """The group is asked before and after, at the assignment and after every failure: nothing is written without its
    consent.
    """
    async with member(broker, "exactly_once") as (source, delivery):
        source.membership.last_heartbeat = last_heartbeat
        broker.commit_failures.append("lost")
        await source.give(HERE)
        assert delivery.started(record(0)) == (last_heartbeat > 1)
        await delivery.finished(record(0), outputs(b"0"))
        assert await delivery.drain(5)
    assert (broker.outputs, broker.offsets) == ([], {})


async def test_a_group_that_does_not_answer_is_waited_for(broker):
    """Without its word the partition is neither given up nor written for; with it the work goes on."""
    async with member(broker, "exactly_once", HERE) as (source, delivery):
        source.membership.silent = True
        broker.commit_failures.append("lost")
        assert delivery.started(record(0))
        await delivery.finished(record(0), outputs(b"0"))
        assert not await delivery.drain(0.5)
        assert (broker.outputs, source.outages.is_out) == ([], True)
        source.membership.silent = False
        assert await delivery.drain(30)
        assert not source.outages.is_out
    assert (broker.outputs, broker.offsets) == ([b"0"], {HERE: 1})


async def test_a_transaction_under_way_ends_with_the_epoch(broker):
    """What is acknowledged only after the revocation is the next owner's; nothing of this owner's is committed then."""
    broker.holds = True
    async with member(broker, "exactly_once", HERE, revocation_limit_s=0.01) as (source, delivery):
        assert delivery.started(record(0))
        await delivery.finished(record(0), outputs(b"0"))
        await turns()
        await source.take_away(HERE)
        broker.acknowledge()
        await turns()
    assert (broker.outputs, broker.offsets) == ([], {})


@BOTH
async def test_a_record_is_finished_once(broker, guarantee):
    """Whoever finishes it a second time changes nothing, whether the first outputs are delivered yet or not."""
    async with member(broker, guarantee, HERE) as (_, delivery):
        for offset in range(2):
            assert delivery.started(record(offset))
        await delivery.finished(record(1), outputs(b"1"))
        if guarantee == "exactly_once":  # at least once, what is on its way may be written again
            await delivery.finished(record(1), outputs(b"again"))
        await delivery.finished(record(0), outputs(b"0"))
        assert await delivery.drain(5)
        for offset in range(2):
            await delivery.finished(record(offset), outputs(b"late"))
        await turns()
    assert (sorted(broker.outputs), broker.offsets) == ([b"0", b"1"], {HERE: 2})
