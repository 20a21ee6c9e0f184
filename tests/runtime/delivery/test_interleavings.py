"""Both guarantees under any interleaving of rebalances, work and commits, against a plain reference."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_kafka import MemoryBroker, turns
from memory_member import HERE, member, outputs, record

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "finish", "finish", "acknowledge", "acknowledge", "commit", "rebalance"]),
        st.integers(0, 1_000),
    ),
    max_size=40,
)


class PlainLog:
    """What a member may do, kept in plain sets: which records its present epoch has begun and ended."""

    def __init__(self):
        self.epoch, self.next_offset, self.started, self.finished = 1, 0, set(), set()
        self.unfinished = []  # (epoch, offset) of every epoch

    def rebalance(self, committed):
        """All is read again from the committed offset."""
        self.epoch, self.next_offset, self.started, self.finished = self.epoch + 1, committed, set(), set()

    def start(self):
        """The next record."""
        self.started.add(self.next_offset)
        self.unfinished.append((self.epoch, self.next_offset))
        self.next_offset += 1
        return self.next_offset - 1

    def finish(self, index):
        """One of the jobs, of whichever epoch."""
        epoch, offset = self.unfinished.pop(index % len(self.unfinished))
        if epoch == self.epoch:
            self.finished.add(offset)
        return epoch, offset

    def most(self):
        """The highest offset that may be committed."""
        return min(self.started - self.finished, default=self.next_offset)


async def play(broker, guarantee, moves):
    """Makes the moves; checks after each of them that nothing unfinished has been passed."""
    broker.holds, plain = True, PlainLog()
    async with member(broker, guarantee, HERE, revocation_limit_s=0.01) as (source, delivery):
        for move, number in moves:
            if move == "start":
                assert delivery.started(record(plain.start(), epoch=plain.epoch))
            elif move == "finish" and plain.unfinished:
                epoch, offset = plain.finish(number)
                await delivery.finished(record(offset, epoch=epoch), outputs(b"%d" % offset))
            elif move == "acknowledge" and broker.waiting:
                broker.acknowledge(number % len(broker.waiting))
            elif move == "commit":
                await delivery.drain(0)
            elif move == "rebalance":
                await source.take_away(HERE)
                await source.give(HERE)
                plain.rebalance(broker.offsets.get(HERE, 0))
            await turns(20)
            assert broker.offsets.get(HERE, 0) <= plain.most()
            assert delivery.in_flight() >= len(plain.started - plain.finished)
        await finish_everything(broker, delivery, plain)
    return plain.next_offset


async def finish_everything(broker, delivery, plain):
    """Ends what has begun: the group's offset then stands at the end."""
    while plain.unfinished:
        epoch, offset = plain.finish(0)
        await delivery.finished(record(offset, epoch=epoch), outputs(b"%d" % offset))
    draining = asyncio.create_task(delivery.drain(30))
    while not draining.done():
        while broker.waiting:
            broker.acknowledge()
        await asyncio.sleep(0)
    assert draining.result()


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@settings(max_examples=100)
@given(moves=MOVES)
def test_any_interleaving_keeps_the_promise(guarantee, moves):
    """No committed offset passes unfinished work of the present epoch or goes back, and before every one of them all
    outputs can be read; with exactly-once delivery none can be read twice.
    """
    broker = MemoryBroker()
    with patch("runtime.kafka.sink.AIOKafkaProducer", broker.producer):
        end = asyncio.run(play(broker, guarantee, moves))
    seen, offset = [], 0
    for entry in broker.log:
        for kind, *what in entry if isinstance(entry[0], tuple) else (entry,):
            if kind == "output":
                seen.append(int(what[0]))
            else:
                assert what[1] >= offset
                offset = what[1]
        assert set(seen) >= set(range(offset))
    assert offset == end
    assert set(seen) >= set(range(end))
    assert guarantee == "at_least_once" or len(seen) == len(set(seen))
