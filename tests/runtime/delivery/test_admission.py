"""How records are begun after an orderly end of their last owner, and after an unclean one; with both guarantees."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from aiokafka.errors import KafkaTimeoutError
from memory_kafka import turns
from memory_member import HERE, THERE, member, outputs, record

from runtime.delivery import Admission, Handling
from runtime.delivery.attempts import GROUP_RECORDS, Note

BOTH = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


class Died(Exception):
    """The process is gone."""


async def work(source, delivery, records, killers=()):
    """Begins records as they are admitted and answers them late; dies as soon as a killer is at work."""
    portions, at_work = [], []

    async def answer():
        await asyncio.sleep(0.001)
        while at_work:
            one = at_work.pop(0)
            await delivery.finished(one, outputs(one.value))

    answering = []
    async for handling, portion in Admission(source, delivery).admit(records):
        portions.append((handling, [one.offset for one in portion]))
        for one in portion:
            if not delivery.started(one):
                continue
            if handling is Handling.CONDEMNED:
                await delivery.finished(one, outputs(b"letter"))
                continue
            if one.offset in killers:
                raise Died
            at_work.append(one)
        answering.append(asyncio.create_task(answer()))
    await asyncio.gather(*answering)
    return portions


async def life(broker, guarantee, records, killers=(), drain=True):
    """One process: reads on from the committed offset; what was begun together."""
    async with member(broker, guarantee, HERE) as (source, delivery):
        first = broker.offsets.get(HERE, 0)
        portions = await work(source, delivery, [one for one in records if one.offset >= first], killers)
        await delivery.idle()
        if drain:
            assert await delivery.drain(5)
        return portions


@BOTH
async def test_after_an_orderly_end_everything_is_begun_together(broker, guarantee):
    """The note says that work is going on while it is, and is gone after the end."""
    broker.end = 200
    records = [record(offset) for offset in range(200)]
    assert await life(broker, guarantee, records[:100]) == [(Handling.TOGETHER, [*range(100)])]
    assert (broker.offsets[HERE], broker.metadata[HERE]) == (100, "")
    assert await life(broker, guarantee, records, drain=False) == [(Handling.TOGETHER, [*range(100, 200)])]
    assert Note.read(broker.metadata[HERE]) == Note()


async def test_what_was_lost_before_anything_began_is_read_again(broker):
    """The group's offset went back after reading had begun at it: no note may set it to where reading is."""
    broker.end, broker.offsets[HERE] = 10, 5
    async with member(broker, "exactly_once", HERE) as (source, delivery):
        broker.offsets[HERE] = 2
        assert await work(source, delivery, [record(5)]) == [(Handling.TOGETHER, [5])]
        assert (broker.offsets[HERE], broker.outputs) == (2, [])
        await source.poll(timeout_ms=0)
        assert (source.epoch(HERE), source.starts) == (2, {HERE: 2})
        await work(source, delivery, [record(offset, epoch=2) for offset in range(2, 10)])
        assert await delivery.drain(5)
    assert (broker.offsets[HERE], broker.outputs) == (10, [b"%d" % offset for offset in range(2, 10)])


@BOTH
async def test_after_a_reset_notes_do_not_bring_the_old_offset_back(broker, guarantee):
    """The group's offset was out of range and reading began at the earliest record there is."""
    broker.end, broker.offsets[HERE] = 10, 1_000
    async with member(broker, guarantee, HERE) as (source, delivery):
        await source._recover({HERE: 1_000})
        await work(source, delivery, [record(offset, epoch=2) for offset in range(3)])
        assert await delivery.drain(5)
    assert broker.offsets[HERE] == 3


@BOTH
async def test_the_record_that_kills_is_found_and_everything_else_is_answered(broker, guarantee):
    """Three deaths: together, in its group, alone. Then it is condemned, and the next end is orderly."""
    broker.end = 200
    records = [record(offset) for offset in range(200)]
    for _ in range(3):
        with suppress(Died):
            await life(broker, guarantee, records, killers={130})
            pytest.fail("it should have died")
    assert Note.read(broker.metadata[HERE]).alone == (130,)

    portions = await life(broker, guarantee, records, killers={130})
    assert (Handling.CONDEMNED, [130]) in portions
    assert {b"%d" % offset for offset in range(200) if offset != 130} | {b"letter"} == set(broker.outputs)
    assert (broker.offsets[HERE], broker.metadata[HERE]) == (200, "")


