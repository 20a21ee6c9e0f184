"""What every reader does while the broker does not answer, on an in-memory client."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition as VendorPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, KafkaError

from runtime.clock import SystemClock
from runtime.errors import BrokerUnreachable, NotAuthorized
from runtime.kafka import TopicFollower
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.settings import KafkaSettings

HERE = VendorPartition("t", 0)


class Consumer:
    """In place of aiokafka's consumer: each poll takes the next answer, an error or the offsets of some records."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.counts = {"t": 1}
        self.assigned = {HERE}
        self.sought = {}

    async def getmany(self, **_):
        """The next answer; waits for ever after the last."""
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {HERE: [record(offset) for offset in answer]} if answer else {}

    def partitions_for_topic(self, topic):
        """What the metadata names; None where it names nothing."""
        return set(range(self.counts[topic])) if topic in self.counts else None

    def assignment(self):
        """As aiokafka has it."""
        return frozenset(self.assigned)

    def assign(self, partitions):
        """Replaces the assignment."""
        self.assigned = set(partitions)

    def paused(self):
        """Nothing is paused."""
        return frozenset()

    def pause(self, *_):
        """Nothing is."""

    async def position(self, _):
        """The next offset."""
        return 7

    def seek(self, partition, offset):
        """Where reading goes on."""
        self.sought[partition] = offset


def record(offset):
    """As aiokafka returns it."""
    return SimpleNamespace(topic="t", partition=0, offset=offset, key=b"k", value=b"v", headers=(), timestamp=1)


def follower(consumer, readiness=None):
    """A follower of this consumer; with a readiness, outages are waited out."""
    outages = None if readiness is None else Outages(readiness, SystemClock())
    reader = TopicFollower(KafkaSettings(), ["t"], outages=outages)
    reader._consumer = consumer
    return reader


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """Retries follow at once."""
    monkeypatch.setattr("runtime.kafka.reader._RETRY_PAUSE_S", 0.0)


@pytest.mark.parametrize(
    "error", [KafkaConnectionError("gone"), GroupAuthorizationFailedError("g"), KafkaError("unexpected")]
)
async def test_a_program_waits_and_reads_on_when_the_broker_is_back(error):
    """Polls return nothing and make the program unready; with the next records all is well again."""
    readiness = Readiness()
    reader = follower(Consumer(error, error, [3]), readiness)
    assert await reader.poll() == []
    assert await reader.poll() == []
    assert str(error) in readiness.reasons()["broker"]
    assert [record.offset for record in await reader.poll()] == [3]
    assert readiness.is_ready


async def test_an_error_that_the_library_tells_once_is_no_recovery_when_it_is_silent(monkeypatch):
    """It tries again in the background; only some seconds without an error count as reading again."""
    readiness = Readiness()
    reader = follower(Consumer(GroupAuthorizationFailedError("g"), [], []), readiness)
    await reader.poll()
    await reader.poll()
    assert not readiness.is_ready
    monkeypatch.setattr("runtime.kafka.reader._QUIET_S", 0.0)
    await reader.poll()
    assert readiness.is_ready


@pytest.mark.parametrize(
    ("error", "ours"),
    [(KafkaConnectionError("gone"), BrokerUnreachable), (GroupAuthorizationFailedError("g"), NotAuthorized)],
)
async def test_without_outages_a_poll_raises(error, ours):
    """Tools and tests want to know."""
    with pytest.raises(ours):
        await follower(Consumer(error)).poll()


async def test_a_poll_returns_although_the_library_waits(monkeypatch):
    """While a group rebalances without a broker the library waits for ever; a program must still be able to stop."""
    monkeypatch.setattr("runtime.kafka.reader._REJOIN_POLL_S", 0.0)
    async with asyncio.timeout(5):
        assert await follower(Consumer()).poll(timeout_ms=1) == []


async def test_partitions_are_added_by_metadata_alone():
    """Looking for them asks no broker; those that a broker in trouble does not name stay followed."""
    consumer = Consumer([], [], [])
    reader = follower(consumer)
    consumer.counts["t"] = 3
    await reader.poll()
    assert consumer.sought == {HERE: 7, VendorPartition("t", 1): 0, VendorPartition("t", 2): 0}
    consumer.counts.clear()
    await reader.poll()
    assert len(consumer.assigned) == 3
