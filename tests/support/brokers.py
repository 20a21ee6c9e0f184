"""What a contract test sees of a broker, embedded or real."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from runtime.kafka import RecordSink, TopicFollower, create_missing_topics
from runtime.records import OutRecord, TopicPartition
from runtime.settings import KafkaSettings
from runtime.topic_specs import TopicSpec

_QUICK = {"commit_interval_ms": 50, "fetch_max_wait_ms": 20, "connect_timeout_s": 20.0, "session_timeout_ms": 6_000}
_numbers = itertools.count()
PARTITIONS = 4
"""The only number that the embedded broker knows."""


@dataclass
class TestBroker:
    """A broker and names that no other test uses."""

    __test__ = False
    bootstrap_servers: str
    test: str
    more: dict[str, object] = field(default_factory=dict)

    def settings(self, **changes) -> KafkaSettings:
        """Settings to reach it, quick where tests wait."""
        quick = {
            "commit_interval_ms": 50,
            "fetch_max_wait_ms": 20,
            "connect_timeout_s": 20.0,
            "session_timeout_ms": 6_000,
        }
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers, **{**quick, **self.more, **changes})

    def name(self, what: str) -> str:
        """A name for a topic, group or id, of this test alone."""
        return f"{self.test}-{what}-{next(_numbers)}"

    async def topic(self, what: str = "topic", **config: str) -> str:
        """A new topic of four partitions."""
        name = self.name(what)
        await create_missing_topics(self.settings(), [TopicSpec(name, PARTITIONS, config=config)])
        return name

    async def fill(self, topic: str, count: int, begin: int = 0) -> None:
        """Writes so many records from number `begin` on, number as key and value, spread over the partitions."""
        async with RecordSink(self.settings()) as sink:
            for number in range(begin, begin + count):
                await sink.send(OutRecord(topic, b"%d" % number, b"%d" % number, partition=number % PARTITIONS))
            await sink.flush()

    async def contents(self, topic: str) -> list[bytes]:
        """The values of all committed records of a topic."""
        follower = TopicFollower(self.settings(), [topic])
        await follower.start()
        values = []
        while not follower.caught_up:
            values += [record.value for record in await follower.poll()]
        await follower.stop()
        return values


def partitions_of(topic: str) -> list[TopicPartition]:
    """All partitions of a test's topic."""
    return [TopicPartition(topic, number) for number in range(PARTITIONS)]


async def read(reader, count: int) -> list:
    """Polls until so many records have come."""
    records = []
    while len(records) < count:
        records += await reader.poll()
    return records


class Hooks:
    """Rebalance hooks that note what they were told, and raise or wait if asked to."""

    def __init__(self, assigned: Exception | None = None, before_revoked=None) -> None:
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self._assigned_error = assigned
        self._before_revoked = before_revoked

    async def on_assigned(self, partitions) -> None:
        self.events.append(("assigned", partitions))
        if self._assigned_error is not None:
            raise self._assigned_error

    async def on_revoked(self, partitions) -> None:
        if self._before_revoked is not None:
            await self._before_revoked()
        self.events.append(("revoked", partitions))
