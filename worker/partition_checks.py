"""Whether requests and users' states lie in partitions of the same number, asked before a worker begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runtime.errors import SettingsError
from runtime.kafka import TopicFollower, partition_of, require_topics
from runtime.records import Record
from schemas.codec import MalformedRecord, MessageDecoder
from schemas.messages import ImpressionRequest
from worker.settings import WorkerSettings

_NEWEST: Final = 20
"""Requests looked at in each partition."""
_LEAST_SEEN: Final = 10
"""With fewer requests nothing is concluded."""
_POLLS: Final = 10
"""Of a tenth of a second: some of the offsets may hold no record."""


async def count_partitions(settings: WorkerSettings) -> int:
    """The number of partitions of the requests, which is that of the users' states.

    Raises:
        SettingsError: the numbers differ, or most of the newest requests lie elsewhere than their users' states.
        TopicMissing: one of the topics is not there.
        BrokerError: the broker cannot be asked.
    """
    requests, states = settings.topics.impression_requests, settings.topics.user_states
    counts = (await require_topics(settings.kafka, [requests, states])).partitions
    require_same_number(counts)
    misplaced, seen = await _misplaced(settings, requests, counts[requests])
    if seen >= _LEAST_SEEN and misplaced > seen / 2:
        raise SettingsError(
            f"of the {seen} newest records of {requests} {misplaced} lie in another partition than their user's state. "
            "Give requests their user's id as key and leave the partition to Kafka's default, murmur2 of the key "
            '(librdkafka: partitioner=murmur2_random), or set worker.tables.users to "all"'
        )
    return counts[requests]


def require_same_number(partitions: Mapping[str, int]) -> None:
    """Checks that topics have the same number of partitions.

    Raises:
        SettingsError: they have not.
    """
    if len(set(partitions.values())) > 1:
        told = " and ".join(f"{topic} has {count} partitions" for topic, count in partitions.items())
        raise SettingsError(
            f"{told}: a worker that holds only its own partitions' users needs the same number. Make the topics alike "
            '(docs/how-to/scale.md), or set worker.tables.users to "all"'
        )


async def _misplaced(settings: WorkerSettings, topic: str, count: int) -> tuple[int, int]:
    """How many of the newest requests lie in another partition than their user's id says, and how many were seen."""
    decoder = MessageDecoder(ImpressionRequest, settings.kafka.max_record_bytes)
    follower = TopicFollower(settings.kafka, [topic], start_from="latest", out_of_range="latest")
    await follower.start()
    try:
        ends = await follower.end_offsets()
        for partition, end in ends.items():
            follower.seek(partition, max(0, end - _NEWEST))
        records: list[Record] = []
        expected = sum(min(end, _NEWEST) for end in ends.values())
        for _ in range(_POLLS):
            if len(records) >= expected:
                break
            records += await follower.poll()
    finally:
        await follower.stop()
    users: list[tuple[str, int]] = []
    for record in records:
        try:
            users.append((decoder.decode(record.value, record.headers).user_id, record.partition))
        except MalformedRecord:
            continue  # it will become a dead letter
    return sum(partition_of(user.encode(), count) != partition for user, partition in users), len(users)
