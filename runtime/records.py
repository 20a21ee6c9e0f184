"""Plain records and partitions, as the Kafka adapter returns and accepts them. Imports nothing of ours."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    """One partition of a topic. Prints as `topic[partition]`."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as it was read.

    `epoch` numbers the assignment of its partition under which it was read; 0 for records read without a group.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = -1
    epoch: int = 0

    @property
    def source(self) -> TopicPartition:
        """The partition it was read from."""
        return _shared_partition(self.topic, self.partition)

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class OutRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to be written. `value` None is a tombstone; without `partition` the key's hash chooses.

    `any_size` exempts it from `kafka.max_record_bytes`: for dead letters, which are as large as what was read.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None
    any_size: bool = False

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        size = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")  # Kafka's headers may be null
        return size


@lru_cache(maxsize=4_096)
def _shared_partition(topic: str, partition: int) -> TopicPartition:
    """One object per partition: for each record it is asked for many times, and making one takes longer than this."""
    return TopicPartition(topic, partition)