@BOTH
async def test_after_an_unclean_end_groups_follow_one_another(broker, guarantee):
    """No record of a group is begun before the one before is done, nor before the note tells of it."""
    broker.end = 150
    broker.metadata[HERE] = Note().text()
    broker.offsets[HERE] = 0
    seen = []
    async with member(broker, guarantee, HERE) as (source, delivery):
        async for handling, portion in Admission(source, delivery).admit([record(offset) for offset in range(200)]):
            seen.append((handling, len(portion)))
            if handling is Handling.IN_GROUP:
                assert delivery.in_flight() == 0
                assert Note.read(broker.metadata[HERE]).group == tuple(one.offset for one in portion)
            for one in portion:
                assert delivery.started(one)
                asyncio.get_running_loop().call_later(
                    0.001, lambda one=one: asyncio.ensure_future(delivery.finished(one, outputs(one.value)))
                )
        await delivery.idle()

    in_group = [GROUP_RECORDS, GROUP_RECORDS, 150 - 2 * GROUP_RECORDS]
    assert seen == [*((Handling.IN_GROUP, size) for size in in_group), (Handling.TOGETHER, 50)]


@BOTH
async def test_nothing_else_is_at_work_beside_a_suspect(broker, guarantee):
    """Records of other partitions wait as well, before it and after it."""
    broker.end = 10
    broker.offsets |= {HERE: 0, THERE: 0}
    broker.metadata[HERE] = Note((1,), ()).text()
    records = [record(0, THERE), record(0), record(1), record(1, THERE)]
    order = []
    async with member(broker, guarantee, HERE, THERE) as (source, delivery):
        async for handling, portion in Admission(source, delivery).admit(records):
            order.append((handling, len(portion), delivery.in_flight()))
            if handling is Handling.ALONE:
                assert Note.read(broker.metadata[HERE]).alone == (1,)
            for one in portion:
                assert delivery.started(one)
                asyncio.get_running_loop().call_later(
                    0.001, lambda one=one: asyncio.ensure_future(delivery.finished(one, outputs(one.value)))
                )
        await delivery.idle()

    assert order == [(Handling.TOGETHER, 2, 0), (Handling.ALONE, 1, 0), (Handling.TOGETHER, 1, 0)]


@BOTH
async def test_a_partition_handed_over_in_order_leaves_no_note(broker, guarantee):
    """A rebalance is no death."""
    broker.end = 5
    async with member(broker, guarantee, HERE) as (source, delivery):
        await work(source, delivery, [record(offset) for offset in range(5)])
        await source.take_away(HERE)
    assert (broker.offsets[HERE], broker.metadata[HERE]) == (5, "")


@BOTH
async def test_a_record_of_an_assignment_that_is_over_waits_for_nothing(broker, guarantee):
    """It is handed on and not started; nothing is noted for its partition."""
    async with member(broker, guarantee, HERE) as (source, delivery):
        await source.take_away(HERE)
        portions = await work(source, delivery, [record(0)])
    assert portions == [(Handling.TOGETHER, [0])]
    assert HERE not in broker.offsets


async def test_an_outage_is_waited_out_before_the_first_record(broker):
    """No record begins that a death would not tell of."""
    broker.commit_error = KafkaTimeoutError()
    async with member(broker, "at_least_once", HERE) as (source, delivery):
        working = asyncio.create_task(work(source, delivery, [record(0)]))
        await asyncio.sleep(0.15)
        await turns()
        assert delivery.in_flight() == 0
        assert source.outages.is_out
        broker.commit_error = None
        assert await working == [(Handling.TOGETHER, [0])]
        assert not source.outages.is_out


@BOTH
async def test_commits_while_work_goes_on_keep_the_note(broker, guarantee):
    """Periodic ones and those in transactions; else a death after the first of them would go unnoticed."""
    broker.end = 5
    async with member(broker, guarantee, HERE) as (source, delivery):
        committing = asyncio.create_task(delivery.run())
        await work(source, delivery, [record(offset) for offset in range(5)])
        async with asyncio.timeout(5):
            while broker.offsets[HERE] < 5:
                await asyncio.sleep(0.001)
        assert Note.read(broker.metadata[HERE]) is not None
        committing.cancel()
