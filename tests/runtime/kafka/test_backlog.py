"""The reader of a backlog, on an in-memory client."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError

from runtime.clock import ManualClock
from runtime.kafka import Backlog
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.records import TopicPartition
from runtime.settings import KafkaSettings

HERE, THERE = TopicPartition("in", 0), TopicPartition("in", 1)


class Member:
    """The group member: its partitions begin at 0, and their fresh records at 10."""

    def __init__(self, **epochs):
        self.epochs = {HERE: epochs.get("here", 1), THERE: epochs.get("there", 1)}
        self.sought = {}

    async def positions(self):
        return {HERE: 0, THERE: 0}

    async def first_since(self, _, partitions):
        return dict.fromkeys(partitions, 10)

    def epoch(self, partition):
        return self.epochs[partition]

    def seek(self, partition, offset):
        self.sought[partition] = offset


class Tracker:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def split(self, *what):
        self.told.append(("split", *what))

    def earlier_read(self, *what):
        self.told.append(("read", *what))


class Consumer:
    """The client library: 12 records in every partition, three for each poll."""

    def __init__(self):
        self.next_offsets, self.paused_now, self.error = {}, set(), None

    def assign(self, partitions):
        self.next_offsets = dict.fromkeys(partitions, 0)

    def assignment(self):
        return set(self.next_offsets)

    def seek(self, partition, offset):
        self.next_offsets[partition] = offset

    def pause(self, *partitions):
        self.paused_now |= set(partitions)

    async def position(self, partition):
        return self.next_offsets[partition]

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, 12)

    async def getmany(self, **_):
        if self.error is not None:
            raise self.error
        return {one: list(self._next(one)) for one in self.next_offsets.keys() - self.paused_now}

    def _next(self, partition):
        for _ in range(3):
            offset = self.next_offsets[partition]
            self.next_offsets[partition] += 1
            yield SimpleNamespace(
                topic=partition.topic,
                partition=partition.partition,
                offset=offset,
                key=b"k",
                value=b"v",
                headers=(),
                timestamp=0,
            )

    async def start(self):
        """Connects."""

    async def stop(self):
        """Disconnects."""


@pytest.fixture
def world(monkeypatch):
    """A backlog with what it talks to."""
    tracker, clock, consumer = Tracker(), ManualClock(), Consumer()
    outages = Outages(Readiness(), clock)
    backlog = Backlog(KafkaSettings(), ["in"], tracker, clock, older_than_ms=1_000, least_records=5, outages=outages)

    async def topics(*_):
        return None

    monkeypatch.setattr("runtime.kafka.backlog.require_topics", topics)
    monkeypatch.setattr(backlog, "_make_consumer", lambda _: consumer)
    return SimpleNamespace(backlog=backlog, tracker=tracker, clock=clock, consumer=consumer, outages=outages)


async def test_old_records_carry_the_epoch_of_the_member_and_end_at_the_split(world):
    """The tracker is told of split and end under that epoch; what lies behind the split is the member's."""
    member = Member(here=3, there=4)
    await world.backlog.assign(member, [HERE, THERE])
    assert member.sought == {HERE: 10, THERE: 10}
    records = []
    while world.backlog.left:
        records += await world.backlog.poll()
    assert {(record.source, record.epoch) for record in records} == {(HERE, 3), (THERE, 4)}
    assert sorted(record.offset for record in records if record.source == HERE) == list(range(10))
    assert sorted(world.tracker.told) == [
        ("read", HERE, 3),
        ("read", THERE, 4),
        ("split", HERE, 3, 10),
        ("split", THERE, 4, 10),
    ]


async def test_a_partition_that_comes_back_is_read_under_its_new_epoch(world):
    """Nothing of before counts as read."""
    await world.backlog.assign(Member(here=1), [HERE])
    await world.backlog.poll()
    await world.backlog.revoke([HERE])
    await world.backlog.assign(Member(here=2), [HERE])
    assert {(record.offset, record.epoch) for record in await world.backlog.poll()} == {(0, 2), (1, 2), (2, 2)}
    assert world.tracker.told == [("split", HERE, 1, 10), ("split", HERE, 2, 10)]


async def test_it_can_be_watched_like_any_reader(world):
    """Positions and ends are those of the backlogs; while nobody polls for them they count as paused."""
    await world.backlog.assign(Member(), [HERE])
    assert world.backlog.paused() == {HERE}
    await world.backlog.poll()
    assert (await world.backlog.positions(), await world.backlog.end_offsets()) == ({HERE: 3}, {HERE: 10})
    assert world.backlog.paused() == frozenset()
    world.clock.advance(60)
    assert world.backlog.paused() == {HERE}
    await world.backlog.revoke([HERE])
    assert (await world.backlog.positions(), await world.backlog.end_offsets()) == ({}, {})


async def test_a_broker_that_does_not_answer_is_waited_for(world):
    """Reading goes on where it stood."""
    await world.backlog.assign(Member(), [HERE])
    await world.backlog.poll()
    world.consumer.error = KafkaConnectionError()
    assert await world.backlog.poll() == []
    assert world.outages.is_out
    world.consumer.error = None
    assert [record.offset for record in await world.backlog.poll()] == [3, 4, 5]
    assert not world.outages.is_out
