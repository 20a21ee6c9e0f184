"""Fresh records before old ones, on a real broker: nothing is lost by it, whatever happens in between."""

from __future__ import annotations

import asyncio
import time

import pytest
from brokers import PARTITIONS, partitions_of

from runtime.clock import SystemClock
from runtime.delivery import make_delivery
from runtime.kafka import Backlog, RecordSink, RecordSource
from runtime.records import OutRecord

OLD, FRESH = 800, 40
OLDER_THAN_MS = 60_000


@pytest.fixture
async def topic(broker):
    """A topic with records of an hour ago and, behind them, records of now."""
    name = await broker.topic("in")
    now_ms = time.time_ns() // 1_000_000
    async with RecordSink(broker.settings()) as sink:
        for number in range(OLD + FRESH):
            written_ms = now_ms - 3_600_000 if number < OLD else now_ms
            value, partition = b"%d" % number, number % PARTITIONS
            await sink.send(OutRecord(name, value, value, partition=partition, timestamp_ms=written_ms))
        await sink.flush()
    return name


class Reader:
    """A member that reads fresh records first and finishes what it is told to."""

    def __init__(self, broker, topic, group, least_records=50):
        settings = broker.settings()
        self.source = RecordSource(settings, [topic], group)
        self.delivery = make_delivery(settings, self.source)
        self.backlog = Backlog(
            settings, [topic], self.delivery, SystemClock(), older_than_ms=OLDER_THAN_MS, least_records=least_records
        )
        self.fresh, self.old = [], []

    async def __aenter__(self):
        await self.delivery.__aenter__()
        await self.source.start(self.delivery, self.backlog)
        return self

    async def __aexit__(self, *exc_info):
        await self.source.stop()
        await self.backlog.stop()
        await self.delivery.__aexit__(*exc_info)

    async def read(self, *, old=True):
        """One look at both places."""
        self.fresh += await self._started(await self.source.poll(timeout_ms=50))
        if old and self.backlog.left:
            self.old += await self._started(await self.backlog.poll(max_records=100, timeout_ms=50))

    async def read_until(self, condition):
        """Looks until something is so."""
        async with asyncio.timeout(30):
            while not condition():
                await self.read()

    async def finish(self, records):
        """Says that nothing is to be written for these."""
        for record in records:
            await self.delivery.finished(record, [])

    async def _started(self, records):
        return [record for record in records if self.delivery.started(record)]


def numbers(records):
    """What the records hold."""
    return sorted(int(record.value) for record in records)


async def committed(reader, topic):
    """The group's offsets, 0 where there are none."""
    offsets = await reader.source.committed(partitions_of(topic))
    return {partition.partition: offset or 0 for partition, offset in offsets.items()}


async def test_fresh_records_are_read_first_and_committed_last(broker, topic):
    """Both are read completely; until the backlog is done, the committed offset lies within it."""
    async with Reader(broker, topic, broker.name("group")) as reader:
        for _ in range(20):
            await reader.read(old=False)
        assert numbers(reader.fresh) == list(range(OLD, OLD + FRESH))
        assert sum(reader.source.backlog_lag().values()) == OLD
        await reader.finish(reader.fresh)
        assert await reader.delivery.drain(5)
        assert await committed(reader, topic) == dict.fromkeys(range(4), 0)

        await reader.read_until(lambda: not reader.backlog.left)
        assert numbers(reader.old) == list(range(OLD))
        assert not await reader.delivery.drain(0)
        await reader.finish(reader.old)
        assert await reader.delivery.drain(5)
        assert await committed(reader, topic) == dict.fromkeys(range(4), (OLD + FRESH) // PARTITIONS)


async def test_one_who_dies_in_between_leaves_nothing_undone(broker, topic):
    """The next one gets every record that was not finished, old or fresh."""
    group = broker.name("group")
    async with Reader(broker, topic, group) as dying:
        await dying.read_until(lambda: len(dying.old) >= 200 and len(dying.fresh) == FRESH)
        finished = [*dying.fresh, *dying.old[:150]]
        await dying.finish(finished)
        await dying.delivery.drain(0)
    async with Reader(broker, topic, group) as last:
        await last.read_until(lambda: not last.backlog.left and len(last.fresh) >= FRESH)
        assert set(numbers([*finished, *last.old, *last.fresh])) == set(range(OLD + FRESH))


async def test_a_backlog_changes_hands(broker, topic):
    """A member that joins in the middle takes its share of old records along; together they finish everything."""
    group = broker.name("group")
    async with Reader(broker, topic, group) as first:
        await first.read_until(lambda: len(first.old) >= 100)
        await first.finish([*first.old, *first.fresh])
        first.old, first.fresh = [], []
        async with Reader(broker, topic, group) as second:
            async with asyncio.timeout(60):
                while first.backlog.left or second.backlog.left or not (await both_are_done(first, second, topic)):
                    for reader in (first, second):
                        await reader.read()
                        await reader.finish([*reader.old, *reader.fresh])
                        reader.old, reader.fresh = [], []
                        await reader.delivery.drain(0)


async def both_are_done(first, second, topic):
    """Whether the group has committed everything."""
    ends = (OLD + FRESH) // PARTITIONS
    return await committed(first, topic) == dict.fromkeys(range(4), ends) and bool(second.source.assignment())


async def test_a_short_backlog_is_read_in_order(broker, topic):
    """A backlog below the limit is left to the member."""
    async with Reader(broker, topic, broker.name("group"), least_records=OLD) as reader:
        assert not reader.backlog.left
        await reader.read_until(lambda: len(reader.fresh) == OLD + FRESH)
