"""Whether topics whose keys are users are alike: a user's records in partitions of the same number in all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from runtime.errors import SettingsError
from runtime.kafka import TopicFollower, partition_of
from runtime.records import Record
from runtime.settings import KafkaSettings
from schemas.codec import MalformedRecord

_NEWEST: Final = 20
"""Records looked at in each partition."""
_LEAST_SEEN: Final = 10
"""With fewer records nothing is concluded."""
_POLLS: Final = 10
"""Of a tenth of a second: some of the offsets may hold no record."""


def require_same_number(partitions: Mapping[str, int], otherwise: str) -> None:
    """Checks that topics have the same number of partitions.

    Args:
        partitions: how many, by topic.
        otherwise: what to do instead of making them alike, for people.

    Raises:
        SettingsError: they have not.
    """
    if len(set(partitions.values())) > 1:
        told = " and ".join(f"{topic} has {count} partitions" for topic, count in partitions.items())
        raise SettingsError(
            f"{told}: users can be shared by partitions only where the numbers are the same. Make the topics alike "
            f"(docs/how-to/scale.md), or {otherwise}"
        )


async def require_in_place(
    kafka: KafkaSettings, topic: str, count: int, user_of: Callable[[Record], str], otherwise: str
) -> None:
    """Looks at the newest records of a topic: they lie where murmur2 of their user's id says, most of them at least.

    Args:
        kafka: how to reach it.
        topic: its name.
        count: of its partitions.
        user_of: a record's user; raises `MalformedRecord` for one that cannot be read.
        otherwise: as in `require_same_number`.

    Raises:
        SettingsError: most of them lie elsewhere.
        BrokerError: the topic cannot be read.
    """
    misplaced, seen = await _misplaced(kafka, topic, count, user_of)
    if seen >= _LEAST_SEEN and misplaced > seen / 2:
        raise SettingsError(
            f"of the {seen} newest records of {topic} {misplaced} lie in another partition than their user's state. "
            "Give records their user's id as key and leave the partition to Kafka's default, murmur2 of the key "
            f"(librdkafka: partitioner=murmur2_random), or {otherwise}"
        )


async def _misplaced(kafka: KafkaSettings, topic: str, count: int, user_of: Callable[[Record], str]) -> tuple[int, int]:
    """How many of the newest records lie in another partition than their user's id says, and how many were seen."""
    follower = TopicFollower(kafka, [topic], start_from="latest", out_of_range="latest")
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
            users.append((user_of(record), record.partition))
        except MalformedRecord:
            continue  # it will become a dead letter
    return sum(partition_of(user.encode(), count) != partition for user, partition in users), len(users)
