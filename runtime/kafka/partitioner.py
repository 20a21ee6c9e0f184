"""Which partition a key belongs to: the default of Kafka's own clients, murmur2."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from aiokafka.partitioner import murmur2

_REMEMBERED_KEYS: Final = 1 << 16


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a record with this key, of so many."""
    return _hash(key) % partitions


@lru_cache(maxsize=_REMEMBERED_KEYS)
def _hash(key: bytes) -> int:
    return int(murmur2(key) & 0x7FFFFFFF)
