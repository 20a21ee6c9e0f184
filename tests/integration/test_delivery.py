"""Both delivery guarantees when programs die, hand over and are fenced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import pytest
from brokers import PARTITIONS, read
from delivery_lab import Copier, copying_process, run_until, running

from runtime.clock import SystemClock
from runtime.delivery import make_delivery
from runtime.kafka import RecordSource, TransactionalSink, create_missing_topics, survey
from runtime.process.lifecycle import owned_tasks
from runtime.records import OutRecord, TopicPartition
from runtime.topic_specs import TopicSpec

COUNT = 400
EVERY = sorted(b"%d" % number for number in range(COUNT))
GUARANTEES = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


@pytest.fixture
async def topics(broker):
    """A filled input and an empty output."""
    names = await broker.topic("in"), await broker.topic("out")
    await broker.fill(names[0], COUNT)
    return names


def kept(guarantee, values, count=COUNT):
    """Whether the output holds what the guarantee promises: every record, and for one of them no record twice."""
    every = sorted(b"%d" % number for number in range(count))
    return sorted(values) == every if guarantee == "exactly_once" else sorted(set(values)) == every


@GUARANTEES
async def test_everything_is_copied_and_committed(broker, topics, guarantee):
    """Out of order within, the output has every record once, and the group's offsets stand at the end. Its owner was
    told of every delivery.
    """
    settings, group = broker.settings(delivery=guarantee), broker.name("group")
    copier = Copier(settings, topics, group)
    await run_until(copier, lambda: copier.copied == COUNT)
    assert sorted(await broker.contents(topics[1])) == EVERY
    assert copier.delivered == COUNT
    assert await offsets_left(settings, topics[0], group) == 0


@GUARANTEES
async def test_a_program_that_dies_in_mid_stream_loses_nothing(broker, topics, guarantee):
    """After a crash without draining the next program continues, at least once or exactly once, as set."""
    settings, group = broker.settings(delivery=guarantee), broker.name("group")
    for seed in range(3):
        dying = Copier(settings, topics, group, seed)
        await run_until(dying, lambda dying=dying: dying.copied >= 50, drain=False)
    last = Copier(settings, topics, group)
    async with running(last):
        await until_kept(broker, topics[1], guarantee)
    assert kept(guarantee, await broker.contents(topics[1]))


@GUARANTEES
async def test_members_that_come_and_go_lose_and_repeat_nothing(broker, topics, guarantee):
    """Who is asked to stop finishes and commits what it has begun, and so does who has to share: with either guarantee
    every record is copied once.
    """
    settings, group = broker.settings(delivery=guarantee), broker.name("group")
    async with running(Copier(settings, topics, group, 1)):
        await asyncio.sleep(0.3)
        async with running(Copier(settings, topics, group, 2)):
            await asyncio.sleep(1.0)
        await until_kept(broker, topics[1], guarantee)
    assert kept("exactly_once", await broker.contents(topics[1]))


@GUARANTEES
async def test_copies_that_outlast_rebalances_of_their_own_partitions_keep_the_guarantee(broker, topics, guarantee):
    """Members join and leave while copies take longer than a revocation waits: the first one's partitions come back to
    it, and what it began before ends without effect.
    """
    settings, group = broker.settings(delivery=guarantee, revocation_limit_s=0.1), broker.name("group")
    async with running(Copier(settings, topics, group, 1, slowest_s=0.2)):
        for seed in (2, 3):
            await asyncio.sleep(0.5)
            async with running(Copier(settings, topics, group, seed, slowest_s=0.2)):
                await asyncio.sleep(1.0)
        await until_kept(broker, topics[1], guarantee)
    assert kept(guarantee, await broker.contents(topics[1]))
    assert await offsets_left(settings, topics[0], group) == 0


@GUARANTEES
async def test_a_process_that_was_frozen_for_longer_than_its_session_does_no_harm(broker, topics, guarantee):
    """Another member takes its partitions; when it wakes up it drops what it had begun, and both go on together."""
    settings, group = broker.settings(delivery=guarantee), broker.name("group")
    async with copying_process(settings, topics, group) as process:
        while len(await broker.contents(topics[1])) < 20:
            await asyncio.sleep(0.05)
        os.kill(process.pid, signal.SIGSTOP)
        async with running(Copier(settings, topics, group)):
            await until_kept(broker, topics[1], guarantee)
            os.kill(process.pid, signal.SIGCONT)
            await asyncio.sleep(5)
            await broker.fill(topics[0], COUNT, begin=COUNT)
            await until_kept(broker, topics[1], guarantee, 2 * COUNT)
            await asyncio.sleep(2)
        assert process.is_alive()
    assert kept(guarantee, await broker.contents(topics[1]), 2 * COUNT)


async def test_a_lane_that_was_fenced_off_finds_out_what_happened_and_goes_on(broker, topics):
    """Losing the transactional id in mid-stream, as after an expiry at the broker, neither loses nor repeats."""
    settings, group = broker.settings(delivery="exactly_once"), broker.name("group")
    copier = Copier(settings, topics, group)
    async with running(copier):
        while copier.copied < 20:
            await asyncio.sleep(0.01)
        for partition in range(PARTITIONS):
            async with TransactionalSink(settings, f"{group}.{topics[0]}.{partition}"):
                await asyncio.sleep(0)
        await until_kept(broker, topics[1], "exactly_once")
    assert kept("exactly_once", await broker.contents(topics[1]))


@pytest.mark.parametrize("has_next_owner", [False, True])
async def test_transactions_that_the_broker_confirmed_and_lost_are_repeated(broker, topics, has_next_owner):
    """As after a shutdown that wrote no markers: the group's offsets are back before what was confirmed, to the member
    that reads on or to the one before it. Whoever reads on from where they were would never write those records again.
    """
    settings, group = broker.settings(delivery="exactly_once"), broker.name("group")
    copier = Copier(settings, topics, group)
    if has_next_owner:
        await run_until(copier, lambda: copier.delivered == COUNT)
        copier = Copier(settings, topics, group)
    partitions = [TopicPartition(topics[0], number) for number in range(PARTITIONS)]
    async with running(copier):
        async with asyncio.timeout(60):
            await copier.joined.wait()
        while await offsets_left(settings, topics[0], group):
            await asyncio.sleep(0.05)
        async with TransactionalSink(settings, broker.name("id")) as other, other.transaction() as transaction:
            await transaction.commit_offsets(group, dict.fromkeys(partitions, 7))
        for partition in partitions:
            async with TransactionalSink(settings, f"{group}.{partition.topic}.{partition.partition}"):
                await asyncio.sleep(0)
        await broker.fill(topics[0], COUNT, begin=COUNT)
        await until_kept(broker, topics[1], "at_least_once", 2 * COUNT)
        async with asyncio.timeout(60):
            while await offsets_left(settings, topics[0], group):
                await asyncio.sleep(0.05)
    copies = Counter(await broker.contents(topics[1]))
    assert sorted(copies) == sorted(b"%d" % number for number in range(2 * COUNT))
    assert sorted(copies.values()) == [1] * (COUNT + 7 * PARTITIONS) + [2] * (COUNT - 7 * PARTITIONS)


@GUARANTEES
async def test_what_the_broker_refuses_gives_way_to_something_smaller_or_to_nothing(broker, topics, guarantee):
    """A topic takes less than `max_record_bytes`: every record ends all the same, and all others are written once."""
    narrow = TopicSpec(broker.name("narrow"), PARTITIONS, config={"max.message.bytes": "500"})
    await create_missing_topics(broker.settings(), [narrow])
    settings, group = broker.settings(delivery=guarantee), broker.name("group")
    source = RecordSource(settings, [topics[0]], group)

    def output(number, size=1):
        return [OutRecord(narrow.name, b"%d" % number, b"%d" % number * size, partition=number % PARTITIONS)]

    async with make_delivery(settings, source) as delivery, owned_tasks() as spawn:
        await source.start(delivery)
        spawn(delivery.run(), "commits")
        for record in await read(source, COUNT):
            number = int(record.value)
            assert delivery.started(record)
            await delivery.finished(
                record,
                output(number, size=1_000 if number in (0, 17, 101, 202) else 1),
                alternatives=[output(number)] if number in (17, 202) else [],
            )
        assert await delivery.drain(60)
        assert delivery.given_up == 2
        await source.stop()
    written = sorted(b"%d" % number for number in range(COUNT) if number not in (0, 101))
    assert sorted(await broker.contents(narrow.name)) == written
    assert await offsets_left(settings, topics[0], group) == 0


async def until_kept(broker, topic, guarantee, count=COUNT):
    """Looks at the output until it is complete, or time is up: the assertion then says what is missing."""
    for _ in range(150):
        if kept(guarantee, await broker.contents(topic), count):
            return
        await asyncio.sleep(0.2)


async def offsets_left(settings, topic, group):
    """How far the group's offsets are from the ends, asked by nobody who joins it: that would be a rebalance."""
    facts = (await survey(settings, [topic], {group: topic}, SystemClock())).groups[group]
    assert len(facts.lags) == PARTITIONS, "the broker did not tell"
    return facts.lag
