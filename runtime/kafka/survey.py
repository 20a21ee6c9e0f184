"""Looks at a cluster without changing anything: brokers, topics, consumer groups, as plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as VendorPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError

from runtime.clock import Clock
from runtime.kafka.connection import connection_arguments, probe
from runtime.kafka.topics import admin_client, is_embedded_broker, topic_configs
from runtime.kafka.translation import translated
from runtime.records import TopicPartition
from runtime.settings import KafkaSettings

_AHEAD_MS: Final = 1_000
"""Records dated less far ahead are not looked for: clocks differ by so much anywhere."""


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as it is.

    Attributes:
        partitions: how many.
        replicas: copies of the partition that has the fewest.
        in_sync: copies in step, of the partition that has the fewest.
        config: the broker's own words; None where it does not tell.
        records: offsets kept, compacted ones and transaction markers included.
        ahead_ms: how far a record is dated ahead of our clock; 0 if none is, by more than a second.
    """

    partitions: int
    replicas: int = 1
    in_sync: int = 1
    config: Mapping[str, str] | None = None
    records: int = 0
    ahead_ms: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a consumer group and what it reads."""

    client_id: str
    host: str
    partitions: frozenset[TopicPartition]

    def __str__(self) -> str:
        return f"{self.client_id} on {self.host.lstrip('/')}"


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A consumer group.

    Attributes:
        members: None where the broker does not tell, or not to this user.
        lags: records of its topic that it has not committed, by number of the partition.
    """

    members: Sequence[Member] | None
    lags: Mapping[int, int] = field(default_factory=dict)

    @property
    def lag(self) -> int:
        """All of these records."""
        return sum(self.lags.values())


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What was found. Topics that do not exist, or that this user may not see, are left out."""

    brokers: int
    generation: str
    is_embedded: bool
    topics: Mapping[str, TopicFacts]
    groups: Mapping[str, GroupFacts]


async def survey(
    settings: KafkaSettings, topics: Collection[str], groups: Mapping[str, str], clock: Clock
) -> ClusterFacts:
    """Asks the brokers about topics and about consumer groups.

    Args:
        settings: how to reach Kafka.
        topics: names of those asked for.
        groups: each group with the topic that it reads.
        clock: ours, which the records' times are compared with.

    Raises:
        BrokerError: there is no connection, or this user may not ask.
    """
    await probe(settings)
    async with admin_client(settings) as admin:
        described = {found["topic"]: found for found in await admin.describe_topics() if found["topic"] in topics}
        embedded = is_embedded_broker(admin)
        configs = None if embedded else await topic_configs(admin, list(described))
        offsets = await _offsets(settings, described, clock, by_time=not embedded)
        return ClusterFacts(
            brokers=len((await admin.describe_cluster())["brokers"]),
            generation=_generation(admin),
            is_embedded=embedded,
            topics={
                name: _topic(found["partitions"], (configs or {}).get(name), offsets[name])
                for name, found in described.items()
            },
            groups={
                group: await _group(admin, group, offsets[topic]) for group, topic in groups.items() if topic in offsets
            },
        )


@dataclass(frozen=True, slots=True)
class _Offsets:
    begins: dict[VendorPartition, int]
    ends: dict[VendorPartition, int]
    ahead_ms: int


async def _offsets(
    settings: KafkaSettings, described: Mapping[str, Any], clock: Clock, *, by_time: bool
) -> dict[str, _Offsets]:
    if not described:  # a consumer that is stopped before it had anything to do raises CancelledError
        return {}
    consumer = AIOKafkaConsumer(**connection_arguments(settings), group_id=None, enable_auto_commit=False)
    found = {}
    with translated(f"asking {settings.bootstrap_servers} for offsets"):
        try:
            await consumer.start()
            for name, topic in described.items():
                partitions = [VendorPartition(name, partition["partition"]) for partition in topic["partitions"]]
                now_ms, dated = clock.wall_ms(), {}
                if by_time:  # the embedded broker knows no times
                    dated = await consumer.offsets_for_times(dict.fromkeys(partitions, now_ms + _AHEAD_MS))
                ahead = [record.timestamp - now_ms for record in dated.values() if record is not None]
                found[name] = _Offsets(
                    await consumer.beginning_offsets(partitions),
                    await consumer.end_offsets(partitions),
                    max(ahead, default=0),
                )
        finally:
            await asyncio.wait_for(consumer.stop(), settings.stop_timeout_s)  # it can hang
    return found


def _topic(partitions: Sequence[Any], config: Mapping[str, str] | None, offsets: _Offsets) -> TopicFacts:
    return TopicFacts(
        partitions=len(partitions),
        replicas=min(len(partition["replicas"]) for partition in partitions),
        in_sync=min(len(partition["isr"]) for partition in partitions),
        config=config,
        records=sum(end - offsets.begins[partition] for partition, end in offsets.ends.items()),
        ahead_ms=offsets.ahead_ms,
    )


async def _group(admin: AIOKafkaAdminClient, group: str, offsets: _Offsets) -> GroupFacts:
    members = await _members(admin, group)
    if members is None and not is_embedded_broker(admin):
        return GroupFacts(None)
    with translated(f"asking about the consumer group {group}"):
        committed = await admin.list_consumer_group_offsets(group, partitions=list(offsets.ends))
        lags = {}
        for partition, end in offsets.ends.items():
            known = committed.get(partition)
            begin = offsets.begins[partition]
            lags[partition.partition] = end - (begin if known is None else max(begin, known.offset))
        return GroupFacts(members, lags)


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[Member] | None:
    try:
        [response] = await admin.describe_consumer_groups([group])
    except (IncompatibleBrokerVersion, KafkaError):
        return None
    [described] = response.to_object()["groups"]
    if described["error_code"]:  # above all: this user may not ask
        return None
    return [
        Member(
            member["client_id"],
            member["client_host"],
            _assigned(member["member_assignment"]),
        )
        for member in described["members"]
    ]


def _assigned(assignment: bytes) -> frozenset[TopicPartition]:
    if not assignment:  # it is joining just now
        return frozenset()
    told = ConsumerProtocolMemberAssignment.decode(assignment)
    return frozenset(TopicPartition(topic, number) for topic, numbers in told.assignment for number in numbers)


_FETCH: Final = 1
_OLDEST_FETCH_OF_KAFKA_4: Final = 4


def _generation(admin: AIOKafkaAdminClient) -> str:
    """Kafka's version, as far as the protocol tells it: Kafka 4 dropped the oldest requests. Empty if it does not."""
    connections = admin._client._conns.values()  # noqa: SLF001 - aiokafka offers no other way to learn it
    oldest = [connection._versions.get(_FETCH, (0, 0))[0] for connection in connections]  # noqa: SLF001
    if not oldest:
        return ""
    return "Kafka 4 or newer" if max(oldest) >= _OLDEST_FETCH_OF_KAFKA_4 else "a Kafka before 4"
